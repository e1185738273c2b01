"""What the owners of VMs say about restarts: how important, after whom, and when one is ready.

``remediator.io/restart-priority`` (label or annotation): a name of ``tiers.TIERS`` or a whole
number. ``remediator.io/start-after`` (annotation): names of VMs, as NAME or NAMESPACE/NAME, with
commas between. ``remediator.io/ready-when`` (annotation): ``up``, ``running``, ``agent`` or
``ready``, or for how long it must have run ("90s", "5m"). What cannot be read counts as not said.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from remediator.engine.boots import expects_agent
from remediator.engine.context import Context
from remediator.engine.inventory import Inventory
from remediator.engine.model import RunStrategy, Subject, VmFacts, vm_subject
from remediator.engine.readiness import READY_WORDS, delay_s
from remediator.engine.start_order import loops
from remediator.engine.tiers import parse_tier, tier_of_priority

PRIORITY = "remediator.io/restart-priority"
AFTER = "remediator.io/start-after"
READY_WHEN = "remediator.io/ready-when"

NO_TIERS: Mapping[str, str] = {}
_AFTER_MAX = 32  # names that are read of one annotation

_STOPPED_ON_PURPOSE = frozenset(
    {RunStrategy.HALTED, RunStrategy.MANUAL, RunStrategy.ONCE, RunStrategy.WAIT_AS_RECEIVER}
)


def tier_of(inventory: Inventory, vm: Subject, by_namespace: Mapping[str, str] = NO_TIERS) -> int:
    """Return a VM's tier: what its owner says, its pod's PriorityClass, or its namespace."""
    facts = inventory.vm(vm)
    if facts is not None:
        for marks in (facts.labels, facts.annotations):
            tier = parse_tier(marks.get(PRIORITY, ""))
            if tier is not None:
                return tier
    pod = inventory.rooms.last.get((vm.namespace, vm.name))
    if pod is not None and pod.priority:
        return tier_of_priority(pod.priority)
    for pattern, word in by_namespace.items():
        if fnmatchcase(vm.namespace, pattern):
            return parse_tier(word) or 0
    return 0


def after_of(facts: VmFacts | None) -> tuple[Subject, ...]:
    """Return the VMs that must be ready before this one starts."""
    if facts is None or AFTER not in facts.annotations:
        return ()
    found: dict[Subject, None] = {}
    for word in facts.annotations[AFTER].split(",")[:_AFTER_MAX]:
        namespace, _, name = word.strip().rpartition("/")
        if name:
            found[vm_subject(namespace or facts.namespace, name)] = None
    return tuple(found)


def loop_of(inventory: Inventory, facts: VmFacts) -> tuple[Subject, ...]:
    """Return the loop that a VM's dependencies lead into, as its path; empty where there is none.

    Dependencies on VMs that do not exist lead nowhere.
    """
    reached: dict[Subject, tuple[Subject, ...]] = {}
    todo = [vm_subject(facts.namespace, facts.name)]
    while todo:
        vm = todo.pop()
        if vm not in reached:
            reached[vm] = after_of(inventory.vm(vm))
            todo += reached[vm]
    found = loops(reached)
    return found[0] if found else ()


def is_ready(context: Context, vm: Subject, running_at: float) -> bool:
    """Whether those that wait for this VM may start. ``running_at``: since when it runs; 0: no."""
    vmi, facts = context.inventory.vmi(vm), context.inventory.vm(vm)
    if vmi is None or vmi.phase != "Running":
        return False
    pacing = context.settings.pacing
    word = (facts.annotations.get(READY_WHEN, "") if facts is not None else "").strip()
    if word not in READY_WORDS and delay_s(word) is None:
        word = pacing.ready_when
    if word == "running":
        return True
    if word == "agent":
        return vmi.agent_connected
    if word == "ready":
        return vmi.ready
    after_s = delay_s(word)
    if after_s is None:  # up
        if vmi.agent_connected or expects_agent(context, vm):
            return vmi.agent_connected
        after_s = pacing.settle_s
    if not running_at or context.now < running_at + after_s:
        # Where it is not known since when it runs, "0s" must not ask for this very moment.
        context.wake_at(running_at + after_s if running_at else context.now + max(1.0, after_s))
        return False
    return True


def why_unready(context: Context, vm: Subject) -> str:
    """Say why a VM that neither waits nor boots is not ready; "" where nobody need wait for it.

    One that does not exist, or that its owner has stopped, is waited for by nobody.
    """
    inventory = context.inventory
    facts, vmi = inventory.vm(vm), inventory.vmi(vm)
    if facts is None or facts.deleting:
        return ""
    if vmi is None:
        stopped = facts.run_strategy in _STOPPED_ON_PURPOSE or facts.status == "Stopped"
        return "" if stopped else "does not run"
    if vmi.node and context.state.incident_on(f"node/{vmi.node}") is not None:
        return f"is on {vmi.node}, which is in trouble"
    return "" if vmi.phase == "Running" else f"is {vmi.phase or 'not'} yet"
