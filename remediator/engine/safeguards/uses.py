"""Who is being disrupted now, and what was lately: what the limits count.

All of it is read off the engine's memory, and where things are off the inventory, so that a new
leader counts the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from remediator.engine.context import Context
from remediator.engine.disruptions import OF_NODES, OF_VMS, Disruption
from remediator.engine.guard_answers import named
from remediator.engine.model import IncidentState, Record, Subject

HOUR_S = 3600.0

# An incident in one of these disrupts its node.
DISRUPTING = frozenset(
    {
        IncidentState.FENCING,
        IncidentState.FENCED,
        IncidentState.RECOVERING,
        IncidentState.EVACUATING,
    }
)


class Use(Record, frozen=True, kw_only=True):
    """One limit: what is used of it, by whom, and when there is room again."""

    scope: str  # "cluster", "zone/Z", "pool/P", "namespace/NS", "storage-class/SC", a subject
    used: int
    limit: int
    who: tuple[str, ...] = ()  # the first of them
    until: float | None = None  # there is room again then; None: when something ends

    @property
    def spent(self) -> bool:
        """Whether nothing is left of it."""
        return self.used >= self.limit


class Disrupted(Record, frozen=True, kw_only=True):
    """A node or VM that is being disrupted now."""

    subject: Subject
    policy: str
    scopes: frozenset[str]


def scopes_of(context: Context, subject: Subject, node: str = "") -> frozenset[str]:
    """Return the scopes that a limit on things at once may have, and this subject lies in."""
    inventory = context.inventory
    found = {"cluster"}
    host = inventory.nodes.get(node or (subject.name if subject.kind == "node" else ""))
    if host is not None and host.zone:
        found.add(f"zone/{host.zone}")
    pool = host.labels.get(context.settings.budgets.node_pool_label) if host is not None else None
    if pool:
        found.add(f"pool/{pool}")
    if subject.kind == "vm":
        found.add(f"namespace/{subject.namespace}")
        vmi = inventory.vmi(subject)
        for name in vmi.claims if vmi is not None else ():
            claim = inventory.claims.get((subject.namespace, name))
            if claim is not None and claim.storage_class:
                found.add(f"storage-class/{claim.storage_class}")
    return frozenset(found)


def nodes_now(context: Context) -> list[Disrupted]:
    """Return the nodes that are being fenced, recovered or emptied."""
    return [
        Disrupted(
            subject=incident.subject,
            policy=incident.plan.policy if incident.plan is not None else "",
            scopes=scopes_of(context, incident.subject),
        )
        for incident in context.state.incidents.values()
        if incident.state in DISRUPTING
    ]


def vms_now(context: Context) -> list[Disrupted]:
    """Return the living VMs that are being restarted, stopped or moved by us.

    A VM is disrupted from its action on until that is seen to have helped, or to have failed; one
    that is moved, until it has arrived.
    """
    found: dict[Subject, str] = {}
    for action in context.state.pending.values():
        if action.subject.kind == "vm" and _tag(action.work) in OF_VMS:
            found[action.subject] = _policy_of(context, action.incident)
    for incident in context.state.vm_incidents.values():
        if incident.awaiting and incident.plan is not None:
            found.setdefault(incident.subject, incident.plan.policy)
    hour_ago = context.now - HOUR_S
    for each in reversed(context.state.disruptions):
        if each.at < hour_ago:
            break
        if each.what == "migrate":
            kind, namespace, name = each.subject.split("/")
            if context.inventory.migrations_of((namespace, name)):
                found.setdefault(Subject(kind, name, namespace), each.policy)
    return [
        Disrupted(subject=vm, policy=policy, scopes=scopes_of(context, vm, _host(context, vm)))
        for vm, policy in found.items()
    ]


def at_once(
    now: Iterable[Disrupted], limits: dict[str, int | None], mine: frozenset[str], me: Subject
) -> Iterator[Use]:
    """Yield the limits on things at once, by kind of scope, that bind in these scopes."""
    others = [each for each in now if each.subject != me]
    for scope in sorted(mine, key=lambda name: (name != "cluster", name)):
        limit = limits.get(scope.partition("/")[0])
        if limit is not None:
            who = [str(each.subject) for each in others if scope in each.scopes]
            yield Use(scope=scope, used=len(who), limit=limit, who=named(who))


def node_limits(context: Context) -> dict[str, int | None]:
    """Return the limits on nodes at once, by kind of scope."""
    limits = context.settings.budgets.nodes
    return {
        "cluster": limits.at_once,
        "zone": limits.at_once_zone,
        "pool": limits.at_once_pool,
    }


def vm_limits(context: Context) -> dict[str, int | None]:
    """Return the limits on VMs at once, by kind of scope."""
    limits = context.settings.budgets.vms
    return {
        "cluster": limits.at_once,
        "zone": limits.at_once_zone,
        "pool": limits.at_once_pool,
        "namespace": limits.at_once_namespace,
        "storage-class": limits.at_once_storage_class,
    }


def lately(
    context: Context,
    kinds: frozenset[str],
    *,
    subject: str = "",
    policy: str = "",
    within_s: float = HOUR_S,
    but: str = "",
) -> list[Disruption]:
    """Return the disruptions within the window, oldest first; ``but`` leaves one incident out."""
    return [
        each
        for each in context.state.disruptions
        if each.at + within_s > context.now  # as in per_time: rounding must not tell them apart
        and each.what in kinds
        and subject in ("", each.subject)
        and policy in ("", each.policy)
        and not (but and each.incident == but)
    ]


def per_time(scope: str, found: list[Disruption], limit: int, *, within_s: float = HOUR_S) -> Use:
    """Return the use of a limit per time."""
    until = None
    if len(found) >= limit > 0:
        until = found[-limit].at + within_s  # then fewer than the limit are left in the window
    who = named({each.subject for each in found})
    return Use(scope=scope, used=len(found), limit=limit, who=who, until=until)


def hourly(
    context: Context, kinds: frozenset[str], subject: Subject, *, but: str = ""
) -> Iterator[Use]:
    """Yield the limits per hour: of the cluster, and of this subject."""
    budgets = context.settings.budgets
    limits = budgets.nodes if kinds is OF_NODES else budgets.vms
    if limits.per_hour is not None:
        yield per_time("cluster", lately(context, kinds, but=but), limits.per_hour)
    if limits.per_subject_per_hour is not None:
        name = str(subject)
        found = lately(context, kinds, subject=name, but=but)
        yield per_time(name, found, limits.per_subject_per_hour)


def _tag(work: object) -> str:
    config: object = getattr(work, "__struct_config__", None)
    return str(getattr(config, "tag", ""))


def _policy_of(context: Context, incident_id: str) -> str:
    state = context.state
    incident = state.incidents.get(incident_id) or state.vm_incidents.get(incident_id)
    return incident.plan.policy if incident is not None and incident.plan is not None else ""


def _host(context: Context, vm: Subject) -> str:
    vmi = context.inventory.vmi(vm)
    return vmi.node if vmi is not None else ""
