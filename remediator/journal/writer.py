"""Appends decisions: nothing touches the world before this has returned."""

from __future__ import annotations

import asyncio
import re

import structlog

from remediator.bus import subjects
from remediator.bus.protocols import AppendRefusedError, BusUnavailableError, JournalStream
from remediator.engine.chain import Decision, advance
from remediator.logs import log_decision
from remediator.metrics import METRICS, Metrics

_log = structlog.get_logger(__name__)

# The bus repeats an append until it is acknowledged or its own deadline passes; this one stands
# above it, so that a fault in there cannot hold the leader for ever. A leader that cannot write
# for this long has lost its Lease (15 s) anyway.
APPEND_DEADLINE_S = 15.0

_ILLEGAL = re.compile(r"[^A-Za-z0-9.-]")


def subject_of(decision: Decision) -> str:
    """Return the NATS subject of a record: ``remediator.decision.<subject kind>.<name>``."""
    about = decision.subject
    try:
        return subjects.decision(about.kind, about.name, about.namespace)
    except subjects.SubjectNameError:
        # Kubernetes names never come here; a host name used as identity may (for example "vm_1").
        name = _ILLEGAL.sub("-", about.name)[: subjects.NAME_LENGTH_MAX] or "unnamed"
        return subjects.decision(about.kind, name)


def message_id(decision: Decision, payload: bytes) -> str:
    """Return the id by which NATS recognises a repeat of this very record, and of no other."""
    return f"dec-{decision.seq}-{advance(payload, decision.seq).digest[:16]}"


class JournalWriter:
    """Appends records in order; each is logged and counted once it is acknowledged."""

    def __init__(
        self,
        stream: JournalStream,
        *,
        deadline_s: float = APPEND_DEADLINE_S,
        metrics: Metrics = METRICS,
    ) -> None:
        self._stream = stream
        self._deadline_s = deadline_s
        self._metrics = metrics

    async def append(self, decision: Decision, payload: bytes) -> None:
        """Append one record and wait until it is stored. Safe to repeat with the same record.

        Raises AppendRefusedError when somebody else wrote (we are deposed: stop acting) and
        BusUnavailableError when no answer came in time (whether it is stored is unknown: repeat
        it, or stop; never act on it).
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._append(decision, payload)
        except TimeoutError as error:
            raise BusUnavailableError(
                f"decision {decision.seq} was not acknowledged within {self._deadline_s:g} s"
            ) from error
        self._metrics.append_seconds.observe(loop.time() - began)
        self._metrics.decision(decision)
        log_decision(decision)

    async def _append(self, decision: Decision, payload: bytes) -> None:
        try:
            stored = await self._stream.append(
                subject_of(decision),
                payload,
                expected_last_seq=decision.seq - 1,
                message_id=message_id(decision, payload),
            )
        except AppendRefusedError:
            # A repeat after NATS forgot the message id (its window is two minutes) is refused too,
            # although the record that stands there is this one.
            if await self._is_stored(decision.seq, payload):
                _log.info("append_repeated", seq=decision.seq)
                return
            raise
        if stored != decision.seq:
            raise AppendRefusedError(
                f"decision {decision.seq} was stored as {stored}: somebody else writes the journal"
            )

    async def _is_stored(self, seq: int, payload: bytes) -> bool:
        async for record in self._stream.read(seq):
            return record.seq == seq and record.payload == payload
        return False
