"""Knocking on real ports of loopback."""

from __future__ import annotations

import asyncio
import errno
import time
from pathlib import Path

import pytest

from remediator.probes.tcp import knock

TIME_WAIT = "06"


def sockets_of(port: int) -> list[str]:
    """The states of all TCP sockets that have to do with a port."""
    wanted = f":{port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    return [one[3] for one in fields if wanted in (one[1][-5:], one[2][-5:])]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_host_that_accepts_answers_and_its_program_never_learns_of_it(hosts, host):
    listener = hosts.accepting(host)
    for _ in range(20):
        await knock(host, listener.port, 1.0)
    assert listener.drain() == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_host_that_refuses_says_so(hosts, host):
    listener = hosts.refusing(host)
    with pytest.raises(ConnectionRefusedError):
        await knock(host, listener.port, 1.0)


async def test_a_black_hole_takes_the_whole_deadline_and_no_more(hosts):
    listener = hosts.black_hole()
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await knock(listener.host, listener.port, 0.3)
    assert 0.29 <= time.monotonic() - began < 5.0


async def test_a_slow_host_answers_within_a_deadline_that_is_long_enough(hosts):
    listener = hosts.black_hole()
    knocking = asyncio.create_task(knock(listener.host, listener.port, 30.0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    listener.drain()  # the kernel answers the SYN when it is repeated, a second later
    await knocking


async def test_a_program_that_hangs_does_not_make_its_host_silent(hosts):
    listener = hosts.accepting()  # accepts nothing, ever: the kernel answers
    await knock(listener.host, listener.port, 1.0)


async def test_an_answer_that_waited_for_a_late_loop_is_an_answer(hosts):
    listener = hosts.black_hole()
    knocking = asyncio.create_task(knock(listener.host, listener.port, 1.5))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    listener.drain()
    time.sleep(3.0)  # the answer comes after a second, the deadline passes half a second later
    await knocking


@pytest.mark.parametrize("address", ["localhost", "", "127.0.0.1; id", "a" * 400, "\x00"])
async def test_what_is_no_address_is_refused_and_never_resolved(address):
    with pytest.raises(OSError, match="is no IP address") as raised:
        await knock(address, 10250, 1.0)
    assert raised.value.errno == errno.EINVAL


async def test_thousands_of_probes_leave_no_socket_behind(hosts):
    accepting, refusing = hosts.accepting(), hosts.refusing()
    for _ in range(50):
        await asyncio.gather(*(knock("127.0.0.1", accepting.port, 5.0) for _ in range(50)))
        refused = await asyncio.gather(
            *(knock("127.0.0.1", refusing.port, 5.0) for _ in range(50)), return_exceptions=True
        )
        assert all(isinstance(one, ConnectionRefusedError) for one in refused)
    assert TIME_WAIT not in sockets_of(accepting.port)
    assert sockets_of(accepting.port) == ["0A"]  # the listener itself
    assert sockets_of(refusing.port) == []


async def test_a_cancelled_probe_closes_its_socket(hosts):
    listener = hosts.black_hole()
    before = len(sockets_of(listener.port))
    knocking = asyncio.create_task(knock(listener.host, listener.port, 60.0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(sockets_of(listener.port)) == before + 1
    knocking.cancel()
    await asyncio.wait({knocking})
    assert len(sockets_of(listener.port)) == before
