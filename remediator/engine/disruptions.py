"""What was disrupted, lost and came back lately: the memory that the limits per time count in.

It changes only by records (``apply``), so that a new leader goes on counting where the last one
stopped. Times are of the leaders' clocks; one that lies ahead of the present leader's is drawn back
to it (``anchor``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from remediator.engine.chain import Decision, DecisionKind
from remediator.engine.model import (
    Action,
    IncidentState,
    OutcomeStatus,
    Record,
    Verdict,
)

if TYPE_CHECKING:
    from remediator.engine.state import EngineState

# What interrupts a node, or a VM that may still run, by the tag of its work. The rest either brings
# back what is down already, or only marks, or undoes.
OF_NODES = frozenset({"fence"})
# The end of a launcher pod goes on with a stop that was counted when KubeVirt was asked for it.
OF_VMS = frozenset({"soft-reboot", "restart", "migrate"})
# Of these, what ends a run of the VM: the crash-loop guard counts them. A soft reboot does not.
RESTARTS = frozenset({"restart"})

LOST = frozenset({Verdict.DEAD, Verdict.UNREACHABLE, Verdict.ISOLATED})

KEPT_S = 86_400.0  # no window of the settings is longer
KEPT_MAX = 5_000  # disruptions remembered: of 24 h at the default limits, and half again
TIMES_MAX = 32  # fences or returns remembered of one node


class Disruption(Record, frozen=True, kw_only=True):
    """One disruption that was begun."""

    at: float
    subject: str  # "node/n7", "vm/payments/db-0"
    what: str  # tag of the work: "fence", "restart"
    incident: str = ""
    policy: str = ""
    node: str = ""  # of a VM: the host that it was on


def apply(state: EngineState, decision: Decision) -> None:
    """Count one record, before it changes the incident that it is about."""
    action = decision.action
    if decision.kind is DecisionKind.STARTED and action is not None:
        _begun(state, decision, action)
    elif decision.kind is DecisionKind.FINISHED and action is not None:
        _ended(state, decision, action)
    elif decision.kind in (DecisionKind.OPENED, DecisionKind.VERDICT):
        convicted = decision.state is IncidentState.CONFIRMED and decision.verdict in LOST
        if convicted and decision.subject.kind == "node":
            state.losses[decision.subject.name] = decision.at
            _forget_old(state.losses, decision.at)
    elif decision.kind is DecisionKind.RESOLVED and decision.verdict is Verdict.HEALTHY:
        _returned(state, decision)


def anchor(state: EngineState, at: float) -> None:
    """Draw times that lie ahead of a new leader's clock back to it."""
    state.disruptions = [
        each if each.at <= at else msgspec.structs.replace(each, at=at)
        for each in state.disruptions
    ]
    for node, lost_at in state.losses.items():
        state.losses[node] = min(lost_at, at)
    for times in (state.fences, state.returns):
        for node, of_node in times.items():
            times[node] = tuple(min(each, at) for each in of_node)


def _begun(state: EngineState, decision: Decision, action: Action) -> None:
    tag = str(type(action.work).__struct_config__.tag)
    if tag not in (OF_NODES if action.subject.kind == "node" else OF_VMS):
        return
    subject = str(action.subject)
    if tag in OF_NODES and any(
        each.incident == action.incident and each.subject == subject
        for each in reversed(state.disruptions)
        if action.incident
    ):
        return  # the next attempt, or the next level: the node is disrupted once
    incident = state.incidents.get(action.incident) or state.vm_incidents.get(action.incident)
    plan = getattr(incident, "plan", None)
    state.disruptions.append(
        Disruption(
            at=decision.at,
            subject=subject,
            what=tag,
            incident=action.incident,
            policy=plan.policy if plan is not None else "",
            node=action.subject.name if action.subject.kind == "node" else action.work.node,
        )
    )
    oldest_at = decision.at - KEPT_S
    if len(state.disruptions) > KEPT_MAX or state.disruptions[0].at < oldest_at:
        kept = [each for each in state.disruptions if each.at >= oldest_at]
        state.disruptions = kept[-KEPT_MAX:]


def _ended(state: EngineState, decision: Decision, action: Action) -> None:
    tag = str(type(action.work).__struct_config__.tag)
    outcome = decision.outcome
    if tag in OF_NODES and outcome is not None and outcome.status is OutcomeStatus.SUCCEEDED:
        _note(state.fences, action.subject.name, decision.at)
    spared = outcome is not None and outcome.status is not OutcomeStatus.SUCCEEDED
    if tag in OF_VMS and spared and outcome is not None and not outcome.changed:
        _take_back(state, action, tag)


def _take_back(state: EngineState, action: Action, tag: str) -> None:
    """Forget a disruption of a VM that did not come about: it was refused, or spared."""
    subject = str(action.subject)
    for at in range(len(state.disruptions) - 1, -1, -1):
        each = state.disruptions[at]
        if (each.subject, each.what, each.incident) == (subject, tag, action.incident):
            del state.disruptions[at]
            return


def _returned(state: EngineState, decision: Decision) -> None:
    """Note a node that was convicted of being lost, and was back before it was proven off."""
    incident = state.incidents.get(decision.incident)
    if incident is None:
        return
    name = incident.subject.name
    lost_at = state.losses.get(name)
    if lost_at is not None and lost_at >= incident.opened_at and incident.proof is None:
        _note(state.returns, name, decision.at)


def _note(times: dict[str, tuple[float, ...]], node: str, at: float) -> None:
    kept = [each for each in times.get(node, ()) if each >= at - KEPT_S]
    times[node] = (*kept, at)[-TIMES_MAX:]
    for name in [name for name, of_node in times.items() if of_node[-1] < at - KEPT_S]:
        del times[name]


def _forget_old(times: dict[str, float], at: float) -> None:
    for name in [name for name, each in times.items() if each < at - KEPT_S]:
        del times[name]
