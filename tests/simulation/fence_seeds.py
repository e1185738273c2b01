"""Stories of fencing drawn from seeds: several levels and methods, devices that lie, break or hang.

A host is lost, its devices misbehave, hosts return, people confirm, the daemon dies at any record;
the truth ledger judges. Which lies are drawn, and which no software could survive: docs/proof.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from harness import AuditedHttp, Rehearsal

from remediator.actions.fence.devices import FenceDevices
from remediator.actions.fence.drivers import DriverFactory
from remediator.clock import Clock
from remediator.engine.chain import DecisionKind
from remediator.engine.events import CommandGiven, Verb
from remediator.engine.model import Fence, IncidentState, OutcomeStatus, ProofKind
from remediator.engine.settings import (
    BudgetSettings,
    DetectionSettings,
    EngineSettings,
    PacingSettings,
    StepSettings,
)
from remediator.fence_config.document import (
    AnyDevice,
    Credentials,
    Level,
    MachineFence,
    Medik8sFence,
    Metal3Fence,
    NetworkFence,
    NodeSelector,
    OperatorFence,
    RedfishFence,
    Spec,
    TemplateRef,
)
from remediator.fence_config.loader import FenceConfig
from remediator.kube.client import KubeClient
from remediator.kube.transport import Transport
from remediator.policy.loader import load_directory, shipped_directory
from remediator.sim import fence_kinds as kinds
from remediator.sim.bmc import BmcMode
from remediator.sim.cluster_spec import ClusterSpec
from remediator.sim.fence_operators import FenceOperators, OperatorMode
from remediator.sim.hosts.settings import HostSettings
from remediator.sim.power_strip import PowerStrip, Supplies
from remediator.sim.reach import Place
from remediator.sim.resources import LEASES, NAMESPACES, NODES

NAMESPACE = "openshift-machine-api"
ENGINE = EngineSettings(
    detection=DetectionSettings(handler_silent_after_s=25.0, node_watch_gap_s=20.0),
    budgets=BudgetSettings(fence_cooldown_s=100.0),
    pacing=PacingSettings(starts_at_once_cluster=4, starts_at_once_node=2, settle_s=10.0),
    steps=StepSettings(follow_up_s=20.0),
)
WARM_S, TROUBLE_S, PEACE_S = 20.0, 110.0, 500.0
REF = TemplateRef(
    api_version=kinds.SNR_TEMPLATE.api_version,
    kind=kinds.SNR_TEMPLATE.kind,
    name="automatic",
    namespace=NAMESPACE,
)
ANY_PROOF = tuple(kind for kind in ProofKind if kind is not ProofKind.ASSUMED_AFTER)
# A device is a liar of a living host only so long before the host is lost: it can be caught.
CAUGHT_AFTER_S = 75.0
BROKEN = (
    BmcMode.TIMEOUT,
    BmcMode.GARBAGE,
    BmcMode.ERROR_500,
    BmcMode.NO_POWER_STATE,
    BmcMode.ALWAYS_ON,
    BmcMode.AUTH_FAILURE,
    BmcMode.IGNORES_RESET,
    BmcMode.SLOW,
    BmcMode.DEAD_WITH_HOST,
)
TOPOLOGIES: dict[str, tuple[tuple[str, ...], ...]] = {
    "bmc, then two strips": (("bmc",), ("strip-a", "strip-b")),
    "two strips, then storage": (("strip-a", "strip-b"), ("net",)),
    "bmc, then medik8s": (("bmc",), ("snr",)),
    "metal3, then storage": (("bmh",), ("net",)),
    "bmc and storage at once": (("bmc", "net"),),
    "bmc, then a person": (("bmc",), ("person",)),
    "bmc, then the machine": (("bmc",), ("machine",)),
}


class FenceRehearsal(Rehearsal):
    """A cluster with strips and fence operators, fenced by one configuration for all hosts."""

    def __init__(self, topology: str, *, power_on: bool, seed: int, spec: ClusterSpec) -> None:
        shipped = next(
            one for one in load_directory(shipped_directory()) if one.name == "node-lost"
        )
        policy = msgspec.structs.replace(shipped, required_proof=ANY_PROOF)
        super().__init__(spec, engine=ENGINE, seed=seed, policies=[policy])
        kinds.install(self.cluster.server)
        hosts = self.cluster.hosts
        supplies = {name: Supplies(host, 2) for name, host in hosts.items()}
        self.supplies = supplies
        password = self.cluster.spec.bmc_password
        self.strips = {
            f"strip-{letter}": PowerStrip(supplies, feed, password=password)
            for feed, letter in enumerate("ab")
        }
        self.operators = FenceOperators(self.cluster.store, hosts, self.clock.now)
        self.levels = TOPOLOGIES[topology]
        used = {name for level in self.levels for name in level}
        self.config = FenceConfig(
            name="rack",
            source="test",
            content_hash="",
            spec=Spec(
                nodes=NodeSelector(names=("*",)),
                devices=tuple(device for device in self._known() if device.name in used),
                levels=tuple(Level(devices=names) for names in self.levels),
                power_on=power_on,
                check_period_s=30.0,
            ),
        )
        self._operating: asyncio.Task[None] | None = None

    def _known(self) -> tuple[AnyDevice, ...]:
        user = self.cluster.spec.bmc_user
        login = Credentials(username=user, password_file=str(self.password_file))
        system = "/redfish/v1/Systems/{node}"

        def redfish(name: str, **more: Any) -> RedfishFence:
            return RedfishFence(
                name=name, endpoint=f"http://{name}.sim", system=system, credentials=login, **more
            )

        return (
            redfish("bmc"),
            redfish("strip-a", concurrency=1),
            redfish("strip-b", concurrency=1, delay_s=1.0),
            NetworkFence(name="net", class_name="ceph"),
            Medik8sFence(name="snr", template=REF, timeout_s=40.0),
            Metal3Fence(name="bmh", namespace=NAMESPACE, host="{node}", timeout_s=90.0),
            MachineFence(name="machine", timeout_s=60.0),
            OperatorFence(name="person"),
        )

    def fence_devices(self, clock: Clock, place: Place, cluster: Transport) -> FenceDevices:
        def http(device: RedfishFence) -> Any:
            strip = self.strips.get(device.name)
            inner = strip.client() if strip is not None else self.cluster.memory_http(place)
            return AuditedHttp(inner, self._reset)

        factory = DriverFactory(clock, client=KubeClient(cluster), http=http)
        return FenceDevices([self.config], clock, factory)

    async def start(self, *, replicas: int = 1) -> None:
        self._objects()
        await super().start(replicas=0)
        for node in self.cluster.hosts:
            self.cluster.store.mutate(
                NODES,
                "",
                node,
                lambda tree, name=node: tree["metadata"]["annotations"].update(
                    {"machine.openshift.io/machine": f"{NAMESPACE}/{name}-machine"}
                ),
            )
        self._operating = asyncio.create_task(self.operators.run())
        for _ in range(replicas):
            self.start_replica()

    async def stop(self) -> None:
        if self._operating is not None:
            self._operating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._operating
        await super().stop()

    def _objects(self) -> None:
        store = self.cluster.store
        store.create(
            NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        )

        def make(kind: Any, name: str, spec: dict[str, Any], **more: Any) -> None:
            status = more.pop("status", None)
            metadata = {"name": name, "namespace": NAMESPACE, **more}
            tree = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}
            store.create(kind, {**tree, "spec": spec})
            if status is not None:
                store.mutate(
                    kind,
                    NAMESPACE,
                    name,
                    lambda each: each.update(status=status),
                    subresource="status",
                )

        make(kinds.SNR_TEMPLATE, "automatic", {"template": {"spec": {}}})
        owner = {"kind": "MachineSet", "name": "set", "uid": "set", "controller": True}
        owner["apiVersion"] = "machine.openshift.io/v1beta1"
        for name in self.cluster.hosts:
            provisioned = {"poweredOn": True, "provisioning": {"state": "provisioned"}}
            make(kinds.METAL3_HOST, name, {"online": True}, status=provisioned)
            status = {"nodeRef": {"kind": "Node", "name": name}}
            make(
                kinds.OPENSHIFT_MACHINE,
                f"{name}-machine",
                {},
                ownerReferences=[owner],
                status=status,
            )

    def left_behind(self) -> list[str]:
        """What of ours still stands in the cluster."""
        store = self.cluster.store
        found = [
            f"{kind.kind} {tree['metadata']['name']}"
            for kind in (kinds.SNR, kinds.NETWORK_FENCE)
            for tree in store.list(kind)
        ]
        for tree in store.list(kinds.METAL3_HOST):
            keys = tree["metadata"].get("annotations") or {}
            found += [f"{tree['metadata']['name']}: {key}" for key in keys]
        found += [
            f"node lease {tree['metadata']['name']}"
            for tree in store.list(LEASES, "medik8s-leases")
        ]
        found += [
            f"{name} is refused by the storage"
            for name, host in self.cluster.hosts.items()
            if host.storage_fenced
        ]
        return found


class FenceTrouble:
    """Draws what befalls hosts and devices; only what a correct daemon must survive."""

    def __init__(self, rehearsal: FenceRehearsal, rng: random.Random, story: Any) -> None:
        self._r = rehearsal
        self._rng = rng
        self._story = story
        self._names = {name for level in rehearsal.levels for name in level}

    def devices(self, node: str, *, lost: bool) -> None:
        """Let some of a node's devices misbehave from now on."""
        rng, faults = self._rng, self._r.cluster.faults
        if "bmc" in self._names and rng.random() < 0.7:
            # One that says off of a host that is off tells no lie.
            modes = [*BROKEN, BmcMode.ALWAYS_OFF] if lost else list(BROKEN)
            self._note(faults.bmc(node, rng.choice(modes)))
        for name, strip in self._r.strips.items():
            if name in self._names and rng.random() < 0.4:
                mode = rng.choice(BROKEN)
                strip.outlets[node].mode = mode
                self._say(f"{name} {node} {mode}")
        operated = self._names & {"net", "snr", "bmh", "machine"}
        if operated and rng.random() < 0.5:
            modes = [OperatorMode.HANGS, OperatorMode.FAILS, OperatorMode.SLOW]
            if lost:
                modes.append(OperatorMode.LIES)
            mode = rng.choice(modes)
            self._r.operators.mode[node] = mode
            self._say(f"operators about {node} {mode}")

    def liar(self, node: str) -> None:
        """Let the BMC of a healthy host say off; it is caught before the host is lost."""
        self._note(self._r.cluster.faults.bmc(node, BmcMode.ALWAYS_OFF))

    def lose(self, node: str) -> bool:
        """Lose a host; tell whether its VMs have ended with it."""
        rng, faults = self._rng, self._r.cluster.faults
        dead: list[Callable[[], object]] = [
            lambda: faults.power_loss(node),
            lambda: faults.kernel_panic(node),
        ]
        alive: list[Callable[[], object]] = [
            lambda: faults.partition(node, bmc=rng.random() < 0.3),
            lambda: faults.host_hang(node),
            lambda: faults.kubelet_hang(node),
        ]
        lost = rng.random() < 0.5
        self._note(rng.choice(dead if lost else alive)())
        return lost

    def come_back(self, node: str) -> None:
        """Somebody mends the host, or it comes back by itself, in the same boot or another."""
        faults, host = self._r.cluster.faults, self._r.cluster.hosts[node]
        if not host.powered:
            self._note(faults.power_restore(node))
        elif host.crashed:
            host.power_off("somebody resets it")
            self._note(faults.power_restore(node))
        else:
            self._note(faults.heal(node))
            self._note(faults.resume(node))

    async def person(self, node: str) -> None:
        """Somebody looks at the host, sees to it that it is off, and says so."""
        host = self._r.cluster.hosts[node]
        host.power_off("a person pulled the plugs")
        self._say(f"a person confirms {node}")
        for replica in list(self._r.alive.values()):
            if replica.term is not None:
                command = CommandGiven(
                    id=f"confirm-{node}-{self._r.clock.now()}",
                    verb=Verb.CONFIRM_OFF,
                    target=node,
                    by="tester",
                    reason="saw it",
                )
                with contextlib.suppress(TimeoutError):
                    await replica.term.command(command)

    def mend(self) -> None:
        """End every fault of every device."""
        self._r.operators.mode.clear()
        for strip in self._r.strips.values():
            for outlet in strip.outlets.values():
                outlet.mode = BmcMode.OK

    def _note(self, entry: Any) -> None:
        self._say(f"{entry.verb} {entry.target} {entry.detail}")

    def _say(self, what: str) -> None:
        self._story.acts.append((self._r.clock.now(), what))


class FenceStory:
    """What a seed does, and what was found."""

    def __init__(self, seed: int, topology: str) -> None:
        self.seed = seed
        self.topology = topology
        self.acts: list[tuple[float, str]] = []
        self.problems: list[str] = []
        self.proofs: list[str] = []
        self.states: set[str] = set()

    def blame(self, problem: str) -> None:
        if len(self.problems) < 20:
            self.problems.append(problem)

    def __str__(self) -> str:
        lines = [f"seed {self.seed} ({self.topology}): {len(self.problems)} problems"]
        lines += [f"  ! {problem}" for problem in self.problems]
        lines += [f"  {at:7.2f} {what}" for at, what in self.acts]
        return "\n".join(lines)


async def play(seed: int, *, show: bool = False) -> FenceStory:
    """Play one seed and judge it."""
    rng = random.Random(f"fence/{seed}")
    topology = rng.choice(list(TOPOLOGIES))
    story = FenceStory(seed, topology)
    spec = ClusterSpec(
        nodes=4,
        zones=rng.choice((1, 2)),
        vms=4,
        seed=seed,
        run_strategies={"Always": 1.0},
        rwx_share=0.5,
        diskless_share=0.0,
        agent_share=0.0,
        hosts=HostSettings(heartbeat_s=10.0, os_boot_s=10.0),
    )
    power_on = "bmh" in str(TOPOLOGIES[topology]) or rng.random() < 0.4
    rehearsal = FenceRehearsal(topology, power_on=power_on, seed=seed, spec=spec)
    trouble = FenceTrouble(rehearsal, rng, story)
    await rehearsal.start(replicas=rng.choice((1, 1, 2)))
    rehearsal.kill_after = set(rng.sample(range(2, 40), k=rng.choice((0, 1, 2, 4))))
    began_at = rehearsal.clock.now()
    await rehearsal.run(WARM_S)
    nodes = list(rehearsal.cluster.hosts)
    node = rng.choice(nodes)
    if "bmc" in str(TOPOLOGIES[topology]) and rng.random() < 0.2:
        trouble.liar(node)
        await rehearsal.run(CAUGHT_AFTER_S)
        lost = trouble.lose(node)
    else:
        first = rng.random() < 0.5
        if first:
            trouble.devices(node, lost=False)
            await rehearsal.run(rng.uniform(1.0, 10.0))
        lost = trouble.lose(node)
        if not first:
            trouble.devices(node, lost=lost)
    returns = rng.random()
    if returns < 0.3:
        await rehearsal.run(rng.uniform(10.0, 80.0))
        trouble.come_back(node)
    elif "person" in str(TOPOLOGIES[topology]) and returns < 0.8:
        await rehearsal.run(rng.uniform(35.0, 70.0))
        await trouble.person(node)
    elif returns > 0.85:
        await rehearsal.run(rng.uniform(5.0, 40.0))
        trouble.lose(rng.choice(nodes))
    await rehearsal.run(rng.uniform(0.3, 1.0) * TROUBLE_S)
    _judge_open(rehearsal, story)
    story.acts.append((rehearsal.clock.now(), "all faults end"))
    trouble.mend()
    rehearsal.kill_after = set()
    rehearsal.cluster.faults.end_all()
    for name, strip in rehearsal.strips.items():
        for outlet in strip.outlets.values():
            if name in str(TOPOLOGIES[topology]) and not outlet.machine.powered:
                outlet.machine.power_on()
    peace = Peace(rehearsal)
    try:
        await rehearsal.until(peace.reached, PEACE_S)
    except TimeoutError:
        for problem in peace.unrest():
            story.blame(f"{PEACE_S:g} s after the last fault: {problem}")
    if show:
        for each in rehearsal.decisions():
            print(f"{each.at - began_at:8.2f} {each.seq} {each.kind} {each.subject} {each.why}")
    await rehearsal.stop()
    _judge(rehearsal, story)
    story.acts = [(at - began_at, what) for at, what in story.acts]
    return story


class Peace:
    """All is well again; meanwhile people do what is theirs: switch on, reboot what was cut off."""

    def __init__(self, rehearsal: FenceRehearsal) -> None:
        self._r = rehearsal
        self._since = rehearsal.clock.now()
        self._reset_at: dict[str, float] = {}

    def reached(self) -> bool:
        now = self._r.clock.now()
        for name, host in self._r.cluster.hosts.items():
            if not host.powered:
                self._r.cluster.faults.power_restore(name)
            # It lives on in the boot that was proven over (fenced at the storage, or not at all):
            # the daemon has said so, and asked for a reboot.
            elif (
                now - self._since > 60.0
                and now - self._reset_at.get(name, 0.0) > 120.0
                and self._marked(name)
            ):
                self._reset_at[name] = now
                host.power_off("a person reboots it")
                host.power_on()
        return not self.unrest()

    def _marked(self, node: str) -> bool:
        tree = self._r.cluster.store.find(NODES, "", node) or {}
        return "remediator.io/out-of-service" in (tree["metadata"].get("annotations") or {})

    def unrest(self) -> list[str]:
        found = [f"{vm} does not run" for vm in self._r.down()]
        if found:
            return found
        for tree in self._r.cluster.store.list(NODES):
            name, spec = tree["metadata"]["name"], tree.get("spec", {})
            taints = [taint["key"] for taint in spec.get("taints", [])]
            ours = [key for key in taints if "remediator" in key or "out-of-service" in key]
            if ours or spec.get("unschedulable"):
                found.append(f"{name} is still marked: {ours}")
        found += self._r.left_behind()
        if found:
            return found
        ended = (IncidentState.HELD, IncidentState.ESCALATED, IncidentState.RESOLVED)
        states = _states(self._r)
        return [f"{one} is {state}" for one, state in states.items() if state not in ended]


def _states(rehearsal: FenceRehearsal) -> dict[str, IncidentState]:
    return {
        decision.incident: decision.state
        for decision in rehearsal.decisions()
        if decision.incident and decision.state is not None
    }


def _judge_open(rehearsal: FenceRehearsal, story: FenceStory) -> None:
    """Held and escalated incidents say why."""
    for decision in rehearsal.decisions():
        if decision.state is not None:
            story.states.add(decision.state.value)
        waits = (IncidentState.HELD, IncidentState.ESCALATED)
        if decision.state in waits and not decision.why:
            story.blame(f"record {decision.seq}: {decision.state} without a reason")


def _judge(rehearsal: FenceRehearsal, story: FenceStory) -> None:
    for run in rehearsal.cluster.ledger.double_runs:
        story.blame(str(run))
    rehearsal.verify()
    for name, strip in rehearsal.strips.items():
        if strip.busiest > 1:
            story.blame(f"{name} served {strip.busiest} at once")
    for decision in rehearsal.decisions():
        if (
            decision.kind is DecisionKind.FINISHED
            and isinstance(decision.action.work, Fence)
            and decision.outcome.status is OutcomeStatus.SUCCEEDED
        ):
            story.proofs.append(decision.outcome.proof.kind.value)
    ends = (IncidentState.RESOLVED, IncidentState.HELD, IncidentState.ESCALATED)
    for incident, state in _states(rehearsal).items():
        if state not in ends:
            story.blame(f"{incident} ends in {state}")


if __name__ == "__main__":  # one seed, with its journal: python tests/simulation/fence_seeds.py 7
    import logging
    import sys

    import structlog

    from remediator.sim.virtual_time import run

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    sys.path.insert(0, str(Path(__file__).parent))
    print(run(play(int(sys.argv[1]), show=True)))
