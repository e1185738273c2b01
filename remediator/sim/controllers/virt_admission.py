"""virt-api's webhooks: what nobody but KubeVirt may change, and which migrations are refused."""

from __future__ import annotations

from remediator.sim.controllers.conditions import find_condition
from remediator.sim.controllers.metadata import Obj, add_finalizer, key_of, labels_of, phase_of
from remediator.sim.controllers.vmi_state import (
    FINAL_MIGRATION_PHASES,
    FOREGROUND_FINALIZER,
    MIGRATION_FINALIZER,
    NODE_NAME_LABEL,
    TARGET_NODE_LABEL,
    VMI_NAME_LABEL,
    is_final,
)
from remediator.sim.problems import Problem, invalid
from remediator.sim.resources import (
    NODES,
    VIRTUAL_MACHINE_INSTANCE_MIGRATIONS,
    VIRTUAL_MACHINE_INSTANCES,
)
from remediator.sim.store import AdmissionRequest, Store

_RESERVED_LABELS = (NODE_NAME_LABEL, TARGET_NODE_LABEL)
_CREATE_WEBHOOK = "migration-create-validator.kubevirt.io"


class VirtAdmission:
    """Hooks of one store. KubeVirt's own accounts: controllers here, and each node's handler.

    A virt-handler is known by its client's name, which is its node's.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._handlers: set[str] = set()

    def start(self) -> None:
        """Ask these hooks from now on."""
        self._handlers.update(key_of(node)[1] for node in self._store.list(NODES))
        self._store.subscribe(NODES, lambda _kind, node, _old: self._learn(node))
        self._store.add_admission(self._admit)

    def _learn(self, node: Obj) -> None:
        self._handlers.add(key_of(node)[1])  # it stays when the Node object goes: so does its pod

    def _admit(self, request: AdmissionRequest) -> None:
        if request.res == VIRTUAL_MACHINE_INSTANCES:
            if request.operation == "CREATE":
                add_finalizer(request.obj, FOREGROUND_FINALIZER)
            elif request.operation == "UPDATE":
                self._guard_vmi(request)
        elif request.res == VIRTUAL_MACHINE_INSTANCE_MIGRATIONS and request.operation == "CREATE":
            self._admit_migration(request)

    def _guard_vmi(self, request: AdmissionRequest) -> None:
        """Restore the status, silently; refuse changes of spec and reserved labels (422)."""
        if not request.user or request.user in self._handlers:
            return
        old = request.old
        assert old is not None
        if "status" in old:
            request.obj["status"] = old["status"]
        else:
            request.obj.pop("status", None)
        name = key_of(old)[1]
        if request.obj.get("spec") != old.get("spec"):
            text = "Forbidden: update of VMI object is restricted"
            raise invalid(request.res, name, [("FieldValueForbidden", "spec", text)])
        for label in _RESERVED_LABELS:
            if labels_of(request.obj).get(label) != labels_of(old).get(label):
                text = (
                    "Forbidden: modification of the following reserved kubevirt.io/ labels on a "
                    "VMI object is prohibited"
                )
                raise invalid(request.res, name, [("FieldValueForbidden", "metadata.labels", text)])

    def _admit_migration(self, request: AdmissionRequest) -> None:
        migration = request.obj
        namespace, spec = migration["metadata"].get("namespace", ""), migration.get("spec") or {}
        vmi_name = spec.get("vmiName", "")
        if request.user and spec.get("priority"):
            raise _denied("priority can only be set by KubeVirt's own controllers")
        vmi = self._store.find(VIRTUAL_MACHINE_INSTANCES, namespace, vmi_name)
        if vmi is None:
            raise _denied(f"the VMI {vmi_name} does not exist under the cluster")
        if is_final(vmi):
            raise _denied("Cannot migrate VMI in finalized state.")
        migratable = find_condition(vmi, "LiveMigratable")
        if migratable is not None and migratable["status"] == "False":
            raise _denied(
                f"Cannot migrate VMI, Reason: {migratable.get('reason', '')}, "
                f"Message: {migratable.get('message', '')}"
            )
        for other in self._store.list(VIRTUAL_MACHINE_INSTANCE_MIGRATIONS, namespace):
            if (
                other["spec"].get("vmiName") == vmi_name
                and phase_of(other) not in FINAL_MIGRATION_PHASES
            ):
                raise _denied(
                    "in-flight migration detected. Active migration job "
                    f"({other['metadata']['uid']}) is currently already in progress for VMI "
                    f"{vmi_name}."
                )
        migration["metadata"].setdefault("labels", {})[VMI_NAME_LABEL] = vmi_name
        add_finalizer(migration, MIGRATION_FINALIZER)


def _denied(why: str) -> Problem:
    text = f'admission webhook "{_CREATE_WEBHOOK}" denied the request: {why}'
    return Problem(400, "BadRequest", text)
