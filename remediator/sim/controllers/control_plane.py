"""All controllers of the simulated cluster, started and stopped together."""

from __future__ import annotations

import random

from remediator.clock import Clock
from remediator.sim.api_faults import ApiFaults
from remediator.sim.apiserver import ApiServer
from remediator.sim.controllers import eviction, virt_api
from remediator.sim.controllers.attach_detach import AttachDetach
from remediator.sim.controllers.environment import Controller, Environment
from remediator.sim.controllers.eviction import EvacuationController
from remediator.sim.controllers.external_attacher import ExternalAttacher
from remediator.sim.controllers.migration_controller import MigrationController
from remediator.sim.controllers.node_lifecycle import NodeLifecycle
from remediator.sim.controllers.node_taints import NodeConditionTaints
from remediator.sim.controllers.owner_gc import OwnerGarbageCollector
from remediator.sim.controllers.pod_gc import PodGarbageCollector
from remediator.sim.controllers.pod_index import PodIndex
from remediator.sim.controllers.scheduler import Scheduler
from remediator.sim.controllers.settings import ControlPlaneSettings
from remediator.sim.controllers.snapshots import SnapshotController
from remediator.sim.controllers.taint_eviction import TaintEviction
from remediator.sim.controllers.virt_admission import VirtAdmission
from remediator.sim.controllers.virt_node_controller import VirtNodeController
from remediator.sim.controllers.vm_controller import VmController
from remediator.sim.controllers.vmi_controller import VmiController
from remediator.sim.controllers.work_queue import ApiGate
from remediator.sim.store import Store
from remediator.sim.troubles import Troubles


class ControlPlane:
    """kube-controller-manager, kube-scheduler, external-attacher and virt-controller in one.

    They work on the store directly, driven by its notifications and by timers of the running event
    loop. Create it inside a running loop. ``clock`` must be the store's clock. While ``faults``
    says that the API server is down for the client "control-plane", nothing here acts.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock,
        rng: random.Random,
        faults: ApiFaults | None = None,
        settings: ControlPlaneSettings | None = None,
        troubles: Troubles | None = None,
    ) -> None:
        settings = settings or ControlPlaneSettings()
        self._gate = ApiGate(faults, renew_deadline_s=settings.leader_renew_deadline_s)
        self._pods = PodIndex(store)
        env = Environment(
            store, clock=clock, rng=rng, gate=self._gate, settings=settings, troubles=troubles
        )
        self._controllers: tuple[Controller, ...] = (
            NodeConditionTaints(env),
            NodeLifecycle(env, self._pods),
            TaintEviction(env, self._pods),
            PodGarbageCollector(env, self._pods),
            OwnerGarbageCollector(env),
            AttachDetach(env),
            ExternalAttacher(env),
            Scheduler(env),
            VmController(env),
            VmiController(env, self._pods),
            VirtNodeController(env, self._pods),
            MigrationController(env, self._pods),
            EvacuationController(env),
            SnapshotController(env),
        )
        self._admission = VirtAdmission(store)
        for controller in self._controllers:
            self._gate.on_restart(controller.forget)

    def start(self) -> None:
        """Begin; whatever is in the store already is taken on."""
        self._gate.start()
        self._admission.start()
        self._pods.start()
        for controller in self._controllers:
            controller.start()

    def serve(self, server: ApiServer) -> None:
        """Let the API server answer KubeVirt's subresources and its eviction webhook."""
        virt_api.serve(server)
        eviction.serve(server)

    def stop(self) -> None:
        """End every subscription and timer. It cannot be started again."""
        for controller in self._controllers:
            controller.stop()
        self._pods.stop()
        self._gate.stop()
