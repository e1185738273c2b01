"""What can be asked of a leader's health view, and its answer: the words on NATS and over HTTP."""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from remediator.bus import queries, subjects
from remediator.bus.connection import BusConnection

TIMEOUT_S = 5.0  # a view of 5,000 nodes and 50,000 VMs takes a good second on a busy machine


class HealthQuery(msgspec.Struct, frozen=True, kw_only=True):
    """One question."""

    view: Literal["cluster", "node", "vm", "budgets", "drain", "policies", "pacing"]
    zone: str = ""  # of the cluster: only this zone
    name: str = ""
    namespace: str = ""  # of "policies": set where the question is about a VM
    verdict: str = ""  # of "policies": what is assumed, "" for what is so


class HealthAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Its answer: ``view`` where ``status`` is 200, else ``detail``, one sentence for a person.

    The statuses are HTTP's: 400 (not understood), 404 (no such node, VM or zone), 500 (a fault of
    the leader's), 503 (nobody leads, or the leader cannot be reached).
    """

    status: int
    detail: str = ""
    view: msgspec.Raw = msgspec.Raw(b"null")


class HealthReader(Protocol):
    """Answers questions about health."""

    async def answer(self, query: HealthQuery) -> HealthAnswer:
        """Return the leader's answer, or say why there is none. Never raises."""
        ...


_encoder = msgspec.json.Encoder()
_questions = msgspec.json.Decoder(HealthQuery)
_answers = msgspec.json.Decoder(HealthAnswer)


def decode_query(payload: bytes) -> HealthQuery:
    """Read a question. Raises ValueError."""
    try:
        return _questions.decode(payload)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def encode(value: HealthQuery | HealthAnswer) -> bytes:
    """Return the bytes that travel."""
    return _encoder.encode(value)


async def ask_leader(connection: BusConnection, query: HealthQuery) -> HealthAnswer:
    """Ask whoever leads.

    Raises NobodyAnswersError when nobody leads, BusUnavailableError without an answer in time.
    """
    payload = await queries.ask(
        connection, subjects.QUERY_HEALTH, encode(query), timeout_s=TIMEOUT_S
    )
    try:
        return _answers.decode(payload)
    except (msgspec.DecodeError, RecursionError) as error:
        return HealthAnswer(status=503, detail=f"the leader's answer cannot be read: {error}")
