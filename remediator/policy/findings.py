"""What is odd about policies taken together, or about one in a given cluster: warnings.

None of them keeps a policy from being loaded: each does what it says, which may be nothing at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

import msgspec

from remediator.engine.model import Verdict
from remediator.engine.rules import Policy, SubjectKind
from remediator.engine.settings import FenceMethod
from remediator.policy.conditions import CelCondition
from remediator.typed_tree import Path


class Finding(msgspec.Struct, frozen=True, order=True):
    """One warning: the policy, the key it is about, and what is odd."""

    policy: str
    path: Path
    text: str


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What there is in a cluster that policies name. ``None`` where that is not known."""

    node_labels: Sequence[dict[str, str]] | None = None
    vm_labels: Sequence[dict[str, str]] | None = None
    namespaces: frozenset[str] | None = None  # those that have VMs
    fence_methods: Sequence[FenceMethod] | None = None
    migratable: bool | None = None  # whether any VM can be live-migrated; None: there is no VM


def findings(policies: Sequence[Policy]) -> list[Finding]:
    """Return what is odd about policies that stand in the order in which they are asked."""
    found: list[Finding] = []
    for at, policy in enumerate(policies):
        earlier = policies[:at]
        hidden = list(_hidden(policy, earlier))
        found += hidden
        if not hidden:
            found += _undecided(policy, earlier)
        found += _failing(policy)
    return found


def findings_in(policies: Sequence[Policy], around: Surroundings) -> list[Finding]:
    """Return what about these policies can come to nothing in this cluster, as it is now."""
    return [finding for policy in policies for finding in _in_cluster(policy, around)]


# --- policies among themselves --------------------------------------------------------------------


def _hidden(policy: Policy, earlier: Sequence[Policy]) -> Iterator[Finding]:
    """Yield the verdicts that an earlier policy always answers first."""
    before: dict[Verdict, Policy] = {}
    for verdict in policy.verdicts:
        for other in earlier:
            if _covers(other, policy, verdict):
                before[verdict] = other
                break
    if not before:
        return
    if len(before) == len(set(policy.verdicts)):
        names = " and ".join(dict.fromkeys(other.name for other in before.values()))
        text = f"can never match: {names}, asked before, {_answers(before)} of the same subjects"
        yield Finding(policy.name, ("metadata", "name"), text)
        return
    for verdict, other in before.items():
        text = f"{verdict} is never answered here: {other.name}, asked before, takes all of these"
        at = policy.verdicts.index(verdict)
        yield Finding(policy.name, ("spec", "verdicts", at), text)


def _answers(before: dict[Verdict, Policy]) -> str:
    one = len({other.name for other in before.values()}) == 1
    return f"{'answers' if one else 'answer'} {', '.join(before)}"


def _covers(wider: Policy, policy: Policy, verdict: Verdict) -> bool:
    """Whether ``wider`` matches whenever ``policy`` would, for this verdict."""
    return (
        wider.subject is policy.subject
        and verdict in wider.verdicts
        and wider.labels.items() <= policy.labels.items()
        and _namespaces_cover(wider.namespaces, policy.namespaces)
        and wider.stands_for_s(verdict) <= policy.stands_for_s(verdict)
        and (wider.condition is None or wider.condition == policy.condition)
        and (not wider.windows or wider.windows == policy.windows)
    )


def _namespaces_cover(wider: tuple[str, ...], narrower: tuple[str, ...]) -> bool:
    if not wider:
        return True
    return bool(narrower) and all(
        any(
            pattern == other or (_is_plain(pattern) and fnmatchcase(pattern, other))
            for other in wider
        )
        for pattern in narrower
    )


def _is_plain(pattern: str) -> bool:
    return not set(pattern) & set("*?[")


def _undecided(policy: Policy, earlier: Sequence[Policy]) -> Iterator[Finding]:
    """Yield the earlier policies that come first by nothing but their name."""
    for other in earlier:
        if other.priority != policy.priority or other.subject is not policy.subject:
            continue
        shared = [verdict for verdict in policy.verdicts if verdict in other.verdicts]
        if shared and _may_meet(other, policy) and _does(other) != _does(policy):
            text = (
                f"contradicts {other.name}, which may match the same {shared[0]} and is asked "
                "first only by its name: give one of them another priority"
            )
            yield Finding(policy.name, ("spec", "priority"), text)


def _may_meet(one: Policy, other: Policy) -> bool:
    if any(other.labels.get(key, value) != value for key, value in one.labels.items()):
        return False
    if not one.namespaces or not other.namespaces:
        return True
    return any(
        fnmatchcase(here, there) or fnmatchcase(there, here)
        for here in one.namespaces
        for there in other.namespaces
    )


def _does(policy: Policy) -> tuple[object, ...]:
    return policy.steps, policy.enforce, policy.required_proof, policy.approval is None


def _failing(policy: Policy) -> Iterator[Finding]:
    condition = policy.condition
    if not isinstance(condition, CelCondition):
        return
    why = condition.without_facts()
    if why.startswith("Key not found"):
        text = f"fails where a label is absent ({why}): ask 'KEY' in …labels first, or [?'KEY']"
        yield Finding(policy.name, ("spec", "condition"), f"{text}; a failure is no match")
    elif why:
        yield Finding(policy.name, ("spec", "condition"), f"fails where nothing is known: {why}")


# --- a policy in a cluster ------------------------------------------------------------------------


def _in_cluster(policy: Policy, around: Surroundings) -> Iterator[Finding]:
    about_vms = policy.subject is SubjectKind.VM
    selector = "vmSelector" if about_vms else "nodeSelector"
    labels = around.vm_labels if about_vms else around.node_labels
    if policy.labels and labels is not None:
        fits = any(policy.labels.items() <= one.items() for one in labels)
        if not fits:
            what = "no VM" if about_vms else "no node"
            yield Finding(policy.name, ("spec", selector, "labels"), f"{what} has these labels now")
    if around.namespaces is not None:
        for at, pattern in enumerate(policy.namespaces):
            if not any(fnmatchcase(name, pattern) for name in around.namespaces):
                path: Path = ("spec", "vmSelector", "namespaces", at)
                yield Finding(policy.name, path, f"no namespace {pattern!r} has a VM now")
    if "fence" in policy.steps and around.fence_methods is not None:
        yield from _unfenceable(policy, around.fence_methods)
    if "migrate" in policy.steps and around.migratable is False:
        text = (
            "migrate can never be allowed: KubeVirt calls no VM here live migratable (RWO disks?)"
        )
        yield Finding(policy.name, ("spec", "steps"), text)


def _unfenceable(policy: Policy, methods: Iterable[FenceMethod]) -> Iterator[Finding]:
    fitting = [method for method in methods if _may_fence(method, policy)]
    if not fitting:
        text = "fence can never be allowed: no fence configuration is for any of these nodes"
        yield Finding(policy.name, ("spec", "steps"), text)
        return
    given = {level.proof for method in fitting for level in method.levels}
    if not given & set(policy.required_proof):
        named = ", ".join(sorted(given)) or "none"
        text = f"no fence configuration gives any of these: those that there are give {named}"
        yield Finding(policy.name, ("spec", "requiredProof"), f"fence can never be allowed: {text}")


def _may_fence(method: FenceMethod, policy: Policy) -> bool:
    wanted = policy.node_labels
    return all(wanted.get(key, value) == value for key, value in method.labels.items())
