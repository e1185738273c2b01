"""Evictions of launcher pods: refused, and turned into a live migration where the VMI allows it.

virt-api's webhook (kv pod-eviction-admitter.go) and virt-controller's evacuation controller.
"""

from __future__ import annotations

from collections.abc import Callable

from remediator.sim.apiserver import ApiServer, SubresourceCall
from remediator.sim.controllers.conditions import condition_is
from remediator.sim.controllers.environment import Environment
from remediator.sim.controllers.metadata import Obj, controller_of, is_deleting, key_of, phase_of
from remediator.sim.controllers.vmi_state import FINAL_MIGRATION_PHASES, vmi_node
from remediator.sim.controllers.work_queue import Key
from remediator.sim.pod_subresources import evict, is_dry_run
from remediator.sim.problems import Problem, bad_request, too_many_requests
from remediator.sim.resources import (
    PODS,
    VIRTUAL_MACHINE_INSTANCE_MIGRATIONS,
    VIRTUAL_MACHINE_INSTANCES,
)

_WEBHOOK = "virt-launcher-eviction-interceptor.kubevirt.io"

_RETRY_S = 20.0
"""kv: back-off after a failed evacuation, doubling from 20 s; here always the first."""


def serve(server: ApiServer) -> None:
    """Put the webhook before the API server's own eviction; let an evacuation be taken back."""
    server.register_subresource(PODS.kind, "eviction", _evict)
    server.register_subresource(VIRTUAL_MACHINE_INSTANCES.kind, "evacuate/cancel", _cancel)


def _evict(call: SubresourceCall) -> tuple[int, Obj | None]:
    pod = call.store.get(PODS, call.namespace, call.name)
    owner = controller_of(pod, VIRTUAL_MACHINE_INSTANCES.kind)
    vmi = None
    if owner is not None:
        vmi = call.store.find(VIRTUAL_MACHINE_INSTANCES, call.namespace, owner["name"])
    if vmi is None or phase_of(vmi) != "Running" or vmi_node(vmi) != pod["spec"].get("nodeName"):
        return evict(call)
    strategy = vmi["spec"].get("evictionStrategy") or "None"
    migratable = condition_is(vmi, "LiveMigratable", "True")
    if strategy == "None" or (strategy == "LiveMigrateIfPossible" and not migratable):
        return evict(call)
    name = "/".join(key_of(vmi))
    if strategy == "LiveMigrate" and not migratable:
        raise _denied(
            f"VMI {key_of(vmi)[1]} is configured with an eviction strategy but is not "
            "live-migratable"
        )
    if (vmi["status"] or {}).get("evacuationNodeName") == vmi_node(vmi):
        raise _denied(f'Evacuation in progress: Eviction triggered evacuation of VMI "{name}"')
    if not is_dry_run(call):
        node = vmi_node(vmi)
        call.store.mutate(
            VIRTUAL_MACHINE_INSTANCES,
            *key_of(vmi),
            lambda vmi: vmi["status"].update(evacuationNodeName=node),
        )
    raise _denied(f'Eviction triggered evacuation of VMI "{name}"')


def _cancel(call: SubresourceCall) -> tuple[int, Obj | None]:
    """Take an evacuation back (kv evacuate_cancel.go). Raises Problem 400, 404."""
    node = call.body.get("evacuationNodeName")
    if not node:
        raise bad_request("evacuationNodeName is required")
    vmi = call.store.get(VIRTUAL_MACHINE_INSTANCES, call.namespace, call.name)
    if (vmi.get("status") or {}).get("evacuationNodeName") == node:
        call.store.mutate(
            VIRTUAL_MACHINE_INSTANCES,
            *key_of(vmi),
            lambda vmi: vmi["status"].pop("evacuationNodeName", None),
        )
    return 202, None


def _denied(why: str) -> Problem:
    return too_many_requests(f'admission webhook "{_WEBHOOK}" denied the request: {why}')


class EvacuationController:
    """Creates a migration for each VMI that was told to leave its node."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._queue = env.queue("evacuation", self._reconcile)
        self._end: Callable[[], None] | None = None

    def start(self) -> None:
        """Subscribe to VMIs."""
        self._end = self._env.store.subscribe(VIRTUAL_MACHINE_INSTANCES, self._vmi_changed)
        self.forget()

    def forget(self) -> None:
        """Look at every VMI again."""
        for vmi in self._env.store.list(VIRTUAL_MACHINE_INSTANCES):
            self._vmi_changed("ADDED", vmi, None)

    def stop(self) -> None:
        """End the subscription and timers."""
        if self._end is not None:
            self._end()
        self._queue.close()

    def _vmi_changed(self, kind: str, vmi: Obj, _old: Obj | None) -> None:
        if kind != "DELETED" and (vmi.get("status") or {}).get("evacuationNodeName"):
            self._queue.add(key_of(vmi))

    def _reconcile(self, key: Key) -> float | None:
        store = self._env.store
        vmi = store.find(VIRTUAL_MACHINE_INSTANCES, *key)
        if vmi is None or is_deleting(vmi) or phase_of(vmi) != "Running":
            return None
        wanted = vmi["status"].get("evacuationNodeName")
        if wanted != vmi_node(vmi):
            if wanted:
                store.mutate(
                    VIRTUAL_MACHINE_INSTANCES,
                    *key,
                    lambda vmi: vmi["status"].pop("evacuationNodeName", None),
                )
            return None
        active = any(
            migration["spec"]["vmiName"] == key[1]
            and phase_of(migration) not in FINAL_MIGRATION_PHASES
            for migration in store.list(VIRTUAL_MACHINE_INSTANCE_MIGRATIONS, key[0])
        )
        if not active:
            store.create(
                VIRTUAL_MACHINE_INSTANCE_MIGRATIONS,
                {
                    "metadata": {"generateName": "kubevirt-evacuation-", "namespace": key[0]},
                    "spec": {"vmiName": key[1], "priority": "system-critical"},
                },
            )
        return _RETRY_S
