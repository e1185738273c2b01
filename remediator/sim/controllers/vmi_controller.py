"""virt-controller's VMI controller: launcher pods, phases up to the hand-over, and the end."""

from __future__ import annotations

from collections.abc import Callable

from remediator.sim.controllers import launcher_pod
from remediator.sim.controllers.environment import Environment
from remediator.sim.controllers.metadata import (
    Obj,
    controller_of,
    is_deleting,
    key_of,
    phase_of,
    uid_of,
)
from remediator.sim.controllers.pod_index import PodIndex
from remediator.sim.controllers.pod_state import is_terminal
from remediator.sim.controllers.vmi_state import (
    FINAL_MIGRATION_PHASES,
    UNPROCESSED_PHASES,
    current_pod,
)
from remediator.sim.controllers.vmi_status import update_status
from remediator.sim.controllers.work_queue import Key
from remediator.sim.resources import (
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    VIRTUAL_MACHINE_INSTANCE_MIGRATIONS,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
)

_CLAIM_RETRY_S = 1.0
"""How soon a VMI whose claim is missing is looked at again."""

_MIGRATION_RETRY_S = 0.1
"""How soon a VMI is looked at again whose pod must wait for a migration to end."""


class VmiController:
    """Creates the launcher pod, hands the VMI over to virt-handler, and notices the pod's end."""

    def __init__(self, env: Environment, pods: PodIndex) -> None:
        self._env = env
        self._pods = pods
        self._queue = env.queue("vmi", self._reconcile, latency_s=env.settings.vmi_latency_s)
        self._ends: list[Callable[[], None]] = []

    def start(self) -> None:
        """Subscribe to VMIs and pods."""
        store = self._env.store
        self._ends = [
            store.subscribe(VIRTUAL_MACHINE_INSTANCES, self._vmi_changed),
            store.subscribe(PODS, self._pod_changed),
        ]
        self.forget()

    def forget(self) -> None:
        """Look at every VMI again."""
        for vmi in self._env.store.list(VIRTUAL_MACHINE_INSTANCES):
            self._queue.add(key_of(vmi))

    def stop(self) -> None:
        """End subscriptions and timers."""
        for end in self._ends:
            end()
        self._queue.close()

    def _vmi_changed(self, kind: str, vmi: Obj, _old: Obj | None) -> None:
        if kind != "DELETED":
            self._queue.add(key_of(vmi))

    def _pod_changed(self, _kind: str, pod: Obj, _old: Obj | None) -> None:
        owner = controller_of(pod, VIRTUAL_MACHINE_INSTANCES.kind)
        if owner is not None:
            self._queue.add((key_of(pod)[0], owner["name"]))

    def _reconcile(self, key: Key) -> float | None:
        store = self._env.store
        vmi = store.find(VIRTUAL_MACHINE_INSTANCES, *key)
        if vmi is None:
            return None
        again_s = self._sync_pods(vmi)
        owned = self._pods.owned_by(uid_of(vmi))
        pod = current_pod(vmi, owned)
        owner = controller_of(vmi, VIRTUAL_MACHINES.kind)
        owned_by_vm = owner is not None and (
            store.find(VIRTUAL_MACHINES, key[0], owner["name"]) is not None
        )
        now = self._env.timestamp()
        store.mutate(
            VIRTUAL_MACHINE_INSTANCES,
            *key,
            lambda vmi: update_status(vmi, pod, owned, owned_by_vm=owned_by_vm, now=now),
        )
        return again_s

    def _sync_pods(self, vmi: Obj) -> float | None:
        """Delete or create launcher pods; return when to look again."""
        owned = self._pods.owned_by(uid_of(vmi))
        if is_deleting(vmi):
            for pod in owned:
                # A pod that has ended waits for nobody: deleting it again removes it.
                if not is_deleting(pod) or is_terminal(pod):
                    self._env.store.delete(PODS, *key_of(pod), uid=uid_of(pod))
            return None
        if phase_of(vmi) not in UNPROCESSED_PHASES or current_pod(vmi, owned) is not None:
            return None
        missing = self._missing_claim(vmi)
        if missing is not None:
            self._env.events.warn(
                VIRTUAL_MACHINE_INSTANCES,
                vmi,
                "FailedPvcNotFound",
                f"failed to render launch manifest: pvc {missing} not found",
                component="virtualmachine-controller",
            )
            return _CLAIM_RETRY_S
        if self._migration_is_active(vmi):
            return _MIGRATION_RETRY_S
        self._env.store.create(PODS, launcher_pod.render(vmi, self._env.settings))
        return None

    def _missing_claim(self, vmi: Obj) -> str | None:
        namespace = key_of(vmi)[0]
        for claim in launcher_pod.claims_of(vmi):
            if self._env.store.find(PERSISTENT_VOLUME_CLAIMS, namespace, claim) is None:
                return f"{namespace}/{claim}"
        return None

    def _migration_is_active(self, vmi: Obj) -> bool:
        namespace, name = key_of(vmi)
        migrations = self._env.store.list(VIRTUAL_MACHINE_INSTANCE_MIGRATIONS, namespace)
        return any(
            migration["spec"]["vmiName"] == name
            and phase_of(migration) not in FINAL_MIGRATION_PHASES
            for migration in migrations
        )
