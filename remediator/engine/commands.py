"""What a person orders: each command is recorded with who gave it, whether it is obeyed or not.

A verb's own module obeys it; what holds for every command is here.
"""

from __future__ import annotations

from collections.abc import Callable

from remediator.engine import host_orders, maintenance, order_records, pause_orders, plan_orders
from remediator.engine.context import Context
from remediator.engine.effects import AnswerCommand
from remediator.engine.events import CommandGiven, Verb
from remediator.engine.model import Subject
from remediator.engine.state import order_key

Giver = Callable[[Context, CommandGiven], None]

VERBS: dict[Verb, Giver] = {
    Verb.CONFIRM_OFF: host_orders.give,
    Verb.FENCE_OFF: host_orders.give,
    Verb.FENCE_ON: host_orders.give,
    Verb.DRAIN: maintenance.give,
    Verb.UNDRAIN: maintenance.give,
    Verb.PAUSE: pause_orders.give,
    Verb.IGNORE: pause_orders.give,
    Verb.RESUME: pause_orders.give,
    Verb.APPROVE: plan_orders.give,
    Verb.DENY: plan_orders.give,
    Verb.RETRY: plan_orders.give,
    Verb.CANCEL: plan_orders.give,
}


def give(context: Context, command: CommandGiven) -> None:
    """Obey a command or refuse it; the answer goes out after its record."""
    before = context.state.orders.get(order_key(command.id, command.verb, command.target))
    if before is not None:  # the same message again, or asked again for want of an answer
        seq, accepted = before
        text = f"it was given before: record {seq}"
        answer = AnswerCommand(id=command.id, accepted=accepted, seq=seq, text=text)
        context.effects.append(answer)
        return
    daemon = Subject("daemon", context.identity)
    if not command.by or not command.reason:
        order_records.refuse(context, command, daemon, "who asks, and why, must be given")
        return
    giver = VERBS.get(command.verb)
    if giver is None:
        why = f"this version does not know how to {command.verb}"
        order_records.refuse(context, command, daemon, why)
        return
    giver(context, command)
