"""Questions and answers over NATS, stored nowhere: one replica asks, the leader answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import nats.errors
import structlog
from nats.aio.msg import Msg

from remediator.bus.connection import BusConnection
from remediator.bus.protocols import BusUnavailableError

_log = structlog.get_logger(__name__)

# Questions worked on at once; a further one stays without an answer, and its asker times out.
AT_ONCE_MAX = 32
# How often the subscription is compared with the connection, besides each change of it.
LOOK_EVERY_S = 1.0
ROUND_TRIP_S = 3.0

# Returns the answer, or None to leave it to another replica.
Answer = Callable[[bytes], Awaitable[bytes | None]]


async def round_trip(connection: BusConnection, timeout_s: float) -> None:
    """Ask NATS, JetStream included, for a sign of life. Raises BusUnavailableError."""
    # Not a flush: a PONG that comes after its deadline ends nats-py's read loop.
    await connection.request("$JS.API.INFO", timeout_s=timeout_s)


async def ask(
    connection: BusConnection, subject: str, question: bytes, *, timeout_s: float
) -> bytes:
    """Ask on ``subject`` and return the first answer.

    Raises NobodyAnswersError at once when nobody listens, BusUnavailableError when no answer came
    in time.
    """
    answer = await connection.request(subject, question, timeout_s=timeout_s)
    return answer.data


class Answerer:
    """Answers the questions on one subject for as long as it runs."""

    def __init__(self, connection: BusConnection, subject: str, answer: Answer) -> None:
        self._connection = connection
        self._subject = subject
        self._answer = answer
        self._working: set[asyncio.Task[None]] = set()
        self.listening = asyncio.Event()

    async def run(self) -> None:
        """Listen and answer until cancelled; waits out everything that NATS may do."""
        try:
            while True:
                try:
                    await self._connection.wait_connected()
                    await self._listen()
                except (BusUnavailableError, nats.errors.Error, OSError) as error:
                    _log.debug("answerer_broken", subject=self._subject, error=str(error))
                self.listening.clear()
                await asyncio.sleep(0.1)
        finally:
            for task in self._working:
                task.cancel()
            if self._working:
                await asyncio.wait(self._working, timeout=LOOK_EVERY_S)

    async def _listen(self) -> None:
        """Hold one subscription until the connection is another, as its client may be."""
        epoch, client = self._connection.epoch, self._connection.client
        subscription = await client.subscribe(self._subject, cb=self._take)
        try:
            # Answered in order: whoever asks from now on is heard.
            await round_trip(self._connection, ROUND_TRIP_S)
            self.listening.set()
            while self._connection.epoch == epoch:
                await self._connection.wait_change(LOOK_EVERY_S)
        finally:
            self.listening.clear()
            if client.is_connected:
                await subscription.unsubscribe()

    async def _take(self, message: Msg) -> None:
        if not message.reply:
            return  # nobody waits for an answer
        if len(self._working) >= AT_ONCE_MAX:
            _log.warning("question_dropped", subject=self._subject, at_once=AT_ONCE_MAX)
            return
        task = asyncio.create_task(self._work(message), name=f"answer-{self._subject}")
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    async def _work(self, message: Msg) -> None:
        try:
            answer = await self._answer(message.data)
            if answer is not None:
                await message.respond(answer)
        except (nats.errors.Error, OSError, BusUnavailableError) as error:
            _log.warning("answer_not_sent", subject=self._subject, error=str(error))
        except Exception:  # noqa: BLE001 - see the next line
            # A defect in a view must not end the leader; it is logged with its traceback.
            _log.exception("answer_broken", subject=self._subject)
