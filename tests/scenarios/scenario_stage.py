"""Plays one scenario: the real replicas, the simulated cluster, the events at their times."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Coroutine
from typing import Any

import msgspec
from harness import PROBES, WEBHOOK_CONFIGURATION, WEBHOOK_SERVICE, Rehearsal, Seat
from scenario_file import Event, Scenario
from scenario_migrations import MigrationWatch
from scenario_moves import MoveVerbs
from scenario_objects import ObjectVerbs
from scenario_orders import OrderVerbs
from scenario_outcome import Played, look, words_of
from scenario_people import PeopleVerbs
from scenario_policies import policies
from scenario_storage import StorageVerbs

from remediator.admission.release import release_gates
from remediator.bus.protocols import AppendRefusedError
from remediator.engine import chain
from remediator.engine.chain import Decision
from remediator.engine.model import Plane, Reading, Signal, node_subject
from remediator.kube.client import KubeClient
from remediator.signals import wire
from remediator.sim.bmc import BmcMode
from remediator.sim.cluster_spec import VmSpec
from remediator.sim.faults import ApiMode
from remediator.sim.resources import PODS

# A pod whose container exits is started again by its kubelet about this soon.
CONTAINER_RESTART_S = 2.0


class Stage(ObjectVerbs, PeopleVerbs, MoveVerbs, OrderVerbs, StorageVerbs, Rehearsal):
    """A rehearsal of one scenario. Verbs are the methods ``do_…``."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(
            scenario.cluster_spec(),
            enforce=scenario.daemon.mode == "enforce",
            fenced=scenario.daemon.fenced,
            engine=scenario.daemon.engine,
            seed=scenario.cluster.seed,
            seats=[Seat(place.zone, place.host) for place in scenario.daemon.places],
            probes=msgspec.structs.replace(PROBES, enabled=scenario.daemon.probes),
            webhook=WEBHOOK_CONFIGURATION if scenario.daemon.webhook else None,
            policies=policies(scenario.daemon.policies),
        )
        for node, period_s in scenario.cluster.lease_periods_s.items():
            host = self.cluster.hosts[node]
            host.settings = dataclasses.replace(
                host.settings, lease_period_s=period_s, lease_duration_s=round(4 * period_s)
            )
        for kind in scenario.cluster.kinds:
            self.install(kind)
        self.played = Played(scenario)
        self._migrations = MigrationWatch(self.cluster)
        self._scenario = scenario
        self._skews: dict[str, float] = {}  # of the clocks of leaders that started after a jump
        self._waiting: list[Event] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._errors: list[Exception] = []
        self._faults_noted = 0
        self._gated: set[str] = set()  # uids of pods that were ever held back
        self.cluster.store.subscribe(PODS, self._note_gate)
        self._operator = KubeClient(self.cluster.memory_transport("operator"))
        vms = scenario.cluster.vms
        specs = [vm.spec() for vm in vms]
        self.cluster.vms = {spec.key: spec for spec in specs}
        self._seats = [(spec, vm.node) for spec, vm in zip(specs, vms, strict=True) if vm.node]
        self.cluster._placement = self._placement

    def _placement(self) -> list[tuple[VmSpec, str]]:
        return self._seats

    # --- the play --------------------------------------------------------------------------------

    async def play(self) -> Played:
        """Play it from start to end."""
        scenario = self._scenario
        self.played.zero_at = self.clock.now() + scenario.quiet_s
        await self.start(replicas=scenario.daemon.replicas)
        for vantage in scenario.daemon.vantages:
            self.start_vantage(vantage.name, Seat(vantage.zone, vantage.host))
        for event in scenario.events:
            if event.at_s is None:
                self._waiting.append(event)
            else:
                self._later(scenario.quiet_s + event.at_s, event)
        await self.run(scenario.quiet_s + scenario.until_s)
        await self._settle()
        self.played.decisions = [self._by_the_right_clock(each) for each in self.decisions()]
        self._note_faults()
        look(self.played, self.cluster)
        self.played.gates_left = self.gates()
        self.played.gates_put = len(self._gated)
        self.played.migrations = self._migrations
        self.played.migrations_left = self._migrations.left()
        self._stopping = True
        await self.stop()
        self.verify()
        return self.played

    def _by_the_right_clock(self, decision: Decision) -> Decision:
        """Return a record of a leader whose clock was off as if it had not been."""
        skew_s = self._skews.get(decision.leader, 0.0)
        return msgspec.structs.replace(decision, at=decision.at - skew_s)

    def _later(self, delay_s: float, event: Event) -> None:
        asyncio.get_running_loop().call_later(delay_s, self._try, event)

    def _try(self, event: Event) -> None:
        """Act; a mistake in a story fails it, rather than being lost in a callback."""
        try:
            self._act(event)
        except Exception as error:  # noqa: BLE001 - raised again when the story ends
            self._errors.append(error)

    def _act(self, event: Event) -> None:
        arguments = event.arguments
        calls: list[Any] = arguments if isinstance(arguments, list) else [arguments]
        verb = getattr(self, f"do_{event.verb}", None) or getattr(
            self.cluster.faults, event.verb, None
        )
        if verb is None:
            raise ValueError(f"no such verb: {event.verb}")
        for call in calls:
            given = dict(call) if isinstance(call, dict) else {}
            positional = () if given or call is None else (call,)
            if verb == self.cluster.faults.bmc:
                given["mode"] = BmcMode(given["mode"])
            if verb == self.cluster.faults.api:
                given, positional = {}, (ApiMode(call),)
            result = verb(*positional, **given)
            self._note_faults()
            if asyncio.iscoroutine(result):
                self._spawn(result)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)

    async def _settle(self) -> None:
        if self._errors:
            raise ExceptionGroup("verbs of the story", self._errors)
        for task in self._tasks:
            await task
        assert not self._waiting, f"never came to pass: {self._waiting}"

    def note(self, text: str) -> None:
        """Note what happens now: it stands after the records that are stored by now."""
        self.played.happened.append((self.clock.now(), len(self.journal.records) + 0.5, text))

    def _note_faults(self) -> None:
        """Note the faults on the cluster's own timeline that are not noted yet."""
        timeline = self.cluster.faults.timeline
        for entry in timeline[self._faults_noted :]:
            target = "" if entry.target == "api" else f" {entry.target}"
            detail = f" ({entry.detail})" if entry.detail else ""
            place = sum(decision.at <= entry.at for decision in self.decisions()) + 0.5
            text = f"{entry.verb.replace('-', ' ')}{target}{detail}"
            self.played.happened.append((entry.at, place, text))
        self._faults_noted = len(timeline)

    # --- what the harness reports ----------------------------------------------------------------

    def _stored(self, name: str, seq: int) -> bool:
        record = self.journal.records[seq - 1]
        words = set(words_of(chain.decode(record.payload, record.seq)))
        deadly: Event | None = None
        for event in list(self._waiting):
            if not set(event.after) <= words:
                continue
            self._waiting.remove(event)
            if event.verb == "kill_leader":
                deadly = event
            else:
                self._later(event.plus_s, event)
        if deadly is not None:
            return self._kill_at_record(name, deadly.arguments)
        died = seq in self.kill_after
        unheard = super()._stored(name, seq)
        if died:
            self.note(f"kill -9 {name} at record {seq}")
        return unheard

    def _kill_at_record(self, name: str, when: str) -> bool:
        """Kill the leader that has just stored a record; True: it never hears that it did."""
        loop = asyncio.get_running_loop()
        if when == "before-the-acknowledgement":
            self.note(f"kill -9 {name}: this record is stored, but it never hears so")
            loop.call_later(0.0, self._crash, name)
            return True
        assert when == "while-acting", when
        loop.call_later(0.02, self._crash, name)
        loop.call_later(0.02, self.note, f"kill -9 {name}: in the middle of what it does")
        return False

    def _wrote(self, method: str, path: str) -> None:
        super()._wrote(method, path)
        self.played.writes.append((method, path))

    def _reset(self, url: str) -> None:
        super()._reset(url)
        node = url.split("/Systems/")[1].split("/", maxsplit=1)[0]
        self.played.orders[node] += 1
        if self.cluster.bmcs[node].machine.powered:
            self.played.powered_off[node] += 1

    def start_replica(self) -> str:
        """Start one, and one more whenever it exits by itself, as its kubelet would."""
        name = super().start_replica()
        self._skews[name] = self.wall_skew_s
        self.replicas[name].add_done_callback(lambda task: self._exited(name, task))
        if self.clock.now() > self.played.zero_at - self._scenario.quiet_s:
            self.note(f"{name} starts")
        return name

    def _exited(self, name: str, task: asyncio.Task[None]) -> None:
        if task.cancelled() or name not in self.replicas:
            return
        error = task.exception()
        if isinstance(error, AppendRefusedError) and not self._stopping:
            del self.replicas[name], self.alive[name]
            self.leave(name)
            self.note(f"{name} exits: {error}")
            asyncio.get_running_loop().call_later(CONTAINER_RESTART_S, self.start_replica)

    # --- verbs: the daemon and what it stands on -------------------------------------------------

    def leader(self) -> str:
        return next(name for name, replica in self.alive.items() if replica.term is not None)

    def do_kill_daemon(self, which: str = "leader") -> None:
        for name in [self.leader()] if which == "leader" else list(self.replicas):
            self.end(name)
            self.note(f"kill -9 {name}")

    def do_start_daemon(self, count: int = 1) -> None:
        for _ in range(count):
            self.start_replica()

    def do_cut_leader_off(self, _: None = None) -> None:
        self.cluster.faults.client_partition(self.leader())

    def do_refuse_append(self, count: int = 1) -> None:
        self.journal.refuse = count
        self.note("the journal refuses the next append, as if another leader had written")

    def do_nats_down(self) -> None:
        self.bus.outage = self.journal.outage = self.pace.outage = True
        self.note("NATS down")

    def do_nats_up(self) -> None:
        self.bus.outage = self.journal.outage = self.pace.outage = False
        for replica in self.alive.values():
            replica.start_over()
        self.note("NATS up")

    async def do_handler_restart(self, node: str, away_s: float) -> None:
        self.note(f"virt-handler of {node} is replaced, and away for {away_s:g} s")
        await self.cluster.hosts[node].handler_pod.replace(away_s)

    # --- verbs: the admission gate ---------------------------------------------------------------

    def _note_gate(self, _kind: str, pod: dict[str, Any], _old: object) -> None:
        if pod["spec"].get("schedulingGates"):
            self._gated.add(pod["metadata"]["uid"])

    def do_webhook(self, state: str) -> None:
        """Let the webhook fail as ``state`` says: down, slow, expired; or "works" again."""
        webhooks = self.cluster.webhooks
        webhooks.down.discard(WEBHOOK_SERVICE)
        webhooks.expired.discard(WEBHOOK_SERVICE)
        webhooks.slow_s.pop(WEBHOOK_SERVICE, None)
        said = {
            "down": "the webhook refuses connections",
            "slow": "the webhook answers after 30 s",
            "expired": "the webhook's certificate has expired",
            "works": "the webhook works",
        }
        self.note(said[state])
        if state == "down":
            webhooks.down.add(WEBHOOK_SERVICE)
        elif state == "slow":
            webhooks.slow_s[WEBHOOK_SERVICE] = 30.0
        elif state == "expired":
            webhooks.expired.add(WEBHOOK_SERVICE)

    async def do_release_gates(self, _: None = None) -> None:
        held = await release_gates(self._operator)
        opened = sum(each.opened for each in held)
        self.note(f"remediator release-gates: {opened} of {len(held)} gates opened")

    def do_delete_launchers(self, namespace: str) -> None:
        """An administrator deletes all launcher pods of a namespace, with their grace."""
        found = self.cluster.store.list(PODS, namespace, labels="kubevirt.io=virt-launcher")
        self.note(f"somebody deletes the {len(found)} launcher pods in {namespace}")
        for pod in found:
            self.cluster.store.delete(PODS, namespace, pod["metadata"]["name"])

    # --- verbs: vantage points, clocks, and what any program may say -----------------------------

    def do_loop_lag(self, seconds: float) -> None:
        self.note(f"the daemon's own timers run {seconds:g} s late")
        self.loop_lag_s = seconds

    def do_nats_latency(self, seconds: float) -> None:
        self.note(f"NATS answers after {seconds:g} s")
        for link in self.links.values():
            link.latency_s = seconds

    def do_kill_prober(self, name: str) -> None:
        self.end_vantage(name)
        self.note(f"kill -9 {name}")

    def do_start_prober(self, name: str, zone: str, host: str = "") -> None:
        self.start_vantage(name, Seat(zone, host))
        self.note(f"{name} starts")

    def do_ntp_jump(self, seconds: float) -> None:
        """Let every wall clock jump; running processes of ours do not look at it again."""
        self.wall_skew_s += seconds
        for node, host in self.cluster.hosts.items():
            self.cluster.faults.clock_skew(node, host.clock_skew_s + seconds)
        self.note(f"NTP moves every clock by {seconds:+g} s")
        self._faults_noted = len(self.cluster.faults.timeline)

    def do_signal(
        self, plane: str, source: str, node: str, reading: str, aspect: str = "", detail: str = ""
    ) -> None:
        """Let some program publish a signal about a node."""
        signal = Signal(
            plane=Plane(plane),
            source=source,
            subject=node_subject(node),
            reading=Reading(reading),
            at=self.clock.now() + self.wall_skew_s,
            aspect=aspect,
            detail=detail,
        )
        said = " ".join(part for part in (aspect, reading, f"({detail})" if detail else "") if part)
        self.note(f"{source} says of {node} on plane {plane}: {said}")
        wire.offer(self.bus, signal)

    # --- verbs: hosts, where the fault's target is known only when the time has come -----------

    def do_power_loss_under(self, vm: str) -> None:
        (copy,) = self.cluster.ledger.running_copies(vm)
        self.note(f"the host under vm/{vm} is {copy.node}")
        self.cluster.faults.power_loss(copy.node)

    def do_bmc_latency(self, node: str, seconds: float) -> None:
        self.note(f"BMC of {node} answers after {seconds:g} s")
        self.cluster.bmcs[node].latency_s = seconds
