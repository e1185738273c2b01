"""All watches together: warm on every replica, speaking only on the leader."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

import msgspec
import structlog

from remediator.bus.protocols import EventPublisher
from remediator.clock import Clock
from remediator.engine.model import FactKind, Facts, VmFacts
from remediator.kube.client import KubeClient
from remediator.kube.discovery import ApiDiscovery, DiscoverySettings
from remediator.kube.metadata import KubeObject
from remediator.kube.objects import (
    LAUNCHER_PODS,
    MEDIK8S_LEASES,
    NODE_LEASES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    VOLUME_ATTACHMENTS,
    Node,
    Resource,
    VirtualMachine,
)
from remediator.kube.reflector import Key, Reflector, ReflectorSettings
from remediator.kube.transport import Transport
from remediator.storage_settings import StorageApiSettings
from remediator.watchers.canary import PERIOD_S, ProgressCanary
from remediator.watchers.customs import All, CustomWatches, Speaker
from remediator.watchers.facts import FactsSink, InstanceSink, NodeClaimSink
from remediator.watchers.guests import GuestWatches
from remediator.watchers.leases import LeaseSink
from remediator.watchers.named_keys import NamedKeys, PodSink, VolumeSink
from remediator.watchers.narrow import (
    attachment_facts,
    claim_facts,
    vm_facts,
)
from remediator.watchers.node_use import NodeUseWatch
from remediator.watchers.nodes import NodeSink
from remediator.watchers.outlet import Outlet
from remediator.watchers.replica_apis import ReplicaPolls, apis_of

log = structlog.get_logger(__name__)

_SLICE = 200  # objects offered per turn of the event loop: about 2 ms
# Offering waits while more than this waits for NATS: a large inventory must not fill the publisher
# (262,144 messages), which would then drop what is newer.
_WAITING_MAX = 10_000
_WAIT_S = 0.02
# Without these a new leader would know nothing: it stands for election once they are listed.
_NEEDED = ("nodes", "leases", "vms", "vmis", "pods")
# And for so long it waits to hear whether somebody else is at work. Of what is not installed one
# discovery tells; what is installed and cannot be listed must not keep everybody from leading.
_GUARD_WAIT_S = 10.0

T = TypeVar("T", bound=KubeObject)
F = TypeVar("F", bound=Facts)


class WatcherSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the watches behave."""

    reflector: ReflectorSettings = ReflectorSettings()
    discovery: DiscoverySettings = DiscoverySettings()
    # Some node renews its lease every few seconds, and the canary every second: a lease watch that
    # is silent for longer is half open, and is opened anew well before anybody's silence matters.
    lease_inactivity_timeout_s: float = 10.0
    canary: bool = True
    canary_period_s: float = PERIOD_S
    storage: StorageApiSettings = StorageApiSettings()


class WatchHealth(msgspec.Struct, frozen=True, kw_only=True):
    """State of one watch. ``last_progress_at`` is 0.0 before its first list."""

    synced: bool
    last_progress_at: float
    absent: bool  # the API does not have this resource (its CRD is not installed)
    objects: int
    forbidden: bool = False  # RBAC does not let us read it
    custom: bool = False  # of a custom resource that need not be there: it concerns nothing else


class _Watch(Protocol):
    """What a reflector and the watch of a custom resource have in common."""

    @property
    def store(self) -> Mapping[Key, Any]:
        """The objects."""
        ...

    @property
    def synced(self) -> bool:
        """The first list was complete."""
        ...

    @property
    def absent(self) -> bool:
        """The API does not have this resource."""
        ...

    @property
    def forbidden(self) -> bool:
        """RBAC does not let us read it."""
        ...

    @property
    def last_progress_at(self) -> float:
        """The moment up to which we provably saw the collection."""
        ...

    async def run(self) -> None:
        """Watch until cancelled."""
        ...


class InventoryWatchers:
    """Reflectors of everything that decisions need, from their first list to events on the bus.

    ``label_keys`` are the node labels that policies select by, ``vm_label_keys`` those of VMs,
    ``conditions`` the node conditions that are told, each with its bad status.

    ``run`` works until cancelled. Nothing is published before ``lead``; from then on everything
    known is offered again, as it is after each ``republish`` (streams in memory do not survive a
    restart of NATS).
    """

    def __init__(
        self,
        transport: Transport,
        publisher: EventPublisher,
        clock: Clock,
        *,
        rng: random.Random,
        identity: str,
        label_keys: frozenset[str] = frozenset(),
        vm_label_keys: frozenset[str] = frozenset(),
        conditions: Mapping[str, str] | None = None,
        settings: WatcherSettings | None = None,
    ) -> None:
        settings = settings or WatcherSettings()
        self._transport = transport
        self._clock = clock
        self._rng = rng
        self._settings = settings
        self._identity = identity
        self._outlet = Outlet(publisher, rng)
        self._canary: ProgressCanary | None = None
        if settings.canary:
            self._canary = ProgressCanary(
                KubeClient(transport), clock, identity, period_s=settings.canary_period_s
            )
        self._leases = LeaseSink(self._outlet, clock, self._canary)
        self._nodes = NodeSink(self._outlet, clock, label_keys, conditions)
        self._offer_again = asyncio.Event()
        self._customs = CustomWatches(
            transport,
            self._outlet,
            clock,
            identity=identity,
            reflector=settings.reflector,
            discovery=settings.discovery,
            on_settled=lambda: self._outlet.synced(FactKind.HANDS_OFF),
        )
        # The order of ``republish``: nodes before what runs on them.
        self._watches: dict[str, tuple[_Watch, Speaker[Any]]] = {}
        nodes = All[Node](self._nodes, *self._customs.node_sinks())
        self._node_store = self._watch("nodes", NODES, nodes)
        self._watch("leases", NODE_LEASES, self._leases)
        self._watch("node-claims", MEDIK8S_LEASES, NodeClaimSink(self._outlet, clock))
        self._vm_label_keys = vm_label_keys
        self._watch("vms", VIRTUAL_MACHINES, self._facts(FactKind.VM, self._vm_facts))
        self._watch("vmis", VIRTUAL_MACHINE_INSTANCES, InstanceSink(self._outlet))
        self._pods, volumes = PodSink(self._outlet), VolumeSink(self._outlet)
        self._pod_store = self._watch("pods", LAUNCHER_PODS, self._pods)
        self._watch("claims", PERSISTENT_VOLUME_CLAIMS, self._facts(FactKind.CLAIM, claim_facts))
        self._watch("volumes", PERSISTENT_VOLUMES, volumes)
        self._keys = NamedKeys(self._name_node_labels, self._name_pod_labels)
        self._pods.keys = volumes.keys = self._keys
        self._nodes.name_labels(self._keys.of_nodes, ())
        self._watch(
            "attachments", VOLUME_ATTACHMENTS, self._facts(FactKind.ATTACHMENT, attachment_facts)
        )
        self._node_use = NodeUseWatch(transport, self._outlet, identity=identity)
        self._replicas = ReplicaPolls(
            apis_of(settings.storage),
            self._outlet,
            clock,
            identity=identity,
            period_s=settings.storage.period_s,
        )
        self._watches.update(self._guests().watches)
        self._watches.update(self._customs.watches)

    @property
    def publishing(self) -> bool:
        """Whether this replica speaks."""
        return self._outlet.is_open

    @property
    def origin(self) -> str:
        """What everything that this replica sends carries (see ``Outlet``)."""
        return self._outlet.origin

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for name, (watch, _) in self._watches.items():
                    tasks.create_task(watch.run(), name=f"watch-{name}")
                tasks.create_task(self._customs.discovery.run(), name="watch-discovery")
                tasks.create_task(self._speak(), name="watch-offers")
                tasks.create_task(self._node_use.run(), name="watch-node-use")
                tasks.create_task(self._replicas.run(), name="watch-replicas")
                if self._canary is not None:
                    tasks.create_task(self._canary.run(), name="watch-canary")
        finally:
            self.follow()

    def lead(self) -> None:
        """Begin to publish: first everything known, then what changes."""
        if self._outlet.is_open:
            return
        self._outlet.is_open = True
        if self._canary is not None:
            self._canary.activate()
        self._node_use.lead()
        self._replicas.lead()
        self.republish()

    def follow(self) -> None:
        """Stop publishing and go on watching."""
        self._outlet.is_open = False
        self._node_use.follow()
        self._replicas.follow()
        if self._canary is not None:
            self._canary.deactivate()
        self._nodes.close()
        self._leases.close()

    def republish(self) -> None:
        """Offer everything known again, and the synced marks of what is complete.

        Beats are offered as found (``first``): whoever begins to listen now does not know their
        age. ``run`` does the work, a slice at a time; nothing happens on a replica that does not
        publish.
        """
        if self._outlet.is_open:
            self._outlet.renew_edition()
            self._offer_again.set()

    @property
    def discovery(self) -> ApiDiscovery:
        """What tells which custom resources there are; runs with the watches."""
        return self._customs.discovery

    def select_labels(self, keys: frozenset[str]) -> None:
        """Tell these labels of Nodes from now on, and of all Nodes once more if they changed."""
        if self._nodes.select_labels(keys):
            self.republish()

    def select_vm_labels(self, keys: frozenset[str]) -> None:
        """Tell these labels of VMs from now on, and of all VMs once more if they changed."""
        if keys != self._vm_label_keys:
            self._vm_label_keys = keys
            self.republish()

    async def listed(self) -> None:
        """Wait until everything that a leader needs was listed, or is known not to exist."""
        while not all(  # noqa: ASYNC110 - five flags of others; asked for once, at the start
            watch.synced or watch.absent for watch, _ in (self._watches[name] for name in _NEEDED)
        ):
            await asyncio.sleep(_WAIT_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GUARD_WAIT_S):
                await self._customs.settled.wait()

    def health(self) -> dict[str, WatchHealth]:
        """Return the state of each watch, by its name."""
        return {
            name: WatchHealth(
                synced=watch.synced,
                last_progress_at=watch.last_progress_at,
                absent=watch.absent,
                objects=len(watch.store),
                forbidden=watch.forbidden,
                custom=name in self._customs.watches,
            )
            for name, (watch, _) in self._watches.items()
        }

    def last_beat(self, node: str) -> tuple[str, float] | None:
        """Return what the lease watch remembers of a node (see ``LeaseSink.last_beat``)."""
        return self._leases.last_beat(node)

    def node(self, name: str) -> Node | None:
        """Return a node as the watch knows it."""
        return self._node_store.get(("", name))

    def node_names(self) -> Iterable[str]:
        """Return the names of all nodes known."""
        return [name for _, name in self._node_store]

    async def _speak(self) -> None:
        """Offer everything again whenever asked; asked in the middle of it, begin anew."""
        while True:
            await self._offer_again.wait()
            self._offer_again.clear()
            settled = self._customs.settled.is_set()  # else it is told when it comes true
            for watch, sink in self._watches.values():
                if not await self._offer(watch, sink):
                    break
            else:
                self._node_use.again()
                self._replicas.again()
                if settled:
                    self._outlet.synced(FactKind.HANDS_OFF)
                log.info(
                    "inventory_offered",
                    objects={name: len(watch.store) for name, (watch, _) in self._watches.items()},
                )

    async def _offer(self, watch: _Watch, sink: Speaker[Any]) -> bool:
        """Offer one watch's objects as they are by then; False where that has become pointless."""
        # Complete before the first slice: what is listed meanwhile is offered as it is seen, and
        # the sink itself tells when the list is complete.
        synced = watch.synced
        for number, key in enumerate(list(watch.store)):
            if number % _SLICE == 0:
                await asyncio.sleep(0)
                while self._outlet.pending > _WAITING_MAX:  # noqa: ASYNC110 - a count, no event
                    await asyncio.sleep(_WAIT_S)
                if self._offer_again.is_set() or not self._outlet.is_open:
                    return False
            obj = watch.store.get(key)
            if obj is not None:
                sink.again(obj)
        if synced:
            sink.synced()
        return True

    def _guests(self) -> GuestWatches:
        return GuestWatches(
            self._transport,
            self._outlet,
            self._clock,
            identity=self._identity,
            reflector=self._settings.reflector,
            pod=lambda namespace, name: self._pod_store.get((namespace, name)),
            node_exists=lambda name: ("", name) in self._node_store,
        )

    def _name_node_labels(self, _more: frozenset[str]) -> None:
        self._nodes.name_labels(self._keys.of_nodes, self._node_store.values())

    def _name_pod_labels(self, _more: frozenset[str]) -> None:
        self._pods.select_labels(self._keys.of_pods, self._pod_store.values())

    def _vm_facts(self, vm: VirtualMachine) -> VmFacts:
        return vm_facts(vm, self._vm_label_keys)

    def _facts(self, kind: FactKind, narrow: Callable[[T], F]) -> FactsSink[T, F]:
        return FactsSink(kind, narrow, self._outlet)

    def _watch(self, name: str, resource: Resource[T], sink: Speaker[T]) -> Mapping[Key, T]:
        settings = self._settings.reflector
        if name == "leases":
            settings = msgspec.structs.replace(
                settings, inactivity_timeout_s=self._settings.lease_inactivity_timeout_s
            )
        reflector = Reflector(
            self._transport, resource, sink, clock=self._clock, rng=self._rng, settings=settings
        )
        self._watches[name] = (reflector, sink)
        return reflector.store
