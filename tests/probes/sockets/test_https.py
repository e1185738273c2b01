"""Health pages over HTTPS on loopback, with a certificate that nobody can verify."""

from __future__ import annotations

import asyncio

import pytest

from remediator.probes.https import HttpsAsker


@pytest.fixture
async def asker():
    made = HttpsAsker()
    yield made
    await made.close()


@pytest.mark.parametrize("status", ["200 OK", "403 Forbidden", "500 Oops"])
async def test_any_status_is_an_answer(hosts, asker, status):
    port = await hosts.page(hosts.http(status))
    assert await asker.status(f"https://127.0.0.1:{port}/healthz", 5.0) == int(status[:3])


async def test_a_redirect_is_an_answer_and_is_not_followed(hosts, asker):
    port = await hosts.page(hosts.http("302 Found", "Location: https://127.0.0.1:1/"))
    assert await asker.status(f"https://127.0.0.1:{port}/", 5.0) == 302


async def test_each_probe_has_a_connection_of_its_own(hosts, asker):
    answered = 0

    async def count() -> bytes:
        nonlocal answered
        answered += 1
        return hosts.http("200 OK")

    port = await hosts.page(count)
    for _ in range(3):
        await asker.status(f"https://127.0.0.1:{port}/", 5.0)
    assert answered == 3
    assert not asker._session.connector._conns


async def test_a_host_that_accepts_and_never_speaks_is_silent(hosts, asker):
    listener = hosts.accepting()
    with pytest.raises(TimeoutError):
        await asker.status(f"https://127.0.0.1:{listener.port}/", 0.3)


async def test_a_page_that_is_slower_than_the_deadline_is_silent(hosts, asker):
    async def dawdle() -> bytes:
        await asyncio.sleep(60.0)
        return hosts.http("200 OK")

    port = await hosts.page(dawdle)
    with pytest.raises(TimeoutError):
        await asker.status(f"https://127.0.0.1:{port}/", 0.5)


async def test_a_slow_page_within_the_deadline_answers(hosts, asker):
    async def dawdle() -> bytes:
        await asyncio.sleep(0.3)
        return hosts.http("200 OK")

    port = await hosts.page(dawdle)
    assert await asker.status(f"https://127.0.0.1:{port}/", 20.0) == 200


async def test_a_black_hole_is_silent(hosts, asker):
    listener = hosts.black_hole()
    with pytest.raises(TimeoutError):
        await asker.status(f"https://127.0.0.1:{listener.port}/", 0.3)


async def test_a_refused_connection_says_so(hosts, asker):
    listener = hosts.refusing()
    with pytest.raises(ConnectionRefusedError):
        await asker.status(f"https://127.0.0.1:{listener.port}/", 5.0)


@pytest.mark.parametrize("garbage", [b"HTTP/1.0 200 OK\r\n\r\n", b"\x00" * 64])
async def test_something_that_speaks_no_tls_has_answered(hosts, asker, garbage):
    listener = hosts.accepting()

    async def speak() -> None:
        connection, _ = await asyncio.get_running_loop().sock_accept(listener.socket)
        with connection:
            connection.sendall(garbage)
            await asyncio.get_running_loop().create_future()

    speaking = asyncio.create_task(speak())
    with pytest.raises(ConnectionResetError):
        await asker.status(f"https://127.0.0.1:{listener.port}/", 5.0)
    speaking.cancel()
    await asyncio.wait({speaking})


@pytest.mark.parametrize("garbage", [b"no http at all\r\n\r\n", b"", b"HTTP/1.1 boom\r\n\r\n"])
async def test_something_that_speaks_tls_and_no_http_has_answered(hosts, asker, garbage):
    port = await hosts.page(garbage)
    with pytest.raises(ConnectionResetError):
        await asker.status(f"https://127.0.0.1:{port}/", 5.0)
