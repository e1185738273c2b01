"""One seed is one story: a cluster, random faults, random kills of the leader, and a judgement.

Virtual-handler heartbeats and cool-downs run six times as fast as in a real cluster, so that a
story takes minutes of virtual time rather than half an hour; nothing else is changed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from harness import Rehearsal

from remediator.engine.chain import Decision, DecisionKind
from remediator.engine.model import (
    Fence,
    ForceStop,
    IncidentState,
    OutcomeStatus,
    Release,
    StartVm,
)
from remediator.engine.settings import (
    BudgetSettings,
    DetectionSettings,
    EngineSettings,
    PacingSettings,
    StepSettings,
)
from remediator.sim.bmc import BmcMode
from remediator.sim.cluster_spec import ClusterSpec
from remediator.sim.faults import ApiMode
from remediator.sim.hosts.settings import HostSettings
from remediator.sim.resources import NODES

ENGINE = EngineSettings(
    detection=DetectionSettings(handler_silent_after_s=25.0, node_watch_gap_s=20.0),
    budgets=BudgetSettings(fence_cooldown_s=100.0),
    pacing=PacingSettings(starts_at_once_cluster=4, starts_at_once_node=2, settle_s=10.0),
    steps=StepSettings(follow_up_s=30.0),
)
WARM_S, TROUBLE_S, PEACE_S = 25.0, 160.0, 400.0


@dataclass
class Story:
    """What a seed does, and what was found."""

    seed: int
    acts: list[tuple[float, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)

    def blame(self, problem: str) -> None:
        if len(self.problems) < 20:
            self.problems.append(problem)

    def __str__(self) -> str:
        lines = [f"seed {self.seed}: {len(self.problems)} problems"]
        lines += [f"  ! {problem}" for problem in self.problems]
        lines += [f"  {at:7.2f} {what}" for at, what in self.acts]
        return "\n".join(lines)


def spec_of(rng: random.Random, seed: int) -> ClusterSpec:
    return ClusterSpec(
        nodes=rng.choice((4, 5, 6)),
        zones=rng.choice((1, 2, 3)),
        vms=rng.choice((5, 8, 10)),
        seed=seed,
        run_strategies={"Always": 0.6, "RerunOnFailure": 0.2, "Manual": 0.1, "Once": 0.1},
        rwx_share=0.5,
        diskless_share=0.2,
        agent_share=0.7,
        api_latency_s=rng.choice((0.0, 0.01, 0.1)),
        hosts=HostSettings(heartbeat_s=10.0, os_boot_s=rng.choice((10.0, 40.0))),
    )


class Trouble:
    """Draws faults that a correct daemon must survive, and only those.

    Left out are the stories in which nobody could be right: an administrator who deletes the Node
    of a living host (Kubernetes itself then starts its VMs a second time), and a BMC that begins to
    lie "off" within a minute before its host is cut off.
    """

    def __init__(self, rehearsal: Rehearsal, rng: random.Random, story: Story) -> None:
        self._r = rehearsal
        self._rng = rng
        self._story = story
        self._liars: dict[str, float] = {}
        self._hung: set[str] = set()
        self._nodes = list(rehearsal.cluster.hosts)

    def act(self) -> None:
        """Do one random thing."""
        rng, faults = self._rng, self._r.cluster.faults
        node = rng.choice(self._nodes)
        now = self._r.clock.now()
        fresh_liar = now - self._liars.get(node, 0.0) < 70.0
        choices: list[tuple[int, Callable[[], object]]] = [
            (6, lambda: faults.power_loss(node)),
            (3, lambda: faults.power_restore(node)),
            (3, lambda: faults.kubelet_hang(node)),
            (2, lambda: faults.handler_hang(node)),
            (2, lambda: faults.resume(node)),
            (3, lambda: faults.kernel_panic(node)),
            (3, lambda: faults.heal(node)),
            (2, lambda: faults.clock_skew(node, rng.uniform(-900.0, 900.0))),
            (2, lambda: faults.bmc(node, BmcMode.OK)),
            (3, lambda: faults.bmc(node, self._bmc_fault(node, now))),
            (2, self._api),
            (2, self._bus),
        ]
        if not fresh_liar:
            choices += [
                (6, lambda: faults.partition(node, bmc=rng.random() < 0.3)),
                (2, lambda: faults.host_hang(node)),
                (2, lambda: faults.flap(node, period_s=rng.uniform(10.0, 60.0), times=3)),
                (1, lambda: self._swap(node)),
            ]
        weights = [weight for weight, _ in choices]
        ((_, chosen),) = rng.choices(choices, weights)
        before = len(faults.timeline)
        chosen()
        for entry in faults.timeline[before:]:
            self._note(f"{entry.verb} {entry.target} {entry.detail}")
            if entry.verb.endswith("-hang"):
                self._hung.add(entry.target)
            elif entry.verb == "resume":
                self._hung.discard(entry.target)

    def _bmc_fault(self, node: str, now: float) -> BmcMode:
        host = self._r.cluster.hosts[node]
        modes = [
            BmcMode.TIMEOUT,
            BmcMode.GARBAGE,
            BmcMode.ERROR_500,
            BmcMode.NO_POWER_STATE,
            BmcMode.ALWAYS_ON,
            BmcMode.AUTH_FAILURE,
            BmcMode.IGNORES_RESET,
            BmcMode.SLOW,
            BmcMode.DEAD_WITH_HOST,
        ]
        living = host.powered and host.network and not (host.crashed or host.frozen)
        if living and node not in self._hung:
            modes.append(BmcMode.ALWAYS_OFF)
        mode = self._rng.choice(modes)
        if mode is BmcMode.ALWAYS_OFF:
            self._liars[node] = now
        return mode

    def _swap(self, node: str) -> None:
        other = self._rng.choice(self._nodes)
        if other != node:
            self._r.cluster.faults.swap_bmcs(node, other)

    def _api(self) -> None:
        mode = self._rng.choice(list(ApiMode))
        self._r.cluster.faults.api(mode)
        self._later(self._rng.uniform(1.0, 40.0), lambda: self._r.cluster.faults.api(ApiMode.OK))

    def _bus(self) -> None:
        which = self._rng.choice(("bus", "journal", "both"))
        self._note(f"{which} away")
        if which != "journal":
            self._r.bus.outage = True
        if which != "bus":
            self._r.journal.outage = True
        self._later(self._rng.uniform(0.5, 30.0), self.bus_back)

    def bus_back(self) -> None:
        self._r.bus.outage = False
        self._r.journal.outage = False

    def _later(self, delay_s: float, act: Callable[[], object]) -> None:
        asyncio.get_running_loop().call_later(delay_s, act)

    def _note(self, what: str) -> None:
        self._story.acts.append((self._r.clock.now(), what))


async def play(seed: int) -> Story:
    """Play one seed and judge it."""
    rng = random.Random(seed)
    story = Story(seed)
    rehearsal = Rehearsal(spec_of(rng, seed), engine=ENGINE, seed=seed)
    watch = Watch(rehearsal, story)
    await rehearsal.start(replicas=rng.choice((1, 1, 2)))
    rehearsal.kill_after = set(rng.sample(range(2, 60), k=rng.choice((0, 0, 2, 5))))
    trouble = Trouble(rehearsal, rng, story)
    began_at = rehearsal.clock.now()
    await rehearsal.run(WARM_S)
    for _ in range(rng.choice((1, 2, 4, 8))):
        trouble.act()
        await rehearsal.run(rng.expovariate(1 / 20.0))
    rest_s = TROUBLE_S - (rehearsal.clock.now() - began_at)
    await rehearsal.run(max(1.0, rest_s))
    story.acts.append((rehearsal.clock.now(), "all faults end"))
    trouble.bus_back()
    rehearsal.kill_after = set()
    rehearsal.cluster.faults.end_all()
    try:
        await rehearsal.until(watch.at_peace, PEACE_S)
    except TimeoutError:
        for problem in watch.unrest():
            story.blame(f"{PEACE_S:g} s after the last fault: {problem}")
    await rehearsal.stop()
    watch.judge()
    base = began_at
    story.acts = [(at - base, what) for at, what in story.acts]
    return story


class Watch:
    """The invariants."""

    def __init__(self, rehearsal: Rehearsal, story: Story) -> None:
        self._r = rehearsal
        self._story = story
        rehearsal.on_act = self._acted

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
        for decision, pending in ((d, True) for d in self._pending()):
            assert pending
            work = decision.action.work
            if target in (
                getattr(work, "node", ""),
                getattr(work, "pod", ""),
                getattr(work, "vm", ""),
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
