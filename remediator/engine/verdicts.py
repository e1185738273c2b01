"""The verdict table: what the planes say, read from the top, first row that fits decides.

Rules behind it: one silent plane alone makes a suspect, never a conviction; a BMC that says "off"
of a node whose lease is still renewed convicts nobody; a node whose virt-handler still beats has
living VMs, whatever its kubelet does.
"""

from __future__ import annotations

from remediator.engine.model import Record, Verdict
from remediator.engine.plane_values import PlaneValues

ANY: frozenset[str] = frozenset()


class Row(Record, frozen=True, kw_only=True):
    """One row. An empty set: that plane does not matter."""

    name: str
    verdict: Verdict
    means: str
    lease: frozenset[str] = ANY
    network: frozenset[str] = ANY
    handler: frozenset[str] = ANY
    storage: frozenset[str] = ANY
    power: frozenset[str] = ANY
    kubelet: frozenset[str] = ANY
    machine: frozenset[str] = ANY
    conditions: frozenset[str] = ANY
    own: frozenset[str] = ANY

    @property
    def needs(self) -> tuple[tuple[str, frozenset[str]], ...]:
        """The planes that matter to this row and the values that fit, in the order of PLANES."""
        return tuple((plane, getattr(self, plane)) for plane in PLANES if getattr(self, plane))

    def fits(self, values: PlaneValues) -> bool:
        """Whether these plane values fall under this row."""
        return all(getattr(values, plane) in allowed for plane, allowed in self.needs)


PLANES: tuple[str, ...] = PlaneValues.__struct_fields__


def _row(name: str, verdict: Verdict, means: str, **planes: str) -> Row:
    allowed = {plane: frozenset(values.split("|")) for plane, values in planes.items()}
    return Row(name=name, verdict=verdict, means=means, **allowed)


_D, _U, _I = Verdict.DEAD, Verdict.UNREACHABLE, Verdict.ISOLATED
_K, _S, _C = Verdict.KUBELET_DOWN, Verdict.SUSPECT, Verdict.CONTRADICTION

_SILENT = "silent|lost"

# fmt: off
TABLE: tuple[Row, ...] = (
    _row("own-trouble", _S, "the lease is silent, but our own trouble suspends convictions",
         lease=_SILENT, own="suspended"),
    _row("power-off", _D, "the lease is silent and the power is off: it cannot be writing",
         lease=_SILENT, power="off"),
    _row("instance-gone", _D, "the lease is silent and its instance was deleted",
         lease=_SILENT, network="down|refuted|unknown", handler="silent|unknown", machine="gone"),
    _row("alive-but-off", _C, "the lease is renewed though the BMC says off: that BMC lies",
         lease="up", power="off"),
    _row("off-and-unreachable", _D, "the power is off, nobody reaches it, no renewal since",
         lease="quiet", network="down", power="off", own="fine"),
    _row("cut-off-but-writing", _I, "no network, but its storage still hears it: it writes",
         lease=_SILENT, network="down", handler="silent|unknown", storage="up"),
    _row("silent-but-writing", _I, "lease and virt-handler silent, but its storage still hears it",
         lease=_SILENT, network="refuted|unknown", handler="silent", storage="up"),
    _row("kubelet-only-network", _K, "the lease is lost, yet the host answers: its VMs live",
         lease="lost", network="up"),
    _row("kubelet-only-handler", _K, "the lease is lost, yet virt-handler beats: its VMs live",
         lease="lost", handler="up"),
    _row("late-but-reached", _S, "the lease is silent but the host answers: a renewal may be lost",
         lease="silent", network="up"),
    _row("late-but-beating", _S, "the lease is silent but virt-handler beats: one may be lost",
         lease="silent", handler="up"),
    _row("unreachable-by-network", _U, "lease and network silent, nothing says that it lives",
         lease=_SILENT, network="down", handler="silent|unknown"),
    _row("unreachable-by-handler", _U, "lease and virt-handler silent, and nobody probes it",
         lease=_SILENT, network="refuted|unknown", handler="silent"),
    _row("lease-silent", _S, "the lease is silent; no second plane agrees yet",
         lease=_SILENT),
    _row("off-at-first-sight", _S, "the BMC says off; the lease has not had time to agree",
         lease="quiet|unknown", power="off"),
    _row("network-silent", _S, "no vantage point reaches it, though its lease is renewed",
         lease="up|quiet", network="down|refuted"),
    _row("handler-silent", Verdict.HANDLER_DOWN, "only virt-handler is silent: its VMs live",
         lease="up|quiet", handler="silent"),
    _row("handler-not-ready", Verdict.HANDLER_DOWN, "virt-handler's pod is down: its VMs live",
         lease="up|quiet", handler="down"),
    _row("not-ready", Verdict.DEGRADED, "the kubelet reports NotReady while it renews its lease",
         lease="up|quiet", kubelet="down"),
    _row("bad-condition", Verdict.DEGRADED, "the lease is renewed, but a node condition is bad",
         lease="up|quiet", conditions="bad"),
    _row("not-yet-seen", Verdict.UNKNOWN, "no renewal was seen since this leader began to watch",
         lease="unknown"),
    _row("alive", Verdict.HEALTHY, "the lease is renewed and nothing speaks against it"),
)
# fmt: on

# Not in the table, for no plane says it: a person wants a node empty that lives (maintenance.py).
WANTED_EMPTY = _row("wanted-empty", Verdict.MAINTENANCE, "it lives, and a person wants it empty")

ROWS = {row.name: row for row in TABLE}

# Verdicts that say that the node, or its VMs, live: a fence that has not happened is dropped.
LIVING = frozenset(
    {Verdict.HEALTHY, Verdict.HANDLER_DOWN, Verdict.DEGRADED, _K, Verdict.MAINTENANCE}
)

_NEEDS = tuple((row, row.needs) for row in TABLE)


def decide(values: PlaneValues) -> Row:
    """Return the first row that fits. The last row fits everything, so there always is one."""
    for row, needs in _NEEDS:
        if all(getattr(values, plane) in allowed for plane, allowed in needs):
            return row
    raise AssertionError("the last row of the verdict table must fit everything")
