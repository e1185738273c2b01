"""How a command is recorded and answered, whether it is obeyed or not; shared by all verbs."""

from __future__ import annotations

from remediator.engine.chain import Decision, DecisionKind, Order
from remediator.engine.context import Context
from remediator.engine.effects import AnswerCommand
from remediator.engine.events import CommandGiven
from remediator.engine.incidents import Incident, VmIncident
from remediator.engine.model import Proof, Subject


def record(
    context: Context,
    command: CommandGiven,
    subject: Subject,
    refusal: str = "",
    *,
    incident: Incident | VmIncident | None = None,
    proof: Proof | None = None,
    note: str = "",
) -> Decision:
    """Record a command about ``subject``; ``refusal`` says why it is not obeyed."""
    said = f"{command.verb} by {command.by or 'nobody'}: {command.reason or 'no reason given'}"
    said = f"{said}; {note}" if note else said
    return context.record(
        DecisionKind.COMMAND,
        subject,
        f"{said}; refused: {refusal}" if refusal else said,
        incident=incident,
        proof=proof,
        uid=command.id,
        stage=f"{command.verb}:{'refused' if refusal else 'accepted'}",
        order=Order(
            verb=command.verb,
            target=command.target,
            by=command.by,
            reason=command.reason,
            obeyed=not refusal,
            until=None if command.lasts_s is None else context.now + command.lasts_s,
        ),
    )


def answer(context: Context, command: CommandGiven, decision: Decision, *, accepted: bool) -> None:
    """Tell whoever asked; it goes out after the record."""
    context.effects.append(
        AnswerCommand(id=command.id, accepted=accepted, seq=decision.seq, text=decision.why)
    )


def refuse(
    context: Context,
    command: CommandGiven,
    subject: Subject,
    why: str,
    *,
    incident: Incident | VmIncident | None = None,
) -> None:
    """Record and tell that a command is not obeyed."""
    decision = record(context, command, subject, why, incident=incident)
    answer(context, command, decision, accepted=False)


def obey(
    context: Context,
    command: CommandGiven,
    subject: Subject,
    *,
    incident: Incident | VmIncident | None = None,
    note: str = "",
) -> None:
    """Record and tell that a command is obeyed: the record itself changes the engine's memory."""
    decision = record(context, command, subject, incident=incident, note=note)
    answer(context, command, decision, accepted=True)
