"""The real replica against the simulated cluster, in memory, on virtual time.

``Rehearsal`` puts both together: watchers, engine, actions and election are the daemon's own; NATS
is ``bus.memory``, the API server and the BMCs answer without sockets. It can kill the replica at
any record, start another, and judges by the truth ledger.

Every replica stands somewhere: in a zone, perhaps on a host of the cluster. It loses the API
server, NATS, the BMCs and the hosts that it probes as its place does, and dies with its host.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from remediator.actions.fence.devices import FenceDevices
from remediator.actions.fence.drivers import DriverFactory
from remediator.bus.memory import MemoryAsks, MemoryBus, MemoryJournal, MemoryPace
from remediator.clock import Clock
from remediator.engine import chain
from remediator.engine.chain import Decision
from remediator.engine.rules import Policy
from remediator.engine.settings import EngineSettings
from remediator.fence_config.shorthand import from_device
from remediator.fence_settings import RedfishDevice
from remediator.kube.objects import PACING_GATE
from remediator.kube.transport import Transport
from remediator.own_health import Senses
from remediator.policy.loader import load_directory, shipped_directory
from remediator.probe_settings import ProbeSettings
from remediator.probes.targets import Target
from remediator.probes.vantage import Vantage
from remediator.rehearsal.doors import AuditedHttp, AuditedTransport, DeadlyJournal, WallClock
from remediator.rehearsal.links import BusLink, JournalLink, PaceLink
from remediator.replica import Doors, Replica, ReplicaSettings
from remediator.sim.cluster import SimCluster
from remediator.sim.cluster_spec import ClusterSpec
from remediator.sim.mutating_webhooks import Endpoint
from remediator.sim.reach import API_HOST, API_PORT, NATS, Place
from remediator.sim.resources import MUTATING_WEBHOOK_CONFIGURATIONS, NAMESPACES, PODS

EPOCH = 1_800_000_000.0
CLIENT = "remediator"
WEBHOOK_SERVICE = ("remediator", "remediator-webhook")  # as deploy/admission names it


# Whatever the pace, a prober that cannot reach the API server's address holds its tongue.
PROBES = ProbeSettings(references=(f"{API_HOST}:{API_PORT}",))
# How often a place is looked at: a process on a dead host ends, and starts again when it boots.
PLACES_CHECK_S = 0.5


class Seat(NamedTuple):
    """Where a replica runs: in a zone, and perhaps on a host of the cluster that it looks after."""

    zone: str
    host: str = ""


class Rehearsal:
    """One cluster and the replicas that look after it."""

    def __init__(
        self,
        spec: ClusterSpec,
        *,
        enforce: bool = True,
        fenced: Sequence[str] = ("*",),
        policies: Sequence[Policy] | None = None,
        engine: EngineSettings | None = None,
        seed: int = 0,
        seats: Sequence[Seat] = (),
        probes: ProbeSettings | None = None,
        webhook: Mapping[str, Any] | None = None,
    ) -> None:
        self.clock = Clock(epoch_at_start=EPOCH)
        self.cluster = SimCluster(spec, clock=self.clock)
        self.wall_skew_s = 0.0  # of processes that start from now on
        self.loop_lag_s = 0.0  # what every replica measures of its own timers
        self.bus = MemoryBus()
        self.asks = MemoryAsks()
        self.pace = MemoryPace()
        self._webhook = webhook  # the configuration of the admission gate, where it is installed
        self.journal = MemoryJournal()
        self.writes: list[tuple[str, str]] = []
        self.on_act: Callable[[str, str], None] = lambda _what, _target: None
        self.kill_after: set[int] = set()  # sequences after whose record the leader dies
        self.killed = 0
        self.replicas: dict[str, asyncio.Task[None]] = {}
        self.alive: dict[str, Replica] = {}
        self.dead: list[asyncio.Task[None]] = []
        self.places: dict[str, Place] = {}
        self.links: dict[str, BusLink] = {}
        self.vantages: dict[str, tuple[Place, asyncio.Task[None]]] = {}
        self._free_seats = list(seats)
        self._watching_places: asyncio.Task[None] | None = None
        self.fenced = tuple(fenced)
        self._enforce = enforce
        self._policies = load_directory(shipped_directory()) if policies is None else policies
        self._engine = engine or EngineSettings()
        self._probes = probes or PROBES
        self._seed = seed
        self._started = 0
        # Not TemporaryDirectory: a story that fails never comes to its end, and that would warn.
        files = tempfile.mkdtemp(prefix="remediator-rehearsal-")
        self._remove_files = weakref.finalize(self, shutil.rmtree, files, ignore_errors=True)
        self.password_file = Path(files) / "bmc-password"
        self.password_file.touch(mode=0o600)
        self.password_file.write_text(spec.bmc_password)

    async def start(self, *, replicas: int = 1) -> None:
        """Start the cluster and so many replicas."""
        for name in ("remediator", "medik8s-leases"):
            self.cluster.store.create(
                NAMESPACES,
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}},
            )
        if self._webhook is not None:
            self.cluster.store.create(MUTATING_WEBHOOK_CONFIGURATIONS, dict(self._webhook))
        await self.cluster.start()
        self.cluster.reach.listen(self._networks_changed)
        self._watching_places = asyncio.create_task(self._watch_places(), name="places")
        for _ in range(replicas):
            self.start_replica()

    async def stop(self) -> None:
        """End everything. Raises what a replica has failed with."""
        if self._watching_places is not None:
            self._watching_places.cancel()
        for name in list(self.vantages):
            self.end_vantage(name)
        for name in list(self.replicas):
            await self.kill(name)
        if self.dead:
            await asyncio.wait(self.dead)
        await self.cluster.stop()
        self._remove_files()

    # --- replicas --------------------------------------------------------------------------------

    def start_replica(self) -> str:
        """Start one more replica; return its name."""
        self._started += 1
        name = f"{CLIENT}-{self._started}"
        place = self._take_seat(name)
        reach = self.cluster.reach
        link = BusLink(self.bus, self.asks, lambda: reach.passes(place, NATS))
        self.links[name] = link
        clock = WallClock(self.clock, self.wall_skew_s)
        journal = JournalLink(self.journal, lambda: reach.passes(place, NATS))
        transport = AuditedTransport(self.cluster.memory_transport(name), self._wrote)
        devices = self.fence_devices(clock, place, transport)
        replica = Replica(
            Doors(
                cluster=transport,
                publisher=link,
                source=lambda: link,
                journal=DeadlyJournal(journal, lambda seq: self._stored(name, seq)),
                devices=devices,
                dial=self.cluster.dial(place),
                asks=link,
                pace=self._pace_link(place),
            ),
            ReplicaSettings(
                identity=name,
                enforce=self._enforce,
                engine=self._engine,
                policies=list(self._policies),
                namespace="remediator",
                lease_name="remediator",
                probes=msgspec.structs.replace(self._probes, zone=place.zone, node=place.host),
            ),
            clock,
            random.Random(f"{self._seed}/{name}"),
            senses=Senses(loop_lag=lambda: self.loop_lag_s, round_trip=link.round_trip),
        )
        self.alive[name] = replica
        self._serve_webhook(name, replica)
        self.replicas[name] = asyncio.create_task(replica.run(), name=name)
        return name

    def _pace_link(self, place: Place) -> PaceLink | None:
        if self._webhook is None:
            return None
        reach = self.cluster.reach
        return PaceLink(self.pace, lambda: reach.passes(place, NATS))

    def _serve_webhook(self, name: str, replica: Replica) -> None:
        """Put a replica behind the webhook's Service."""

        def call(body: bytes) -> tuple[int, bytes]:
            answer = replica.reviewer.review(body)
            return answer.status, answer.body

        if self._webhook is not None:
            self.cluster.webhooks.serve(WEBHOOK_SERVICE, name, Endpoint(call))

    def fence_devices(self, clock: Clock, place: Place, cluster: Transport) -> FenceDevices:
        """Return what a replica fences by: each host's own BMC."""
        del cluster  # for methods that work through it
        device = RedfishDevice(
            name="bmc",
            nodes=self.fenced,
            endpoint="http://bmc.sim",
            username=self.cluster.spec.bmc_user,
            password_file=str(self.password_file),
        )
        return FenceDevices(
            [from_device(device)] if self.fenced else [],
            clock,
            DriverFactory(
                clock,
                http=lambda _device: AuditedHttp(self.cluster.memory_http(place), self._reset),
            ),
        )

    def start_vantage(self, name: str, seat: Seat) -> None:
        """Start a prober of its own, as ``remediator probe`` is; it ends with its host."""
        place = Place(name, seat.zone, seat.host)
        reach = self.cluster.reach
        reach.stand(place)
        link = self.links[name] = BusLink(self.bus, self.asks, lambda: reach.passes(place, NATS))
        vantage = Vantage(
            self.cluster.dial(place),
            self._targets,
            link,
            WallClock(self.clock, self.wall_skew_s),
            rng=random.Random(f"{self._seed}/{name}"),
            settings=msgspec.structs.replace(
                self._probes, vantage=name, zone=seat.zone, node=seat.host
            ),
        )

        async def probe() -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(link.listen(vantage.ask))
                tasks.create_task(vantage.run())

        self.vantages[name] = (place, asyncio.create_task(probe(), name=name))

    def end_vantage(self, name: str) -> None:
        """Kill a prober."""
        _, task = self.vantages.pop(name)
        del self.links[name]
        self.cluster.reach.leave(name)
        task.cancel()
        self.dead.append(task)

    def _targets(self) -> list[Target]:
        return [
            Target(name, host.spec.address, zone=host.spec.zone)
            for name, host in self.cluster.hosts.items()
        ]

    def _stored(self, name: str, seq: int) -> bool:
        """Take note of a record; True when this replica has just died without hearing of it."""
        if seq not in self.kill_after:
            return False
        self.kill_after.discard(seq)
        self.killed += 1
        loop = asyncio.get_running_loop()
        unheard = seq % 2 == 0
        loop.call_later(0.0 if unheard else 0.02, self._crash, name)
        return unheard

    def _crash(self, name: str) -> None:
        if name in self.replicas:
            self.end(name)
            asyncio.get_running_loop().call_later(2.0, self.start_replica)

    def end(self, name: str) -> asyncio.Task[None]:
        """Cancel a replica as kill -9 would, and free its seat."""
        task = self.replicas.pop(name)
        del self.alive[name]
        self.leave(name)
        task.cancel()
        self.dead.append(task)
        return task

    def _wrote(self, method: str, path: str) -> None:
        self.writes.append((method, path))
        if "/leases" not in path:
            self.on_act(method, path.rsplit("/nodes/", maxsplit=1)[-1].rsplit("/", maxsplit=1)[-1])

    def _reset(self, url: str) -> None:
        self.on_act("reset", url.split("/Systems/")[1].split("/", maxsplit=1)[0])

    async def kill(self, name: str) -> None:
        """End a replica as kill -9 would: what it had sent is sent, nothing more follows."""
        task = self.end(name)
        await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error

    # --- places ----------------------------------------------------------------------------------

    def _take_seat(self, name: str) -> Place:
        """Return where the next replica runs: the first free seat whose host, if any, works."""
        hosts = self.cluster.hosts
        for seat in self._free_seats:
            if not seat.host or hosts[seat.host].works:
                self._free_seats.remove(seat)
                break
        else:
            zones = sorted({host.spec.zone for host in hosts.values()})
            seat = Seat(zones[(self._started - 1) % len(zones)])
        place = self.places[name] = Place(name, seat.zone, seat.host)
        self.cluster.reach.stand(place)
        return place

    def leave(self, name: str) -> None:
        """Free the seat of a replica that has ended; the next to start takes it."""
        self.cluster.webhooks.leave(WEBHOOK_SERVICE, name)
        place = self.places.pop(name, None)
        self.links.pop(name, None)
        if place is not None:
            self.cluster.reach.leave(name)
            self._free_seats.insert(0, Seat(place.zone, place.host))

    def _networks_changed(self) -> None:
        for name, link in self.links.items():
            if link.refresh() and name in self.alive:
                self.alive[name].start_over()  # as the daemon does when NATS is back

    async def _watch_places(self) -> None:
        """End replicas with their hosts, and start them again where their hosts are back."""
        waiting = 0
        while True:
            await asyncio.sleep(PLACES_CHECK_S)
            for name, place in list(self.places.items()):
                if not self.cluster.reach.alive(place) and name in self.replicas:
                    self.end(name)
                    waiting += 1
            for name, (place, _) in list(self.vantages.items()):
                if not self.cluster.reach.alive(place):
                    self.end_vantage(name)
            back = [seat for seat in self._free_seats if seat.host and self._booted(seat.host)]
            for _ in back[:waiting]:
                waiting -= 1
                self.start_replica()

    def _booted(self, host: str) -> bool:
        return self.cluster.hosts[host].answers

    # --- time ------------------------------------------------------------------------------------

    async def run(self, seconds: float) -> None:
        """Let time pass. Raises what a replica has failed with."""
        await asyncio.sleep(seconds)
        self.check_replicas()

    def later(self, delay_s: float, act: Callable[[], object]) -> None:
        """Do something when so many seconds have passed."""
        asyncio.get_running_loop().call_later(delay_s, act)

    async def until(self, condition: Callable[[], object], limit_s: float) -> float:
        """Let time pass until ``condition`` holds; return how long. Raises TimeoutError."""
        took_s = await self.cluster.wait_until(lambda: bool(condition()), timeout_s=limit_s)
        self.check_replicas()
        return took_s

    def check_replicas(self) -> None:
        """Raise what a replica has failed with, if one has."""
        for task in self.replicas.values():
            if task.done():
                task.result()

    # --- looking ---------------------------------------------------------------------------------

    def decisions(self) -> list[Decision]:
        """Return the whole journal."""
        return [chain.decode(record.payload, record.seq) for record in self.journal.records]

    def verify(self) -> None:
        """Check the chain. Raises ChainError."""
        chain.verify((record.seq, record.payload) for record in self.journal.records)

    def gates(self) -> list[str]:
        """Return the launcher pods that wait behind our gate."""
        return [
            pod["metadata"]["name"]
            for pod in self.cluster.store.list(PODS)
            if any(gate["name"] == PACING_GATE for gate in pod["spec"].get("schedulingGates") or ())
        ]

    def down(self) -> list[str]:
        """VMs that should run and of which no copy runs."""
        return [
            key
            for key, vm in self.cluster.vms.items()
            if vm.run_strategy in ("Always", "RerunOnFailure")
            and not self.cluster.ledger.running_copies(key)
        ]
