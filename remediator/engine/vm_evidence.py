"""What is seen of each VM, and what must be remembered of it because its objects do not say it.

Remembered is when a VMI was seen to begin to run, how often it failed, and which signals stand.
All times are proven time (see ``silence.py``): while the API server is not heard, nothing grows
old here. A VM that is well costs no memory beyond its first minutes.
"""

from __future__ import annotations

from collections import deque

from remediator.engine import vm_values
from remediator.engine.inventory import Inventory, Key
from remediator.engine.model import Plane, PodFacts, Reading, Signal, VmFacts, VmiFacts
from remediator.engine.vm_values import NOTHING, SERIES, VmMemory, Witness
from remediator.engine.vm_verdicts import VmValues

# A guest may lose its agent in its first minutes: cloud-init reboots, drivers are set up. As long
# as our own recovery waits for a guest to be up (PacingSettings.start_timeout_s).
BOOT_S = 300.0

# Aspects of the signals that are weighed, by plane. Others are not kept.
ASPECTS: dict[Plane, frozenset[str]] = {
    Plane.GUEST: frozenset({"readiness-probe", "liveness-probe", "panic", "watchdog"}),
    Plane.STORAGE: frozenset({"attach"}),
}
_SOURCES_MAX = 8  # per aspect: a publisher with ever new names must not fill the memory


class VmEvidence:
    """What is remembered of VMs, and their values as they are read from it and the inventory."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._memory: dict[Key, VmMemory] = {}
        self._began: dict[Key, tuple[str, float]] = {}  # VMI uid, and when it began to run
        self._boots: deque[tuple[float, Key]] = deque()  # the same, in order of time
        self.began_s = 0.0  # when all was first known: what ran by then began some time before
        # VMI uids whose agent an earlier leader has heard: this process may not have.
        self.heard: dict[Key, str] = {}

    # --- taking in -------------------------------------------------------------------------------

    def note_vmi(self, new: VmiFacts, old: VmiFacts | None, proven_s: float) -> None:
        """Note what comes to its end with this change of a VMI, and when it began to run."""
        key = (new.namespace, new.name)
        if new.phase == "Running" and not self._ran_before(new, old):
            self._began[key] = (new.uid, proven_s)
            self._boots.append((proven_s, key))
        memory = self._memory.get(key)
        if memory is None:
            return
        if memory.vmi_uid not in ("", new.uid):
            memory.signals, memory.vmi_uid = {}, ""
        if new.ready:
            memory.signals.pop("readiness-probe", None)
        if new.agent_connected and old is not None and not old.agent_connected:
            memory.signals.pop("panic", None)  # it has come up again

    def _ran_before(self, new: VmiFacts, old: VmiFacts | None) -> bool:
        if old is None:
            return not self._inventory.synced
        return old.uid == new.uid and old.phase == "Running"

    def note_failure(self, vmi: VmiFacts, proven_s: float) -> None:
        """Note that a VMI was seen to fail, by itself."""
        memory = self._memory_of((vmi.namespace, vmi.name))
        memory.failed = vmi.uid
        memory.failures = [*memory.failures, proven_s][-SERIES:]

    def note_signal(self, signal: Signal, proven_s: float) -> bool:
        """Take in a signal about a VM; True when it says something new.

        One that was only found when its source began is history: Kubernetes keeps events an hour.
        """
        key = (signal.subject.namespace, signal.subject.name)
        vmi = self._inventory.vmis.get(key)
        known = vmi is not None or key in self._inventory.vms
        if not known or signal.aspect not in ASPECTS.get(signal.plane, ()) or signal.first:
            return False
        memory = self._memory_of(key)
        sources = memory.signals.setdefault(signal.aspect, {})
        last = sources.pop(signal.source, None)
        if last is not None and signal.at <= last.at and last.is_fresh(proven_s):
            sources[signal.source] = last
            return False  # a repeat, or out of order
        memory.vmi_uid = vmi.uid if vmi is not None else ""
        sources[signal.source] = Witness(signal, proven_s)
        if len(sources) > _SOURCES_MAX:
            # The one that has been silent for longest; of strangers, as long as there are any.
            strangers = (name for name, each in sources.items() if not each.ours)
            del sources[next(strangers, next(iter(sources)))]
        if signal.aspect == "watchdog" and signal.reading is Reading.DOWN:
            memory.resets = [*memory.resets, proven_s][-SERIES:]
        return True

    def forget(self, key: Key) -> None:
        """Forget a VM of which no object is left."""
        self._memory.pop(key, None)
        self._began.pop(key, None)
        self.heard.pop(key, None)

    def tidy(self, key: Key, proven_s: float) -> None:
        """Forget what no longer says anything of a VM that is well."""
        memory, vmi = self._memory.get(key), self._inventory.vmis.get(key)
        if memory is None or (vmi is not None and vmi.uid == memory.failed):
            return
        marks = [*memory.failures, *memory.resets]
        witnesses = [each for sources in memory.signals.values() for each in sources.values()]
        complaints = any(each.reading is Reading.DOWN for each in witnesses)
        fresh = any(each.is_fresh(proven_s) for each in witnesses)
        late = any(proven_s - mark_s < vm_values.SERIES_GAP_S for mark_s in marks)
        if not (fresh or late or (complaints and vm_values.may_stand(vmi, memory))):
            del self._memory[key]

    def expire(self, proven_s: float) -> None:
        """Forget the beginnings of VMIs that are not young any more."""
        while self._boots and proven_s - self._boots[0][0] >= BOOT_S:
            at_s, key = self._boots.popleft()
            if self._began.get(key, ("", -1.0))[1] == at_s:
                del self._began[key]

    def _memory_of(self, key: Key) -> VmMemory:
        memory = self._memory.get(key)
        if memory is None:
            memory = self._memory[key] = VmMemory()
        return memory

    # --- reading ---------------------------------------------------------------------------------

    def ordinary(self, facts: VmFacts | VmiFacts | PodFacts) -> bool:
        """Whether this object cannot by itself make its VM look bad, so that no look is needed."""
        if isinstance(facts, PodFacts):
            waits = facts.waiting or facts.unschedulable
            return facts.phase == "Running" and not facts.deleting and not waits
        if (facts.namespace, facts.name) in self._memory:
            return False
        if isinstance(facts, VmFacts):
            return facts.status not in vm_values.BAD_STATUS
        lost = facts.agent_known and not facts.agent_connected
        turning = facts.paused or facts.deleting or facts.migrating_to  # may end badly by itself
        return facts.phase == "Running" and not (turning or lost)

    def values(self, key: Key, proven_s: float) -> VmValues:
        """Return the value of each facet of a VM."""
        inventory = self._inventory
        vm, vmi = inventory.vms.get(key), inventory.vmis.get(key)
        pods, memory = inventory.pods_under(key), self._memory.get(key, NOTHING)
        phase, paused = vm_values.phase(vm, vmi, memory), vm_values.paused(vmi)
        migration = vm_values.migration(vmi, inventory.migrations_of(key))
        agent = probes = "unknown"
        if vmi is not None and phase == "running" and paused == "no":
            still = migration in ("none", "queued")
            if still and not self._excuse(key, vmi, proven_s):
                agent = self._agent(key, vmi)
                probes = vm_values.probes(vmi, memory, proven_s)
        return VmValues(
            wanted=vm_values.wanted(vm, vmi),
            phase=phase,
            start=vm_values.start(vm, pods),
            pod=vm_values.pod(vmi, pods, phase),
            volume=vm_values.volume(phase, memory),
            paused=paused,
            crashes=vm_values.crashes(vm, vmi, pods, memory, proven_s),
            migration=migration,
            agent=agent,
            probes=probes,
        )

    def details(self, key: Key, proven_s: float) -> dict[str, str]:
        """Return what there is to say of each facet, for people; those without words are absent."""
        found = vm_values.details(self._inventory, key, self._memory.get(key, NOTHING))
        vmi = self._inventory.vmis.get(key)
        excuse = self._excuse(key, vmi, proven_s) if vmi is not None else ""
        if excuse:
            found["agent"] = excuse
        return found

    def about(self, row: str, key: Key) -> str:
        """Return what a row is about: once it is about something else, its time begins anew."""
        inventory = self._inventory
        vmi = inventory.vmis.get(key)
        if row == "terminating":
            going = vm_values.ending(inventory.pods_under(key), vmi)
            return " ".join(f"{pod.uid}:{pod.grace_s:g}" for pod in going)
        if row.startswith("migration-"):
            found = inventory.migrations_of(key)
            return " ".join(f"{migration.uid}:{migration.phase}" for migration in found)
        if row in ("crash-loop", "watchdog-loop", "backing-off", "not-made"):
            return ""  # not about one VMI
        return vmi.uid if vmi is not None else ""

    def grace_s(self, row: str, key: Key) -> float:
        """Return what is to pass, in seconds, before the time of a row begins to count."""
        if row != "terminating":
            return 0.0
        pods = vm_values.ending(self._inventory.pods_under(key), self._inventory.vmis.get(key))
        return max((pod.grace_s for pod in pods), default=0.0)

    def excused_for_s(self, key: Key, proven_s: float) -> float:
        """Return for how long a silence of this VM's guest is excused by its boot; 0: it is not.

        Where there is no silence to excuse, it is not either.
        """
        vmi, memory = self._inventory.vmis.get(key), self._memory.get(key, NOTHING)
        if vmi is None or vmi.phase != "Running":
            return 0.0
        if self._agent(key, vmi) != "lost" and not memory.complaints(*vm_values.PROBES):
            return 0.0
        return max(0.0, self._boot_left_s(key, vmi, proven_s))

    def _agent(self, key: Key, vmi: VmiFacts) -> str:
        """Say what the guest agent is: lost, too, where only the leader before had heard it."""
        agent = vm_values.agent(vmi)
        return "lost" if agent == "unknown" and self.heard.get(key) == vmi.uid else agent

    def _excuse(self, key: Key, vmi: VmiFacts, proven_s: float) -> str:
        """Return why a silent guest would be nothing to wonder at, or ""."""
        if vmi.probes_muted:
            return "excused: kubevirt.io/pause-guest-agent-probes is set"
        if vmi.not_ready_why in vm_values.GOING:
            return f"excused: {vmi.not_ready_why}"
        if vmi.phase == "Running" and self._boot_left_s(key, vmi, proven_s) > 0:
            return "excused: in the first minutes of its run, as far as is known"
        return ""

    def _boot_left_s(self, key: Key, vmi: VmiFacts, proven_s: float) -> float:
        uid, at_s = self._began.get(key, ("", 0.0))
        began_s = at_s if uid == vmi.uid else self.began_s
        return began_s + BOOT_S - proven_s
