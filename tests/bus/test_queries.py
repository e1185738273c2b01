"""Questions over a real NATS server: who answers, who does not, and what a restart changes."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from remediator.bus import queries
from remediator.bus.connection import connect
from remediator.bus.protocols import BusUnavailableError, NobodyAnswersError
from remediator.bus.queries import Answerer, ask, round_trip

SUBJECT = "remediator.query.test"


async def shout(question: bytes) -> bytes:
    return question.upper()


@pytest.fixture
async def other(server):
    opened = await connect(server.settings, "asker")
    yield opened
    await opened.close()


async def test_the_one_that_listens_answers(connection, other, run):
    answerer = Answerer(connection, SUBJECT, shout)
    async with run(answerer.run()):
        await answerer.listening.wait()
        assert await ask(other, SUBJECT, b"who leads?", timeout_s=5) == b"WHO LEADS?"


async def test_where_nobody_listens_that_is_said_at_once(connection):
    began = asyncio.get_running_loop().time()
    with pytest.raises(NobodyAnswersError):
        await ask(connection, SUBJECT, b"?", timeout_s=30)
    assert asyncio.get_running_loop().time() - began < 5


async def test_one_that_stays_silent_leaves_the_answer_to_another(connection, other, run):
    async def silent(_question: bytes) -> None:
        return None

    first, second = Answerer(connection, SUBJECT, silent), Answerer(other, SUBJECT, shout)
    async with run(first.run()), run(second.run()):
        await first.listening.wait()
        await second.listening.wait()
        assert await ask(other, SUBJECT, b"x", timeout_s=5) == b"X"


async def test_without_an_answer_in_time_it_says_so(connection, run):
    async def never(_question: bytes) -> bytes:
        return await asyncio.get_running_loop().create_future()

    answerer = Answerer(connection, SUBJECT, never)
    async with run(answerer.run()):
        await answerer.listening.wait()
        with pytest.raises(BusUnavailableError, match=r"no answer on .* in 0\.2 s"):
            await ask(connection, SUBJECT, b"?", timeout_s=0.2)


async def test_a_broken_answer_does_not_end_the_answerer(connection, run):
    async def fragile(question: bytes) -> bytes:
        if question == b"break":
            raise KeyError(question)
        return b"whole"

    answerer = Answerer(connection, SUBJECT, fragile)
    async with run(answerer.run()):
        await answerer.listening.wait()
        with pytest.raises(BusUnavailableError):
            await ask(connection, SUBJECT, b"break", timeout_s=0.2)
        assert await ask(connection, SUBJECT, b"?", timeout_s=5) == b"whole"


async def test_only_so_many_questions_are_worked_on_at_once(connection, other, run, until):
    gate = asyncio.Event()
    begun = 0

    async def slow(question: bytes) -> bytes:
        nonlocal begun
        begun += 1
        await gate.wait()
        return question

    answerer = Answerer(connection, SUBJECT, slow)
    async with run(answerer.run()):
        await answerer.listening.wait()
        asked = [
            asyncio.create_task(ask(other, SUBJECT, b"?", timeout_s=5))
            for _ in range(queries.AT_ONCE_MAX)
        ]
        await until(lambda: begun == queries.AT_ONCE_MAX)
        with pytest.raises(BusUnavailableError):
            await ask(other, SUBJECT, b"one too many", timeout_s=0.3)
        gate.set()
        assert await asyncio.gather(*asked) == [b"?"] * queries.AT_ONCE_MAX
        assert begun == queries.AT_ONCE_MAX
        assert await ask(other, SUBJECT, b"again", timeout_s=5) == b"again"


async def test_it_listens_again_after_the_server_was_killed(connection, watched, run, until):
    answerer = Answerer(connection, SUBJECT, shout)
    async with run(answerer.run()):
        await answerer.listening.wait()
        os.kill(watched.pid, signal.SIGKILL)
        await until(lambda: not answerer.listening.is_set(), 20)
        async with asyncio.timeout(40):
            while True:
                try:
                    assert await ask(connection, SUBJECT, b"back?", timeout_s=5) == b"BACK?"
                except BusUnavailableError:
                    await asyncio.sleep(0.05)  # the connection may break once more on its way back
                else:
                    break


async def test_a_round_trip_ends_in_time_while_nats_stands_still(connection, server, pause):
    await round_trip(connection, 5)
    pause(server.pid)
    began = asyncio.get_running_loop().time()
    with pytest.raises(BusUnavailableError):
        await round_trip(connection, 0.3)
    assert asyncio.get_running_loop().time() - began < 3
