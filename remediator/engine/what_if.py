"""What would change a node's verdict: the table is asked again with other evidence.

First with another value of one plane, then of two where no single one leads to the same verdict.
Only planes that something here can speak on are varied: a wish is no evidence.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import combinations

import msgspec

from remediator.engine.model import Verdict
from remediator.engine.plane_values import SILENT, PlaneValues
from remediator.engine.verdicts import PLANES, decide
from remediator.engine.views import WhatIf

# What a plane may come to say, in the order in which it is tried. A lease that is "quiet" (late) is
# on its way to up or silent, and one that is "unknown" is our own deafness: neither is evidence.
SAYS: dict[str, tuple[str, ...]] = {
    "lease": ("up", "silent", "lost"),
    "network": ("up", "down", "unknown"),
    "handler": ("up", "silent", "down", "unknown"),
    "storage": ("up", "down", "unknown"),
    "power": ("on", "off", "unknown"),
    "kubelet": ("up", "down"),
    "machine": ("up", "down", "gone", "unknown"),
    "conditions": ("fine", "bad"),
    "own": ("fine", "suspended"),
}

_SEVERITY = tuple(Verdict)
_WORDS = {
    ("own", "fine"): "our own trouble over",
    ("own", "suspended"): "convictions suspended by our own trouble",
    ("machine", "gone"): "machine deleted",
    ("conditions", "bad"): "a node condition bad",
    ("conditions", "fine"): "node conditions fine",
}


def what_if(values: PlaneValues, speaking: Collection[str]) -> tuple[WhatIf, ...]:
    """Return the other verdicts that are one or two planes away, the nearest first.

    ``speaking`` are the planes that something here can speak on. Of several values of one plane
    that lead to the same row, only the first is named.
    """
    now = decide(values).verdict
    varied = [plane for plane in PLANES if plane in speaking]
    found: dict[tuple[object, ...], WhatIf] = {}
    for change in _changes(values, varied):
        _note(found, values, (change,))
    reached = {each.verdict for each in found.values()} | {now}
    for first, second in combinations(varied, 2):
        for one in _changes(values, [first]):
            for other in _changes(values, [second]):
                _note(found, values, (one, other), but=reached)
    return tuple(sorted(found.values(), key=_nearness))


def changed(values: PlaneValues, changes: dict[str, str]) -> PlaneValues:
    """Return the values as they would be if some said something else.

    What virt-handler and storage said before the lease fell silent is no sign of life afterwards
    (evidence.py), so where a renewed lease is taken away, their "up" goes with it.
    """
    if changes.get("lease") in SILENT and values.lease not in SILENT:
        stale = [plane for plane in ("handler", "storage") if getattr(values, plane) == "up"]
        changes = dict.fromkeys(stale, "unknown") | changes
    return msgspec.structs.replace(values, **changes)


def possible(values: PlaneValues) -> bool:
    """Whether these values can come together.

    Once the lease is silent, "pod down" is the node controller's word, and is not taken.
    """
    return not (values.handler == "down" and values.lease in SILENT)


def _changes(values: PlaneValues, planes: Sequence[str]) -> Iterator[tuple[str, str]]:
    for plane in planes:
        for value in SAYS[plane]:
            if value != getattr(values, plane):
                yield plane, value


def _note(
    found: dict[tuple[object, ...], WhatIf],
    values: PlaneValues,
    changes: tuple[tuple[str, str], ...],
    *,
    but: Collection[Verdict] = (),
) -> None:
    other = changed(values, dict(changes))
    row = decide(other)
    if not possible(other) or row.verdict is decide(values).verdict or row.verdict in but:
        return
    key = (*(plane for plane, _ in changes), row.name)
    found.setdefault(
        key,
        WhatIf(
            changes=tuple(_WORDS.get(change, " ".join(change)) for change in changes),
            verdict=row.verdict,
            row=row.name,
        ),
    )


def _nearness(each: WhatIf) -> tuple[object, ...]:
    """Order by how much must change, then by verdict as people fear them."""
    return len(each.changes), _SEVERITY.index(each.verdict), each.changes
