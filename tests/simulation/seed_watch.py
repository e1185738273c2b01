"""The invariants of a story: held while it is played, and by its journal afterwards."""

from __future__ import annotations

import asyncio
from functools import cache

from harness import Rehearsal
from seed_story import ENGINE, Story

from remediator.engine import chain
from remediator.engine.chain import Decision, DecisionKind
from remediator.engine.model import (
    CancelMigration,
    Fence,
    ForceStop,
    IncidentState,
    Migrate,
    OutcomeStatus,
    Release,
    RestartVm,
    Snapshot,
    SoftReboot,
    StartVm,
    Unpause,
)
from remediator.engine.reevaluate import differences, reevaluate
from remediator.engine.rules import Policy
from remediator.policy.loader import load_directory, shipped_directory
from remediator.sim.bmc import BmcMode
from remediator.sim.reach import KUBELET_PORT, Answer, Place
from remediator.sim.resources import NODES

# A fence is judged by what was truly wrong with its host in so many seconds before the order.
LATELY_S = 60.0


@cache
def shipped_policies() -> list[Policy]:
    return load_directory(shipped_directory())


# How the path ends of a request that names neither node nor pod in the end.
_LAST_WORDS = {
    StartVm: ("start",),
    RestartVm: ("restart",),
    SoftReboot: ("softreboot",),
    Unpause: ("unpause",),
    Snapshot: ("virtualmachinesnapshots",),
    Migrate: ("eviction", "virtualmachineinstancemigrations"),
    CancelMigration: ("cancel",),
}


class Watch:
    """The invariants."""

    def __init__(self, rehearsal: Rehearsal, story: Story) -> None:
        self._r = rehearsal
        self._story = story
        self._broken: dict[str, dict[str, float]] = {}  # node -> plane -> when last seen broken
        rehearsal.on_act = self._acted

    async def look(self) -> None:
        """Note every second which planes truly fail of which node."""
        while True:
            for node in self._r.cluster.hosts:
                for plane in self._failing(node):
                    self._broken.setdefault(node, {})[plane] = self._r.clock.now()
            await asyncio.sleep(1.0)

    def _failing(self, node: str) -> set[str]:
        """Return the planes by which this host, as it stands now, would look lost."""
        host = self._r.cluster.hosts[node]
        found = set()
        if not (host.connected and host.works and host.kubelet_serves):
            found.add("lease")
        if not (host.connected and host.works and host.handler.running and host.handler.gate.open):
            found.add("handler")
        if self._r.cluster.bmcs[node].mode is not BmcMode.OK or not host.powered:
            found.add("power")
        if not any(self._reaches(place, node) for place in self._places()):
            found.add("network")
        return found

    def _places(self) -> list[Place]:
        return [*self._r.places.values(), *(place for place, _ in self._r.vantages.values())]

    def _reaches(self, place: Place, node: str) -> bool:
        reach, address = self._r.cluster.reach, self._r.cluster.hosts[node].spec.address
        return any(
            reach.answer(place, address, port) is not Answer.SILENT for port in (KUBELET_PORT, 0)
        )

    def _judge_order(self, node: str) -> None:
        """A host that lives and of which one plane at most failed lately may not be powered off."""
        host, now = self._r.cluster.hosts[node], self._r.clock.now()
        lately = {plane for plane, at in self._broken.get(node, {}).items() if now - at <= LATELY_S}
        if host.works and len(lately) <= 1:
            self._story.blame(f"ForceOff of {node}, of which only this failed: {lately}")

    def at_peace(self) -> bool:
        """True once all is well; meanwhile an operator switches on what was fenced."""
        for name, host in self._r.cluster.hosts.items():
            if not host.powered:
                self._r.cluster.faults.power_restore(name)
        return not self.unrest()

    def unrest(self) -> list[str]:
        cluster = self._r.cluster
        found = [f"{vm} does not run" for vm in self._r.down()]
        if found:
            return found
        for node in cluster.store.list(NODES):
            name = node["metadata"]["name"]
            taints = [taint["key"] for taint in node.get("spec", {}).get("taints", [])]
            ours = [key for key in taints if "remediator" in key or "out-of-service" in key]
            if ours or node.get("spec", {}).get("unschedulable"):
                found.append(f"{name} is still marked: {ours}")
        return found

    def _acted(self, what: str, target: str) -> None:
        """Called at the moment of each write: its decision must stand in the journal."""
        if what == "reset":
            self._judge_order(target)
        for decision, pending in ((d, True) for d in self._pending()):
            assert pending
            work = decision.action.work
            if target in (
                getattr(work, "node", ""),
                getattr(work, "pod", ""),
                getattr(work, "vm", ""),
                *_LAST_WORDS.get(type(work), ()),
            ):
                return
        self._story.blame(f"{what} {target} without an acknowledged record before it")

    def _pending(self) -> list[Decision]:
        open_actions: dict[str, Decision] = {}
        for decision in self._r.decisions():
            if decision.action is None:
                continue
            if decision.outcome is None:
                open_actions[decision.action.id] = decision
            else:
                open_actions.pop(decision.action.id, None)
        return list(open_actions.values())

    def judge(self) -> None:
        story, ledger = self._story, self._r.cluster.ledger
        for run in ledger.double_runs:
            story.blame(str(run))
        self._r.verify()
        story.decisions = self._r.decisions()
        Judge(story).walk()


def _two_planes_agree(says: dict[str, str]) -> bool:
    """Whether two witnesses that do not repeat each other say that a node is lost."""
    off, unreached = says["power"] == "off", says.get("network") == "down"
    answers = says.get("network") == "up" or says["handler"] == "up"
    if says["lease"] == "quiet":
        return off and unreached
    second = off or unreached or says["handler"] == "silent" or says.get("machine") == "gone"
    return says["lease"] in ("silent", "lost") and second and (off or not answers)


class Judge:
    """Walks the journal alone: what it says must already be right."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self._busy: dict[str, str] = {}
        self._states: dict[str, IncidentState] = {}
        self._evidence: dict[str, Decision] = {}
        self._proofs: dict[str, str] = {}
        self._fenced_at: dict[str, float] = {}
        self._booting: dict[str, str] = {}  # VM -> incident
        self._open_on: dict[str, str] = {}  # node -> incident

    def walk(self) -> None:
        for decision in self._story.decisions:
            self._one(decision)

    def _one(self, decision: Decision) -> None:
        # Through its bytes, as somebody reads it who was not there.
        read = chain.decode(chain.encode(decision), decision.seq)
        again = reevaluate(read, shipped_policies())
        for what in differences(read, again):
            self._story.blame(f"record {decision.seq}, made again from itself: {what}")
        if again.untold:
            self._story.blame(f"record {decision.seq} keeps nothing of what {again.untold} saw")
        if decision.kind is DecisionKind.VERDICT or decision.kind is DecisionKind.OPENED:
            self._evidence[decision.incident] = decision
        if decision.state is not None:
            self._states[decision.incident] = decision.state
        fencing = sum(state is IncidentState.FENCING for state in self._states.values())
        if fencing > ENGINE.budgets.max_fences_at_once:
            self._story.blame(f"record {decision.seq}: {fencing} fences at once")
        self._pace(decision)
        self._vm_incident(decision)
        if decision.action is None:
            return
        subject = str(decision.action.subject)
        if decision.outcome is not None:
            self._busy.pop(subject, None)
            self._ended(decision)
            return
        other = self._busy.get(subject)
        if other is not None and other != decision.action.id:
            self._story.blame(f"record {decision.seq}: {subject} has two actions at once")
        self._busy[subject] = decision.action.id
        self._begun(decision)

    def _begun(self, decision: Decision) -> None:
        work = decision.action.work
        if isinstance(work, Fence):
            says: dict[str, str] = {}
            for row in self._evidence[decision.incident].evidence:
                says.setdefault(row.plane, row.value)  # a plane's first row carries its value
            if not _two_planes_agree(says):
                self._story.blame(f"record {decision.seq}: fence on {says}")
        if isinstance(work, (Release, ForceStop)):
            proven = self._proofs.get(decision.incident)
            if proven is None or proven != work.proof.boot_id:
                self._story.blame(f"record {decision.seq}: {type(work).__name__} without proof")

    def _ended(self, decision: Decision) -> None:
        work, outcome = decision.action.work, decision.outcome
        if isinstance(work, Fence) and outcome.status is OutcomeStatus.SUCCEEDED:
            self._proofs[decision.incident] = outcome.proof.boot_id
            before = self._fenced_at.get(work.node)
            cooldown_s = ENGINE.budgets.fence_cooldown_s
            # The cool-down is asked before the plan starts; the fence itself ends a little later.
            if before is not None and outcome.finished_at - before < cooldown_s:
                self._story.blame(f"record {decision.seq}: {work.node} fenced within its cool-down")
            self._fenced_at[work.node] = outcome.finished_at

    def _vm_incident(self, decision: Decision) -> None:
        """A VM whose host is in an incident has no other story than its host's."""
        opens, ends = DecisionKind.OPENED, DecisionKind.RESOLVED
        if decision.subject.kind == "node" and decision.incident:
            if decision.kind is opens:
                self._open_on[decision.subject.name] = decision.incident
            elif decision.kind is ends:
                self._open_on.pop(decision.subject.name, None)
        elif decision.subject.kind == "vm" and decision.kind in (opens, DecisionKind.VERDICT):
            (phase,) = [row.detail for row in decision.evidence if row.plane == "phase"]
            host = phase.partition(" on ")[2].partition(";")[0]
            if host in self._open_on:
                other = self._open_on[host]
                self._story.blame(f"record {decision.seq}: {phase}, while {other} is open on it")

    def _pace(self, decision: Decision) -> None:
        key = str(decision.subject)
        if decision.kind is DecisionKind.STARTED and isinstance(
            decision.action.work, (ForceStop, StartVm)
        ):
            treatment = decision.why
            if not any(word in treatment for word in ("Once", "Manual", "Halted", "no Virtual")):
                self._booting[key] = decision.incident
                if len(self._booting) > ENGINE.pacing.starts_at_once_cluster:
                    self._story.blame(f"record {decision.seq}: {len(self._booting)} boots at once")
        elif decision.kind is DecisionKind.PROGRESS:
            if decision.stage in ("up", "left", "gone", "stuck", "waiting"):
                self._booting.pop(key, None)
        elif decision.kind is DecisionKind.FINISHED and key in self._booting:
            if decision.outcome.status is not OutcomeStatus.SUCCEEDED:
                self._booting.pop(key, None)
        elif decision.state in (IncidentState.RESOLVED, IncidentState.ESCALATED):
            over = [vm for vm, incident in self._booting.items() if incident == decision.incident]
            for vm in over:
                del self._booting[vm]
