"""The leader tells every replica's webhook how many pods may start: every second, and at changes.

What a stuck leader would tell is about the past: it tells nothing, and soon nothing is held back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from remediator.admission.state import encode, state_of
from remediator.bus.protocols import PaceChannel
from remediator.clock import Clock
from remediator.engine import gates
from remediator.engine.machine import Engine
from remediator.engine.model import Subject

PERIOD_S: Final = 1.0
# Changes come in swarms: one record for each VM of a storm.
_SWARM_S: Final = 0.05
# The engine gets a tick every second; one that has had none for longer waits for an append.
_STUCK_S: Final = 3.0


class PacePublisher:
    """Speaks for one term of leadership. ``changed`` is set whenever the engine has recorded."""

    def __init__(
        self,
        engine: Callable[[], Engine],
        channel: PaceChannel,
        clock: Clock,
        *,
        changed: asyncio.Event,
    ) -> None:
        self._engine = engine
        self._channel = channel
        self._clock = clock
        self._changed = changed
        self._number = 0
        self._hints: dict[Subject, tuple[str, ...]] = {}
        self._hinted_at = 0.0

    async def run(self) -> None:
        """Tell until cancelled."""
        while True:
            self._changed.clear()
            self._tell()
            await asyncio.sleep(_SWARM_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PERIOD_S - _SWARM_S):
                    await self._changed.wait()

    def _tell(self) -> None:
        context = self._engine().context
        if self._clock.now() - context.now > _STUCK_S:
            return
        self._number += 1
        if context.now - self._hinted_at >= PERIOD_S:
            # Dear in a large storm, and as good a second later.
            self._hinted_at = context.now
            self._hints = gates.hints(context) if context.inventory.synced else {}
        state = state_of(context, self._number, hints=self._hints)
        self._channel.tell(encode(state))
