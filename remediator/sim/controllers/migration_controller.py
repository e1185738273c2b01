"""virt-controller's migration controller: live migrations from request to end.

The copying is done by virt-handlers; this controller places the target pod, hands over, and reads
the result from ``VMI.status.migrationState`` (kv watch/migration/migration.go).
"""

from __future__ import annotations

from collections.abc import Callable

from remediator.sim.controllers import launcher_pod
from remediator.sim.controllers.conditions import find_condition
from remediator.sim.controllers.environment import Environment
from remediator.sim.controllers.metadata import (
    Obj,
    controller_of,
    finalizers_of,
    is_deleting,
    key_of,
    labels_of,
    owner_reference,
    phase_of,
    remove_finalizer,
    uid_of,
)
from remediator.sim.controllers.migration_phases import (
    HANDED_OFF_PHASES,
    failure,
    migration_state,
    next_phase,
)
from remediator.sim.controllers.pod_index import PodIndex
from remediator.sim.controllers.pod_state import (
    is_down_or_going_down,
    is_ready_for_handover,
    node_name,
)
from remediator.sim.controllers.vmi_state import (
    FINAL_MIGRATION_PHASES,
    MIGRATION_FINALIZER,
    MIGRATION_JOB_LABEL,
    TARGET_NODE_LABEL,
    current_pod,
    vmi_node,
)
from remediator.sim.controllers.work_queue import Key
from remediator.sim.resources import (
    PODS,
    VIRTUAL_MACHINE_INSTANCE_MIGRATIONS,
    VIRTUAL_MACHINE_INSTANCES,
)
from remediator.sim.timestamps import parse_rfc3339

_SLOT_RETRY_S = 5.0
"""kv: a migration that must wait for a free slot is looked at again after 5 s."""


class MigrationController:
    """Drives VirtualMachineInstanceMigrations."""

    def __init__(self, env: Environment, pods: PodIndex) -> None:
        self._env = env
        self._pods = pods
        self._queue = env.queue(
            "migration", self._reconcile, latency_s=env.settings.migration_latency_s
        )
        self._ends: list[Callable[[], None]] = []
        self._active: dict[Key, dict[Key, None]] = {}  # migrations that have not ended, by VMI

    def start(self) -> None:
        """Subscribe to migrations, VMIs and pods."""
        store = self._env.store
        self._ends = [
            store.subscribe(VIRTUAL_MACHINE_INSTANCE_MIGRATIONS, self._migration_changed),
            store.subscribe(VIRTUAL_MACHINE_INSTANCES, self._vmi_changed),
            store.subscribe(PODS, self._pod_changed),
        ]
        for migration in store.list(VIRTUAL_MACHINE_INSTANCE_MIGRATIONS):
            self._migration_changed("ADDED", migration, None)

    def forget(self) -> None:
        """Look at every migration again."""
        for migration in self._env.store.list(VIRTUAL_MACHINE_INSTANCE_MIGRATIONS):
            self._queue.add(key_of(migration))

    def stop(self) -> None:
        """End subscriptions and timers."""
        for end in self._ends:
            end()
        self._queue.close()

    def _migration_changed(self, kind: str, migration: Obj, _old: Obj | None) -> None:
        key = key_of(migration)
        vmi = (key[0], migration["spec"]["vmiName"])
        if kind == "DELETED" or phase_of(migration) in FINAL_MIGRATION_PHASES:
            self._active.get(vmi, {}).pop(key, None)
            if not self._active.get(vmi):
                self._active.pop(vmi, None)
        else:
            self._active.setdefault(vmi, {})[key] = None
        if kind != "DELETED":
            self._queue.add(key)

    def _vmi_changed(self, _kind: str, vmi: Obj, _old: Obj | None) -> None:
        for key in self._active.get(key_of(vmi), ()):
            self._queue.add(key)

    def _pod_changed(self, _kind: str, pod: Obj, _old: Obj | None) -> None:
        owner = controller_of(pod, VIRTUAL_MACHINE_INSTANCES.kind)
        if owner is not None and MIGRATION_JOB_LABEL in labels_of(pod):
            for key in self._active.get((key_of(pod)[0], owner["name"]), ()):
                self._queue.add(key)

    def _reconcile(self, key: Key) -> float | None:
        store = self._env.store
        migration = store.find(VIRTUAL_MACHINE_INSTANCE_MIGRATIONS, *key)
        if migration is None:
            return None
        vmi = store.find(VIRTUAL_MACHINE_INSTANCES, key[0], migration["spec"]["vmiName"])
        target = self._target_pod(migration, vmi)
        if phase_of(migration) in FINAL_MIGRATION_PHASES:
            self._clean_up(migration, vmi, target)
            return None
        why = failure(migration, vmi, target)
        if why is not None:
            self._set_phase(migration, vmi, "Failed", why)
            return None
        assert vmi is not None
        self._own(migration, vmi)
        again_s = self._act(migration, vmi, target)
        self._advance(key)
        return again_s

    def _target_pod(self, migration: Obj, vmi: Obj | None) -> Obj | None:
        if vmi is None:
            return None
        uid = uid_of(migration)
        for pod in self._pods.owned_by(uid_of(vmi)):
            if labels_of(pod).get(MIGRATION_JOB_LABEL) == uid:
                return pod
        return None

    def _act(self, migration: Obj, vmi: Obj, target: Obj | None) -> float | None:
        """Do what the present phase asks for; return when to look again."""
        phase = phase_of(migration)
        if phase in HANDED_OFF_PHASES:
            if is_deleting(migration):
                self._request_abort(vmi)
            return None
        if phase == "Pending" and target is None:
            return self._create_target(migration, vmi)
        if phase == "Scheduled" and target is not None and is_ready_for_handover(target):
            self._hand_off(migration, vmi, target)
        if target is not None and not is_ready_for_handover(target):
            return self._limit_pending(target)
        return None

    def _create_target(self, migration: Obj, vmi: Obj) -> float | None:
        source = current_pod(vmi, self._pods.owned_by(uid_of(vmi)))
        if source is None:
            return None
        if not self._slot_is_free(vmi):
            return _SLOT_RETRY_S
        pod = launcher_pod.render_migration_target(vmi, migration, source, self._env.settings)
        self._env.store.create(PODS, pod)
        return None

    def _slot_is_free(self, vmi: Obj) -> bool:
        settings = self._env.settings
        in_cluster = outbound = 0
        for namespace, name in self._active:
            for key in self._active[namespace, name]:
                other = self._env.store.find(VIRTUAL_MACHINE_INSTANCE_MIGRATIONS, *key)
                if other is None or phase_of(other) in ("", "Pending"):
                    continue
                in_cluster += 1
                moving = self._env.store.find(VIRTUAL_MACHINE_INSTANCES, namespace, name)
                if moving is not None and vmi_node(moving) == vmi_node(vmi):
                    outbound += 1
        return (
            in_cluster < settings.parallel_migrations_per_cluster
            and outbound < settings.parallel_outbound_per_node
        )

    def _limit_pending(self, target: Obj) -> float | None:
        """Delete a target pod that has been pending for too long; return when it will have."""
        if is_down_or_going_down(target):
            return None
        settings = self._env.settings
        scheduled = find_condition(target, "PodScheduled") or {}
        limit_s = settings.target_pending_timeout_s
        if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
            limit_s = settings.target_unschedulable_timeout_s
        age_s = self._env.now() - parse_rfc3339(target["metadata"]["creationTimestamp"])
        if age_s < limit_s:
            return limit_s - age_s
        self._env.store.delete(PODS, *key_of(target), uid=uid_of(target))
        return None

    def _hand_off(self, migration: Obj, vmi: Obj, target: Obj) -> None:
        """Tell both virt-handlers about the migration: state and label on the VMI."""
        if migration_state(vmi).get("migrationUid") == uid_of(migration):
            return
        source = current_pod(vmi, self._pods.owned_by(uid_of(vmi)))
        state = {
            "migrationUid": uid_of(migration),
            "sourceNode": vmi_node(vmi),
            "targetNode": node_name(target),
            "targetPod": key_of(target)[1],
        }
        if source is not None:
            state["sourcePod"] = key_of(source)[1]

        def change(vmi: Obj) -> None:
            vmi["status"]["migrationState"] = state
            vmi["metadata"].setdefault("labels", {})[TARGET_NODE_LABEL] = node_name(target)

        self._env.store.mutate(VIRTUAL_MACHINE_INSTANCES, *key_of(vmi), change)

    def _request_abort(self, vmi: Obj) -> None:
        def change(vmi: Obj) -> None:
            vmi["status"]["migrationState"]["abortRequested"] = True

        self._env.store.mutate(VIRTUAL_MACHINE_INSTANCES, *key_of(vmi), change)

    def _advance(self, key: Key) -> None:
        """Go on to the next phase when what was just done, or a handler, has reached it."""
        migration = self._env.store.find(VIRTUAL_MACHINE_INSTANCE_MIGRATIONS, *key)
        if migration is None:
            return
        vmi = self._env.store.find(VIRTUAL_MACHINE_INSTANCES, key[0], migration["spec"]["vmiName"])
        if vmi is None:
            return
        phase = next_phase(migration, vmi, self._target_pod(migration, vmi))
        if phase is not None:
            self._set_phase(migration, vmi, phase, "")

    def _set_phase(self, migration: Obj, vmi: Obj | None, phase: str, why: str) -> None:
        now = self._env.timestamp()
        state = {} if vmi is None else migration_state(vmi)

        def change(migration: Obj) -> None:
            status = migration.setdefault("status", {})
            status["phase"] = phase
            stamps = status.setdefault("phaseTransitionTimestamps", [])
            stamps.append({"phase": phase, "phaseTransitionTimestamp": now})
            if phase in FINAL_MIGRATION_PHASES and state.get("migrationUid") == uid_of(migration):
                status["migrationState"] = dict(state)

        self._env.store.mutate(
            VIRTUAL_MACHINE_INSTANCE_MIGRATIONS, *key_of(migration), change, subresource="status"
        )
        if why:
            self._env.events.warn(
                VIRTUAL_MACHINE_INSTANCE_MIGRATIONS,
                migration,
                "FailedMigration",
                f"Migration failed: {why}",
                component="virtualmachine-migration-controller",
            )

    def _own(self, migration: Obj, vmi: Obj) -> None:
        """Let the migration go with its VMI."""
        if migration["metadata"].get("ownerReferences"):
            return
        reference = owner_reference(vmi, VIRTUAL_MACHINE_INSTANCES)
        self._env.store.mutate(
            VIRTUAL_MACHINE_INSTANCE_MIGRATIONS,
            *key_of(migration),
            lambda obj: obj["metadata"].update(ownerReferences=[reference]),
        )

    def _clean_up(self, migration: Obj, vmi: Obj | None, target: Obj | None) -> None:
        """After the end: a failed one leaves no target behind and is marked on the VMI."""
        failed = phase_of(migration) == "Failed"
        if failed and target is not None and not is_down_or_going_down(target):
            self._env.store.delete(PODS, *key_of(target), uid=uid_of(target))
        if failed and vmi is not None:
            self._mark_failed(migration, vmi)
        if MIGRATION_FINALIZER in finalizers_of(migration):
            self._env.store.mutate(
                VIRTUAL_MACHINE_INSTANCE_MIGRATIONS,
                *key_of(migration),
                lambda obj: remove_finalizer(obj, MIGRATION_FINALIZER),
            )

    def _mark_failed(self, migration: Obj, vmi: Obj) -> None:
        state = migration_state(vmi)
        if state.get("migrationUid") != uid_of(migration) or state.get("completed"):
            return
        now = self._env.timestamp()

        def change(vmi: Obj) -> None:
            vmi["status"]["migrationState"].update(
                failed=True,
                completed=True,
                endTimestamp=now,
                failureReason="Target pod is down",
            )
            vmi["metadata"].get("labels", {}).pop(TARGET_NODE_LABEL, None)

        self._env.store.mutate(VIRTUAL_MACHINE_INSTANCES, *key_of(vmi), change)
