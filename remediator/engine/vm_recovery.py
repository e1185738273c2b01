"""Whether a VM about which something was done is well again, or its owner wants no more of it.

Evidence alone says so. A stop that we have asked for looks much like one of its owner: the requests
that KubeVirt keeps on the VirtualMachine tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable

from remediator.engine.context import Context
from remediator.engine.incidents import VmIncident
from remediator.engine.model import Record, RunStrategy, VmFacts, VmiFacts
from remediator.engine.vm_values import FINAL_PHASES
from remediator.engine.vm_verdicts import VmRow, VmValues

# Nothing must speak against a new run for so long, where no guest agent answers.
SETTLE_S = 30.0
# VM, VMI and pods are watched apart: for so long they may contradict each other.
_TOGETHER_S = 10.0

_UNWANTED = frozenset({RunStrategy.HALTED, RunStrategy.WAIT_AS_RECEIVER})
# Strategies whose VM stays stopped unless somebody asks for its start.
_BY_REQUEST = frozenset({RunStrategy.RERUN_ON_FAILURE, RunStrategy.MANUAL})


class Look(Record, frozen=True, kw_only=True):
    """What is seen of a VM now. Durations are seconds of proven watching."""

    values: VmValues
    rows: tuple[VmRow, ...]  # of the verdict table, that fit now
    clear_s: float  # for how long none has fitted
    proven_s: float
    since: Callable[[float], float]  # for how long something stood that began at a proven time
    settle_s: float  # for how long none must have fitted, where the same run goes on
    patience: int  # every limit is so many times as long


def looks_well(context: Context, incident: VmIncident, look: Look) -> bool:
    """Whether nothing speaks against it now, be it for a moment only."""
    vmi = context.inventory.vmi(incident.subject)
    runs = look.values.phase == "running" and look.values.paused == "no"
    return not look.rows and runs and vmi is not None and vmi.ready


def why_over(context: Context, incident: VmIncident, look: Look, *, late: bool) -> str:
    """Return why an incident about which something was done is over, or "".

    ``late``: the last step has had its time.
    """
    inventory, subject = context.inventory, incident.subject
    vm, vmi = inventory.vm(subject), inventory.vmi(subject)
    if vm is None and vmi is None:
        return "the VM is gone"
    if _is_stopped(vm, vmi) and look.clear_s >= _TOGETHER_S:
        return "its owner has stopped or deleted it meanwhile"
    if vmi is None or not looks_well(context, incident, look):
        return ""
    if vmi.uid == incident.run_uid:
        settled = look.clear_s >= look.settle_s
        return f"nothing has spoken against it for {look.clear_s:.0f} s" if settled else ""
    if vmi.agent_connected:
        return f"up again on {vmi.node}: its guest agent answers"
    if look.clear_s < SETTLE_S * look.patience:
        return ""
    if not incident.agent:
        return f"up again on {vmi.node}: running for {look.clear_s:.0f} s"
    return f"it runs anew on {vmi.node}; its guest agent was not heard since" if late else ""


def _is_stopped(vm: VmFacts | None, vmi: VmiFacts | None) -> bool:
    """Whether its owner wants no more of it: not merely that it is down, on our account."""
    if vm is None:
        return False  # a VMI that no VirtualMachine owns: it goes on while it is there
    if vm.deleting or vm.run_strategy in _UNWANTED:
        return True
    if vm.run_strategy not in _BY_REQUEST or "Start" in vm.requests:
        return False
    if vmi is None or vmi.deleting:
        return True
    # A failure of RerunOnFailure gets its start request in a moment.
    failed = vmi.phase == "Failed" and vm.run_strategy is RunStrategy.RERUN_ON_FAILURE
    return vmi.phase in FINAL_PHASES and not failed
