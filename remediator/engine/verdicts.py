"""The verdict table: what the planes say, read from the top, first row that fits decides.

Rules behind it: one silent plane alone makes a suspect, never a conviction; a BMC that says "off"
of a node whose lease is still renewed convicts nobody; a node whose virt-handler still beats has
living VMs, whatever its kubelet does.
"""

from __future__ import annotations

from remediator.engine.evidence import PlaneValues
from remediator.engine.model import Record, Verdict

ANY: frozenset[str] = frozenset()


def _any_of(text: str) -> frozenset[str]:
    return frozenset(text.split("|")) if text else ANY


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

    def fits(self, values: PlaneValues) -> bool:
        """Whether these plane values fall under this row."""
        return (
            _in(values.lease, self.lease)
            and _in(values.network, self.network)
            and _in(values.handler, self.handler)
            and _in(values.storage, self.storage)
            and _in(values.power, self.power)
            and _in(values.kubelet, self.kubelet)
        )


def _in(value: str, allowed: frozenset[str]) -> bool:
    return not allowed or value in allowed


def _row(
    name: str,
    verdict: Verdict,
    means: str,
    *,
    lease: str = "",
    network: str = "",
    handler: str = "",
    storage: str = "",
    power: str = "",
    kubelet: str = "",
) -> Row:
    return Row(
        name=name,
        verdict=verdict,
        means=means,
        lease=_any_of(lease),
        network=_any_of(network),
        handler=_any_of(handler),
        storage=_any_of(storage),
        power=_any_of(power),
        kubelet=_any_of(kubelet),
    )


_D, _U, _I = Verdict.DEAD, Verdict.UNREACHABLE, Verdict.ISOLATED
_K, _S, _C = Verdict.KUBELET_DOWN, Verdict.SUSPECT, Verdict.CONTRADICTION

# fmt: off
TABLE: tuple[Row, ...] = (
    _row("power-off", _D, "the lease is silent and the power is off: it cannot be writing",
         lease="silent", power="off|gone"),
    _row("alive-but-off", _C, "the lease is renewed though the BMC says off: that BMC lies",
         lease="up", power="off"),
    _row("cut-off-but-writing", _I, "no network, but its storage still hears it: it writes",
         lease="silent", network="down", storage="up"),
    _row("silent-but-writing", _I, "lease and virt-handler silent, but its storage still hears it",
         lease="silent", network="unknown", handler="silent", storage="up"),
    _row("kubelet-only-network", _K, "the lease is silent, yet the host answers: its VMs live",
         lease="silent", network="up"),
    _row("kubelet-only-handler", _K, "the lease is silent, yet virt-handler beats: its VMs live",
         lease="silent", handler="up"),
    _row("unreachable-by-network", _U, "lease and network silent, nothing says that it lives",
         lease="silent", network="down", handler="silent|unknown"),
    _row("unreachable-by-handler", _U, "lease and virt-handler silent, and nobody probes it",
         lease="silent", network="unknown", handler="silent"),
    _row("lease-silent", _S, "the lease is silent; no second plane agrees yet",
         lease="silent"),
    _row("off-at-first-sight", _S, "the BMC says off; the lease has not had time to agree",
         lease="quiet|unknown", power="off|gone"),
    _row("handler-silent", Verdict.HANDLER_DOWN, "only virt-handler is silent: its VMs live",
         lease="up|quiet", handler="silent"),
    _row("not-ready", Verdict.DEGRADED, "the kubelet reports NotReady while it renews its lease",
         lease="up|quiet", kubelet="down"),
    _row("not-yet-seen", Verdict.UNKNOWN, "no renewal was seen since this leader began to watch",
         lease="unknown"),
    _row("alive", Verdict.HEALTHY, "the lease is renewed and nothing speaks against it"),
)
# fmt: on

ROWS = {row.name: row for row in TABLE}

# Verdicts that say that the node, or its VMs, live: a fence that has not happened is dropped.
LIVING = frozenset({Verdict.HEALTHY, Verdict.HANDLER_DOWN, Verdict.DEGRADED, _K})


def decide(values: PlaneValues) -> Row:
    """Return the first row that fits. The last row fits everything, so there always is one."""
    for row in TABLE:
        if row.fits(values):
            return row
    raise AssertionError("the last row of the verdict table must fit everything")
