"""Takes people's orders while this replica leads, and answers once they stand in the journal."""

from __future__ import annotations

import structlog

from remediator.bus import subjects
from remediator.bus.connection import BusConnection
from remediator.bus.queries import Answerer
from remediator.engine.events import CommandGiven
from remediator.orders import Order, OrderAnswer, decode_order, encode
from remediator.replica import Replica

log = structlog.get_logger(__name__)

_TEXT_LIMIT = 500  # characters of a reason: it stands in a record for ever
_NAME_LIMIT = 253


class OrderDesk:
    """One replica's desk."""

    def __init__(self, replica: Replica, connection: BusConnection) -> None:
        self._replica = replica
        self._connection = connection

    async def run(self) -> None:
        """Take orders until cancelled; for as long as this replica leads."""
        await Answerer(self._connection, subjects.ORDER, self.on_order).run()

    async def on_order(self, payload: bytes) -> bytes | None:
        """Obey or refuse what came over NATS; None where this replica does not lead."""
        term = self._replica.term
        if term is None or not self._replica.elector.leader:
            return None
        try:
            order = decode_order(payload)
        except ValueError as error:
            return encode(OrderAnswer(accepted=False, text=f"not an order: {error}"))
        if len(order.reason) > _TEXT_LIMIT or max(len(order.by), len(order.target)) > _NAME_LIMIT:
            return encode(OrderAnswer(accepted=False, text="a reason has at most 500 characters"))
        log.info("order", verb=order.verb, target=order.target, by=order.by)
        try:
            answer = await term.command(_command(order))
        except TimeoutError as error:
            text = f"not recorded in time, and so not carried out yet: {error}".rstrip(": ")
            return encode(OrderAnswer(accepted=False, text=text))
        return encode(OrderAnswer(accepted=answer.accepted, text=answer.text, seq=answer.seq))


def _command(order: Order) -> CommandGiven:
    return CommandGiven(
        id=order.id,
        verb=order.verb,
        target=order.target,
        by=" ".join(order.by.split()),
        reason=" ".join(order.reason.split()),
        lasts_s=order.lasts_s,
    )
