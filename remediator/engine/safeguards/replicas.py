"""Replicas of one application are never all taken away at once."""

from __future__ import annotations

from remediator.engine.chain import GuardRow, Plan
from remediator.engine.context import Context
from remediator.engine.guard_answers import Answer, answers, ask, grant, named, wait
from remediator.engine.incidents import DONE_STAGES, Incident, Stage
from remediator.engine.inventory import Key
from remediator.engine.model import IncidentState, NodeFacts, Record, Subject, Verdict, vm_subject
from remediator.engine.safeguards import uses

APP = "replicated-app"
_LISTED_S = 1.0  # so long the list of who belongs together is used: 50,000 VMs cost 30 ms

_TAKING_DOWN = frozenset({IncidentState.FENCING, IncidentState.FENCED, IncidentState.RECOVERING})


class AppSeen(Record, frozen=True, kw_only=True):
    """The fullest application that would lose one more: its replicas, and those that are away."""

    app: str = ""
    members: int = 0
    away: tuple[str, ...] = ()  # others that are down, or disrupted now
    may_live: bool = True  # what would be taken down may run


@answers(APP, AppSeen)
def _app_answer(saw: AppSeen) -> Answer:
    if not saw.app:
        return grant("none of a replicated application")
    text = f"{len(saw.away)} of the {saw.members} VMs of {saw.app} are away"
    if saw.away and saw.may_live and len(saw.away) >= may_be_away(saw.members):
        return wait(f"{text}: {', '.join(saw.away)}")
    return grant(text)


def may_be_away(members: int) -> int:
    """Return how many replicas may be away at once: a minority, so that the rest has a quorum.

    Of two, one: they are never both acted on.
    """
    return max(1, (members - 1) // 2)


def app_of_vm(context: Context, vm: Subject) -> GuardRow:
    """Wait while as many other replicas of the VM's application are away as may be.

    Of a VM that is down only those count that are acted on: nothing is gained by waiting for the
    others.
    """
    mine = (vm.namespace, vm.name)
    app, members = next(iter(_apps_of(context, {mine}).items()), ("", set()))
    if len(members) < 2:
        return ask(APP, AppSeen())
    runs = not _is_down(context, mine)
    acted = {(each.subject.namespace, each.subject.name) for each in uses.vms_now(context)}
    acted |= _recovering(context)
    away = {
        key
        for key in members
        if key != mine and (key in acted or (runs and _is_down(context, key)))
    }
    return ask(APP, AppSeen(app=app, members=len(members), away=_names(away)))


def apps_on_node(context: Context, incident: Incident, _n: NodeFacts, plan: Plan) -> GuardRow:
    """Wait where a node that may live runs the last replicas of an application."""
    if "fence" not in plan.steps or incident.verdict is Verdict.DEAD:
        return ask(APP, AppSeen())
    mine = {(each.vm.namespace, each.vm.name) for each in plan.vms}
    worst, recovering = AppSeen(), _recovering(context)
    for app, members in sorted(_apps_of(context, mine).items()):
        others = members - mine
        away = {other for other in others if other in recovering or _is_down(context, other)}
        if others and away == others and len(away) > len(worst.away):
            worst = AppSeen(app=app, members=len(members), away=_names(away))
    return ask(APP, worst)


def _apps_of(context: Context, keys: set[Key]) -> dict[str, set[Key]]:
    """Return the applications that these VMs are replicas of, and all VMs of each."""
    vms = context.inventory.vms
    apps = {_app(context, key[0], vms[key].labels) for key in keys if key in vms} - {""}
    if not apps:
        return {}
    listed_at, members = context.apps
    if not listed_at <= context.now < listed_at + _LISTED_S or not apps <= members.keys():
        members = {}
        for key, facts in vms.items():
            app = _app(context, key[0], facts.labels)
            if app:
                members.setdefault(app, set()).add(key)
        context.apps = (context.now, members)
    return {app: members[app] for app in apps}


def _app(context: Context, namespace: str, labels: dict[str, str]) -> str:
    """Return the application that a VM with these labels is a replica of, or ""."""
    for label in context.settings.budgets.replicated_app_labels:
        value = labels.get(label)
        if value:
            return f"{namespace}/{value}"
    return ""


def _is_down(context: Context, key: Key) -> bool:
    vmi = context.inventory.vmis.get(key)
    return vmi is None or vmi.phase != "Running" or bool(context.state.vm_incident_on(_name(key)))


def _recovering(context: Context) -> set[Key]:
    """Return the VMs that the recovery of a lost host brings back; one that is stuck, no more."""
    return {
        (progress.plan.vm.namespace, progress.plan.vm.name)
        for incident in context.state.incidents.values()
        if incident.state in _TAKING_DOWN
        for progress in incident.vms.values()
        if progress.stage not in DONE_STAGES and progress.stage is not Stage.STUCK
    }


def _name(key: Key) -> str:
    return str(vm_subject(*key))


def _names(keys: set[Key]) -> tuple[str, ...]:
    return named("/".join(key) for key in keys)
