"""Which fence configuration is a node's, which of its levels a plan may use, and whose turn it is.

Levels are tried in order, each as often as it says. A level whose proof the policy would not take
is left out of the plan: it would power a host off and win nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

from remediator.engine.chain import DecisionKind, Plan, PlanLevel, VmPlan
from remediator.engine.context import Context
from remediator.engine.inventory import Inventory
from remediator.engine.model import ProofKind, Subject
from remediator.engine.rules import DiskKind, Policy
from remediator.engine.settings import FenceLevel, FenceMethod

_SHARED = "ReadWriteMany"


def method_for(context: Context, node: str) -> FenceMethod | None:
    """Return the first fence configuration that fits a node, None where there is none."""
    known = context.inventory.nodes.get(node)
    labels = known.labels if known is not None else {}
    for method in context.fence_methods:
        named = any(fnmatchcase(node, pattern) for pattern in method.nodes)
        if named and method.labels.items() <= labels.items():
            return method
    return None


def load(context: Context, methods: tuple[FenceMethod, ...]) -> None:
    """Take other fence configurations, and record what changed; nothing where nothing did.

    Plans that were made keep their levels: each attempt is checked against what is in force then.
    """
    before = {method.name: method for method in context.fence_methods}
    after = {method.name: method for method in methods}
    if tuple(methods) == context.fence_methods:
        return
    said = [
        f"{what}: {', '.join(names)}"
        for what, names in (
            ("new", [name for name in after if name not in before]),
            ("gone", [name for name in before if name not in after]),
            ("changed", [name for name in after if before.get(name, after[name]) != after[name]]),
        )
        if names
    ]
    context.fence_methods = tuple(methods)
    context.record(
        DecisionKind.FENCE_METHODS,
        Subject("daemon", context.identity),
        f"fence configurations in force: {', '.join(after) or 'none'}"
        f" ({'; '.join(said) or 'in another order'})",
    )


def disk_kind(inventory: Inventory, vm: VmPlan) -> DiskKind:
    """Return what the proof of this VM must protect: its most delicate disk.

    A claim that is not known counts as one that only a single node may write.
    """
    if not vm.claims:
        return DiskKind.NONE
    for name in vm.claims:
        claim = inventory.claims.get((vm.vm.namespace, name))
        if claim is None or _SHARED not in claim.access_modes:
            return DiskKind.READ_WRITE_ONCE
    return DiskKind.READ_WRITE_MANY


def required_proof(
    inventory: Inventory, policy: Policy, vms: Iterable[VmPlan]
) -> tuple[ProofKind, ...]:
    """Return the proofs that the policy takes for all of these VMs, strongest first."""
    return taken_proof(policy, {disk_kind(inventory, vm) for vm in vms})


def taken_proof(policy: Policy, kinds: Collection[DiskKind]) -> tuple[ProofKind, ...]:
    """Return the proofs that the policy takes for VMs with these kinds of disk, strongest first."""
    taken = set(policy.required_proof)
    for kind in kinds:
        if kind in policy.required_proof_by_disk:
            taken &= set(policy.required_proof_by_disk[kind])
    if not kinds and policy.required_proof_by_disk:
        for proofs in policy.required_proof_by_disk.values():
            taken &= set(proofs)
    return tuple(kind for kind in ProofKind if kind in taken)


def usable_levels(
    method: FenceMethod | None, required: Iterable[ProofKind]
) -> tuple[PlanLevel, ...]:
    """Return the levels of a method whose proof counts, in order."""
    return levels_that_prove(method.levels if method is not None else (), required)


def levels_that_prove(
    levels: Iterable[FenceLevel], required: Iterable[ProofKind]
) -> tuple[PlanLevel, ...]:
    """Return those of these levels whose proof counts, in order."""
    taken = set(required)
    return tuple(
        PlanLevel(
            index=at,
            name=level.name,
            proof=level.proof.value,
            attempts=level.attempts,
            deadline_s=level.deadline_s,
        )
        for at, level in enumerate(levels)
        if level.proof in taken
    )


def differs(plan: Plan, other: Plan) -> bool:
    """Whether another plan of the same node would fence otherwise."""
    return (plan.fence_method, plan.levels) != (other.fence_method, other.levels)


def attempts(plan: Plan) -> int:
    """Return how often a fence is tried in one round through all levels."""
    return sum(level.attempts for level in plan.levels)


def level_of(plan: Plan, attempt: int) -> PlanLevel:
    """Return whose turn the ``attempt``-th try is, counted from 1; past the end the last level."""
    left = attempt
    for level in plan.levels:
        if left <= level.attempts:
            return level
        left -= level.attempts
    return plan.levels[-1]


def first_of_level(plan: Plan, attempt: int) -> bool:
    """Whether the ``attempt``-th try is its level's first: then there is nothing to wait for."""
    return attempt > 1 and level_of(plan, attempt) != level_of(plan, attempt - 1)
