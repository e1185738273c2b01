"""Virtual time: jumps, order, deadlocks, and what it refuses."""

from __future__ import annotations

import asyncio
import random
import threading
import time

import pytest

from remediator.clock import Clock
from remediator.sim.virtual_time import DeadlockError, VirtualTimeLoop, run


def test_an_hour_passes_at_once():
    async def main():
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    begun_at = time.monotonic()
    assert run(main()) == 3600
    assert time.monotonic() - begun_at < 5


@pytest.mark.parametrize("start_at", [0.0, 100.5, 1.8e9])
def test_time_starts_where_it_is_told_and_lands_on_each_timer(start_at):
    async def main():
        loop = asyncio.get_running_loop()
        seen = [loop.time()]
        for pause_s in (0.25, 10, 0.001):
            await asyncio.sleep(pause_s)
            seen.append(loop.time())
        return seen

    seen = run(main(), start_at=start_at)
    expected = [start_at, start_at + 0.25, start_at + 10.25, start_at + 10.251]
    assert seen == pytest.approx(expected, abs=1e-6)


def test_the_clock_runs_on_virtual_time():
    async def main():
        clock = Clock(epoch_at_start=1.8e9)
        await asyncio.sleep(42)
        return clock.now()

    assert run(main()) == 1.8e9 + 42


def test_time_does_not_move_while_anything_is_ready():
    async def main():
        loop = asyncio.get_running_loop()
        loop.call_later(1, lambda: None)
        for _ in range(1000):
            await asyncio.sleep(0)
        return loop.time()

    assert run(main()) == 0


def test_timers_of_one_instant_run_in_the_order_in_which_they_were_set():
    async def main():
        loop = asyncio.get_running_loop()
        order: list[int] = []
        for number in range(200):
            loop.call_at(5.0, order.append, number)
        await asyncio.sleep(6)
        return order

    assert run(main()) == list(range(200))


def test_a_timer_in_the_past_runs_now_and_time_never_steps_back():
    async def main():
        loop = asyncio.get_running_loop()
        await asyncio.sleep(10)
        done = loop.create_future()
        loop.call_at(3.0, done.set_result, None)
        await done
        return loop.time()

    assert run(main()) == 10


def test_the_same_seed_gives_the_same_run():
    async def worker(rng, log, name):
        for _ in range(50):
            await asyncio.sleep(rng.choice([0, 0.5, 1, rng.random()]))
            log.append((name, asyncio.get_running_loop().time()))

    async def main():
        rng, log = random.Random(7), []
        async with asyncio.TaskGroup() as group:
            for name in range(20):
                group.create_task(worker(rng, log, name))
        return log

    assert run(main()) == run(main())


def test_timeouts_expire_in_virtual_time():
    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert run(main()) == 30


def test_a_deadlock_is_an_error_that_names_who_waits():
    async def waits_for_ever():
        await asyncio.Event().wait()

    async def main():
        async with asyncio.TaskGroup() as group:
            group.create_task(waits_for_ever(), name="the-culprit")

    with pytest.raises(DeadlockError, match=r"the-culprit at .*waits_for_ever"):
        run(main())


def test_a_cancelled_timer_does_not_move_time():
    async def main():
        loop = asyncio.get_running_loop()
        loop.call_later(1000, lambda: None).cancel()
        await asyncio.sleep(1)
        return loop.time()

    assert run(main()) == 1


def test_a_cancelled_timer_alone_is_still_a_deadlock():
    async def main():
        asyncio.get_running_loop().call_later(1000, lambda: None).cancel()
        await asyncio.Event().wait()

    with pytest.raises(DeadlockError):
        run(main())


def test_cancelled_timers_do_not_pile_up():
    async def main():
        loop = asyncio.get_running_loop()
        loop.call_later(500_000, lambda: None)  # lives, and hides the cancelled ones behind it
        for _ in range(10_000):
            async with asyncio.timeout(1_000_000):
                await asyncio.sleep(0.001)
        assert isinstance(loop, VirtualTimeLoop)
        return len(loop._timers)

    assert run(main()) < 300


def test_cancelling_a_timer_twice_or_after_it_ran_keeps_the_count():
    async def main():
        loop = asyncio.get_running_loop()
        ran = loop.call_later(1, lambda: None)
        late = loop.call_later(500, lambda: None)
        await asyncio.sleep(2)
        for timer in (ran, late, late):
            timer.cancel()
        assert isinstance(loop, VirtualTimeLoop)
        counted = loop._timers_cancelled
        await asyncio.sleep(1000)
        return counted, loop._timers_cancelled

    assert run(main()) == (1, 0)


def test_what_is_left_running_is_cancelled_at_the_end():
    ended: list[str] = []

    async def background():
        try:
            await asyncio.sleep(1e9)
        finally:
            ended.append("background")

    async def main():
        task = asyncio.create_task(background())
        await asyncio.sleep(1)
        return task

    run(main())
    assert ended == ["background"]


def test_an_exception_of_the_main_coroutine_comes_out():
    async def main():
        await asyncio.sleep(1)
        raise LookupError("lost")

    with pytest.raises(LookupError, match="lost"):
        run(main())


def test_threads_are_refused():
    async def executor():
        await asyncio.to_thread(time.sleep, 0)

    with pytest.raises(RuntimeError, match="no threads"):
        run(executor())

    async def calls_in():
        loop = asyncio.get_running_loop()
        errors: list[BaseException] = []

        def other_thread():
            try:
                loop.call_soon_threadsafe(print)
            except RuntimeError as error:
                errors.append(error)

        thread = threading.Thread(target=other_thread)
        thread.start()
        thread.join()
        return str(errors[0])

    assert "one thread" in run(calls_in())


def test_sockets_are_refused():
    async def main():
        await asyncio.open_connection("127.0.0.1", 9)

    with pytest.raises(RuntimeError, match="no sockets"):
        run(main())


def test_a_closed_loop_takes_no_timers():
    loop = VirtualTimeLoop()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_later(1, print)
