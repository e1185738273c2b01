from __future__ import annotations

import asyncio
import os
import signal

import msgspec
import nats.errors
import pytest

from remediator.bus.connection import JetStreamError, connect
from remediator.bus.protocols import BusUnavailableError
from remediator.bus.session import BusRefusedError
from remediator.bus.settings import NatsConfigError, NatsSettings


async def _listener(answer: bytes):
    async def serve(reader, writer) -> None:
        if answer:
            writer.write(answer)
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    return listener, f"nats://127.0.0.1:{listener.sockets[0].getsockname()[1]}"


async def test_nothing_listens():
    settings = NatsSettings(url="nats://127.0.0.1:1", connect_timeout_s=0.6)
    with pytest.raises(BusUnavailableError, match=r"cannot reach NATS .* connection refused"):
        await connect(settings, "test")


async def test_the_first_connect_waits_for_a_server_that_comes_late(server, pause):
    url, late = server.settings, asyncio.get_running_loop()
    pause(server.pid)
    late.call_later(0.5, os.kill, server.pid, signal.SIGCONT)
    opened = await connect(url, "test")
    assert opened.connected
    await opened.close()


async def test_a_wrong_password_is_refused_at_once(server, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.write_text("no")
    settings = msgspec.structs.replace(
        server.settings, password_file=str(wrong), connect_timeout_s=30.0
    )
    async with asyncio.timeout(5):
        with pytest.raises(BusRefusedError, match="refused our login"):
            await connect(settings, "test")


async def test_no_login_is_refused_where_one_is_asked_for(server):
    with pytest.raises(BusRefusedError, match="refused our login"):
        await connect(NatsSettings(url=server.settings.url), "test")


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9.2\r\n", b"INFO nonsense\r\n"])
async def test_another_kind_of_server_is_told_apart(greeting):
    listener, url = await _listener(greeting)
    async with listener:
        with pytest.raises(BusUnavailableError, match="is not a NATS server"):
            await connect(NatsSettings(url=url, connect_timeout_s=1), "test")


async def test_a_server_that_says_nothing_is_given_up_in_time():
    listener, url = await _listener(b"")
    async with listener, asyncio.timeout(3):
        with pytest.raises(BusUnavailableError, match="cannot reach NATS"):
            await connect(NatsSettings(url=url, connect_timeout_s=0.5), "test")


async def test_tls_is_not_given_up_when_the_server_offers_none(server):
    """nats-py would go on in plaintext and send the password."""
    settings = msgspec.structs.replace(
        server.settings, url=server.settings.url.replace("nats:", "tls:")
    )
    with pytest.raises(BusRefusedError, match="does not offer TLS"):
        await connect(settings, "test")


async def test_bad_settings_are_told_before_any_connection():
    with pytest.raises(NatsConfigError):
        await connect(NatsSettings(url="redis://x"), "test")
    with pytest.raises(NatsConfigError, match=r"EmbeddedServer\.settings"):
        await connect(NatsSettings(), "test")


async def test_a_restart_is_survived_and_the_hooks_run_in_order(watched, connection, until):
    seen = []

    async def note_streams() -> None:
        answer = await connection.api("STREAM.NAMES")
        seen.append(sorted(answer["streams"]))

    connection.on_reconnect.append(note_streams)
    os.kill(watched.pid, signal.SIGKILL)
    await until(lambda: not connection.connected)
    await until(lambda: seen, 15)
    assert connection.connected
    assert connection.reconnects == 1
    # JetStream forgets memory streams when it restarts: the first hook made them again.
    assert seen == [["DEAD_LETTERS", "DECISIONS", "HEARTBEATS", "INVENTORY", "SIGNALS"]]


async def test_a_hook_that_fails_is_called_again(watched, connection, until):
    calls = []

    async def fails_twice() -> None:
        calls.append(1)
        if len(calls) < 3:
            raise BusUnavailableError("not yet")

    connection.on_reconnect.append(fails_twice)
    os.kill(watched.pid, signal.SIGKILL)
    await until(lambda: len(calls) == 3, 15)


async def test_a_half_open_link_is_noticed_and_replaced(proxied, proxy, until):
    proxy.half_open()
    assert proxied.connected  # nobody can know yet
    with pytest.raises(BusUnavailableError, match="no answer"):
        await proxied.request("$JS.API.INFO", timeout_s=0.5)
    await until(lambda: proxied.reconnects == 1, 8)
    await proxied.api("INFO")


async def test_a_half_open_link_is_noticed_without_any_traffic(proxied, proxy, until):
    client = proxied.client
    assert client.options["ping_interval"] == 5  # the default of 120 s would take six minutes
    client.options["ping_interval"] = 0.2
    client._ping_interval_task.cancel()
    client._ping_interval_task = asyncio.create_task(client._ping_interval())
    proxy.half_open()
    await until(lambda: proxied.reconnects == 1, 10)
    assert proxied.connected


async def test_a_stopped_server_is_waited_out(server, connection, until, pause):
    pause(server.pid)
    with pytest.raises(BusUnavailableError):
        await connection.api("INFO", timeout_s=0.3)
    await until(lambda: not connection.connected, 5)
    os.kill(server.pid, signal.SIGCONT)
    await connection.wait_connected(10)
    await connection.api("INFO")


async def test_a_late_answer_does_not_harm_the_connection(server, connection, pause):
    """After nats-py's own flush() a PONG that comes late kills the read loop; ours must not."""
    pause(server.pid)
    with pytest.raises(BusUnavailableError):
        await connection.api("INFO", timeout_s=0.2)
    os.kill(server.pid, signal.SIGCONT)
    await connection.api("INFO")
    assert connection.reconnects == 0


async def test_a_client_that_ended_for_good_is_replaced(connection, until):
    """nats-py closes for ever on an -ERR that it does not know."""
    await connection.client._process_err("'maximum connections exceeded'")
    await until(lambda: connection.reconnects == 1, 5)
    await connection.api("INFO")


async def test_close_while_disconnected_is_silent(server, connection, until):
    os.kill(server.pid, signal.SIGKILL)
    await until(lambda: not connection.connected)
    async with asyncio.timeout(6):
        await connection.close()
        await connection.close()
    assert not connection.connected
    with pytest.raises(BusUnavailableError, match="closed"):
        await connection.wait_connected(1)


async def test_close_ends_on_a_stopped_server(server, connection, pause):
    pause(server.pid)
    async with asyncio.timeout(6):
        await connection.close()


async def test_a_request_while_away_says_so_instead_of_filling_a_buffer(server, connection, until):
    os.kill(server.pid, signal.SIGKILL)
    await until(lambda: not connection.connected)
    with pytest.raises(BusUnavailableError, match="away"):
        await connection.request("x", b"y" * 3_000_000)
    with pytest.raises(BusUnavailableError, match="away for"):
        await connection.wait_connected(0.2)


async def test_jetstreams_errors_keep_their_code(connection):
    with pytest.raises(JetStreamError) as caught:
        await connection.api("STREAM.INFO.NOPE")
    assert (caught.value.code, caught.value.err_code) == (404, 10059)


async def test_cancelling_a_request_is_never_swallowed(connection):
    """asyncio.wait_for, which nats-py uses, swallows it before 3.12 when the answer just came."""
    for delay_s in (i / 20000 for i in range(60)):
        task = asyncio.create_task(connection.request("$JS.API.INFO"))
        await asyncio.sleep(delay_s)
        if task.done():
            continue
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()


async def test_natspy_still_has_the_fault_that_our_probe_avoids(server, pause, until):
    """If this fails, nats-py was repaired, and ``_probe_peer`` may use flush()."""
    opened = await connect(server.settings, "test")
    client = opened.client
    pause(server.pid)
    with pytest.raises(nats.errors.FlushTimeoutError):
        await client.flush(timeout=0.1)
    os.kill(server.pid, signal.SIGCONT)
    await until(client._reading_task.done, 3)
    await opened.close()
