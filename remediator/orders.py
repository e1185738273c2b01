"""A person's order to the leader and its answer, as they travel over NATS.

NATS's own permissions say who may give orders: whoever may publish on ``remediator.order``.
"""

from __future__ import annotations

import msgspec

from remediator.bus import queries, subjects
from remediator.bus.connection import BusConnection
from remediator.engine.events import Verb

TIMEOUT_S = 12.0  # the leader gives itself ten seconds to record it


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for. ``id`` is the same when it is asked again."""

    id: str
    verb: Verb
    target: str
    by: str
    reason: str
    lasts_s: float | None = None  # how long it holds; the leader counts by its own clock


class OrderAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """``accepted`` orders are carried out; ``seq`` is the record of either answer, 0 for none."""

    accepted: bool
    text: str
    seq: int = 0


_encoder = msgspec.json.Encoder()
_orders = msgspec.json.Decoder(Order)
_answers = msgspec.json.Decoder(OrderAnswer)


def encode(value: Order | OrderAnswer) -> bytes:
    """Return the bytes that travel."""
    return _encoder.encode(value)


def decode_order(payload: bytes) -> Order:
    """Read an order. Raises ValueError."""
    try:
        return _orders.decode(payload)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


async def give(connection: BusConnection, order: Order) -> OrderAnswer:
    """Give an order to whoever leads.

    Raises NobodyAnswersError when nobody leads, BusUnavailableError without an answer in time:
    whether it was recorded is then unknown.
    """
    payload = await queries.ask(connection, subjects.ORDER, encode(order), timeout_s=TIMEOUT_S)
    try:
        return _answers.decode(payload)
    except (msgspec.DecodeError, RecursionError) as error:
        return OrderAnswer(accepted=False, text=f"the leader's answer cannot be read: {error}")
