"""What is done about a confirmed VM incident: a policy's steps, each stronger than the one before.

A step is begun only where the guards grant, and has succeeded only when the VM is well again by
evidence: that a request was accepted says nothing. While its host is in doubt or in an incident,
or while we are unwell ourselves, nobody calls here: nothing is begun and no time counts.
"""

from __future__ import annotations

from collections.abc import Callable

from remediator.engine import (
    decision_inputs,
    safeguards,
    vm_plan,
    vm_recovery,
    vm_remedy_records,
)
from remediator.engine.chain import DecisionKind, GuardRow
from remediator.engine.context import Context
from remediator.engine.effects import StartAction
from remediator.engine.incidents import Trigger, VmIncident
from remediator.engine.inputs import Inputs
from remediator.engine.match_facts import about_vm
from remediator.engine.model import (
    REMEDIES,
    Action,
    IncidentState,
    Outcome,
    OutcomeStatus,
    RemedyWork,
    StartVm,
)
from remediator.engine.rules import OnFailure, Policy, first_match
from remediator.engine.state import EngineState
from remediator.engine.vm_recovery import Look
from remediator.engine.vm_remedy_records import COUNTING, EXHAUSTED


def is_remedy(state: EngineState, action_id: str) -> bool:
    """Whether this action in flight is one that was begun here."""
    action = state.pending.get(action_id)
    return action is not None and (
        action.incident in state.vm_incidents
        or (isinstance(action.work, REMEDIES) and action.incident not in state.incidents)
    )


class VmRemedies:
    """The remedies under way. What it keeps beside the journal is since when it waits."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._awaited: dict[str, tuple[int, float]] = {}  # incident -> action number, since when

    # --- the course ------------------------------------------------------------------------------

    def go_on(self, incident: VmIncident, look: Look) -> None:
        """Begin what is due about an incident, or conclude that the last step did not help."""
        context = self._context
        if incident.state is IncidentState.SUSPECTED or str(incident.subject) in context.state.busy:
            return
        if incident.awaiting:
            if self._has_failed(incident, look):
                self._answer(incident)
        elif context.now < incident.retry_at:
            context.wake_at(incident.retry_at)
        elif not vm_recovery.looks_well(context, incident, look):
            self._answer(incident)

    def stand_by(self, incident: VmIncident) -> None:
        """Note that its host is in doubt, or we are: what is awaited is awaited anew."""
        self._awaited.pop(incident.id, None)

    def left_s(self, incident: VmIncident, since: Callable[[float], float]) -> float | None:
        """Return in how many seconds the step that is awaited has taken too long."""
        number, mark_s = self._awaited.get(incident.id, (-1, 0.0))
        if not incident.awaiting or number != incident.started:
            return None
        return self.limit_s(incident) - since(mark_s)

    def limit_s(self, incident: VmIncident) -> float:
        """Return how long the step under way may take to help."""
        step = incident.next_step
        return vm_plan.timeout_s(self._context, self.policy(incident), step)

    def policy(self, incident: VmIncident) -> Policy | None:
        """Return the policy of an incident's plan, as it reads today."""
        named = incident.plan.policy if incident.plan is not None else ""
        return next((each for each in self._context.policies if each.name == named), None)

    def _waited_s(self, incident: VmIncident, look: Look) -> float:
        number, mark_s = self._awaited.get(incident.id, (-1, 0.0))
        if number != incident.started:
            mark_s = look.proven_s
            self._awaited[incident.id] = (incident.started, mark_s)
        return look.since(mark_s)

    def _has_failed(self, incident: VmIncident, look: Look) -> bool:
        """Whether the step under way did not help, and something may be begun in its place."""
        limit_s = self.limit_s(incident) * look.patience
        if self._waited_s(incident, look) < limit_s:
            return False
        if vm_recovery.looks_well(self._context, incident, look):
            return False  # for a moment, as far as is known: it is given the time to prove it
        return self._gave_nothing(incident, f"it is not well {limit_s:.0f} s later")

    def why_over(self, incident: VmIncident, look: Look) -> str:
        """Return why an incident is over about which something was done, or ""."""
        limit_s = self.limit_s(incident) * look.patience
        late = not incident.awaiting or self._waited_s(incident, look) >= limit_s
        return vm_recovery.why_over(self._context, incident, look, late=late)

    def _gave_nothing(self, incident: VmIncident, why: str) -> bool:
        """Go on after a step that did not help: again, with the next one, or not at all.

        True where something may be begun now.
        """
        context, step, policy = self._context, incident.next_step, self.policy(incident)
        done, tries = incident.done.get(step, 0), vm_plan.tries(policy, step)
        failed = incident.attempts.get(step, 0) - done
        if done < tries and failed < vm_plan.failures(context, policy, step):
            return True
        self._awaited.pop(incident.id, None)
        match vm_plan.options(policy, step).on_failure:
            case OnFailure.NEXT:
                vm_remedy_records.move_on(self._context, incident, f"{step} did not help: {why}")
                return True
            case OnFailure.HOLD:
                said = f"{step} did not help: {why}. The policy does nothing more"
                vm_remedy_records.tell(context, incident, said, f"hold:{step}", None)
            case OnFailure.ESCALATE:
                vm_remedy_records.tell_and_retry(
                    context, incident, f"{step} did not help: {why}", f"slow:{step}"
                )
        return False

    def _answer(self, incident: VmIncident) -> None:
        """Match a policy, ask the guards, and begin the step that is due."""
        context, subject = self._context, incident.subject
        given = about_vm(context, subject, incident.verdict, incident.verdict_at, incident.row)
        match = first_match(context.policies, given, context.now)
        policy = match.policy
        if policy is None:
            if match.due_at is not None:
                context.wake_at(match.due_at)
            return

        def inputs() -> Inputs:
            return decision_inputs.of_vm_answer(context, subject, given, match)

        known = incident.plan
        same = known is not None and (
            (known.policy, known.policy_hash) == (policy.name, policy.content_hash)
        )
        if same and incident.answered.startswith("hold:"):
            return
        if not same:
            plan = vm_plan.make_plan(context.inventory, policy, subject)
            context.record(
                DecisionKind.PLANNED,
                subject,
                f"policy {policy.name}: {', '.join(plan.steps)}; {plan.vms[0].why}",
                incident=incident,
                clauses=match.clauses,
                plan=plan,
                verdict=incident.verdict,
                row=incident.row,
                inputs=inputs(),
            )
        vmi = context.inventory.vmi(subject)
        node = vmi.node if vmi is not None else ""
        rows = safeguards.ask_vm(context, subject, policy, incident.plan, node=node)
        if vm_plan.ends_own_stop(context, incident, policy):
            rows = tuple(row for row in rows if row.guard not in COUNTING)
        if safeguards.withheld(rows):
            vm_remedy_records.withhold(context, incident, rows, inputs)
            return
        self._begin(incident, policy, rows, inputs)

    def _begin(
        self,
        incident: VmIncident,
        policy: Policy,
        rows: tuple[GuardRow, ...],
        inputs: Callable[[], Inputs],
    ) -> None:
        """Begin the step that is due; pass over those that do not apply."""
        context = self._context
        if incident.answered == EXHAUSTED and not self._may_do(incident, policy):
            return  # it was said once: nothing has come up since that could be done
        while step := incident.next_step:
            if step == "notify":
                vm_remedy_records.notify(context, incident)
                continue
            if step == "hold":
                why = f"hold: policy {policy.name} does nothing more about it"
                vm_remedy_records.tell(context, incident, why, "hold:policy", None)
                return
            work = vm_plan.work_for(context, incident, step, policy)
            if isinstance(work, str):
                vm_remedy_records.move_on(self._context, incident, f"{step} does not apply: {work}")
                continue
            self._start(incident, policy, work, rows, inputs())
            return
        tried = bool(incident.done)
        what = "no step is left" if tried else "no step applies"
        vm_remedy_records.tell_and_retry(
            context, incident, f"policy {policy.name}: {what}", EXHAUSTED
        )

    def _may_do(self, incident: VmIncident, policy: Policy) -> bool:
        """Whether any step of the plan does something about this VM now."""
        return any(
            not isinstance(vm_plan.work_for(self._context, incident, step, policy), str)
            for step in policy.steps
            if step not in ("notify", "hold")
        )

    def _start(
        self,
        incident: VmIncident,
        policy: Policy,
        work: RemedyWork | StartVm,
        rows: tuple[GuardRow, ...],
        inputs: Inputs,
    ) -> None:
        context, step, subject = self._context, incident.next_step, incident.subject
        vmi = context.inventory.vmi(subject)
        action = Action(
            id=f"{incident.id}/{step}/{incident.started + 1}",
            incident=incident.id,
            subject=subject,
            attempt=incident.attempts.get(step, 0) + 1,
            deadline_s=vm_plan.deadline_s(context, policy, step),
            work=work,
        )
        under_way = incident.state is IncidentState.REMEDYING
        context.record(
            DecisionKind.STARTED,
            subject,
            vm_remedy_records.why(step, work),
            incident=incident,
            trigger=None if under_way else Trigger.TREATED,
            action=action,
            guards=rows,
            uid=vmi.uid if vmi is not None else "",
            inputs=inputs,
        )
        context.effects.append(StartAction(action=action))

    # --- what came of it -------------------------------------------------------------------------

    def finish(self, outcome: Outcome) -> None:
        """Record what came of an action of ours."""
        context = self._context
        action = context.state.pending[outcome.action_id]
        incident = context.state.vm_incidents.get(action.incident)
        done = outcome.status is OutcomeStatus.SUCCEEDED
        retry_at = None if done else context.now + context.retry_delay_s(action.attempt)
        context.record(
            DecisionKind.FINISHED,
            action.subject,
            outcome.detail,
            incident=incident,
            incident_id=action.incident,
            action=action,
            outcome=outcome,
            retry_at=retry_at,
        )
        if incident is None or retry_at is None:
            return
        context.wake_at(retry_at)
        step, policy = incident.next_step, self.policy(incident)
        if step == "snapshot" and outcome.status is OutcomeStatus.SPARED:
            vm_remedy_records.move_on(
                self._context, incident, f"no snapshot is made: {outcome.detail}"
            )
            return
        failed = incident.attempts.get(step, 0) - incident.done.get(step, 0)
        if failed >= vm_plan.failures(context, policy, step):
            self._gave_nothing(incident, outcome.detail)
