"""What can be asked about the fence devices, and its answer: the words on NATS and over HTTP."""

from __future__ import annotations

from typing import Protocol

import msgspec

from remediator.actions.fence.check_rows import CheckRow
from remediator.bus import queries, subjects
from remediator.bus.connection import BusConnection

TIMEOUT_S = 5.0
# A message on NATS holds one megabyte, a row some hundred bytes.
PAGE_ROWS = 1000
NODES_MAX = 1000  # named in one question
_BARE_MAX = 20


class FenceQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One question: the devices of these nodes, or of all."""

    nodes: tuple[str, ...] = ()
    after: str = ""  # where the last page ended
    now: bool = False  # ask the devices at once; the answer says how they are before that


class FenceAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Its answer, by the leader and its clock.

    The statuses are HTTP's: 200, 400 (not understood), 503 (nobody leads). ``more`` is what to
    give as ``after`` for the next page, "" at the end.
    """

    status: int
    detail: str = ""
    at: float = 0.0
    rows: tuple[CheckRow, ...] = ()
    more: str = ""
    bare: tuple[str, ...] = ()  # nodes that no configuration fences, the first of them
    bare_count: int = 0
    unknown: tuple[str, ...] = ()  # nodes that were named and are not there


class FenceReader(Protocol):
    """Answers questions about fence devices."""

    async def answer(self, query: FenceQuery) -> FenceAnswer:
        """Return the leader's answer, or say why there is none. Never raises."""
        ...


_encoder = msgspec.json.Encoder()
_questions = msgspec.json.Decoder(FenceQuery)
_answers = msgspec.json.Decoder(FenceAnswer)


def decode_query(payload: bytes) -> FenceQuery:
    """Read a question. Raises ValueError."""
    try:
        query = _questions.decode(payload)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if len(query.nodes) > NODES_MAX:
        raise ValueError(f"more than {NODES_MAX} nodes")
    return query


def decode_answer(payload: bytes) -> FenceAnswer:
    """Read an answer; one that cannot be read becomes one that says so."""
    try:
        return _answers.decode(payload)
    except (msgspec.DecodeError, RecursionError) as error:
        return FenceAnswer(status=503, detail=f"the leader's answer cannot be read: {error}")


def encode(value: FenceQuery | FenceAnswer) -> bytes:
    """Return the bytes that travel."""
    return _encoder.encode(value)


def first_names(names: list[str]) -> tuple[str, ...]:
    """Return as many names as an answer holds."""
    return tuple(names[:_BARE_MAX])


async def ask_leader(connection: BusConnection, query: FenceQuery) -> FenceAnswer:
    """Ask whoever leads.

    Raises NobodyAnswersError when nobody leads, BusUnavailableError without an answer in time.
    """
    question = encode(query)
    answer = await queries.ask(connection, subjects.QUERY_FENCE, question, timeout_s=TIMEOUT_S)
    return decode_answer(answer)
