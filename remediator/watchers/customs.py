"""All custom resources that are looked at where they are installed, wired to what they mean."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from remediator.clock import Clock
from remediator.engine.model import FactKind, Plane
from remediator.kube import custom_resources as resources
from remediator.kube.custom_watch import CustomResource, CustomWatch
from remediator.kube.discovery import ApiDiscovery, DiscoverySettings
from remediator.kube.fence_configs import FENCE_CONFIGS
from remediator.kube.machine_api import CLUSTER_API, OPENSHIFT
from remediator.kube.metadata import KubeObject
from remediator.kube.mirror import Sink
from remediator.kube.objects import Node
from remediator.kube.reflector_settings import ReflectorSettings
from remediator.kube.remediation_policies import POLICIES
from remediator.kube.transport import Transport
from remediator.watchers.facts import FactsSink
from remediator.watchers.hands_off import HandsOffBoard
from remediator.watchers.linked import QuietSink
from remediator.watchers.longhorn import (
    LonghornEngineSink,
    LonghornNodeSink,
    LonghornReplicaSink,
    LonghornView,
)
from remediator.watchers.machine_links import MachineLinks
from remediator.watchers.machines import BareMetalHostSink, MachineHealthCheckSink, MachineSink
from remediator.watchers.maintenance import (
    ClusterVersionSink,
    NodeMaintenanceSink,
    NodeMarksSink,
)
from remediator.watchers.narrow import migration_limits
from remediator.watchers.outlet import Outlet
from remediator.watchers.remediations import NodeHealthCheckSink, RemediationSink
from remediator.watchers.replica_sets import LinstorReplicaSetSink, LonghornReplicaSetSink
from remediator.watchers.statements import Statements
from remediator.watchers.storage import CsiAddonsSink, StorageNodeSink, StorageVoices

T = TypeVar("T", bound=KubeObject)
T_contra = TypeVar("T_contra", bound=KubeObject, contravariant=True)


class Speaker(Sink[T_contra], Protocol[T_contra]):
    """A watch's sink that can also offer all it knows once more."""

    def again(self, obj: T_contra) -> None:
        """Offer a known object once more."""
        ...


class All(Generic[T]):
    """Several sinks of one watch, told in their order."""

    def __init__(self, *sinks: Speaker[T]) -> None:
        self._sinks = sinks

    def seen(self, obj: T, old: T | None, *, initial: bool) -> None:
        """Tell each."""
        for sink in self._sinks:
            sink.seen(obj, old, initial=initial)

    def gone(self, obj: T) -> None:
        """Tell each."""
        for sink in self._sinks:
            sink.gone(obj)

    def synced(self) -> None:
        """Tell each."""
        for sink in self._sinks:
            sink.synced()

    def progressed(self, at: float) -> None:
        """Tell each."""
        for sink in self._sinks:
            sink.progressed(at)

    def again(self, obj: T) -> None:
        """Tell each."""
        for sink in self._sinks:
            sink.again(obj)


class CustomWatches:
    """The watches, by name, and the discovery that wakes them.

    Chance is drawn from a source of its own: what is not installed must not change what a seeded
    simulation does. ``on_settled`` is called when the guard ``hands-off`` first knows all it can.
    """

    def __init__(
        self,
        transport: Transport,
        outlet: Outlet,
        clock: Clock,
        *,
        identity: str,
        reflector: ReflectorSettings,
        discovery: DiscoverySettings,
        on_settled: Callable[[], None],
    ) -> None:
        rng = random.Random(f"custom/{identity}")  # noqa: S311 - jitter is no secret
        self.discovery = ApiDiscovery(
            transport,
            # Our own are watched elsewhere (fence_reload, policy_reload), and looked for together.
            [
                (each.group, each.plural)
                for each in (*resources.CUSTOM_RESOURCES, FENCE_CONFIGS, POLICIES)
            ],
            rng=rng,
            settings=discovery,
        )
        self.watches: dict[str, tuple[CustomWatch[Any], Speaker[Any]]] = {}
        self.settled = asyncio.Event()
        self._transport = transport
        self._clock = clock
        self._rng = rng
        self._reflector = reflector
        self._on_settled = on_settled
        self._nodes_synced = False
        self._guarding: list[CustomWatch[Any]] = []  # those that the guard needs
        self._links = MachineLinks()
        self._board = HandsOffBoard(outlet)
        self._watch_machines(Statements(Plane.MACHINE, outlet, clock))
        self._watch_maintenance()
        self._watch_storage(outlet)
        self._watch_kubevirt(outlet)

    def node_sinks(self) -> tuple[QuietSink[Node], ...]:
        """Return who else must hear of Nodes."""
        return (_NodeEnds(self._links, self._hear_nodes), NodeMarksSink(self._board))

    def _hear_nodes(self) -> None:
        self._nodes_synced = True
        self._look_settled()

    def _look_settled(self) -> None:
        if self.settled.is_set() or not self._nodes_synced:
            return
        if all(watch.settled for watch in self._guarding):
            self.settled.set()
            self._on_settled()

    def _watch_machines(self, statements: Statements) -> None:
        links, board = self._links, self._board
        for name, family, machines, checks in (
            (
                "openshift",
                OPENSHIFT,
                resources.OPENSHIFT_MACHINES,
                resources.OPENSHIFT_HEALTH_CHECKS,
            ),
            ("capi", CLUSTER_API, resources.CAPI_MACHINES, resources.CAPI_HEALTH_CHECKS),
        ):
            sink = MachineSink(family, links, statements, board)
            self._watch(
                f"{name}-machines",
                machines,
                sink,
                guards=True,
                on_resource_gone=sink.resource_gone,
            )
            check_sink = MachineHealthCheckSink(family, sink, statements)
            self._watch(f"{name}-machine-health-checks", checks, check_sink, guards=False)
        hosts = BareMetalHostSink(links, statements, board)
        self._watch("bare-metal-hosts", resources.BARE_METAL_HOSTS, hosts, guards=True)
        health = NodeHealthCheckSink(statements, board)
        self._watch("node-health-checks", resources.NODE_HEALTH_CHECKS, health, guards=True)
        for name, kind, resource in (
            ("self-node", "SelfNodeRemediation", resources.SELF_NODE_REMEDIATIONS),
            ("fence-agents", "FenceAgentsRemediation", resources.FENCE_AGENTS_REMEDIATIONS),
            (
                "machine-deletion",
                "MachineDeletionRemediation",
                resources.MACHINE_DELETION_REMEDIATIONS,
            ),
            ("metal3", "Metal3Remediation", resources.METAL3_REMEDIATIONS),
        ):
            remediations = RemediationSink(kind, links, statements, board)
            self._watch(f"{name}-remediations", resource, remediations, guards=True)

    def _watch_maintenance(self) -> None:
        board = self._board
        for name, kind, resource in (
            ("node-maintenances", "NodeMaintenance", resources.NODE_MAINTENANCES),
            (
                "kubevirt-node-maintenances",
                "NodeMaintenance.kubevirt",
                resources.KUBEVIRT_NODE_MAINTENANCES,
            ),
        ):
            self._watch(name, resource, NodeMaintenanceSink(kind, board), guards=True)
        upgrades = ClusterVersionSink(board)
        self._watch("cluster-versions", resources.CLUSTER_VERSIONS, upgrades, guards=True)

    def _watch_kubevirt(self, outlet: Outlet) -> None:
        limits = FactsSink(FactKind.MIGRATION_LIMITS, migration_limits, outlet)
        self._watch("kubevirts", resources.KUBEVIRTS, limits, guards=False)

    def _watch_storage(self, outlet: Outlet) -> None:
        view = LonghornView(StorageVoices("longhorn", outlet, self._clock))
        for name, resource, sink in (
            (
                "longhorn-replicas",
                resources.LONGHORN_REPLICAS,
                All(LonghornReplicaSink(view), LonghornReplicaSetSink(outlet, self._clock)),
            ),
            ("longhorn-engines", resources.LONGHORN_ENGINES, LonghornEngineSink(view)),
            ("longhorn-nodes", resources.LONGHORN_NODES, LonghornNodeSink(view)),
            (
                "linstor-resources",
                resources.LINSTOR_RESOURCES,
                LinstorReplicaSetSink(outlet, self._clock),
            ),
            (
                "portworx-nodes",
                resources.STORAGE_NODES,
                StorageNodeSink(StorageVoices("portworx", outlet, self._clock)),
            ),
            (
                "csi-addons-nodes",
                resources.CSI_ADDONS_NODES,
                CsiAddonsSink(StorageVoices("csi-addons", outlet, self._clock)),
            ),
        ):
            each: CustomResource[Any] = resource
            self._watch(name, each, sink, guards=False)

    def _watch(
        self,
        name: str,
        resource: CustomResource[T],
        sink: Speaker[T],
        *,
        guards: bool,
        on_resource_gone: Callable[[], None] = lambda: None,
    ) -> None:
        watch = CustomWatch(
            self._transport,
            resource,
            sink,
            self.discovery,
            clock=self._clock,
            rng=self._rng,
            settings=self._reflector,
            on_settled=self._look_settled,
            on_resource_gone=on_resource_gone,
        )
        self.watches[name] = (watch, sink)
        if guards:
            self._guarding.append(watch)


class _NodeEnds(QuietSink[Node]):
    """Nodes as the ends of Machines' links."""

    def __init__(self, links: MachineLinks, on_synced: Callable[[], None]) -> None:
        self._links = links
        self._on_synced = on_synced

    def seen(self, obj: Node, old: Node | None, *, initial: bool) -> None:
        """Link it."""
        del old, initial
        self._links.node_seen(obj)

    def leave(self, obj: Node) -> None:
        """Unlink it."""
        self._links.node_gone(obj)

    def synced(self) -> None:
        """Note that all Nodes are known."""
        self._on_synced()

    def again(self, obj: Node) -> None:
        """Nothing of its own to offer."""
