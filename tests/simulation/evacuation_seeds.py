"""Stories of nodes that are emptied while they live, drawn from seeds.

Nodes fall sick and are well again, people want nodes empty and give them back, hosts die in the
middle, virt-handlers hang, the daemon dies at any record; the truth ledger judges, and every
migration in flight is counted.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from typing import Any

from harness import Rehearsal

from remediator.engine.events import CommandGiven, Verb
from remediator.engine.model import IncidentState, Verdict
from remediator.engine.reevaluate import differences, reevaluate
from remediator.engine.rules import OnFailure, Policy, StepOptions
from remediator.engine.settings import (
    BudgetSettings,
    ConditionRule,
    DetectionSettings,
    EngineSettings,
    EvacuationSettings,
    StepSettings,
)
from remediator.policy.loader import load_directory, shipped_directory
from remediator.sim.cluster_spec import ClusterSpec
from remediator.sim.hosts.settings import HostSettings
from remediator.sim.resources import (
    NODES,
    VIRTUAL_MACHINE_INSTANCE_MIGRATIONS,
    VIRTUAL_MACHINE_INSTANCES,
)

WARM_S, TROUBLE_S, PEACE_S = 25.0, 240.0, 900.0
CLUSTER_MAX, NODE_MAX = 5, 2
_FINAL = ("Succeeded", "Failed")
ENGINE = EngineSettings(
    detection=DetectionSettings(
        handler_silent_after_s=25.0,
        node_watch_gap_s=20.0,
        conditions=(ConditionRule(type="KernelDeadlock", hold_s=5.0),),
    ),
    budgets=BudgetSettings(
        fence_cooldown_s=60.0, max_unhealthy_zone_share=0.7, max_unhealthy_cluster_share=0.6
    ),
    steps=StepSettings(follow_up_s=30.0),
    evacuation=EvacuationSettings(
        prepare_s=60.0, queued_s=90.0, copy_s=120.0, patience_s=40.0, follow_up_s=60.0
    ),
)
_SICK = (Verdict.DEGRADED, Verdict.HANDLER_DOWN, Verdict.KUBELET_DOWN)


def policies(rng: random.Random) -> list[Policy]:
    """Return the shipped policies with one for sick and one for wanted nodes before them."""
    restarts = rng.random() < 0.5
    steps = ("cordon", "migrate", "restart") if restarts else ("cordon", "migrate")
    then = OnFailure.NEXT if restarts else rng.choice((OnFailure.HOLD, OnFailure.ESCALATE))
    made = [
        Policy(
            name=name,
            source="seed",
            content_hash=name,
            verdicts=verdicts,
            steps=steps,
            step_options={"migrate": StepOptions(on_failure=then)},
            priority=1,
        )
        for name, verdicts in (("sick", _SICK), ("wanted", (Verdict.MAINTENANCE,)))
    ]
    return [*made, *load_directory(shipped_directory())]


class Flights:
    """Migrations in flight at any moment, by the node that they leave."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self._store = rehearsal.cluster.store
        self._flying: dict[str, str] = {}
        self._of: dict[str, tuple[str, str]] = {}
        self.peak = self.peak_off_node = self.begun = 0
        self._store.subscribe(VIRTUAL_MACHINE_INSTANCE_MIGRATIONS, self._changed)

    def _changed(self, kind: str, migration: dict[str, Any], _old: Any) -> None:
        meta = migration["metadata"]
        if kind == "DELETED" or (migration.get("status") or {}).get("phase", "") in _FINAL:
            self._flying.pop(meta["uid"], None)
        elif meta["uid"] not in self._flying:
            vmi = self._store.find(
                VIRTUAL_MACHINE_INSTANCES, meta["namespace"], migration["spec"]["vmiName"]
            )
            self._flying[meta["uid"]] = (vmi or {}).get("status", {}).get("nodeName", "")
            self._of[meta["uid"]] = (meta["namespace"], migration["spec"]["vmiName"])
            self.begun += 1
            self.peak = max(self.peak, len(self._flying))
            self.peak_off_node = max(self.peak_off_node, *Counter(self._flying.values()).values())

    def left(self) -> list[str]:
        """Return what is in flight, and what KubeVirt would still move off its node.

        Not a migration whose VM is over there already: where the source was cut off in that very
        moment, nobody tells KubeVirt that the copy is complete, and its object stays.
        """
        found = [f"migration {uid} off {node}" for uid, node in self._flying.items()]
        found = [each for each, uid in zip(found, self._flying, strict=True) if self._matters(uid)]
        for vmi in self._store.list(VIRTUAL_MACHINE_INSTANCES):
            status = vmi.get("status") or {}
            if status.get("evacuationNodeName") and status["evacuationNodeName"] == status.get(
                "nodeName"
            ):
                found.append(f"{vmi['metadata']['name']} is being evacuated")
        return found

    def _matters(self, uid: str) -> bool:
        vmi = self._store.find(VIRTUAL_MACHINE_INSTANCES, *self._of[uid])
        return vmi is not None and vmi["status"].get("nodeName") == self._flying[uid]


class EvacuationStory:
    """What a seed does, and what was found."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.acts: list[tuple[float, str]] = []
        self.problems: list[str] = []
        self.moved = 0
        self.emptied = 0
        self.states: set[str] = set()

    def blame(self, problem: str) -> None:
        if len(self.problems) < 20:
            self.problems.append(problem)

    def __str__(self) -> str:
        lines = [f"seed {self.seed}: {len(self.problems)} problems"]
        lines += [f"  ! {problem}" for problem in self.problems]
        lines += [f"  {at:7.2f} {what}" for at, what in self.acts]
        return "\n".join(lines)


class Trouble:
    """What happens to the cluster."""

    def __init__(self, rehearsal: Rehearsal, rng: random.Random, story: EvacuationStory) -> None:
        self._r = rehearsal
        self._rng = rng
        self._story = story
        self._nodes = list(rehearsal.cluster.hosts)
        self._orders = 0
        self.sick: set[str] = set()
        self.ordered: set[str] = set()
        self.annotated: set[str] = set()
        self.deaths = 0

    async def act(self) -> None:
        rng, node = self._rng, self._rng.choice(self._nodes)
        kind = rng.choices(
            ("sicken", "cure", "want", "unwant", "handler", "die", "kubelet", "resume"),
            (4, 4, 4, 4, 1, 1, 0.5, 3),
        )[0]
        faults = self._r.cluster.faults
        match kind:
            case "sicken":
                self._condition(node, sick=True)
            case "cure" if self.sick:
                self._condition(rng.choice(sorted(self.sick)), sick=False)
            case "want":
                await self._want(node)
            case "unwant":
                await self._unwant()
            case "handler":
                self._note(faults.handler_hang(node))
            case "kubelet":
                self._note(faults.kubelet_hang(node))
            case "die" if self.deaths < 2:
                self.deaths += 1
                busy = [
                    decision.subject.name
                    for decision in self._r.decisions()[-30:]
                    if decision.state is IncidentState.EVACUATING
                    and decision.subject.kind == "node"
                ]
                victim = busy[-1] if busy and rng.random() < 0.7 else node
                hurt = rng.choice((faults.power_loss, faults.host_hang, faults.partition))
                self._note(hurt(victim))
            case _:
                self._note(faults.resume(node))

    async def end(self) -> None:
        """Let everything be well, and nothing wanted empty."""
        for node in sorted(self.sick):
            self._condition(node, sick=False)
        while self.ordered or self.annotated:
            await self._unwant()
        self._r.cluster.faults.end_all()

    def _condition(self, node: str, *, sick: bool) -> None:
        status = "True" if sick else "False"
        self._note(self._r.cluster.faults.node_condition(node, "KernelDeadlock", status))
        (self.sick.add if sick else self.sick.discard)(node)

    async def _want(self, node: str) -> None:
        if self._rng.random() < 0.5:
            await self._order(Verb.DRAIN, node)
            self.ordered.add(node)
        else:
            self._annotate(node, "to be repaired")
            self.annotated.add(node)

    async def _unwant(self) -> None:
        if self.ordered and (not self.annotated or self._rng.random() < 0.5):
            node = self._rng.choice(sorted(self.ordered))
            if await self._order(Verb.UNDRAIN, node):
                self.ordered.discard(node)
        elif self.annotated:
            node = self._rng.choice(sorted(self.annotated))
            self._annotate(node, None)
            self.annotated.discard(node)

    def _annotate(self, node: str, value: str | None) -> None:
        self._say(f"annotate {node} maintenance={value}")

        def change(tree: dict[str, Any]) -> None:
            notes = tree["metadata"].setdefault("annotations", {})
            if value is None:
                notes.pop("remediator.io/maintenance", None)
            else:
                notes["remediator.io/maintenance"] = value

        self._r.cluster.store.mutate(NODES, "", node, change)

    async def _order(self, verb: Verb, node: str) -> bool:
        """Order something of whoever leads; whether somebody took it, be it that it refused."""
        self._say(f"{verb} {node}")
        self._orders += 1
        for replica in list(self._r.alive.values()):
            if replica.term is not None:
                command = CommandGiven(
                    id=f"{verb}-{self._orders}", verb=verb, target=node, by="tester", reason="test"
                )
                with contextlib.suppress(TimeoutError):
                    await replica.term.command(command)
                    return True
        await self._r.run(1.0)
        return False

    def _note(self, entry: Any) -> None:
        self._say(f"{entry.verb} {entry.target} {entry.detail}")

    def _say(self, what: str) -> None:
        self._story.acts.append((self._r.clock.now(), what))


async def play(seed: int, *, show: bool = False) -> EvacuationStory:
    """Play one seed and judge it."""
    rng = random.Random(f"evacuation/{seed}")
    story = EvacuationStory(seed)
    spec = ClusterSpec(
        nodes=rng.choice((4, 5, 6)),
        zones=rng.choice((1, 2, 3)),
        vms=rng.choice((10, 14, 18)),
        seed=seed,
        run_strategies={"Always": 0.8, "RerunOnFailure": 0.2},
        rwx_share=0.7,
        diskless_share=0.2,
        agent_share=0.5,
        hosts=HostSettings(
            heartbeat_s=10.0,
            os_boot_s=10.0,
            migration_copy_s=rng.choice(((2.0, 5.0), (10.0, 30.0))),
        ),
    )
    answering = policies(rng)
    rehearsal = Rehearsal(spec, engine=ENGINE, seed=seed, policies=answering)
    flights = Flights(rehearsal)
    trouble = Trouble(rehearsal, rng, story)
    await rehearsal.start(replicas=rng.choice((1, 1, 2)))
    rehearsal.kill_after = set(rng.sample(range(2, 80), k=rng.choice((0, 1, 2, 4))))
    began_at = rehearsal.clock.now()
    await rehearsal.run(WARM_S)
    while rehearsal.clock.now() - began_at < TROUBLE_S:
        await trouble.act()
        await rehearsal.run(rng.expovariate(1 / 20.0))
    story.acts.append((rehearsal.clock.now(), "all faults end"))
    rehearsal.kill_after = set()
    await trouble.end()
    try:
        await rehearsal.until(lambda: not unrest(rehearsal, flights), PEACE_S)
    except TimeoutError:
        for problem in unrest(rehearsal, flights):
            story.blame(f"{PEACE_S:g} s after the last fault: {problem}")
    if show:
        for each in rehearsal.decisions():
            print(f"{each.at - began_at:8.2f} {each.seq} {each.kind} {each.subject} {each.why}")
    await rehearsal.stop()
    _judge(rehearsal, flights, story)
    for decision in rehearsal.decisions():
        for what in differences(decision, reevaluate(decision, answering)):
            story.blame(f"record {decision.seq}, made again: {what}")
    story.acts = [(at - began_at, what) for at, what in story.acts]
    return story


def unrest(rehearsal: Rehearsal, flights: Flights) -> list[str]:
    """Return what is not as it was before all the trouble."""
    found = [f"{vm} does not run" for vm in rehearsal.down()]
    found += flights.left()
    for name, host in rehearsal.cluster.hosts.items():
        if not host.powered:
            rehearsal.cluster.faults.power_restore(name)
    for tree in rehearsal.cluster.store.list(NODES):
        taints = [taint["key"] for taint in tree["spec"].get("taints", [])]
        ours = [key for key in taints if "remediator" in key or "out-of-service" in key]
        if ours or tree["spec"].get("unschedulable"):
            found.append(f"{tree['metadata']['name']} is still marked: {ours}")
    if found:
        return found
    open_now = {
        decision.incident: decision.state
        for decision in rehearsal.decisions()
        if decision.incident and decision.state is not None and decision.subject.kind == "node"
    }
    return [
        f"{incident} is {state}"
        for incident, state in open_now.items()
        if state is not IncidentState.RESOLVED
    ]


def _judge(rehearsal: Rehearsal, flights: Flights, story: EvacuationStory) -> None:
    for run in rehearsal.cluster.ledger.double_runs:
        story.blame(str(run))
    rehearsal.verify()
    if flights.peak > CLUSTER_MAX:
        story.blame(f"{flights.peak} migrations at once")
    if flights.peak_off_node > NODE_MAX:
        story.blame(f"{flights.peak_off_node} migrations off one node at once")
    emptying: set[str] = set()
    for decision in rehearsal.decisions():
        if decision.state is not None:
            story.states.add(decision.state.value)
        if decision.stage == "moved":
            story.moved += 1
        if decision.incident and decision.state is not None:
            if decision.state is IncidentState.EVACUATING:
                emptying.add(decision.incident)
            else:
                story.emptied += decision.incident in emptying and "is empty" in decision.why
                emptying.discard(decision.incident)
            if len(emptying) > ENGINE.evacuation.nodes_at_once:
                story.blame(f"record {decision.seq}: {len(emptying)} nodes are emptied at once")


if __name__ == "__main__":  # one seed, with its journal
    import logging
    import sys
    from pathlib import Path

    import structlog

    from remediator.sim.virtual_time import run

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    sys.path.insert(0, str(Path(__file__).parent))
    print(run(play(int(sys.argv[1]), show=True)))
