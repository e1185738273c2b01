"""One seed is one story of sick guests: faults drawn at random, policies that restart, a judgement.

Nobody mends a guest when the faults end: that is what the policies are for. Times of the verdict
table are as in a real cluster; only what is waited for after each step is shorter.

``python tests/simulation/vm_seeds.py 123`` prints one's journal.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable

import msgspec
from harness import PROBES, Rehearsal
from seed_story import ENGINE, Story
from seed_watch import Watch

from remediator.engine import chain
from remediator.engine.chain import Decision, DecisionKind
from remediator.engine.model import IncidentState, KillPod, RestartVm, Verdict
from remediator.engine.reevaluate import differences, reevaluate
from remediator.engine.rules import Policy, StepOptions, SubjectKind
from remediator.engine.settings import RemedySettings, VmLimits
from remediator.policy.loader import load_directory, shipped_directory
from remediator.sim.cluster_spec import ClusterSpec
from remediator.sim.faults import ApiMode
from remediator.sim.hosts.settings import HostSettings
from remediator.sim.virtual_time import run

# Until the first silence of a guest counts; a time for faults; and for the policies afterwards.
# From a verdict to the end of the last step of the longest plan takes 900 s, and as long again
# where one VM is struck twice; a follow-up comes 120 s later.
WARM_S, TROUBLE_S, PEACE_S = 320.0, 300.0, 2400.0

_QUICK = {
    "soft-reboot": StepOptions(timeout_s=60.0),
    "unpause": StepOptions(timeout_s=40.0),
}


def _of_vms(name: str, verdict: Verdict, *steps: str, **more: object) -> Policy:
    quick = {step: each for step, each in _QUICK.items() if step in steps}
    options = {
        step: msgspec.structs.replace(each, on_failure="next") for step, each in quick.items()
    }
    return Policy(
        name=name,
        source=name,
        content_hash=name,
        verdicts=(verdict,),
        steps=steps,
        subject=SubjectKind.VM,
        step_options=options,
        start_manual=True,
        priority=10,
        **more,
    )


POLICIES = (
    _of_vms("silent", Verdict.GUEST_SILENT, "soft-reboot", "restart", "force-stop"),
    _of_vms("crashed", Verdict.CRASHED, "restart", "force-stop"),
    _of_vms("paused", Verdict.PAUSED, "unpause", "restart", "force-stop"),
    _of_vms("stuck", Verdict.STUCK, "force-stop"),
)


def _of_nodes() -> list[Policy]:
    """Return the shipped policies, which start Manual VMs too: else they stay down with reason."""
    shipped = load_directory(shipped_directory())
    return [
        msgspec.structs.replace(each, start_manual=True)
        for each in shipped
        if each.subject is SubjectKind.NODE
    ]


SETTINGS = msgspec.structs.replace(
    ENGINE,
    remedies=RemedySettings(follow_up_s=120.0),
    budgets=msgspec.structs.replace(
        ENGINE.budgets, vms=VmLimits(restarts=50, per_subject_per_hour=50)
    ),
)


def spec_of(rng: random.Random, seed: int) -> ClusterSpec:
    return ClusterSpec(
        nodes=rng.choice((4, 5)),
        zones=2,
        vms=6,
        seed=seed,
        run_strategies={"Always": 0.5, "RerunOnFailure": 0.34, "Manual": 0.16},
        rwx_share=0.3,
        diskless_share=0.2,
        agent_share=1.0,
        ignores_shutdown_share=rng.choice((0.0, 0.5)),
        api_latency_s=rng.choice((0.0, 0.02, 0.1)),
        hosts=HostSettings(heartbeat_s=10.0, os_boot_s=20.0),
    )


class GuestTrouble:
    """Draws faults of guests, and a few of hosts, of the API server and of ourselves."""

    def __init__(self, rehearsal: Rehearsal, rng: random.Random, story: Story) -> None:
        self._r, self._rng, self._story = rehearsal, rng, story

    def act(self) -> None:
        """Do one random thing."""
        rng, faults = self._rng, self._r.cluster.faults
        vm = rng.choice(sorted(self._r.cluster.vms))
        node = rng.choice(sorted(self._r.cluster.hosts))
        choices: list[tuple[int, Callable[[], object]]] = [
            (6, lambda: faults.guest_freezes(vm)),
            (3, lambda: self._lose_agent(vm)),
            (3, lambda: faults.guest_panic(vm)),
            (4, lambda: faults.io_error(vm)),
            (2, lambda: self._io_for_a_while(vm)),
            (2, lambda: faults.guest_watchdog(vm, action="poweroff")),
            (2, lambda: faults.power_loss(node)),
            (1, lambda: faults.kubelet_hang(node)),
            (1, lambda: faults.handler_hang(node)),
            (1, self._api),
            (1, lambda: faults.no_snapshots(vm)),
        ]
        ((_, chosen),) = rng.choices(choices, [weight for weight, _ in choices])
        before = len(faults.timeline)
        try:
            chosen()
        except LookupError:
            return  # it does not run now
        for entry in faults.timeline[before:]:
            self._note(f"{entry.verb} {entry.target} {entry.detail}")

    def _lose_agent(self, vm: str) -> None:
        """Let an agent fall silent that has answered: one that never did is missed by nobody."""
        now = self._r.clock.now()
        for copy in self._r.cluster.ledger.running_copies(vm):
            if copy.up_at is not None and now - copy.up_at > 60.0:
                self._r.cluster.faults.agent_lost(vm)

    def _io_for_a_while(self, vm: str) -> None:
        faults = self._r.cluster.faults
        faults.io_error(vm)
        self._r.later(self._rng.uniform(5.0, 60.0), lambda: self._mend(vm))

    def _mend(self, vm: str) -> None:
        try:
            self._r.cluster.faults.io_mends(vm)
        except LookupError:
            return  # another run of it is on its way
        self._note(f"the disk of {vm} works again")

    def _api(self) -> None:
        faults = self._r.cluster.faults
        faults.api(self._rng.choice(list(ApiMode)))
        self._r.later(self._rng.uniform(1.0, 40.0), lambda: faults.api(ApiMode.OK))

    def _note(self, what: str) -> None:
        self._story.acts.append((self._r.clock.now(), what))


def ill(rehearsal: Rehearsal) -> list[str]:
    """Say which VMs are not well, by the truth: none of this is what the daemon sees."""
    found: list[str] = []
    cluster = rehearsal.cluster
    domains = {
        domain.guest.vm: domain for host in cluster.hosts.values() for domain in host.domains()
    }
    for vm in sorted(cluster.vms):
        domain = domains.get(vm)
        manual = cluster.vms[vm].run_strategy == "Manual"
        if domain is None and manual and rehearsal.killed:
            continue  # what failed while nobody led may be weeks old: see docs/vm-verdicts.md
        if domain is None:
            found.append(f"{vm} does not run")
        elif domain.held or domain.paused:
            found.append(f"{vm} stands still: {domain.held or 'its host hangs'}")
        elif domain.hung:
            found.append(f"{vm} is frozen")
        elif not domain.agent_answers and not rehearsal.killed:
            # KubeVirt forgets a lost agent: who only starts then never misses it, unless its
            # incident was open. Such a guest works on.
            found.append(f"{vm}: its agent does not answer")
    return found


class Judge:
    """Walks the journal: what it says must already be right."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self._policies = [*_of_nodes(), *POLICIES]
        self._open: dict[str, str] = {}  # node -> incident
        self._busy: dict[str, str] = {}
        self._confirmed: set[str] = set()

    def walk(self) -> None:
        for decision in self._story.decisions:
            self._one(decision)

    def _one(self, decision: Decision) -> None:
        again = reevaluate(chain.decode(chain.encode(decision), decision.seq), self._policies)
        for what in differences(decision, again):
            self._blame(decision, f"made again from itself: {what}")
        if decision.subject.kind == "node" and decision.incident:
            if decision.kind is DecisionKind.OPENED:
                self._open[decision.subject.name] = decision.incident
            elif decision.kind is DecisionKind.RESOLVED:
                self._open.pop(decision.subject.name, None)
        if decision.state is IncidentState.CONFIRMED:
            self._confirmed.add(decision.incident)
        action = decision.action
        if action is None:
            return
        subject = str(action.subject)
        if decision.outcome is not None:
            self._busy.pop(subject, None)
            return
        other = self._busy.get(subject)
        if other is not None and other != action.id:
            self._blame(decision, f"{subject} has two actions at once")
        self._busy[subject] = action.id
        work = action.work
        if isinstance(work, KillPod) and work.grace_s is not None and work.grace_s < 1:
            self._blame(decision, "a pod on a living host is to go without grace")
        of_vm = isinstance(work, (KillPod, RestartVm))
        if of_vm and decision.kind is DecisionKind.STARTED:
            if work.node in self._open:
                self._blame(decision, f"{subject} is treated while {work.node} is in an incident")
            if decision.incident not in self._confirmed:
                self._blame(decision, f"{subject} is treated on a suspicion")

    def _blame(self, decision: Decision, what: str) -> None:
        self._story.blame(f"record {decision.seq}: {what}")


async def play(seed: int) -> Story:
    """Play one seed and judge it."""
    rng = random.Random(seed)
    story = Story(seed)
    rehearsal = Rehearsal(
        spec_of(rng, seed),
        engine=SETTINGS,
        seed=seed,
        policies=[*_of_nodes(), *POLICIES],
        probes=PROBES,
    )
    await rehearsal.start(replicas=rng.choice((1, 1, 2)))
    watch = Watch(rehearsal, story)  # each write needs its record; no host is fenced for nothing
    looking = asyncio.create_task(watch.look(), name="watch")
    began_at = rehearsal.clock.now()
    rehearsal.kill_after = set(rng.sample(range(2, 60), k=rng.choice((0, 0, 3, 6))))
    trouble = GuestTrouble(rehearsal, rng, story)
    await rehearsal.run(WARM_S)
    until = rehearsal.clock.now() + TROUBLE_S
    for _ in range(rng.choice((2, 4, 6))):
        trouble.act()
        await rehearsal.run(rng.expovariate(1 / 40.0))
    await rehearsal.run(max(1.0, until - rehearsal.clock.now()))
    story.acts.append((rehearsal.clock.now(), "no more faults; guests are left as they are"))
    rehearsal.kill_after = set()
    faults = rehearsal.cluster.faults
    faults.api(ApiMode.OK)

    def well() -> bool:
        for name, host in rehearsal.cluster.hosts.items():
            if not host.powered:
                faults.power_restore(name)
            elif host.kubelet.running:
                faults.resume(name)
        return not ill(rehearsal)

    try:
        await rehearsal.until(well, PEACE_S)
    except TimeoutError:
        for problem in ill(rehearsal):
            story.blame(f"{PEACE_S:g} s after the last fault: {problem}")
    looking.cancel()
    await rehearsal.stop()
    for double in rehearsal.cluster.ledger.double_runs:
        story.blame(str(double))
    rehearsal.verify()
    story.decisions = rehearsal.decisions()
    Judge(story).walk()
    story.acts = [(at - began_at, what) for at, what in story.acts]
    return story


if __name__ == "__main__":
    told = run(play(int(sys.argv[1])))
    base = told.decisions[0].at if told.decisions else 0.0
    for each in told.decisions:
        print(f"{each.at - base:8.1f} {each.seq:4} {each.subject!s:24} {each.kind:10} {each.why}")
    print(told)
