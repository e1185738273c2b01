"""virt-controller's VM controller: keeps each VirtualMachine in the state its strategy asks for."""

from __future__ import annotations

from collections.abc import Callable

from remediator.sim.controllers.environment import Environment
from remediator.sim.controllers.metadata import (
    Obj,
    add_finalizer,
    controller_of,
    finalizers_of,
    is_deleting,
    key_of,
    owner_reference,
    remove_finalizer,
    uid_of,
)
from remediator.sim.controllers.run_strategy import (
    ALWAYS,
    START,
    Step,
    choose,
    requests_of,
    set_strategy,
)
from remediator.sim.controllers.vm_status import backoff_left_s, update_status
from remediator.sim.controllers.vmi_state import (
    CONTROLLER_FINALIZER,
    FOREGROUND_FINALIZER,
    is_final,
)
from remediator.sim.controllers.work_queue import Key
from remediator.sim.resources import VIRTUAL_MACHINE_INSTANCES, VIRTUAL_MACHINES


class VmController:
    """Creates and deletes VMIs by run strategy and reports the VM's status."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._queue = env.queue("vm", self._reconcile, latency_s=env.settings.vm_latency_s)
        self._ends: list[Callable[[], None]] = []

    def start(self) -> None:
        """Subscribe to VMs and VMIs."""
        store = self._env.store
        self._ends = [
            store.subscribe(VIRTUAL_MACHINES, self._vm_changed),
            store.subscribe(VIRTUAL_MACHINE_INSTANCES, self._vmi_changed),
        ]
        self.forget()

    def forget(self) -> None:
        """Look at every VM again."""
        for vm in self._env.store.list(VIRTUAL_MACHINES):
            self._queue.add(key_of(vm))

    def stop(self) -> None:
        """End subscriptions and timers."""
        for end in self._ends:
            end()
        self._queue.close()

    def _vm_changed(self, kind: str, vm: Obj, _old: Obj | None) -> None:
        if kind != "DELETED":
            self._queue.add(key_of(vm))

    def _vmi_changed(self, _kind: str, vmi: Obj, _old: Obj | None) -> None:
        owner = controller_of(vmi, VIRTUAL_MACHINES.kind)
        if owner is not None:
            self._queue.add((key_of(vmi)[0], owner["name"]))

    def _reconcile(self, key: Key) -> float | None:
        store = self._env.store
        vm = store.find(VIRTUAL_MACHINES, *key)
        if vm is None:
            return None
        again_s: float | None = None
        if is_deleting(vm):
            if self._delete_instance(vm):
                return None
        else:
            if CONTROLLER_FINALIZER not in finalizers_of(vm):
                vm = store.mutate(
                    VIRTUAL_MACHINES, *key, lambda vm: add_finalizer(vm, CONTROLLER_FINALIZER)
                )
            again_s = self._follow_strategy(vm)
        self._report(key)
        self._release_final_instance(key)
        return again_s

    def _instance_of(self, vm: Obj) -> Obj | None:
        """Return the VM's own VMI; one of the same name that it does not control is not its own."""
        vmi = self._env.store.find(VIRTUAL_MACHINE_INSTANCES, *key_of(vm))
        if vmi is None:
            return None
        owner = controller_of(vmi, VIRTUAL_MACHINES.kind)
        return vmi if owner is not None and owner["uid"] == uid_of(vm) else None

    def _delete_instance(self, vm: Obj) -> bool:
        """Take a deleted VM's instance away first. Return True when the VM is free to go."""
        vmi = self._instance_of(vm)
        if vmi is not None:
            self._stop(vmi)
            return False
        if CONTROLLER_FINALIZER in finalizers_of(vm):
            self._env.store.mutate(
                VIRTUAL_MACHINES,
                *key_of(vm),
                lambda vm: remove_finalizer(vm, CONTROLLER_FINALIZER),
            )
        return True

    def _follow_strategy(self, vm: Obj) -> float | None:
        """Do the next step; return when to look again."""
        vmi = self._instance_of(vm)
        choice = choose(vm, vmi)
        if choice.step is Step.START:
            left_s = backoff_left_s(vm, self._env.now()) if choice.backs_off else 0.0
            if left_s > 0.0:
                return left_s
            self._start(vm)
        elif choice.step is Step.STOP:
            assert vmi is not None
            self._stop(vmi)
            if choice.rerun:
                self._env.store.mutate(
                    VIRTUAL_MACHINES, *key_of(vm), _request_start, subresource="status"
                )
        elif choice.step is Step.SWITCH_ON:
            self._env.store.mutate(
                VIRTUAL_MACHINES, *key_of(vm), lambda vm: set_strategy(vm, ALWAYS)
            )
        return None

    def _start(self, vm: Obj) -> None:
        namespace, name = key_of(vm)
        if self._env.store.find(VIRTUAL_MACHINE_INSTANCES, namespace, name) is not None:
            return  # somebody else's VMI has the name; its end brings us back
        self._env.store.create(VIRTUAL_MACHINE_INSTANCES, instance_of_template(vm))

    def _stop(self, vmi: Obj) -> None:
        if not is_deleting(vmi):
            self._env.store.delete(VIRTUAL_MACHINE_INSTANCES, *key_of(vmi), uid=uid_of(vmi))

    def _report(self, key: Key) -> None:
        vm = self._env.store.find(VIRTUAL_MACHINES, *key)
        if vm is None:
            return
        vmi = self._instance_of(vm)
        env = self._env
        env.store.mutate(
            VIRTUAL_MACHINES,
            *key,
            lambda vm: update_status(
                vm,
                vmi,
                now=env.now(),
                rng=env.rng,
                settings=env.settings,
                snapshots="/".join(key) not in env.troubles.no_snapshots,
            ),
            subresource="status",
        )

    def _release_final_instance(self, key: Key) -> None:
        """Take our finalizer off a VMI that has ended, now that its end is recorded on the VM."""
        vm = self._env.store.find(VIRTUAL_MACHINES, *key)
        vmi = None if vm is None else self._instance_of(vm)
        if vmi is not None and is_final(vmi) and CONTROLLER_FINALIZER in finalizers_of(vmi):
            self._env.store.mutate(
                VIRTUAL_MACHINE_INSTANCES,
                *key,
                lambda vmi: remove_finalizer(vmi, CONTROLLER_FINALIZER),
            )


def instance_of_template(vm: Obj) -> Obj:
    """Return the VMI to create for a VM (kv SetupVMIFromVM)."""
    namespace, name = key_of(vm)
    template = vm["spec"]["template"]
    meta = template.get("metadata") or {}
    return {
        "apiVersion": VIRTUAL_MACHINE_INSTANCES.api_version,
        "kind": VIRTUAL_MACHINE_INSTANCES.kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": dict(meta.get("labels") or {}),
            "annotations": dict(meta.get("annotations") or {}),
            "finalizers": [CONTROLLER_FINALIZER, FOREGROUND_FINALIZER],
            "ownerReferences": [owner_reference(vm, VIRTUAL_MACHINES)],
        },
        "spec": template["spec"],
        "status": {},
    }


def _request_start(vm: Obj) -> None:
    status = vm.setdefault("status", {})
    status["stateChangeRequests"] = [*requests_of(vm), {"action": START}]
