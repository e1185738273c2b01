"""Carrying a granted plan out, one node-level step at a time: cordon, fence, release."""

from __future__ import annotations

from remediator.engine import fencing, proofs
from remediator.engine.chain import DecisionKind, GuardRow
from remediator.engine.context import Context
from remediator.engine.evacuation_plan import evacuates
from remediator.engine.incidents import Incident, InvariantError, Trigger
from remediator.engine.inputs import Inputs
from remediator.engine.model import (
    Action,
    Cordon,
    Fence,
    IncidentState,
    Migrate,
    NodeFacts,
    Outcome,
    OutcomeStatus,
    Proof,
    Release,
    RestartVm,
    Work,
)

_WHY = {
    "cordon": "keep new pods off the node before its old ones are deleted",
    "cordon alive": "keep new VMs off the node while its own are moved",
    "fence": "power it off, so that its VMs cannot write any more",
    "release": "proven off: let its volumes detach at once",
}


def start_step(
    context: Context,
    incident: Incident,
    node: NodeFacts,
    *,
    guards: tuple[GuardRow, ...] = (),
    trigger: Trigger | None = None,
    inputs: Inputs | None = None,
) -> None:
    """Start the node-level action that is due."""
    step = incident.next_step
    word = _word(context, incident, node)
    if step == "fence" and word is not None:
        _take_word(context, incident, word)
        return
    attempt = incident.attempts.get(step, 0) + 1
    work, deadline_s = _work(context, incident, node, step, attempt)
    action = Action(
        id=f"{incident.id}/{step}/{attempt}",
        incident=incident.id,
        subject=incident.subject,
        attempt=attempt,
        deadline_s=deadline_s,
        work=work,
    )
    why = _why(incident, step, attempt)
    context.start(action, why, trigger=trigger, guards=guards, inputs=inputs)


def due(context: Context, incident: Incident) -> bool:
    """Whether the next step of an incident may be started now: none in flight, no wait left."""
    if str(incident.subject) in context.state.busy:
        return False
    if context.now < incident.retry_at:
        context.wake_at(incident.retry_at)
        return False
    return True


def go_on_fencing(context: Context, incident: Incident, node: NodeFacts) -> None:
    """Start, repeat or give up the step that is due before there is proof."""
    step = incident.next_step
    tried = incident.attempts.get(step, 0)
    if tried < _attempts(context, incident, step) or _word(context, incident, node) is not None:
        start_step(context, incident, node)
        return
    retry_at = context.now + context.settings.steps.follow_up_s
    decision = context.record(
        DecisionKind.ESCALATED,
        incident.subject,
        f"{step} failed {tried} times: the VMs of {node.name} are not restarted before it is "
        f"proven off; tried again in {context.settings.steps.follow_up_s:g} s",
        incident=incident,
        trigger=Trigger.EXHAUSTED,
        stage=f"exhausted:{step}",
        retry_at=retry_at,
    )
    context.notice(decision)
    context.wake_at(retry_at)


def _word(context: Context, incident: Incident, node: NodeFacts) -> Proof | None:
    """Return a person's word that still stands and that the plan's policy takes for its disks."""
    word, plan = proofs.word(context, incident, node), incident.plan
    return word if word is not None and plan is not None and proofs.accepted(word, plan) else None


def _take_word(context: Context, incident: Incident, proof: Proof) -> None:
    """Go on without a fence: a person has seen that the host is off."""
    context.record(
        DecisionKind.SKIPPED,
        incident.subject,
        f"no fence is needed: {proof.source} confirmed that it is off ({proof.detail})",
        incident=incident,
        trigger=Trigger.PROVED,
        proof=proof,
    )


def go_on_releasing(context: Context, incident: Incident, node: NodeFacts | None) -> bool:
    """Start or repeat the release of a fenced node; True when there is nothing left to release."""
    if not incident.next_step:
        context.record(
            DecisionKind.RESOLVED,
            incident.subject,
            "fenced; the policy asks for no more",
            incident=incident,
            trigger=Trigger.RECOVERED,
        )
        return False
    if node is None or node.boot_id not in ("", incident.boot_id):
        context.record(
            DecisionKind.SKIPPED,
            incident.subject,
            "the Node object is gone: nothing is left to taint; its pods are recovered"
            if node is None
            else "the node is back in another boot: its volumes are not held any more",
            incident=incident,
            trigger=Trigger.RELEASED,
        )
        return True
    tried = incident.attempts.get("release", 0)
    if tried == context.settings.steps.attempts and incident.answered != "slow:release":
        decision = context.record(
            DecisionKind.ESCALATED,
            incident.subject,
            f"release failed {tried} times; it is tried on, but its volumes stay attached",
            incident=incident,
            stage="slow:release",
        )
        context.notice(decision)
    start_step(context, incident, node)
    return False


def finish(context: Context, outcome: Outcome) -> Action | None:
    """Record what came of an action; None when it is not one of ours (any more)."""
    action = context.state.pending.get(outcome.action_id)
    if action is None:
        return None
    incident = context.state.incidents.get(action.incident)
    outcome = _checked(incident, action, outcome)
    done = outcome.status is OutcomeStatus.SUCCEEDED
    retry_at = None if done else context.now + _delay_s(context, incident, action)
    context.record(
        DecisionKind.FINISHED,
        action.subject,
        outcome.detail,
        incident=incident,
        incident_id=action.incident,
        trigger=_trigger(incident, action, done=done),
        action=action,
        outcome=outcome,
        proof=outcome.proof,
        retry_at=retry_at,
    )
    if retry_at is not None:
        context.wake_at(retry_at)
        _complain(context, incident, action, outcome)
    return action


def _delay_s(context: Context, incident: Incident | None, action: Action) -> float:
    """Return the wait before the next try; none where the next thing is to tell a human."""
    if incident is not None and incident.state is IncidentState.FENCING:
        if action.attempt >= _attempts(context, incident, incident.next_step):
            return 0.0
        plan = incident.plan if isinstance(action.work, Fence) else None
        if plan is not None and fencing.first_of_level(plan, action.attempt + 1):
            return 0.0  # the next level's devices have not been asked yet
    return context.retry_delay_s(action.attempt)


def _complain(
    context: Context, incident: Incident | None, action: Action, outcome: Outcome
) -> None:
    """Tell a human, once, when a VM's action keeps failing; it is tried on all the same."""
    if isinstance(action.work, (Migrate, RestartVm)):
        return  # what follows is the policy's choice, and is told
    if action.subject.kind != "vm" or action.attempt != context.settings.steps.attempts:
        return
    step = type(action.work).__struct_config__.tag
    decision = context.record(
        DecisionKind.ESCALATED,
        action.subject,
        f"{step} failed {action.attempt} times, last: {outcome.detail}; it is tried on",
        incident=incident,
        incident_id=action.incident,
        stage=f"slow:{step}",
    )
    context.notice(decision)


def proof_stands(context: Context, incident: Incident, node: NodeFacts | None) -> bool:
    """Whether the incident's proof still stands; a void one stops everything and asks a human."""
    proof = incident.proof
    if proof is None:
        raise InvariantError(f"{incident.id} is {incident.state} without proof")
    standing = proofs.standing(context, node, proof)
    if standing is proofs.Standing.HOLDS:
        return True
    if standing is proofs.Standing.VOID and str(incident.subject) not in context.state.busy:
        decision = context.record(
            DecisionKind.ESCALATED,
            incident.subject,
            f"{incident.subject.name} renews its lease in the boot that {proof.source} said is "
            "over: the proof was wrong. No more of its VMs are restarted; check for double runs",
            incident=incident,
            trigger=Trigger.DISPROVED,
            proof=proof,
            stage="proof-void",
        )
        context.notice(decision)
    return False


def _attempts(context: Context, incident: Incident, step: str) -> int:
    if step == "fence" and incident.plan is not None and incident.plan.levels:
        return fencing.attempts(incident.plan)
    return context.settings.steps.attempts


def _why(incident: Incident, step: str, attempt: int) -> str:
    if step == "cordon" and incident.plan is not None and evacuates(incident.plan):
        return _WHY["cordon alive"]
    if step != "fence" or incident.plan is None or len(incident.plan.levels) < 2:
        return _WHY[step]
    level = fencing.level_of(incident.plan, attempt)
    return f"{_WHY[step]}; level {level.index + 1}: {level.name}"


def _work(
    context: Context, incident: Incident, node: NodeFacts, step: str, attempt: int
) -> tuple[Work, float]:
    steps, plan = context.settings.steps, incident.plan
    if plan is None:
        raise InvariantError(f"{incident.id} has no plan to carry out")
    if step == "cordon":
        cordon = Cordon(node=node.name, node_uid=node.uid, policy=plan.policy)
        return cordon, steps.cordon_deadline_s
    if step == "fence":
        level = fencing.level_of(plan, attempt)
        fence = Fence(
            node=node.name,
            node_uid=node.uid,
            boot_id=incident.boot_id,
            method=plan.fence_method,
            level=level.index,
            off_since=context.evidence.off_since(node, context.now),
            policy=plan.policy,
        )
        return fence, level.deadline_s
    if step == "release" and incident.proof is not None:
        release = Release(node=node.name, node_uid=node.uid, proof=incident.proof)
        return release, steps.release_deadline_s
    raise InvariantError(f"{incident.id}: step {step!r} cannot be started in {incident.state}")


def _trigger(incident: Incident | None, action: Action, *, done: bool) -> Trigger | None:
    if incident is None or not done:
        return None
    if isinstance(action.work, Fence) and incident.state is IncidentState.FENCING:
        return Trigger.PROVED
    if isinstance(action.work, Release) and incident.state is IncidentState.FENCED:
        return Trigger.RELEASED
    return None


def _checked(incident: Incident | None, action: Action, outcome: Outcome) -> Outcome:
    """Turn a fence without proof that the policy takes into the failure that it is."""
    if not isinstance(action.work, Fence) or outcome.status is not OutcomeStatus.SUCCEEDED:
        return outcome
    if action.work.forced:
        return outcome  # a person's order: no plan stands on its proof
    plan = incident.plan if incident is not None else None
    if outcome.proof is not None and plan is not None and proofs.accepted(outcome.proof, plan):
        return outcome
    kind = outcome.proof.kind if outcome.proof is not None else "none"
    return Outcome(
        action_id=outcome.action_id,
        status=OutcomeStatus.FAILED,
        detail=f"{outcome.detail}; but the policy does not take this proof: {kind}",
        started_at=outcome.started_at,
        finished_at=outcome.finished_at,
        changed=outcome.changed,
    )
