"""One term of leadership: observations in, decisions into the journal, actions out.

The order that everything rests on: the engine decides, the record is appended and acknowledged,
and only then does its action start. A refused append means that another leader writes: the term
ends at once. While NATS is silent the term waits: nothing is decided without a record.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from remediator.backoff import Backoff
from remediator.bus.protocols import BusUnavailableError, EventSource
from remediator.clock import Clock
from remediator.engine.chain import Decision, DecisionKind
from remediator.engine.effects import (
    AnswerCommand,
    AskPower,
    AskProbes,
    Effect,
    GiveUpLeadership,
    RaiseNotice,
    RecordDecision,
    StartAction,
    WakeAt,
)
from remediator.engine.events import (
    ActionFinished,
    CommandGiven,
    Event,
    LeadershipGained,
    Tick,
)
from remediator.engine.machine import Engine
from remediator.engine.model import Action, Outcome, Proof
from remediator.journal.writer import JournalWriter
from remediator.signals.intake import Intake

log = structlog.get_logger(__name__)

TICK_S = 1.0
COMMAND_S = 10.0  # for a command's record; a person waits for it
COMMANDS_MAX = 64
# Events that wait for the engine. At 10,000 a second this is half a minute of being stuck, for
# instance on an append; past it the picture cannot be trusted and the term starts over.
BACKLOG_MAX = 300_000
# Events handled in one go before the event loop gets its turn.
BATCH = 200


class EngineOverrunError(Exception):
    """Observations were lost: the term ends, and the next one begins from a fresh picture."""


class LeadershipGivenUpError(Exception):
    """The engine asks for another leader: the text says why."""


class Runner(Protocol):
    """What the term needs of ``actions.runner.ActionRunner``."""

    def start(self, action: Action) -> None:
        """Start an action; its outcome comes to ``Term.finished``."""
        ...

    def taken(self, proof: Proof) -> None:
        """Note a proof that no action of this term gave: its time is of our clock all the same."""
        ...

    async def stop(self) -> None:
        """Cancel every action and wait until all have ended."""
        ...


class Term:
    """Feeds one engine and carries out its effects, in order, one at a time."""

    def __init__(
        self,
        engine: Engine,
        writer: JournalWriter,
        clock: Clock,
        *,
        ask_power: Callable[[str], None],
        ask_probes: Callable[[str], None] = lambda _node: None,
        backoff: Backoff | None = None,
        intake: Intake | None = None,
    ) -> None:
        self._engine = engine
        self._writer = writer
        self._clock = clock
        self._ask_power = ask_power
        self._ask_probes = ask_probes
        self._backoff = backoff or Backoff(base_s=0.2, cap_s=2.0)
        self._runner: Runner | None = None
        self._events: deque[Event] = deque()
        self._arrived = asyncio.Event()
        self._wake_at = float("inf")
        self._overrun = False
        self.recorded = asyncio.Event()  # set with each record; whoever waits for it clears it
        self._asked: dict[str, asyncio.Future[AnswerCommand]] = {}
        self._intake = intake or Intake(clock)

    @property
    def backlog(self) -> int:
        """How many events wait for the engine."""
        return len(self._events)

    def deliver(self, subject: str, payload: bytes) -> None:
        """Take one message off the bus, if it is let in."""
        event = self._intake.take(subject, payload)
        if event is not None:
            self.offer(event)

    def start_over(self) -> None:
        """End the term: observations were lost, so the engine's picture cannot be trusted."""
        self._overrun = True
        self._arrived.set()

    async def command(self, command: CommandGiven) -> AnswerCommand:
        """Give the engine a person's order; return its answer, once that stands in the journal.

        Raises TimeoutError when the term ends, or cannot record, within ``COMMAND_S``.
        """
        if len(self._asked) >= COMMANDS_MAX:
            raise TimeoutError(f"{COMMANDS_MAX} commands wait already")
        answer: asyncio.Future[AnswerCommand] = asyncio.get_running_loop().create_future()
        self._asked[command.id] = answer
        self.offer(command)
        try:
            async with asyncio.timeout(COMMAND_S):
                return await answer
        finally:
            self._asked.pop(command.id, None)

    def finished(self, outcome: Outcome) -> None:
        """Take the outcome of an action."""
        self.offer(ActionFinished(outcome=outcome))

    def offer(self, event: Event) -> None:
        """Queue one event for the engine."""
        if len(self._events) >= BACKLOG_MAX:
            self._overrun = True
        else:
            self._events.append(event)
        self._arrived.set()

    async def run(
        self,
        identity: str,
        epoch: int,
        source: EventSource,
        runner: Runner,
        begin: Callable[[], Awaitable[None]],
    ) -> None:
        """Lead until cancelled. ``begin`` is awaited once the take-over stands in the journal.

        Raises AppendRefusedError when deposed, EngineOverrunError when hopelessly behind.
        """
        self._runner = runner
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(source.run(self.deliver), name="signals")
                await self._carry_out(
                    self._engine.handle(
                        LeadershipGained(identity=identity, epoch=epoch), self._clock.now()
                    )
                )
                await begin()
                await self._loop()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        finally:
            await runner.stop()

    async def _loop(self) -> None:
        next_tick_at = self._clock.now() + TICK_S
        while True:
            now = self._clock.now()
            if self._overrun:
                raise EngineOverrunError(f"observations were lost; {self.backlog} wait")
            if now >= min(next_tick_at, self._wake_at):
                self._wake_at = float("inf")
                next_tick_at = now + TICK_S
                self._intake.tell_metrics()
                await self._carry_out(self._engine.handle(Tick(), now))
            for _ in range(min(BATCH, len(self._events))):
                effects = self._engine.handle(self._events.popleft(), self._clock.now())
                if effects:
                    await self._carry_out(effects)
            if self._events:
                await asyncio.sleep(0)
                continue
            self._arrived.clear()
            wait_s = max(0.0, min(next_tick_at, self._wake_at) - self._clock.now())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._arrived.wait()

    async def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case RecordDecision():
                    await self._append(effect)
                    self.recorded.set()
                    self._note_word(effect.decision)
                case StartAction():
                    if self._runner is not None:
                        self._runner.start(effect.action)
                case AskPower():
                    self._ask_power(effect.node)
                case AskProbes():
                    self._ask_probes(effect.node)
                case WakeAt():
                    self._wake_at = min(self._wake_at, effect.at)
                case AnswerCommand():
                    asked = self._asked.pop(effect.id, None)
                    if asked is not None and not asked.done():
                        asked.set_result(effect)
                case GiveUpLeadership():
                    raise LeadershipGivenUpError(effect.why)
                case RaiseNotice():
                    log.warning("notice", seq=effect.seq, text=effect.text)

    def _note_word(self, decision: Decision) -> None:
        """Tell the runner of a proof that no action of this term gave: a person's word."""
        proof = decision.proof if decision.kind is DecisionKind.COMMAND else None
        if proof is not None and self._runner is not None:
            self._runner.taken(proof)

    async def _append(self, effect: RecordDecision) -> None:
        """Append until acknowledged; whoever holds the Lease decides how long that may take."""
        while True:
            try:
                await self._writer.append(effect.decision, effect.payload)
            except BusUnavailableError as error:
                delay_s = self._backoff.next_s()
                log.warning(
                    "append_unacknowledged",
                    seq=effect.decision.seq,
                    error=str(error),
                    retry_in_s=round(delay_s, 2),
                )
                await asyncio.sleep(delay_s)
            else:
                self._backoff.reset()
                return
