"""From objects and what is remembered of a VM to the values of its facets, and to words.

KubeVirt's names are those of kubevirt.io/api/core/v1.
"""

from __future__ import annotations

from remediator.engine.inventory import Inventory, Key
from remediator.engine.model import (
    MigrationFacts,
    PodFacts,
    Reading,
    RunStrategy,
    Signal,
    VmFacts,
    VmiFacts,
)

FINAL_PHASES = frozenset({"Succeeded", "Failed"})

# A signal that is not repeated says nothing after this: the kubelet tells of a failing probe with
# every try, that is every 10 s by KubeVirt's default.
FADES_S = 60.0
# Failures, and watchdog resets, that follow each other within this are one series. KubeVirt waits
# at most 450 s between two starts (300 s and up to half as much again).
SERIES_GAP_S = 600.0
SERIES = 3

_STARTING = frozenset({"", "Pending", "Scheduling"})
_RESTARTED = frozenset({RunStrategy.ALWAYS, RunStrategy.RERUN_ON_FAILURE})
_UNWANTED = frozenset({RunStrategy.HALTED, RunStrategy.WAIT_AS_RECEIVER})

# printableStatus (VirtualMachinePrintableStatus).
_LEAVING = frozenset({"Stopping", "Terminating"})
_PATIENT = frozenset({"Provisioning", "WaitingForVolumeBinding", "WaitingForReceiver"})
_IMPOSSIBLE = frozenset({"ErrImagePull", "ImagePullBackOff", "ErrorPvcNotFound", "DataVolumeError"})
_UNPLACEABLE, _BACKING_OFF = "ErrorUnschedulable", "CrashLoopBackOff"
BAD_STATUS = _LEAVING | _IMPOSSIBLE | {_UNPLACEABLE, _BACKING_OFF}
# Why a container waits that does not get better by waiting (kubelet, pkg/kubelet/images).
_UNPULLABLE = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError"}
)
# Reasons of Ready=False that say that the VMI is going, not that its guest is silent.
GOING = frozenset({"PodTerminating", "PodNotExists"})
# Phases of a migration that only waits; one between two clusters may for long.
_QUEUED = frozenset({"", "Pending", "WaitingForSync", "Synchronizing"})
PROBES = ("readiness-probe", "liveness-probe")  # aspects of signals
# Facets that signals speak of, and which aspects do.
_TOLD_BY = {
    "probes": PROBES,
    "crashes": ("panic", "watchdog"),
    "volume": ("attach",),
}


class Witness:
    """The newest signal of one source on one aspect."""

    __slots__ = ("at", "detail", "mark_s", "ours", "reading", "source")

    def __init__(self, signal: Signal, mark_s: float) -> None:
        self.at = signal.at
        self.ours = bool(signal.by)  # said by our own watchers
        self.reading = signal.reading
        self.detail = signal.detail
        self.source = signal.source
        self.mark_s = mark_s

    def is_fresh(self, proven_s: float) -> bool:
        """Whether it was said lately."""
        return proven_s - self.mark_s < FADES_S


class VmMemory:
    """What is remembered of one VM that has given cause for it."""

    __slots__ = ("failed", "failures", "resets", "signals", "vmi_uid")

    def __init__(self) -> None:
        self.vmi_uid = ""  # the VMI that the signals are about
        self.failed = ""  # uid of the VMI that was last seen to fail by itself
        self.failures: list[float] = []  # the last few, in proven time
        self.resets: list[float] = []  # by the watchdog, likewise
        self.signals: dict[str, dict[str, Witness]] = {}  # aspect -> source -> newest

    def complaints(self, *aspects: str) -> list[Witness]:
        """Return the signals on these aspects that say "down", however old."""
        return [
            witness
            for aspect in aspects
            for witness in self.signals.get(aspect, {}).values()
            if witness.reading is Reading.DOWN
        ]


NOTHING = VmMemory()  # what is remembered of a VM that gave no cause; never changed


def wanted(vm: VmFacts | None, vmi: VmiFacts | None) -> str:
    """Say whether its owner wants it to run: a VMI without VirtualMachine is wanted as it is."""
    if vm is None:
        return "yes" if vmi is not None and not vmi.owned else "no"
    unwanted = vm.deleting or vm.run_strategy in _UNWANTED or vm.status in _LEAVING
    return "no" if unwanted else "yes"


def phase(vm: VmFacts | None, vmi: VmiFacts | None, memory: VmMemory) -> str:
    """Sort the phase of the VMI, or its absence, by what follows from it."""
    if vmi is None or (vmi.phase == "Succeeded" and not vmi.deleting):
        always = vm is not None and vm.run_strategy is RunStrategy.ALWAYS
        return "missing" if always else "over"
    if vmi.deleting:
        return "ending"
    if vmi.phase == "Failed":
        # One that nobody restarts counts if it was seen to fail by itself: else it may be weeks
        # old, or its host's doing.
        restarted = vm is not None and vm.run_strategy in _RESTARTED
        return "failed" if restarted or memory.failed == vmi.uid else "over"
    if vmi.phase in _STARTING:
        return "starting"
    return {"Scheduled": "scheduled", "Running": "running"}.get(vmi.phase, "over")


def start(vm: VmFacts | None, pods: list[PodFacts]) -> str:
    """Say what keeps it from starting, as KubeVirt and its own launcher pod have it."""
    status = vm.status if vm is not None else ""
    if any(each.gated for each in pods):
        return "patient"  # it waits for its turn, and we are who lets it wait
    if status == _UNPLACEABLE or any(each.unschedulable for each in pods):
        return "unplaceable"
    if status in _IMPOSSIBLE or any(each.waiting in _UNPULLABLE for each in pods):
        return "impossible"
    return "patient" if status in _PATIENT else "fine"


def pod(vmi: VmiFacts | None, pods: list[PodFacts], vmi_phase: str) -> str:
    """Say how the launcher pod is that belongs to what the VM is now."""
    if ending(pods, vmi):
        return "overdue"
    if vmi is None:
        return "fine"
    live = [each for each in pods if each.phase not in FINAL_PHASES and _is_of(each, vmi)]
    if vmi.deleting:
        return "fine" if live else "overdue"  # nothing is left to wait for
    own = [each for each in live if not each.migration_target or each.node == vmi.node]
    return "gone" if vmi_phase in ("scheduled", "running") and not own else "fine"


def ending(pods: list[PodFacts], vmi: VmiFacts | None) -> list[PodFacts]:
    """Return the pods that are being deleted and whose end the VM must wait for.

    Not so what a finished migration has left behind on another node.
    """
    running_on = vmi.node if vmi is not None and vmi.phase == "Running" else ""
    return [
        each
        for each in pods
        if each.deleting
        and each.phase not in FINAL_PHASES
        and (not running_on or each.node == running_on)
    ]


def _is_of(each: PodFacts, vmi: VmiFacts) -> bool:
    return each.vmi_uid in ("", vmi.uid)


def volume(vmi_phase: str, memory: VmMemory) -> str:
    """Say whether one of its volumes is said not to attach, as long as that keeps it from running.

    Kubernetes repeats itself less and less often, up to two minutes apart: so this does not fade.
    """
    return "blocked" if vmi_phase != "running" and memory.complaints("attach") else "fine"


def paused(vmi: VmiFacts | None) -> str:
    """Sort the reason of the Paused condition.

    KubeVirt has three: PausedByUser, PausedByMigrationMonitor, PausedIOError (virt-handler's
    calculatePausedCondition). One that is new to us counts as somebody's doing when it says so.
    """
    reason = vmi.paused if vmi is not None else ""
    if not reason:
        return "no"
    if reason == "PausedIOError":
        return "io-error"
    return "asked" if reason.startswith("PausedBy") else "unasked"


def migration(vmi: VmiFacts | None, migrations: list[MigrationFacts]) -> str:
    """Say how far a migration of it is, if there is one."""
    going = vmi is not None and bool(vmi.migrating_to)
    phases = {each.phase for each in migrations} - FINAL_PHASES
    if "Running" in phases:
        return "moving" if going else "adrift"
    if phases - _QUEUED:
        return "preparing"
    if going:
        return "moving"
    return "queued" if phases else "none"


def crashes(
    vm: VmFacts | None,
    vmi: VmiFacts | None,
    pods: list[PodFacts],
    memory: VmMemory,
    proven_s: float,
) -> str:
    """Say how it crashes, if it does."""
    if _is_series(memory.failures, proven_s):
        return "repeated"
    if _has_panicked(vmi, memory, proven_s):
        return "panicked"
    if _is_series(memory.resets, proven_s):
        return "resets"
    looping = any(each.waiting == _BACKING_OFF for each in pods)
    return "backing-off" if looping or (vm is not None and vm.status == _BACKING_OFF) else "none"


def _has_panicked(vmi: VmiFacts | None, memory: VmMemory, proven_s: float) -> bool:
    """Whether a panic stands: it is told once, so it does while an agent that was there is lost."""
    told = memory.complaints("panic")
    lost = vmi is not None and vmi.agent_known and not vmi.agent_connected
    return bool(told) and (lost or any(each.is_fresh(proven_s) for each in told))


def _is_series(marks: list[float], proven_s: float) -> bool:
    """Whether the last few came one soon after the other, the last of them lately."""
    ends = [*marks[1:], proven_s]
    close = all(end - mark < SERIES_GAP_S for mark, end in zip(marks, ends, strict=False))
    return len(marks) >= SERIES and close


def agent(vmi: VmiFacts) -> str:
    """Say what the guest agent is, of a VMI whose silence nothing excuses."""
    if vmi.agent_connected:
        return "up"
    return "lost" if vmi.agent_known else "unknown"


def probes(vmi: VmiFacts, memory: VmMemory, proven_s: float) -> str:
    """Say what the probes are, of a VMI whose silence nothing excuses.

    A failing readiness probe is told ever more rarely (the kubelet holds back events of one pod
    after the first 25), so it stands until the VMI is ready again.
    """
    if not vmi.ready and memory.complaints("readiness-probe"):
        return "failing"
    if any(each.is_fresh(proven_s) for each in memory.complaints("liveness-probe")):
        return "failing"
    return "up" if vmi.ready else "unknown"


def may_stand(vmi: VmiFacts | None, memory: VmMemory) -> bool:
    """Whether a complaint that has faded may count all the same, now or later."""
    if vmi is None or vmi.phase != "Running":
        return True
    lost = vmi.agent_known and not vmi.agent_connected
    unready = not vmi.ready and bool(memory.complaints("readiness-probe"))
    return unready or (lost and bool(memory.complaints("panic")))


# --- words ----------------------------------------------------------------------------------------


def details(inventory: Inventory, key: Key, memory: VmMemory) -> dict[str, str]:
    """Return what there is to say of each facet, for people; those without words are absent."""
    vm, vmi = inventory.vms.get(key), inventory.vmis.get(key)
    said: dict[str, list[str]] = {"pod": [_pod(each) for each in inventory.pods_under(key)]}
    if vm is not None:
        said["wanted"] = [f"run strategy {vm.run_strategy}", "being deleted" if vm.deleting else ""]
        said["start"] = [f"status {vm.status}" if vm.status else ""]
    if vmi is not None:
        said["phase"] = [
            f"VMI {vmi.phase or 'new'}" + (f" on {vmi.node}" if vmi.node else ""),
            "ready" if vmi.ready else f"not ready {vmi.not_ready_why}".rstrip(),
            "being deleted" if vmi.deleting else "",
        ]
        said["paused"] = [vmi.paused]
        heard = vmi.agent_known or vmi.agent_connected
        said["agent"] = ["" if heard else "never heard in this VMI"]
        said["migration"] = [f"to {vmi.migrating_to}" if vmi.migrating_to else ""]
    said.setdefault("migration", []).extend(
        f"{each.name} is {each.phase or 'new'}" for each in inventory.migrations_of(key)
    )
    for facet, aspects in _TOLD_BY.items():
        told = memory.complaints(*aspects)
        said[facet] = [f"{each.detail or each.reading} ({each.source})" for each in told]
    texts = {facet: "; ".join(part for part in parts if part) for facet, parts in said.items()}
    return {facet: text for facet, text in texts.items() if text}


def _pod(each: PodFacts) -> str:
    parts = [f"{each.name} {each.phase or 'new'}"]
    parts += [f"on {each.node}"] if each.node else []
    parts += [f"waits: {each.waiting}"] if each.waiting else []
    parts += ["waits for its turn behind our gate"] if each.gated else []
    parts += [f"unschedulable: {each.unschedulable}"] if each.unschedulable else []
    parts += [f"{each.restarts} restarts"] if each.restarts else []
    parts += [f"being deleted with {each.grace_s:g} s of grace"] if each.deleting else []
    return ", ".join(parts)
