"""virt-api: the VM subresources start, stop, restart and migrate (kv pkg/virt-api/rest)."""

from __future__ import annotations

from typing import Any

import msgspec

from remediator.sim.apiserver import ApiServer, SubresourceCall
from remediator.sim.controllers.metadata import Obj, key_of, phase_of, uid_of
from remediator.sim.controllers.run_strategy import (
    ALWAYS,
    HALTED,
    ONCE,
    RERUN_ON_FAILURE,
    START,
    STOP,
    requests_of,
    set_strategy,
    strategy_of,
)
from remediator.sim.controllers.vmi_state import is_final
from remediator.sim.problems import Problem, bad_request, conflict
from remediator.sim.resources import (
    VIRTUAL_MACHINE_INSTANCE_MIGRATIONS,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
)

Answer = tuple[int, dict[str, Any] | None]

_ACCEPTED: Answer = (202, None)
_NOT_RUNNING = "VM is not running"

_DEFAULT_GRACE_S = 30
"""kv DefaultGracePeriodSeconds: of a VMI that does not say."""

# kv names the singular in these refusals.
_SINGULAR = msgspec.structs.replace(VIRTUAL_MACHINES, plural="virtualmachine")


def serve(server: ApiServer) -> None:
    """Let the API server answer the VM subresources."""
    for verb, handler in (
        ("start", start),
        ("stop", stop),
        ("restart", restart),
        ("migrate", migrate),
    ):
        server.register_subresource(VIRTUAL_MACHINES.kind, verb, handler)


def start(call: SubresourceCall) -> Answer:
    """Ask for a start. Raises Problem 404, 409."""
    vm, vmi = _vm_and_vmi(call)
    if vmi is not None and not is_final(vmi) and phase_of(vmi) not in ("", "Unknown"):
        raise _conflict(vm, "VM is already running")
    strategy = strategy_of(vm)
    if strategy == HALTED:
        _set_strategy(call, ALWAYS)
        return _ACCEPTED
    if strategy in (ALWAYS, ONCE):
        raise _conflict(vm, f"{strategy} does not support manual start requests")
    if strategy == RERUN_ON_FAILURE and vmi is not None and phase_of(vmi) == "Failed":
        raise _conflict(vm, f"{strategy} does not support starting VM from failed state")
    requests = [{"action": START}]
    if vmi is not None and is_final(vmi):  # Manual, or RerunOnFailure after a clean shutdown
        requests.insert(0, {"action": STOP, "uid": uid_of(vmi)})
    _request(call, vm, requests)
    return _ACCEPTED


def stop(call: SubresourceCall) -> Answer:
    """Ask for a stop; ``gracePeriod`` also shortens the VMI's. Raises Problem 404, 409."""
    vm, vmi = _vm_and_vmi(call)
    strategy = strategy_of(vm)
    asked_s = call.body.get("gracePeriod")
    live = vmi is not None and not is_final(vmi)
    if strategy in (ALWAYS, ONCE):
        if live and asked_s is not None:
            _set_grace(call, int(asked_s))
        _set_strategy(call, HALTED)
        return _ACCEPTED
    if vmi is None or not live:
        raise _conflict(vm, _NOT_RUNNING)
    grace_s = vmi["spec"].get("terminationGracePeriodSeconds")
    if strategy == HALTED and (
        asked_s is None or asked_s >= (_DEFAULT_GRACE_S if grace_s is None else grace_s)
    ):
        raise _conflict(
            vm, f"{strategy} only supports manual stop requests with a shorter graceperiod"
        )
    if asked_s is not None:
        _set_grace(call, int(asked_s))
    _request(call, vm, [{"action": STOP, "uid": uid_of(vmi)}])
    return _ACCEPTED


def restart(call: SubresourceCall) -> Answer:
    """Ask for a stop and a start; a grace of 0 becomes 1 s. Raises Problem 400, 404, 409."""
    asked_s = call.body.get("gracePeriodSeconds")
    if asked_s is not None and asked_s > 0:
        raise bad_request("For force restart, only gracePeriod=0 is supported for now")
    if asked_s is not None and asked_s < 0:
        raise bad_request("gracePeriod has to be greater or equal to 0")
    vm, vmi = _vm_and_vmi(call)
    strategy = strategy_of(vm)
    if strategy in (HALTED, ONCE):
        raise _conflict(vm, f"RunStategy {strategy} does not support manual restart requests")
    if vmi is None:
        raise _conflict(vm, f"VM is not running: {HALTED}")
    if asked_s is not None:
        _set_grace(call, 1)
    _request(call, vm, [{"action": STOP, "uid": uid_of(vmi)}, {"action": START}])
    return _ACCEPTED


def migrate(call: SubresourceCall) -> Answer:
    """Create a migration of the VM's instance. Raises Problem 404, 409 and what admission says."""
    vm, vmi = _vm_and_vmi(call)
    if vmi is None or phase_of(vmi) != "Running":
        raise _conflict(vm, _NOT_RUNNING)
    spec: Obj = {"vmiName": call.name}
    if call.body.get("addedNodeSelector"):
        spec["addedNodeSelector"] = call.body["addedNodeSelector"]
    call.store.create(
        VIRTUAL_MACHINE_INSTANCE_MIGRATIONS,
        {
            "metadata": {"generateName": "kubevirt-migrate-vm-", "namespace": call.namespace},
            "spec": spec,
        },
        user=call.user,
    )
    return _ACCEPTED


def _vm_and_vmi(call: SubresourceCall) -> tuple[Obj, Obj | None]:
    vm = call.store.get(VIRTUAL_MACHINES, call.namespace, call.name)
    return vm, call.store.find(VIRTUAL_MACHINE_INSTANCES, call.namespace, call.name)


def _conflict(vm: Obj, why: str) -> Problem:
    return conflict(_SINGULAR, key_of(vm)[1], why)


def _set_strategy(call: SubresourceCall, strategy: str) -> None:
    call.store.mutate(
        VIRTUAL_MACHINES, call.namespace, call.name, lambda vm: set_strategy(vm, strategy)
    )


def _set_grace(call: SubresourceCall, grace_s: int) -> None:
    def change(vmi: Obj) -> None:
        vmi["spec"]["terminationGracePeriodSeconds"] = grace_s

    call.store.mutate(VIRTUAL_MACHINE_INSTANCES, call.namespace, call.name, change)


def _request(call: SubresourceCall, vm: Obj, requests: list[Obj]) -> None:
    """Write state change requests; only a lone stop may replace those that are pending."""
    lone_stop = len(requests) == 1 and requests[0]["action"] == STOP
    if requests_of(vm) and not lone_stop:
        # kv wraps this into an internal error: the caller must try again later.
        raise Problem(
            500,
            "InternalError",
            "Internal error occurred: unable to complete request: stop/start already underway",
        )

    def change(vm: Obj) -> None:
        status = vm.setdefault("status", {})
        status["stateChangeRequests"] = requests
        status.pop("startFailure", None)

    call.store.mutate(VIRTUAL_MACHINES, call.namespace, call.name, change, subresource="status")
