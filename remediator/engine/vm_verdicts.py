"""The verdict table of VMs: what is seen of one, read from the top, first row that fits decides.

A row fits when every facet has one of its values. It opens an incident once it has fitted for
``after_s`` without a break, and confirms it ``hold_s`` later: both seconds of *proven* watching.
No row says more than the facets do: whether a VM may be judged at all (its host in doubt, its
recovery under way) is asked before, in ``vm_incidents.py``.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from remediator.engine.model import Record, Verdict

ANY: frozenset[str] = frozenset()


class VmValues(Record, frozen=True, kw_only=True):
    """One value per facet: the key into the table. The defaults are those of a VM that is well."""

    wanted: str = "yes"  # yes, no: its owner stops or deletes it, or wants none
    phase: str = "running"  # missing, starting, scheduled, running, failed, ending, over
    start: str = "fine"  # fine, patient, unplaceable, impossible
    pod: str = "fine"  # fine, gone, overdue
    volume: str = "fine"  # fine, blocked
    paused: str = "no"  # no, asked, io-error, unasked
    crashes: str = "none"  # none, panicked, repeated, resets, backing-off
    migration: str = "none"  # none, queued, preparing, moving, adrift
    agent: str = "up"  # up, lost, unknown
    probes: str = "up"  # up, failing, unknown


WELL = VmValues()

FACETS: dict[str, tuple[str, ...]] = {
    "wanted": ("yes", "no"),
    "phase": ("missing", "starting", "scheduled", "running", "failed", "ending", "over"),
    "start": ("fine", "patient", "unplaceable", "impossible"),
    "pod": ("fine", "gone", "overdue"),
    "volume": ("fine", "blocked"),
    "paused": ("no", "asked", "io-error", "unasked"),
    "crashes": ("none", "panicked", "repeated", "resets", "backing-off"),
    "migration": ("none", "queued", "preparing", "moving", "adrift"),
    "agent": ("up", "lost", "unknown"),
    "probes": ("up", "failing", "unknown"),
}


class VmRow(Record, frozen=True, kw_only=True):
    """One row. A facet that is not named does not matter."""

    name: str
    verdict: Verdict
    means: str
    after_s: float
    hold_s: float
    source: str  # where the two durations come from
    when: dict[str, frozenset[str]]

    def fits(self, values: VmValues) -> bool:
        """Whether these values fall under this row."""
        return all(getattr(values, facet) in allowed for facet, allowed in self.when.items())


def _row(
    name: str,
    verdict: Verdict,
    means: str,
    after_s: float,
    hold_s: float,
    source: str,
    **when: str,
) -> VmRow:
    when.setdefault("migration", _STILL)
    return VmRow(
        name=name,
        verdict=verdict,
        means=means,
        after_s=after_s,
        hold_s=hold_s,
        source=source,
        when={facet: frozenset(text.split("|")) for facet, text in when.items()},
    )


_P, _C, _S = Verdict.PAUSED, Verdict.CRASHED, Verdict.STUCK
_U, _G = Verdict.UNPLACEABLE, Verdict.GUEST_SILENT

# Nothing is concluded of a VM while it migrates, but about the migration itself.
_STILL = "none|queued"

# fmt: off
TABLE: tuple[VmRow, ...] = (
    _row("io-error", _P, "paused by an I/O error of its disk: the guest stands still",
         0, 30, "a storage path that fails over is back sooner; KubeVirt does not resume it",
         wanted="yes", phase="running", paused="io-error"),
    _row("paused-unasked", _P, "paused, and neither a person nor a migration asked for it",
         30, 30, "as above, and a moment more since its reason is not known here",
         wanted="yes", phase="running", paused="unasked"),
    _row("panicked", _C, "its guest kernel panicked, and the same VMI is still there",
         0, 30, "KubeVirt fails a VMI whose domain crashed within seconds; else nobody does",
         wanted="yes", phase="scheduled|running", crashes="panicked"),
    _row("crash-loop", _C, "its VMI has failed three times, each time less than 10 minutes apart",
         0, 0, "KubeVirt waits at most 300 s, and half as much again, between two starts",
         wanted="yes", crashes="repeated"),
    _row("watchdog-loop", _C, "its watchdog has fired three times, less than 10 minutes apart",
         0, 0, "as many resets as vSphere VM Monitoring allows before it gives a VM up",
         wanted="yes", phase="scheduled|running", crashes="resets"),
    _row("backing-off", _C, "KubeVirt says CrashLoopBackOff: it could not be started repeatedly",
         15, 60, "KubeVirt waits 10 n² s, and half as much again: 75 s means three failures",
         wanted="yes", phase="missing|starting|scheduled|failed|over", crashes="backing-off"),
    _row("failed", _C, "its VMI has failed, and no new one was made",
         15, 45, "KubeVirt makes a new one within a second where the run strategy says so",
         wanted="yes", phase="failed"),
    _row("pod-gone", _C, "its launcher pod is gone or has ended, and its VMI stands as if it ran",
         200, 40, "virt-handler fails such a VMI itself, after 3 minutes",
         wanted="yes", phase="scheduled|running", pod="gone"),
    _row("unplaceable", _U, "no node can take it",
         30, 270, "KubeVirt gives up a migration's unschedulable target pod after 5 minutes",
         wanted="yes", phase="starting", start="unplaceable"),
    _row("volume-blocked", _S, "one of its volumes cannot be attached",
         60, 360, "Kubernetes detaches by force after 6 minutes; then it is to attach and boot",
         wanted="yes", phase="starting|scheduled", volume="blocked"),
    _row("cannot-start", _S, "KubeVirt says that it cannot be started as it is written",
         60, 240, "KubeVirt's own alert VirtualMachineStuckOnNode: 5 minutes",
         wanted="yes", phase="missing|starting|scheduled", start="impossible"),
    _row("launch-late", _S, "its pod is on a node, but the guest does not come to run",
         180, 180, "the launcher itself gives QEMU up after 240 to 360 s (--qemu-timeout)",
         wanted="yes", phase="scheduled", start="fine|patient"),
    _row("start-late", _S, "its pod does not come to run",
         300, 300, "KubeVirt's own alert VirtualMachineStuckInUnhealthyState: 10 minutes",
         wanted="yes", phase="starting", start="fine"),
    _row("not-made", _S, "its run strategy wants it running, and KubeVirt makes no VMI",
         60, 240, "KubeVirt makes one within seconds; its own alert: 5 minutes",
         wanted="yes", phase="missing", start="fine"),
    _row("terminating", _S, "its launcher does not end, though its grace period is over",
         60, 60, "counted from the end of the pod's own grace period; the kubelet kills at it",
         pod="overdue"),
    _row("migration-late", _S, "the target of its migration does not come to run",
         900, 60, "KubeVirt gives a pending target pod 15 minutes",
         phase="running", migration="preparing"),
    _row("migration-endless", _S, "its migration runs and neither ends nor fails",
         14100, 300, "4 h are 96 GiB at completionTimeoutPerGiB 150 s, then KubeVirt ends it",
         phase="running", migration="moving"),
    _row("migration-adrift", _S, "a migration of it is said to run, and its VMI knows of none",
         150, 150, "KubeVirt's progressTimeout: 150 s",
         phase="running", migration="adrift"),
    _row("silent-to-both", _G, "its guest agent is lost and its probes fail",
         30, 90, "two witnesses; vSphere's VM Monitoring takes up to 120 s with one",
         wanted="yes", phase="running", paused="no",
         agent="lost", probes="failing"),
    _row("agent-lost", _G, "its guest agent answered in this VMI and does not any more",
         120, 180, "a guest that only reboots has its agent back: as long as we let a boot take",
         wanted="yes", phase="running", paused="no", agent="lost"),
    _row("probes-failing", _G, "its readiness or liveness probe fails",
         60, 240, "six periods of a probe (10 s, 3 failures); then as long as a boot may take",
         wanted="yes", phase="running", paused="no", probes="failing"),
)
# fmt: on

ROWS = {row.name: row for row in TABLE}


@functools.lru_cache(maxsize=4096)  # many VMs are ill in the same few ways
def fitting(values: VmValues) -> tuple[VmRow, ...]:
    """Return the rows that fit, in the table's order; none when nothing speaks against the VM."""
    return tuple(row for row in TABLE if row.fits(values))


def choose(
    rows: Sequence[VmRow], stood_s: Mapping[str, float], patience: int
) -> tuple[VmRow, bool] | None:
    """Return the row that decides, and whether it confirms; None while none has fitted long enough.

    ``stood_s``: for how long each row has fitted; ``patience``: every limit is so many times as
    long. A row that confirms goes before one above it that only suspects.
    """
    due = [row for row in rows if stood_s[row.name] >= row.after_s * patience]
    held = [row for row in due if stood_s[row.name] >= (row.after_s + row.hold_s) * patience]
    return ((held or due)[0], bool(held)) if due else None


def would_change(values: VmValues, row: str) -> list[str]:
    """Say which single facet, were it another, would change the verdict from that of ``row``.

    ``row`` is the one that decides, or "" when none fits. First what would take it away, then which
    rows above it are one facet away.
    """
    found: list[str] = []
    for facet, allowed in ROWS[row].when.items() if row else ():
        others = [value for value in FACETS[facet] if value not in allowed]
        found.append(f"{facet} {' or '.join(others)}: no longer {row}")
    for other in TABLE:
        if other.name == row:
            break
        apart = [facet for facet, may in other.when.items() if getattr(values, facet) not in may]
        if len(apart) == 1:
            wanted = [value for value in FACETS[apart[0]] if value in other.when[apart[0]]]
            found.append(f"{apart[0]} {' or '.join(wanted)}: {other.verdict} ({other.name})")
    return found
