"""Waiting until a moment must end on virtual time, as it does on a real clock."""

from __future__ import annotations

import asyncio
import contextlib

from remediator.sim.virtual_time import run

ROUNDS_MAX = 1000


async def wait_until(due: float, *, hops: int) -> int:
    """Wait as ``Term._loop`` and ``PowerProbe.run`` do; return how often that took.

    ``hops``: turns of the loop spent after the first wait, so that two waiters are out of step.
    """
    loop, rounds = asyncio.get_running_loop(), 0
    while loop.time() < due and rounds < ROUNDS_MAX:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(due - loop.time()):
                await asyncio.Event().wait()
        rounds += 1
        if rounds == 1:
            for _ in range(hops):
                await asyncio.sleep(0)
    return rounds


def test_two_waiters_for_a_moment_right_behind_another_timer_do_not_spin():
    async def story() -> list[int]:
        loop = asyncio.get_running_loop()
        due = loop.time() + 1.0
        loop.call_at(due - 5e-7, lambda: None)
        return await asyncio.gather(*(wait_until(due, hops=hops) for hops in (0, 1, 2)))

    assert max(run(story())) < 10
