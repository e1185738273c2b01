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

import seeds
import structlog
from harness import Rehearsal
from seeds import ENGINE, WARM_S, Story, Trouble, Watch
from stopping import Stoppable, run

from remediator.kube.client import KubeClient
from remediator.kube.errors import ApiError
from remediator.kube.objects import VIRTUAL_MACHINES, virtual_machine_action
from remediator.kube.transport import TransportError
from remediator.sim.bmc import BmcMode
from remediator.sim.cluster_objects import ObjectBuilder
from remediator.sim.cluster_spec import VmSpec
from remediator.sim.resources import NODES

PEACE_S = 900.0
EXCLUDE = "remediation.medik8s.io/exclude-from-remediation"


class Crowd(Stoppable):
    """``Stoppable`` over a cluster drawn by the seed."""

    def __init__(self, spec, *, seed: int) -> None:
        Rehearsal.__init__(self, spec, engine=ENGINE, seed=seed)
        self.operator = KubeClient(self.cluster.memory_transport("operator"))


class WiderTrouble(Trouble):
    """Everything of ``Trouble``, and more of it; ``without`` names kinds that are left out."""

    def __init__(self, rehearsal, rng, story, *, without: frozenset[str]) -> None:
        super().__init__(rehearsal, rng, story)
        self._without = without
        self._made = 0
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
    watch = Watch(rehearsal, story)
    await rehearsal.start(replicas=rng.choice((1, 2, 3)))
    trouble = WiderTrouble(rehearsal, rng, story, without=without)
    began_at = rehearsal.clock.now()
    await asyncio.sleep(WARM_S)
    for _ in range(rng.choice((3, 6, 12, 20))):
        trouble.act()
        await asyncio.sleep(rng.expovariate(1 / rng.choice((1.0, 8.0, 25.0))))
    await asyncio.sleep(rng.choice((10.0, 60.0, 200.0)))
    story.acts.append((rehearsal.clock.now(), "all faults end"))
    trouble.bus_back()
    rehearsal.kill_after = set()
    rehearsal.journal.lose_acks = 0
    for name in rehearsal.alive:
        rehearsal.cluster.faults.client_heal(name)
    for node in rehearsal.cluster.hosts:
        trouble._label(node, on=False)
    rehearsal.cluster.faults.end_all()
    deadline = rehearsal.clock.now() + PEACE_S
    while not watch.at_peace() and rehearsal.clock.now() < deadline:
        await asyncio.sleep(0.5)
    for problem in watch.unrest():
        story.blame(f"{PEACE_S:g} s after the last fault: {problem}")
    for name in list(asyncio.get_running_loop().stopped):
        rehearsal.wake_process(name)
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
