"""Run strategies: what the VM controller does next, as one function (kv vm.go syncRunStrategy)."""

from __future__ import annotations

import enum

import msgspec

from remediator.sim.controllers.metadata import Obj, is_deleting, phase_of, uid_of
from remediator.sim.controllers.vmi_state import is_final

ALWAYS = "Always"
RERUN_ON_FAILURE = "RerunOnFailure"
MANUAL = "Manual"
HALTED = "Halted"
ONCE = "Once"

START = "Start"
STOP = "Stop"


class Step(enum.Enum):
    """What to do with the VM's instance."""

    NOTHING = "nothing"
    START = "create the VMI, unless the start-failure back-off still runs"
    STOP = "delete the VMI"
    SWITCH_ON = "set the strategy to Always: a halted VM has a start request"


class Choice(msgspec.Struct, frozen=True):
    """The next step; ``rerun`` also leaves a start request for after the deletion."""

    step: Step
    backs_off: bool = False
    rerun: bool = False


_NOTHING = Choice(Step.NOTHING)


def strategy_of(vm: Obj) -> str:
    """Return the VM's run strategy, also from the older ``running`` field."""
    spec = vm["spec"]
    strategy: str = spec.get("runStrategy") or (ALWAYS if spec.get("running") else HALTED)
    return strategy


def set_strategy(vm: Obj, strategy: str) -> None:
    """Set the run strategy of a VM that is being changed."""
    vm["spec"].pop("running", None)
    vm["spec"]["runStrategy"] = strategy


def requests_of(vm: Obj) -> list[Obj]:
    """Return status.stateChangeRequests; only the first counts at any time."""
    return (vm.get("status") or {}).get("stateChangeRequests") or []


def wants_start(vm: Obj) -> bool:
    """Return True when the first request is a start."""
    requests = requests_of(vm)
    return bool(requests) and requests[0]["action"] == START


def wants_stop(vm: Obj, vmi: Obj) -> bool:
    """Return True when the first request is to stop exactly this instance."""
    requests = requests_of(vm)
    return (
        bool(requests) and requests[0]["action"] == STOP and requests[0].get("uid") == uid_of(vmi)
    )


def choose(vm: Obj, vmi: Obj | None) -> Choice:
    """Return the next step of a VM that is not being deleted."""
    chooser = _CHOOSERS.get(strategy_of(vm))
    return _NOTHING if chooser is None else chooser(vm, vmi)


def _always(vm: Obj, vmi: Obj | None) -> Choice:
    if vmi is None:
        return Choice(Step.START, backs_off=True)
    if wants_stop(vm, vmi) or is_final(vmi):
        return Choice(Step.STOP)
    return _NOTHING


def _rerun_on_failure(vm: Obj, vmi: Obj | None) -> Choice:
    if vmi is not None:
        if is_deleting(vmi) or not (wants_stop(vm, vmi) or is_final(vmi)):
            return _NOTHING
        return Choice(Step.STOP, rerun=phase_of(vmi) == "Failed")
    # Started once when it changes to this strategy; afterwards only on request.
    seen = (vm.get("status") or {}).get("runStrategy")
    if wants_start(vm) or seen != RERUN_ON_FAILURE:
        return Choice(Step.START, backs_off=True)
    return _NOTHING


def _manual(vm: Obj, vmi: Obj | None) -> Choice:
    if vmi is not None:
        return Choice(Step.STOP) if wants_stop(vm, vmi) else _NOTHING
    return Choice(Step.START) if wants_start(vm) else _NOTHING


def _halted(vm: Obj, vmi: Obj | None) -> Choice:
    if vmi is not None:
        return Choice(Step.STOP)
    return Choice(Step.SWITCH_ON) if wants_start(vm) else _NOTHING


def _once(_vm: Obj, vmi: Obj | None) -> Choice:
    return Choice(Step.START) if vmi is None else _NOTHING


_CHOOSERS = {
    ALWAYS: _always,
    RERUN_ON_FAILURE: _rerun_on_failure,
    MANUAL: _manual,
    HALTED: _halted,
    ONCE: _once,
}
