from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable

import pytest

from remediator.sim import virtual_time
from remediator.sim.storage import SharedStorage, StorageSettings


def on_virtual_time(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        virtual_time.run(test(*args, **kwargs))

    return run


async def boot_all(storage: SharedStorage, count: int) -> list[float]:
    """Start ``count`` boots at once; return when each was through, from now."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    ends: list[float] = []
    for _ in range(count):
        storage.boot(lambda: ends.append(loop.time() - began))
    await asyncio.sleep(300.0)
    return ends


@pytest.mark.parametrize(
    ("boots", "takes_s"),
    [(1, 10.0), (10, 10.0), (20, 30.0), (60, 210.0)],
)
@on_virtual_time
async def test_a_storm_takes_as_long_as_measured_in_the_lab(boots, takes_s):
    storage = SharedStorage()
    ends = await boot_all(storage, boots)
    assert ends == pytest.approx([takes_s] * boots, abs=0.01)
    assert storage.peak_boots == boots


@pytest.mark.parametrize(("boots", "takes_s"), [(20, 20.0), (60, 60.0)])
@on_virtual_time
async def test_the_same_boots_paced_ten_at_a_time_take_no_longer_than_their_sum(boots, takes_s):
    storage = SharedStorage()
    done = 0
    waiting = boots

    def finished():
        nonlocal done
        done += 1
        start_one()

    def start_one():
        nonlocal waiting
        if waiting:
            waiting -= 1
            storage.boot(finished)

    for _ in range(10):
        start_one()
    await asyncio.sleep(takes_s - 0.1)
    assert done == boots - 10
    await asyncio.sleep(0.2)
    assert done == boots
    assert storage.peak_boots == 10


@on_virtual_time
async def test_a_late_boot_slows_the_others_only_while_it_runs():
    # Two guests can read at full speed; a third costs 2/3 each and some thrash.
    settings = StorageSettings(iops=200, guest_iops_max=100, thrash=0.5, boot_ios=1000)
    storage = SharedStorage(settings)
    loop = asyncio.get_running_loop()
    ends: dict[str, float] = {}

    def note(name):
        return lambda: ends.__setitem__(name, loop.time())

    storage.boot(note("one"))
    storage.boot(note("two"))
    await asyncio.sleep(5.0)
    storage.boot(note("late"))
    await asyncio.sleep(60.0)
    # Three at once: 200 / (1 + 0.5 * 0.5) / 3 = 53.3 I/Os per second each.
    rate = 200 / 1.25 / 3
    assert ends["one"] == ends["two"] == pytest.approx(5 + 500 / rate)
    left_of_late = 1000 - 500
    assert ends["late"] == pytest.approx(5 + 500 / rate + left_of_late / 100)


@on_virtual_time
async def test_a_cancelled_boot_gives_its_share_back_and_is_never_reported():
    storage = SharedStorage(
        StorageSettings(iops=100, guest_iops_max=100, thrash=0.0, boot_ios=1000)
    )
    loop = asyncio.get_running_loop()
    ends: list[float] = []
    storage.boot(lambda: ends.append(loop.time()))
    other = storage.boot(lambda: pytest.fail("it was cancelled"))
    await asyncio.sleep(10.0)
    other.cancel()
    await asyncio.sleep(60.0)
    assert ends == [pytest.approx(15.0)]
    assert storage.boots == 0


@on_virtual_time
async def test_a_suspended_boot_goes_on_where_it_stood():
    storage = SharedStorage()
    loop = asyncio.get_running_loop()
    ends: list[float] = []
    boot = storage.boot(lambda: ends.append(loop.time()))
    await asyncio.sleep(4.0)
    boot.suspend()
    await asyncio.sleep(100.0)
    assert storage.boots == 0
    boot.resume()
    await asyncio.sleep(20.0)
    assert ends == [pytest.approx(110.0)]


@on_virtual_time
async def test_a_guest_whose_boot_times_out_begins_again():
    # 60 boots at once need 210 s each: with a limit of 100 s none is ever through.
    storage = SharedStorage(StorageSettings(boot_timeout_s=100.0))
    restarts = 0

    def restarted():
        nonlocal restarts
        restarts += 1

    boots = [storage.boot(lambda: pytest.fail("through"), restarted=restarted) for _ in range(60)]
    await asyncio.sleep(250.0)
    assert restarts == storage.timeouts == 120
    # Once most have given up, the rest gets through.
    for boot in boots[5:]:
        boot.cancel()
    for boot in boots[:5]:
        boot.finished = lambda: None
    await asyncio.sleep(20.0)
    assert storage.boots == 0


@on_virtual_time
async def test_boots_of_different_size_end_in_the_order_of_their_work():
    storage = SharedStorage()
    order: list[str] = []
    storage.boot(lambda: order.append("big"), ios=30_000)
    storage.boot(lambda: order.append("small"), ios=1_500)
    storage.boot(lambda: order.append("normal"))
    await asyncio.sleep(60.0)
    assert order == ["small", "normal", "big"]
