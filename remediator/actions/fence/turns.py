"""Whose turn it is at one device: so many at once, and an order before every question.

A shared power strip often takes one session. Whoever only asks gives way to an order at once: a
question in peace must not cost a fence its time, nor break its session.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Turns:
    """The turns at one device, of which ``at_once`` are taken at a time.

    Questions take turns only where a device takes one at a time: any other has room for them.
    """

    def __init__(self, at_once: int) -> None:
        self._alone = at_once == 1
        self._free = asyncio.Semaphore(at_once)
        self._orders_waiting = 0
        self._questions: set[asyncio.Task[Any]] = set()

    @contextlib.asynccontextmanager
    async def order(self) -> AsyncIterator[None]:
        """Have a turn for an order; questions that are in its way are broken off."""
        self._orders_waiting += 1
        try:
            if self._free.locked():
                for question in self._questions:
                    question.cancel()
            await self._free.acquire()
        finally:
            self._orders_waiting -= 1
        try:
            yield
        finally:
            self._free.release()

    async def question(self, ask: Coroutine[Any, Any, T]) -> T | None:
        """Return the answer; None where an order came first. Raises what ``ask`` raises."""
        if not self._alone:
            return await ask
        try:
            await self._free.acquire()
        except BaseException:
            ask.close()
            raise
        try:
            if self._orders_waiting:
                ask.close()
                return None
            return await self._asked(asyncio.ensure_future(ask))
        finally:
            self._free.release()

    async def _asked(self, asking: asyncio.Task[T]) -> T | None:
        self._questions.add(asking)
        try:
            await asyncio.wait({asking})
        finally:
            self._questions.discard(asking)
            if not asking.done():  # it is we who are cancelled
                asking.cancel()
                await asyncio.wait({asking})
        return None if asking.cancelled() else asking.result()
