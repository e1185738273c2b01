"""One replica: watches always, stands for election, and leads when it is its turn.

The doors to the world (API server, bus, journal, fence devices) are given to it, so the daemon and
the simulations run the same replica.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from remediator.actions.claims import ClaimKeeper, wanted_claims
from remediator.actions.fence.agent_catalog import AgentCatalog
from remediator.actions.fence.checks import FenceChecks
from remediator.actions.fence.devices import FenceDevices
from remediator.actions.fence.driver import Target as FenceTarget
from remediator.actions.fence.fence import target_of
from remediator.actions.runner import ActionRunner
from remediator.admission.gatekeeper import Gatekeeper
from remediator.admission.publisher import PacePublisher
from remediator.admission.review import Reviewer
from remediator.admission.state import Outlook
from remediator.admission.sweeper import GateSweeper
from remediator.admission_settings import WITHOUT_WEBHOOK, AdmissionSettings
from remediator.backoff import Backoff
from remediator.bus.protocols import (
    AskChannel,
    BusUnavailableError,
    DeadLetterOffice,
    EventPublisher,
    EventSource,
    JournalStream,
    PaceChannel,
)
from remediator.clock import Clock
from remediator.engine.chain import advance
from remediator.engine.events import FenceMethodsLoaded, PoliciesLoaded
from remediator.engine.machine import Engine
from remediator.engine.model import Reading
from remediator.engine.rules import Policy
from remediator.engine.settings import DetectionSettings, EngineSettings
from remediator.fence_config.loader import label_keys as fence_label_keys
from remediator.fence_reload import FenceReload
from remediator.journal.replay import replay
from remediator.journal.writer import JournalWriter
from remediator.kube.client import KubeClient
from remediator.kube.election import ElectionSettings, LeaderElector
from remediator.kube.measured import MeasuredTransport, RequestTimes
from remediator.kube.transport import Transport
from remediator.leader import EngineOverrunError, LeadershipGivenUpError, Term
from remediator.metrics import METRICS
from remediator.own_health import OwnHealthMonitor, Senses
from remediator.policy.findings import Surroundings
from remediator.policy.loader import label_keys, vm_label_keys
from remediator.policy_reload import PolicyReload
from remediator.power import PowerReading
from remediator.probe_settings import ProbeSettings
from remediator.probes.dial import Dial
from remediator.probes.power import PowerProbe, PowerProbeSettings
from remediator.probes.targets import Target
from remediator.probes.vantage import Vantage
from remediator.signals.dead_letters import DeadLetters
from remediator.signals.intake import Intake
from remediator.signals.sources import SignalSettings, Sources
from remediator.watchers.inventory import InventoryWatchers, WatcherSettings
from remediator.watchers.narrow import ZONE

log = structlog.get_logger(__name__)

# How often a follower takes in what the leader has decided, so that taking over is short.
WARM_PERIOD_S = 2.0
# Streams are there before anybody leads; attaching to them takes one round trip.
ATTACH_S = 10.0
# How long leading waits for the FenceConfigs and policies of the cluster, which another replica
# may know.
FENCE_CONFIGS_S = 10.0


class AttachableSource(EventSource, Protocol):
    """A source of observations that can tell when it has begun to listen."""

    async def attached(self, timeout_s: float) -> None:
        """Wait until messages published from now on are delivered."""
        ...


class Doors(msgspec.Struct, frozen=True, kw_only=True):
    """The ways to the world."""

    cluster: Transport
    publisher: EventPublisher
    source: Callable[[], AttachableSource]
    journal: JournalStream
    devices: FenceDevices
    agents: AgentCatalog | None = None  # None: what agents say is read anew
    dial: Dial | None = None  # None: this replica is no vantage point
    asks: AskChannel | None = None  # None: nobody is asked for probes, and nobody asks us
    pace: PaceChannel | None = None  # None: no gates are put, and none is looked after
    dead_letters: DeadLetterOffice | None = None  # None: what is refused is only counted


class ReplicaSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What one replica must know besides its doors."""

    identity: str
    enforce: bool
    engine: EngineSettings
    policies: Sequence[Policy]  # of files, as they were read at the start
    namespace: str
    lease_name: str
    election: ElectionSettings = ElectionSettings()
    watchers: WatcherSettings = WatcherSettings()
    power: PowerProbeSettings = PowerProbeSettings()
    probes: ProbeSettings = ProbeSettings()  # its vantage point's name is the identity, if empty
    signals: SignalSettings = SignalSettings()
    policies_directory: Path | None = None  # where the policies may change; None: nowhere
    admission: AdmissionSettings = AdmissionSettings()


class Replica:
    """Runs until cancelled, or until it finds that it must not go on.

    ``senses`` are what it measures of its own health beyond its watches and requests.
    """

    def __init__(
        self,
        doors: Doors,
        settings: ReplicaSettings,
        clock: Clock,
        rng: random.Random,
        *,
        senses: Senses | None = None,
    ) -> None:
        self._doors = doors
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._senses = senses
        self._request_times = RequestTimes(clock)
        cluster = MeasuredTransport(doors.cluster, self._request_times)
        self._client = KubeClient(cluster)
        self._policies = tuple(settings.policies)
        self._engine = self._new_engine()
        self._catching_up = asyncio.Lock()
        self._leading = False
        self.watchers = InventoryWatchers(
            cluster,
            doors.publisher,
            clock,
            rng=rng,
            identity=settings.identity,
            label_keys=self._label_keys(),
            vm_label_keys=self._vm_label_keys(),
            conditions={rule.type: rule.bad for rule in settings.engine.detection.conditions},
            # In observe mode nothing is written but the election's Lease in our own namespace.
            settings=msgspec.structs.replace(
                settings.watchers, canary=settings.watchers.canary and settings.enforce
            ),
        )
        self.elector = LeaderElector(
            self._client,
            namespace=settings.namespace,
            name=settings.lease_name,
            identity=settings.identity,
            settings=settings.election,
            clock=clock,
            rng=rng,
            overrun=self._overrun,
        )
        self.vantage = self._make_vantage()
        # Served whether we lead or not; what a leader says comes over ``doors.pace``.
        self.outlook = Outlook(clock, fresh_s=settings.admission.fresh_s)
        self.gatekeeper = Gatekeeper(self.outlook, clock)
        self.reviewer = Reviewer(self.gatekeeper, counted=METRICS.admission)
        self.sweeper = GateSweeper(
            self._client,
            clock,
            heard_at=lambda: self.outlook.heard_at,
            another_leads=lambda: self.elector.another_leads,
            unattended_s=settings.engine.gates.unattended_s,
            rng=random.Random(f"gates/{settings.identity}"),  # noqa: S311 - as below
        )
        # Of its own randomness: what is drawn for it must not move anything else in a simulation.
        self.fence_checks = FenceChecks(
            doors.devices,
            self._fence_targets,
            clock,
            rng=random.Random(settings.identity),  # noqa: S311 - jitter is no secret
            last_beat=self.watchers.last_beat,
        )
        self.fence_reload = FenceReload(
            cluster,
            self.watchers.discovery,
            doors.devices,
            doors.agents or AgentCatalog(),
            clock,
            identity=settings.identity,
            reflector=settings.watchers.reflector,
            on_loaded=self._fence_methods_changed,
            rows=self.fence_checks.rows,
        )
        self.policy_reload = PolicyReload(
            cluster,
            self.watchers.discovery,
            clock,
            settings.policies,
            directory=settings.policies_directory,
            identity=settings.identity,
            reflector=settings.watchers.reflector,
            on_loaded=self._policies_changed,
            around=self._surroundings,
            matched_at=lambda name: self._engine.state.matched.get(name),  # noqa: PLW0108 - engines change
        )
        self.term: Term | None = None  # while leading
        self.on_overrun: Callable[[], None] = lambda: None
        # Run for as long as each term lasts; what it raises would end the term.
        self.while_leading: Callable[[], Coroutine[None, None, None]] | None = None

    @property
    def identity(self) -> str:
        """Who this replica is, among all that ever stood for election."""
        return self._settings.identity

    @property
    def gate(self) -> str:
        """What becomes of starts that are not ours, in words."""
        if not self._settings.admission.enabled:
            return f"off: {WITHOUT_WEBHOOK}"
        return f"on: {self.gatekeeper.created_lately} launcher pods came by here in a minute"

    @property
    def detection(self) -> DetectionSettings:
        """When silence means something."""
        return self._settings.engine.detection

    @property
    def engine(self) -> Engine:
        """The engine: live while leading, a warm memory otherwise. Read only."""
        return self._engine

    async def run(self) -> None:
        """Watch, follow, and lead when elected.

        Raises AppendRefusedError when another leader wrote the journal, ChainError when the
        journal is not the one that was written.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.watchers.run(), name="watchers")
                tasks.create_task(self._stay_warm(), name="warm")
                tasks.create_task(self.fence_reload.run(), name="fence-configs")
                tasks.create_task(self.policy_reload.run(), name="policies")
                if self._doors.pace is not None:
                    tasks.create_task(self._doors.pace.listen(self.outlook.hear), name="pace")
                    tasks.create_task(self.sweeper.run(), name="gates")
                if self.vantage is not None:
                    tasks.create_task(self.vantage.run(), name="vantage")
                    if self._doors.asks is not None:
                        listening = self._doors.asks.listen(self.vantage.ask)
                        tasks.create_task(listening, name="asks")
                # Long lists keep a large cluster's event loop busy: a Lease taken meanwhile would
                # be lost again, and a leader without a picture can decide nothing.
                await self.watchers.listed()
                await self.fence_reload.first(FENCE_CONFIGS_S)
                await self.policy_reload.first(FENCE_CONFIGS_S)
                await self.elector.run(self._lead)
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors

    def start_over(self) -> None:
        """End a term some of whose observations were lost on their way, or with NATS's memory.

        What is there could be offered again, but not what is there no more: only a new engine with
        a new picture knows that it is whole.
        """
        if self.term is not None:
            self.term.start_over()

    async def _stay_warm(self) -> None:
        while True:
            if not self._leading:
                try:
                    await self._catch_up()
                except BusUnavailableError as error:
                    log.info("journal_unreachable", error=str(error))
            await asyncio.sleep(WARM_PERIOD_S)

    async def _catch_up(self, *, leading: bool = False) -> None:
        """Take in what the journal has beyond our memory. Raises ChainError, BusUnavailableError.

        One at a time: a follower's round may still be under way when we are elected.
        """
        async with self._catching_up:
            if self._leading and not leading:
                return  # the engine is live by now: only its own records move it
            head = self._engine.state.head
            async for decision, payload in replay(self._doors.journal, head):
                self._engine.replay(decision, advance(payload, decision.seq))

    async def _remember(self) -> None:
        """Catch up before leading, for as long as it takes: without memory nobody may lead."""
        backoff = Backoff(base_s=0.2, cap_s=2.0, rng=self._rng)
        while True:
            try:
                await self._catch_up(leading=True)
            except BusUnavailableError as error:
                log.warning("journal_unreachable", error=str(error))
                await asyncio.sleep(backoff.next_s())
            else:
                return

    async def _lead(self, epoch: int) -> None:
        """Lead for one term: until cancelled by the elector, or deposed."""
        settings, doors = self._settings, self._doors
        self._leading = True
        try:
            await self._remember()
            await self._lead_remembering(epoch, settings, doors)
        finally:
            self._leading = False

    async def _lead_remembering(self, epoch: int, settings: ReplicaSettings, doors: Doors) -> None:
        probe = PowerProbe(
            self._power_state,
            self._fenceable_nodes,
            doors.publisher,
            self._clock,
            rng=self._rng,
            settings=settings.power,
            origin=self.watchers.origin,
        )
        term = Term(
            self._engine,
            JournalWriter(doors.journal),
            self._clock,
            ask_power=probe.ask,
            backoff=Backoff(base_s=0.2, cap_s=2.0, rng=self._rng),
            ask_probes=doors.asks.ask if doors.asks is not None else lambda _node: None,
            intake=Intake(
                self._clock,
                sources=Sources(settings.signals),
                dead_letters=DeadLetters(doors.dead_letters),
                origin=self.watchers.origin,
            ),
        )
        runner = ActionRunner(
            self._client,
            doors.devices,
            self._clock,
            last_beat=self.watchers.last_beat,
            rng=self._rng,
            on_finished=term.finished,
            leads=lambda: self.elector.leader,
            late_renewal_s=settings.engine.detection.contradiction_after_s,
        )
        source = doors.source()
        monitor = OwnHealthMonitor(
            self._clock,
            offer=term.offer,
            watches=self.watchers.health,
            requests=self._request_times,
            detection=settings.engine.detection,
            senses=self._senses,
        )

        async def begin() -> None:
            await source.attached(ATTACH_S)
            self.watchers.lead()

        term.offer(FenceMethodsLoaded(methods=doors.devices.methods()))
        term.offer(PoliciesLoaded(policies=self._policies))
        self.term = term
        log.info("leading", identity=settings.identity, epoch=epoch)
        try:
            async with asyncio.TaskGroup() as tasks:
                beside = [
                    tasks.create_task(work, name=name)
                    for name, work in (
                        ("power-probe", probe.run()),
                        ("own-health", monitor.run()),
                        ("health-desk", self._answer()),
                        ("claims", self._claim_keeper().run()),
                        ("fence-checks", self.fence_checks.run()),
                        ("pace", self._tell_pace(term)),
                        ("fence-status", self.fence_reload.tell(lambda: self.elector.leader)),
                        ("policy-status", self.policy_reload.tell(lambda: self.elector.leader)),
                    )
                ]
                await term.run(settings.identity, epoch, source, runner, begin)
                for task in beside:
                    task.cancel()
        except* LeadershipGivenUpError as errors:
            # The election lets others go first; the one who takes over runs somewhere else.
            log.warning("leadership_given_up", why=str(errors.exceptions[0]))
        except* EngineOverrunError as errors:
            # Giving the Lease back and standing again brings a new engine and a whole picture.
            log.warning("term_starts_over", why=str(errors.exceptions[0]))
        except* Exception as errors:
            raise errors.exceptions[0] from errors
        finally:
            self.watchers.follow()
            self.term = None
            # Its memory may be ahead of the journal: the next term begins from the journal alone.
            self._engine = self._new_engine()
            log.info("not_leading", identity=settings.identity, epoch=epoch)

    async def _tell_pace(self, term: Term) -> None:
        """Tell every replica's webhook how many pods may start, for as long as we lead."""
        if self._doors.pace is None:
            return
        publisher = PacePublisher(
            lambda: self._engine, self._doors.pace, self._clock, changed=term.recorded
        )
        await publisher.run()

    def _label_keys(self) -> frozenset[str]:
        """Return the node labels that policies, fence configurations or limits select by."""
        keys = label_keys(self._policies) | fence_label_keys(self._doors.devices.configs)
        pool = self._settings.engine.budgets.node_pool_label
        return keys | {pool} if pool else keys

    def _vm_label_keys(self) -> frozenset[str]:
        """Return the VM labels that policies select by, or that name a replicated application."""
        apps = self._settings.engine.budgets.replicated_app_labels
        return vm_label_keys(self._policies) | frozenset(apps)

    def _policies_changed(self) -> None:
        self._policies = self.policy_reload.policies
        self.watchers.select_labels(self._label_keys())
        self.watchers.select_vm_labels(self._vm_label_keys())
        if self.term is not None:
            self.term.offer(PoliciesLoaded(policies=self._policies))

    def _surroundings(self) -> Surroundings:
        """Return what policies may name in this cluster, as the leader's engine sees it."""
        inventory = self._engine.context.inventory
        if self.term is None or not inventory.synced:
            return Surroundings()
        migratable = [vmi.live_migratable for vmi in inventory.vmis.values()]
        return Surroundings(
            node_labels=[node.labels for node in inventory.nodes.values()],
            vm_labels=[vm.labels for vm in inventory.vms.values()],
            namespaces=frozenset(namespace for namespace, _ in inventory.vms),
            fence_methods=self._doors.devices.methods(),
            migratable=any(each is not False for each in migratable) if migratable else None,
        )

    def _fence_methods_changed(self) -> None:
        self.watchers.select_labels(self._label_keys())
        if self.term is not None:
            self.term.offer(FenceMethodsLoaded(methods=self._doors.devices.methods()))

    def _make_vantage(self) -> Vantage | None:
        """Make this replica's own prober, whether it leads or not."""
        settings, doors = self._settings, self._doors
        if doors.dial is None or not settings.probes.enabled:
            return None
        return Vantage(
            doors.dial,
            self._targets,
            doors.publisher,
            self._clock,
            rng=self._rng,
            settings=msgspec.structs.replace(
                settings.probes, vantage=settings.probes.vantage or settings.identity
            ),
            origin=self.watchers.origin,
        )

    def _targets(self) -> Iterator[Target]:
        for name in self.watchers.node_names():
            node = self.watchers.node(name)
            if node is not None:
                zone = node.labels.get(ZONE, "")
                yield Target(name, node.internal_ip, node.kubelet_port, zone)

    def _claim_keeper(self) -> ClaimKeeper:
        engine = self._engine
        return ClaimKeeper(
            self._client,
            self._clock,
            wanted=lambda: wanted_claims(engine.state.incidents.values()),
            held=engine.context.inventory.leases.values,
            leads=lambda: self.elector.leader and self._settings.enforce,
        )

    def _fence_targets(self) -> Iterator[tuple[FenceTarget, dict[str, str]]]:
        for name in self.watchers.node_names():
            node = self.watchers.node(name)
            if node is not None:
                yield target_of(node), node.labels

    async def _answer(self) -> None:
        if self.while_leading is not None:
            await self.while_leading()

    async def _power_state(self, node: str) -> PowerReading:
        known = self.watchers.node(node)
        if known is None:
            return PowerReading(
                reading=Reading.UNKNOWN, source="node watch", detail="the node is not known"
            )
        return await self._doors.devices.power_state(target_of(known), known.labels)

    def _fenceable_nodes(self) -> list[str]:
        devices, known = self._doors.devices, self.watchers.node
        return [
            name
            for name in self.watchers.node_names()
            if (node := known(name)) is not None and devices.config_for(name, node.labels)
        ]

    def _new_engine(self) -> Engine:
        settings = self._settings
        return Engine(
            settings.engine,
            self._policies,
            self._doors.devices.methods(),
            enforce=settings.enforce,
            home=settings.probes.node,
        )

    def _overrun(self) -> None:
        self.on_overrun()
