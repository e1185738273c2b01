"""A broader mix than ``tests/simulation/seeds.py``: the same invariants, more trouble at once.

Several replicas, processes that stand still and wake, many nodes down at once, longer outages,
owners who stop, start, delete, create and migrate VMs meanwhile, Nodes of dead hosts that are
deleted and register anew, people who say hands off and take it back.

    python tests/breaking/mix.py FIRST LAST      plays these seeds and prints those that went wrong
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "simulation")]

import msgspec
import seeds
import structlog
from harness import Rehearsal, Seat
from seeds import ENGINE, WARM_S, Judge, Story, Trouble, Watch
from stopping import Stoppable, run

from remediator.bus import subjects
from remediator.engine.chain import Decision, DecisionKind
from remediator.engine.events import CommandGiven, Verb
from remediator.engine.model import Plane, Reading, Signal, Subject, node_subject, vantage_subject
from remediator.kube.client import KubeClient
from remediator.kube.errors import ApiError
from remediator.kube.objects import VIRTUAL_MACHINES, virtual_machine_action
from remediator.kube.transport import TransportError
from remediator.sim import timestamps
from remediator.sim.bmc import BmcMode
from remediator.sim.cluster_objects import ObjectBuilder
from remediator.sim.cluster_spec import VmSpec
from remediator.sim.reach import KUBELET_PORT
from remediator.sim.resources import LEASES, NODES

PEACE_S = 900.0
EXCLUDE = "remediation.medik8s.io/exclude-from-remediation"


class Crowd(Stoppable):
    """``Stoppable`` over a cluster drawn by the seed."""

    def __init__(self, spec, *, seed: int) -> None:
        Rehearsal.__init__(self, spec, engine=ENGINE, seed=seed)
        self.operator = KubeClient(self.cluster.memory_transport("operator"))


class WiderJudge(Judge):
    """A person's word is a proof, too."""

    def _one(self, decision: Decision) -> None:
        super()._one(decision)
        if decision.kind is DecisionKind.SKIPPED and decision.proof is not None:
            self._proofs[decision.incident] = decision.proof.boot_id


class WiderWatch(Watch):
    """``Watch`` with that judge."""

    def judge(self) -> None:
        for double in self._r.cluster.ledger.double_runs:
            self._story.blame(str(double))
        self._r.verify()
        self._story.decisions = self._r.decisions()
        WiderJudge(self._story).walk()


class WiderTrouble(Trouble):
    """Everything of ``Trouble``, and more of it; ``without`` names kinds that are left out."""

    def __init__(self, rehearsal, rng, story, *, without: frozenset[str]) -> None:
        super().__init__(rehearsal, rng, story)
        self._without = without
        self._made = 0
        self.over = False
        self._stopped: dict[str, VmSpec] = {}
        self._work: set[asyncio.Task[None]] = set()

    def act(self) -> None:
        wider = {
            "many": (4, self._many),
            "churn": (6, self._churn),
            "deletion": (2, self._delete_dead_node),
            "hands-off": (2, self._hands_off),
            "standstill": (4, self._stand_still),
            "cut-leader": (2, self._cut_leader),
            "kill": (3, self._kill),
            "slow-api": (2, self._slow_api),
            "lost-acks": (2, self._lost_acks),
            "own-trouble": (4, self._own_trouble),
            "bmc-restart": (4, self._bmc_restart),
            "bmc-restart-unreached": (2, self._bmc_restart_unreached),
            "lying-vantage": (3, self._lying_vantage),
            "handler-pod": (2, self._handler_pod),
            "claim": (2, self._claim),
            "half-zone": (2, self._half_zone),
            "packet-loss": (2, self._packet_loss),
            "order": (3, self._order),
        }
        chosen = [
            (weight, act) for name, (weight, act) in wider.items() if name not in self._without
        ]
        chosen.append((20, super().act))
        ((_, act),) = self._rng.choices(chosen, [weight for weight, _ in chosen])
        act()

    def _many(self) -> None:
        count = self._rng.choice((2, 2, 3))
        kind = self._rng.choice(("power_loss", "partition", "kernel_panic", "host_hang"))
        for node in self._rng.sample(self._nodes, k=count):
            if kind in ("partition", "host_hang") and self._is_fresh_liar(node):
                continue
            getattr(self._r.cluster.faults, kind)(node)
            self._note(f"{kind} {node} (one of {count})")
            if kind == "host_hang":
                self._hung.add(node)

    def _is_fresh_liar(self, node: str) -> bool:
        return (
            self._r.clock.now() - self._liars.get(node, 0.0) < 70.0
            or self._r.cluster.bmcs[node].mode is BmcMode.ALWAYS_OFF
        )

    def _spawn(self, work) -> None:
        task = asyncio.get_running_loop().create_task(self._quietly(work))
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _quietly(self, work) -> None:
        try:
            async with asyncio.timeout(10):
                await work
        except (ApiError, TransportError, TimeoutError) as error:
            self._note(f"  (refused: {error})")

    def _churn(self) -> None:
        rng, vms = self._rng, self._r.cluster.vms
        kind = rng.choice(("migrate", "migrate", "stop", "start", "delete", "create"))
        if kind == "create":
            self._create()
            return
        if kind == "start" and self._stopped:
            key = rng.choice(sorted(self._stopped))
            self._note(f"start vm {key}")
            self._spawn(self._start(key))
            return
        if not vms:
            return
        key = rng.choice(sorted(vms))
        namespace, name = key.split("/")
        self._note(f"{kind} vm {key}")
        if kind == "migrate":
            path = virtual_machine_action(namespace, name, "migrate")
            self._spawn(self._r.operator.replace(path, {}))
        elif kind == "stop":
            self._stopped[key] = vms.pop(key)
            path = virtual_machine_action(namespace, name, "stop")
            self._spawn(self._r.operator.replace(path, {}))
        elif kind == "delete":
            del vms[key]
            self._spawn(self._r.operator.delete(VIRTUAL_MACHINES.object_path(name, namespace)))

    async def _start(self, key: str) -> None:
        namespace, name = key.split("/")
        await self._r.operator.replace(virtual_machine_action(namespace, name, "start"), {})
        vm = self._stopped.pop(key, None)
        if vm is not None:  # KubeVirt's stop made an Always VM Halted, and its start undoes that
            self._r.cluster.vms[key] = vm

    def _create(self) -> None:
        self._made += 1
        cluster = self._r.cluster
        vm = VmSpec(
            namespace=cluster.spec.namespaces[0],
            name=f"new-{self._made}",
            access_mode=self._rng.choice(("", "ReadWriteOnce", "ReadWriteMany")),
            agent=self._rng.random() < 0.7,
        )
        self._note(f"create vm {vm.key}")
        ObjectBuilder(cluster.store, cluster.spec, self._r.clock.now()).virtual_machine(vm)
        cluster.vms[vm.key] = vm

    def _delete_dead_node(self) -> None:
        dead = [name for name, host in self._r.cluster.hosts.items() if not host.powered]
        if dead:
            node = self._rng.choice(dead)
            if self._r.cluster.store.find(NODES, "", node) is not None:
                self._r.cluster.faults.delete_node(node)
                self._note(f"delete-node {node}")

    def _hands_off(self) -> None:
        node = self._rng.choice(self._nodes)
        if self._r.cluster.store.find(NODES, "", node) is None:
            return
        self._label(node, on=True)
        self._later(self._rng.uniform(5.0, 60.0), lambda: self._label(node, on=False))

    def _label(self, node: str, *, on: bool) -> None:
        if self._r.cluster.store.find(NODES, "", node) is None:
            return
        self._note(f"hands off {node}: {on}")

        def change(obj: dict) -> None:
            labels = obj["metadata"].setdefault("labels", {})
            labels[EXCLUDE] = "true" if on else "false"

        self._r.cluster.store.mutate(NODES, "", node, change)

    def _stand_still(self) -> None:
        leaders = [name for name, replica in self._r.alive.items() if replica.term is not None]
        if not self._r.alive:
            return
        name = self._rng.choice(leaders or sorted(self._r.alive))
        for_s = self._rng.choice((1.0, 3.0, 5.0, 8.0, 20.0, 60.0)) * self._rng.uniform(0.8, 1.2)
        self._note(f"{name} stands still for {for_s:.1f} s")
        self._r.stop_process(name)
        self._later(for_s, lambda: self._wake(name))

    def _wake(self, name: str) -> None:
        self._note(f"{name} wakes")
        self._r.wake_process(name)

    def _cut_leader(self) -> None:
        for name, replica in self._r.alive.items():
            if replica.term is not None:
                self._r.cluster.faults.client_partition(name)
                self._note(f"cut {name} off")
                self._later(self._rng.uniform(2.0, 40.0), partial(self._heal, name))
                return

    def _heal(self, name: str) -> None:
        self._r.cluster.faults.client_heal(name)

    def _kill(self) -> None:
        last = len(self._r.journal.records)
        self._r.kill_after |= {last + self._rng.randint(1, 6)}

    def _slow_api(self) -> None:
        faults = self._r.cluster.api_faults
        faults.latency_s = self._rng.uniform(0.1, 1.2)
        self._note(f"API takes {faults.latency_s:.2f} s more")
        self._later(self._rng.uniform(5.0, 60.0), lambda: setattr(faults, "latency_s", 0.0))

    # --- planes of evidence and people ------------------------------------------------------------

    def _own_trouble(self) -> None:
        """Let what a daemon measures of itself be bad, or flap around its thresholds."""
        rng, bad_s = self._rng, self._rng.choice((0.4, 0.6, 1.2, 2.6, 9.0))
        period_s, turns = rng.choice((0.7, 3.0, 14.0, 16.0)), rng.choice((1, 4, 12))
        what = rng.choice(("loop", "nats"))
        self._note(f"own trouble: {what} {bad_s:g} s late, {turns} times each {period_s:g} s")
        for turn in range(turns):
            self._later(2 * turn * period_s, partial(self._measure, what, bad_s))
            self._later((2 * turn + 1) * period_s, partial(self._measure, what, 0.0))

    def _measure(self, what: str, bad_s: float) -> None:
        if self.over:
            return
        if what == "loop":
            self._r.loop_lag_s = bad_s
            return
        for link in self._r.links.values():
            link.latency_s = bad_s or 0.002

    def _bmc_restart(self) -> None:
        """Let a BMC say off for seconds while it restarts, one to three times in a row."""
        node = self._rng.choice(self._nodes)
        host, now = self._r.cluster.hosts[node], self._r.clock.now()
        living = host.powered and host.network and not (host.crashed or host.frozen)
        if not living or node in self._hung or self._cut.get(node, 0.0) > now:
            return
        self._liars[node] = now
        for turn in range(self._rng.choice((1, 1, 3))):
            at_s = turn * 9.0
            self._later(at_s, partial(self._bmc_says, node, BmcMode.ALWAYS_OFF))
            self._later(at_s + self._rng.uniform(0.5, 8.0), partial(self._bmc_says, node))
        self._note(f"the BMC of {node} restarts, and says off meanwhile")

    def _bmc_says(self, node: str, mode: BmcMode = BmcMode.OK) -> None:
        self._r.cluster.faults.bmc(node, mode)

    def _bmc_restart_unreached(self) -> None:
        """The same while every probe of it is lost, as with a BMC that shares its host's port."""
        node = self._rng.choice(self._nodes)
        if self._is_fresh_liar(node) or node in self._hung:
            return
        faults, for_s = self._r.cluster.faults, self._rng.uniform(0.5, 8.0)
        self._liars[node] = self._r.clock.now()
        self._note(f"the BMC of {node} restarts, and no probe of it is answered, for {for_s:.1f} s")
        self._bmc_says(node, BmcMode.ALWAYS_OFF)
        for port in (KUBELET_PORT, 0):
            faults.firewall(node, port=port)
        self._later(for_s, partial(self._bmc_says, node))
        self._later(for_s, lambda: faults.firewall_end(node))

    def _lying_vantage(self) -> None:
        """Let a stranger who calls itself a vantage point say down of nodes, up of none."""
        name = self._rng.choice(("liar-1", "liar-2"))
        zone = self._rng.choice((*self._zones, "nowhere", ""))
        about = self._rng.sample(self._nodes, k=self._rng.randint(1, len(self._nodes)))
        says = self._rng.choice((Reading.DOWN, Reading.DOWN, Reading.UP))
        self._note(f"{name} in {zone or 'no zone'} says {says} of {', '.join(about)}")
        for second in range(self._rng.choice((1, 20, 40))):
            self._later(second * 1.0, partial(self._lie, name, zone, about, says))

    def _lie(self, name: str, zone: str, about: list[str], says: Reading) -> None:
        now = self._r.clock.now() + self._rng.uniform(-2.0, 2.0)
        self._say(name, zone, vantage_subject(name), Reading.UP, now)
        for node in about:
            self._say(name, zone, node_subject(node), says, now)
            if says is Reading.DOWN:
                self._cut[node] = max(self._cut.get(node, 0.0), self._r.clock.now() + 20.0)

    def _say(self, name: str, zone: str, about: Subject, says: Reading, at: float) -> None:
        signal = Signal(
            plane=Plane.NETWORK, source=name, zone=zone, subject=about, reading=says, at=at
        )
        subject = subjects.heartbeat("network", about.kind, about.name, source=name)
        self._r.bus.offer(subject, msgspec.json.encode(signal))

    def _handler_pod(self) -> None:
        node, faults = self._rng.choice(self._nodes), self._r.cluster.faults
        faults.handler_rollout(away_s=self._rng.uniform(20.0, 60.0))
        self._note(f"virt-handler rolls out slowly (and {node} hangs its own)")
        faults.handler_hang(node)
        self._later(self._rng.uniform(5.0, 60.0), lambda: faults.resume(node))

    def _claim(self) -> None:
        """Let another remediator take a node's medik8s lease, perhaps in the middle of our work."""
        working = [
            incident.subject.name
            for replica in self._r.alive.values()
            if replica.engine is not None
            for incident in replica.engine.state.incidents.values()
            if incident.subject.kind == "node"
        ]
        node = self._rng.choice(working or self._nodes)
        name, store = f"node-{node}", self._r.cluster.store
        if store.find(LEASES, "medik8s-leases", name) is not None:
            return
        stamp = timestamps.rfc3339_micro(self._r.clock.now())
        store.create(
            LEASES,
            {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": name, "namespace": "medik8s-leases"},
                "spec": {
                    "holderIdentity": "somebody-else",
                    "leaseDurationSeconds": 60,
                    "acquireTime": stamp,
                    "renewTime": stamp,
                },
            },
        )
        self._note(f"somebody-else takes the medik8s lease of {node}")
        self._later(self._rng.uniform(1.0, 50.0), partial(self._unclaim, name))

    def _unclaim(self, name: str) -> None:
        found = self._r.cluster.store.find(LEASES, "medik8s-leases", name)
        if found is None or found["spec"]["holderIdentity"] != "somebody-else":
            self._story.blame(f"{name} of somebody else was taken: {found and found['spec']}")
            return
        self._r.cluster.store.delete(LEASES, "medik8s-leases", name)

    def _half_zone(self) -> None:
        """Cut half of a zone's hosts off the API server, or their probes off."""
        if any(self._is_fresh_liar(node) for node in self._nodes):
            return
        zone = self._rng.choice(self._zones)
        here = [n for n in self._nodes if self._r.cluster.hosts[n].spec.zone == zone]
        half = here[: max(1, len(here) // 2)]
        self._note(f"half of {zone} is cut: {', '.join(half)}")
        for node in half:
            self._rng.choice((self._lose_probes, self._cut_route))(node, self._r.clock.now())

    def _packet_loss(self) -> None:
        faults = self._r.cluster.faults
        faults.packet_loss(self._rng.choice((0.05, 0.3, 0.6)))
        self._note("packets get lost")
        self._later(self._rng.uniform(5.0, 60.0), lambda: faults.packet_loss(0.0))

    def _order(self) -> None:
        """Let a person confirm that a host is off (only where it is), at any moment."""
        node = self._rng.choice(self._nodes)
        verb = self._rng.choice((Verb.CONFIRM_OFF, Verb.CONFIRM_OFF, Verb.FENCE_ON))
        if verb is Verb.CONFIRM_OFF and self._r.cluster.hosts[node].powered:
            return
        self._made += 1
        order = CommandGiven(
            id=f"order-{self._made}", verb=verb, target=node, by="ana", reason="the mix says so"
        )
        for replica in self._r.alive.values():
            if replica.term is not None:
                self._note(f"{verb} {node}")
                self._spawn(self._give(replica.term, order))

    async def _give(self, term, order: CommandGiven) -> None:
        answer = await term.command(order)
        self._note(f"  {order.verb} {order.target}: {answer.accepted} {answer.text}")

    def _lost_acks(self) -> None:
        self._r.journal.lose_acks = self._rng.choice((1, 2))
        self._note("acknowledgements of the journal get lost")


class Crew(Crowd):
    """A replica that ends for a known reason is started again, as its kubelet would."""

    story: Story

    def down(self) -> list[str]:
        """As ever, but RerunOnFailure leaves a guest off that ended in order.

        Kubernetes evicts the pods of a silent node; its kubelet, back, ends their guests in order.
        """
        ended = {entry.vm: entry.detail for entry in self.cluster.ledger.timeline()}
        return [
            key
            for key in super().down()
            if self.cluster.vms[key].run_strategy == "Always" or ended.get(key) != "guest shut down"
        ]

    def start_replica(self) -> str:
        name = super().start_replica()
        self.replicas[name].add_done_callback(lambda task: self._ended(name, task))
        return name

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        if name not in self.replicas or task.cancelled():
            return
        error = task.exception()
        self.story.acts.append((self.clock.now(), f"{name} ends: {type(error).__name__} {error}"))
        if type(error).__name__ != "AppendRefusedError":
            self.story.blame(f"{name} ended: {type(error).__name__}: {error}")
        del self.replicas[name], self.alive[name]
        asyncio.get_running_loop().call_later(2.0, self.start_replica)


async def play(seed: int, *, without: frozenset[str] = frozenset()) -> Story:
    """Play one seed and judge it."""
    rng = random.Random(f"mix/{seed}")
    story = Story(seed)
    rehearsal = Crew(seeds.spec_of(rng, seed), seed=seed)
    rehearsal.story = story
    watch = WiderWatch(rehearsal, story)
    await rehearsal.start(replicas=rng.choice((1, 2, 3)))
    looking = asyncio.create_task(watch.look(), name="watch")
    zones = rehearsal.cluster.reach.zones()
    for number in range(rng.choice((0, 1, 2, 3))):
        rehearsal.start_vantage(f"vantage-{number}", Seat(rng.choice(zones)))
    trouble = WiderTrouble(rehearsal, rng, story, without=without)
    began_at = rehearsal.clock.now()
    await asyncio.sleep(WARM_S)
    for _ in range(rng.choice((3, 6, 12, 20))):
        trouble.act()
        await asyncio.sleep(rng.expovariate(1 / rng.choice((1.0, 8.0, 25.0))))
    await asyncio.sleep(rng.choice((10.0, 60.0, 200.0)))
    story.acts.append((rehearsal.clock.now(), "all faults end"))
    trouble.end()
    trouble.over = True
    rehearsal.kill_after = set()
    rehearsal.journal.lose_acks = 0
    rehearsal.loop_lag_s = 0.0
    for link in rehearsal.links.values():
        link.latency_s = 0.002
    for name in rehearsal.alive:
        rehearsal.cluster.faults.client_heal(name)
    for node in rehearsal.cluster.hosts:
        trouble._label(node, on=False)
        # KubeVirt sends no VM to a node whose heartbeat looks old, for as long as its clock is off.
        rehearsal.cluster.faults.clock_skew(node, 0.0)
    rehearsal.cluster.faults.packet_loss(0.0)
    rehearsal.cluster.faults.end_all()
    deadline = rehearsal.clock.now() + PEACE_S
    while not watch.at_peace() and rehearsal.clock.now() < deadline:
        await asyncio.sleep(0.5)
    if watch.unrest():
        story.scene = rehearsal  # for whoever looks into it
    for problem in watch.unrest():
        story.blame(f"{PEACE_S:g} s after the last fault: {problem}")
    for name in list(asyncio.get_running_loop().stopped):
        rehearsal.wake_process(name)
    looking.cancel()
    await rehearsal.stop()
    watch.judge()
    story.acts = [(at - began_at, what) for at, what in story.acts]
    return story


def main(first: int, last: int, without: frozenset[str]) -> None:
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        logger_factory=structlog.ReturnLoggerFactory(),
    )
    bad = 0
    for seed in range(first, last):
        if seed % 25 == 0:
            print(f"seed {seed} …", flush=True)
        try:
            story = run(play(seed, without=without))
        except Exception as error:  # noqa: BLE001 - a finding like any other
            print(f"seed {seed}: {type(error).__name__}: {error}", flush=True)
            bad += 1
            continue
        if story.problems:
            bad += 1
            print(story, flush=True)
    print(f"{last - first} seeds from {first}, {bad} with problems", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), frozenset(sys.argv[3:]))
