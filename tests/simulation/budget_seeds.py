"""Stories with tight limits: many hosts lost, leaders killed, people who pause and resume.

The journal alone is walked afterwards: whoever led, and however often, no limit may be exceeded.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter

from harness import Rehearsal
from seed_story import Story
from seed_watch import Watch

from remediator.engine.chain import Decision, DecisionKind
from remediator.engine.events import CommandGiven, Verb
from remediator.engine.model import Cordon, Fence, ForceStop, IncidentState, Release, StartVm
from remediator.engine.settings import (
    BudgetSettings,
    DetectionSettings,
    EngineSettings,
    NodeLimits,
    PacingSettings,
    StepSettings,
)
from remediator.sim.cluster_spec import ClusterSpec
from remediator.sim.hosts.settings import HostSettings

LIMITS = NodeLimits(at_once=2, at_once_zone=1, per_hour=4, per_subject_per_hour=2)
BUDGETS = BudgetSettings(
    # Wide shares: what is held here is held by the limits in question.
    max_unhealthy_zone_share=1.0,
    max_unhealthy_cluster_share=1.0,
    fence_cooldown_s=30.0,
    storm_nodes=3,
    storm_share=0.0,
    storm_window_s=40.0,
    storm_cooldown_s=60.0,
    nodes=LIMITS,
)
ENGINE = EngineSettings(
    detection=DetectionSettings(handler_silent_after_s=25.0, node_watch_gap_s=20.0),
    budgets=BUDGETS,
    pacing=PacingSettings(settle_s=10.0),
    steps=StepSettings(follow_up_s=30.0),
)
_DISRUPTING = frozenset({IncidentState.FENCING, IncidentState.FENCED, IncidentState.RECOVERING})
_LOST = ("Dead", "Unreachable", "Isolated")
WARM_S, TROUBLE_S, PEACE_S = 25.0, 200.0, 400.0


async def play(seed: int) -> Story:
    """Play one seed, walk its journal, and return what was found."""
    rng = random.Random(seed)
    story = Story(seed)
    spec = ClusterSpec(
        nodes=9,
        zones=3,
        vms=9,
        seed=seed,
        run_strategies={"Always": 1.0},
        hosts=HostSettings(heartbeat_s=10.0, os_boot_s=10.0),
    )
    rehearsal = Rehearsal(spec, engine=ENGINE, seed=seed)
    watch = Watch(rehearsal, story)
    await rehearsal.start(replicas=rng.choice((1, 2)))
    rehearsal.kill_after = set(rng.sample(range(2, 80), k=rng.choice((0, 2, 4))))
    began_at = rehearsal.clock.now()
    looking = asyncio.create_task(watch.look(), name="watch")
    await rehearsal.run(WARM_S)
    hosts = list(rehearsal.cluster.hosts)
    paused = False
    for _ in range(rng.choice((3, 6))):
        faults = rehearsal.cluster.faults
        for node in rng.sample(hosts, k=rng.choice((1, 1, 2, 5))):
            rng.choice((faults.power_loss, faults.power_loss, faults.power_restore))(node)
        if rng.random() < 0.3:
            verb = Verb.RESUME if paused else Verb.PAUSE
            paused = await _order(rehearsal, verb, seed, story) ^ paused
        await rehearsal.run(rng.expovariate(1 / 30.0))
    await rehearsal.run(max(1.0, TROUBLE_S - (rehearsal.clock.now() - began_at)))
    if paused:
        await _order(rehearsal, Verb.RESUME, seed, story)
    rehearsal.kill_after = set()
    rehearsal.cluster.faults.end_all()
    try:
        await rehearsal.until(watch.at_peace, PEACE_S)
    except TimeoutError:
        for problem in watch.unrest():
            story.blame(f"{PEACE_S:g} s after the last fault: {problem}")
    looking.cancel()
    await rehearsal.stop()
    rehearsal.verify()
    for run in rehearsal.cluster.ledger.double_runs:
        story.blame(str(run))
    story.decisions = rehearsal.decisions()
    zones = {name: host.spec.zone for name, host in rehearsal.cluster.hosts.items()}
    Auditor(story, zones).walk()
    return story


async def _order(rehearsal: Rehearsal, verb: Verb, seed: int, story: Story) -> bool:
    """Have somebody pause the cluster, or resume it; whether whoever leads has obeyed."""
    command = CommandGiven(
        id=f"{verb}-{seed}-{rehearsal.clock.now()}",
        verb=verb,
        target="cluster",
        by="ann",
        reason="the seed says so",
    )
    for replica in list(rehearsal.alive.values()):
        if replica.term is not None:
            with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                answer = await replica.term.command(command)
                story.acts.append((rehearsal.clock.now(), answer.text))
                return answer.accepted
    return False


class Auditor:
    """Counts again what the limits allow, by the journal and nothing else."""

    def __init__(self, story: Story, zones: dict[str, str]) -> None:
        self._story = story
        self._zones = zones
        self._states: dict[str, tuple[str, IncidentState]] = {}  # incident -> node, state
        self._fenced: dict[str, tuple[float, str]] = {}  # incident -> first fence, node
        self._losses: dict[str, float] = {}
        self._paused_seq = 0

    def walk(self) -> None:
        for decision in self._story.decisions:
            self._one(decision)

    def _one(self, decision: Decision) -> None:
        if decision.kind is DecisionKind.COMMAND and decision.order and decision.order.obeyed:
            self._paused_seq = decision.seq if decision.order.verb == Verb.PAUSE else 0
        if decision.kind is DecisionKind.STARTED and decision.action is not None:
            self._begun(decision)
        if decision.subject.kind != "node" or not decision.incident:
            return
        node = decision.subject.name
        lost = decision.state is IncidentState.CONFIRMED and decision.verdict in _LOST
        if lost and decision.kind in (DecisionKind.OPENED, DecisionKind.VERDICT):
            self._losses[node] = decision.at
        if decision.state is not None:
            self._states[decision.incident] = (node, decision.state)
        self._at_once(decision)

    def _begun(self, decision: Decision) -> None:
        work = decision.action.work
        if self._paused_seq and isinstance(work, (Cordon, Fence, Release, ForceStop, StartVm)):
            self._story.blame(
                f"record {decision.seq}: {decision.action.id} begun while paused by "
                f"record {self._paused_seq}"
            )
        if isinstance(work, Cordon):  # the guards were asked just now
            self._storm(decision)
        if isinstance(work, Fence):
            self._fenced.setdefault(decision.incident, (decision.at, work.node))
            lately = [node for at, node in self._fenced.values() if at > decision.at - 3600.0]
            if len(lately) > LIMITS.per_hour:
                self._story.blame(f"record {decision.seq}: {len(lately)} fences within the hour")
            node, times = Counter(lately).most_common(1)[0]
            if times > LIMITS.per_subject_per_hour:
                self._story.blame(f"record {decision.seq}: {node} fenced {times} times")

    def _at_once(self, decision: Decision) -> None:
        now = {node for node, state in self._states.values() if state in _DISRUPTING}
        if len(now) > LIMITS.at_once:
            self._story.blame(f"record {decision.seq}: {sorted(now)} disrupted at once")
        for zone, count in Counter(self._zones[node] for node in now).items():
            if count > LIMITS.at_once_zone:
                self._story.blame(f"record {decision.seq}: {count} of {zone} at once")

    def _storm(self, decision: Decision) -> None:
        times = sorted(self._losses.values())
        if not times or decision.at >= times[-1] + BUDGETS.storm_cooldown_s:
            return
        kept_s = BUDGETS.storm_window_s + BUDGETS.storm_cooldown_s
        times = [at for at in times if at > decision.at - kept_s]
        for last in times:
            lost = sum(last - BUDGETS.storm_window_s < at <= last for at in times)
            if lost > BUDGETS.storm_nodes:
                self._story.blame(
                    f"record {decision.seq}: {decision.action.id} begun, though {lost} nodes were "
                    f"lost within {BUDGETS.storm_window_s:g} s"
                )
