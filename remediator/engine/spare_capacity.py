"""Whether all that is to start fits into what is left, asked before anything starts.

Who does not fit waits: the queue promises places in its own order, so that it is the less important
ones, and smaller ones behind may pass. A human is told at once what is missing, so that there is
time to make room while the others boot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from remediator.engine import placement
from remediator.engine.context import Context
from remediator.engine.model import Record, Subject
from remediator.engine.placement import Unplaced
from remediator.engine.start_words import Candidate

_NAMED = 5  # VMs named in the notice; `remediator pacing` lists all
_GIB = 2**30


class Shortage(Record, frozen=True, kw_only=True):
    """What is missing for everybody to start. ``staying`` can start on no other node, ever."""

    wanted: int  # VMs that were asked for
    homeless: tuple[Subject, ...] = ()  # no node has a place for them now, most important first
    staying: tuple[Subject, ...] = ()
    cpu_m: int = 0  # what those ask for to whom CPU was refused somewhere
    memory: int = 0  # the same in bytes
    rules: tuple[str, ...] = ()  # what else refused nodes, the most frequent first

    def __str__(self) -> str:
        """Say it in a sentence or two."""
        parts = []
        if self.homeless:
            few = len(self.homeless)
            verb, wait = ("fits", "It waits") if few == 1 else ("fit", "They wait")
            others = "" if few == self.wanted else "; the others start"
            parts.append(
                f"{few} of {self.wanted} VMs {verb} on no node now"
                f" ({_names(self.homeless)}): {self._missing()}. {wait}{others}"
            )
        if self.staying:
            verb = "stays" if len(self.staying) == 1 else "stay"
            parts.append(
                f"{_names(self.staying)} {verb}: the only copy of a disk is on the lost host"
            )
        return "; ".join(parts)

    def _missing(self) -> str:
        missing = []
        if self.memory:
            missing.append(f"{self.memory / _GIB:.1f} GiB of memory")
        if self.cpu_m:
            missing.append(f"{self.cpu_m / 1000:.1f} CPUs")
        said = [f"short of {' and '.join(missing)}"] if missing else []
        if self.rules:
            said.append(f"kept off by {', '.join(self.rules)}")
        return ", ".join(said) or "there is no node"


def shortage(context: Context, candidates: Sequence[Candidate]) -> Shortage | None:
    """Return what is missing for these VMs to start, all at once; None where all fit."""
    ordered = sorted(candidates, key=lambda each: (-each.tier, each.since_at, each.vm))
    answers = placement.fits(context, ordered)
    unplaced = [each for each in answers.values() if isinstance(each, Unplaced)]
    if not unplaced:
        return None
    homeless = [each for each in unplaced if not each.stays]
    cpu_m = memory = 0
    rules: Counter[str] = Counter()
    # Of nodes that are out of the question for everybody there is nothing new to tell.
    out = {"cordoned", *placement.unable(context).values()}
    for each in homeless:
        needs = placement.want_of(context, each.vm).needs
        refused = {one.filter: one.nodes for one in each.refused}
        cpu_m += needs.cpu_m if refused.pop("cpu", 0) else 0
        memory += needs.memory if refused.pop("memory", 0) else 0
        rules.update({word: n for word, n in refused.items() if word not in out})
    return Shortage(
        wanted=len(answers),
        homeless=tuple(each.vm for each in homeless),
        staying=tuple(each.vm for each in unplaced if each.stays),
        cpu_m=cpu_m,
        memory=memory,
        rules=tuple(
            word for word, _ in sorted(rules.items(), key=lambda each: (-each[1], each[0]))
        ),
    )


def _names(vms: Sequence[Subject]) -> str:
    named = ", ".join(f"{vm.namespace}/{vm.name}" for vm in vms[:_NAMED])
    return f"{named} …" if len(vms) > _NAMED else named
