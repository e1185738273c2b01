from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from remediator.bus.connection import connect
from remediator.bus.embedded import (
    DirectoryInUseError,
    EmbeddedServer,
    EmbeddedServerError,
    EmbeddedSettings,
    server_binary,
)
from remediator.bus.streams import ensure_all


def test_the_binary_comes_from_the_installed_package_not_from_path(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    said = subprocess.run([server_binary(), "--version"], capture_output=True, check=True)
    assert said.stdout.startswith(b"nats-server: v2.")


async def test_the_server_itself_reports_that_it_syncs_each_write(server):
    config = (await server.health())["config"]
    assert config["sync_always"] is True
    assert config["max_memory"] == EmbeddedSettings().memory_max
    assert config["max_storage"] == EmbeddedSettings().disk_max
    assert config["store_dir"].startswith(str(server.directory))


async def test_it_listens_on_loopback_only(server):
    inodes = {
        link.split("[")[1].rstrip("]")
        for file in Path(f"/proc/{server.pid}/fd").iterdir()
        if (link := str(file.readlink())).startswith("socket:")
    }
    listening = [
        fields[1]
        for name in ("tcp", "tcp6")
        for fields in map(str.split, Path(f"/proc/net/{name}").read_text().splitlines()[1:])
        if fields[3] == "0A" and fields[9] in inodes
    ]
    assert [address.split(":")[0] for address in listening] == ["0100007F"]


async def test_its_secrets_are_for_their_owner_only(server):
    for name in ("password", "system-password", "server.conf"):
        assert (server.directory / name).stat().st_mode & 0o077 == 0
    command_line = Path(f"/proc/{server.pid}/cmdline").read_text()
    assert (server.directory / "password").read_text() not in command_line


async def test_a_second_daemon_on_the_directory_is_refused_and_the_first_lives_on(server):
    with pytest.raises(DirectoryInUseError, match=rf"in use .*process {os.getpid()}"):
        await EmbeddedServer(server.directory).start()
    assert (await server.health())["config"]["sync_always"]


async def test_a_directory_that_cannot_be_used_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedServerError, match=r"cannot use .*/file/x for NATS"):
        await EmbeddedServer(tmp_path / "file" / "x").start()


async def test_a_port_that_is_taken_is_a_clear_error_and_leaves_no_process(server, tmp_path):
    taken = int(server.settings.url.rpartition(":")[2])
    other = EmbeddedServer(tmp_path / "other", settings=EmbeddedSettings(port=taken))
    with pytest.raises(EmbeddedServerError, match="address already in use"):
        await other.start()
    assert other.pid is None


async def test_it_stops_cleanly_and_starts_again_with_its_records(tmp_path):
    for expected in (0, 1):
        async with EmbeddedServer(tmp_path) as server:
            pid = server.pid
            opened = await connect(server.settings, "test")
            await ensure_all(opened)
            info = await opened.api("STREAM.INFO.DECISIONS")
            assert info["state"]["last_seq"] == expected
            await opened.request("remediator.decision.node.n", b"x")
            await opened.close()
        assert not Path(f"/proc/{pid}").exists()


async def test_one_that_ignores_sigterm_is_killed(server, pause, monkeypatch):
    monkeypatch.setattr("remediator.bus.embedded.STOP_TIMEOUT_S", 0.3)
    pid = server.pid
    pause(pid)
    async with asyncio.timeout(3):
        await server.stop()
    assert not Path(f"/proc/{pid}").exists()


async def test_it_comes_back_on_the_same_url_when_it_dies(watched, until):
    settings, pid = watched.settings, watched.pid
    os.kill(pid, signal.SIGKILL)
    await until(lambda: watched.restarts == 1 and watched.pid not in (None, pid))
    assert watched.settings == settings
    opened = await connect(settings, "test")
    await opened.close()


async def test_one_that_keeps_dying_is_given_up(server, monkeypatch):
    monkeypatch.setattr("remediator.bus.embedded.START_FAILURES_MAX", 2)
    watch = asyncio.create_task(server.run())
    (server.directory / "store").rename(server.directory / "moved")
    (server.directory / "store").write_text("not a directory")
    os.kill(server.pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        with pytest.raises(EmbeddedServerError, match="keeps dying"):
            await watch


async def test_a_server_whose_daemon_was_killed_is_stopped_before_its_store_is_opened(tmp_path):
    program = f"""
        import asyncio, sys
        from pathlib import Path
        from remediator.bus.embedded import EmbeddedServer

        async def main():
            server = EmbeddedServer(Path({str(tmp_path)!r}))
            await server.start()
            print(server.pid, flush=True)
            await asyncio.sleep(600)

        asyncio.run(main())
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True
    ) as daemon:
        while not (line := daemon.stdout.readline()).strip().isdigit():
            assert line, "the daemon died"
        orphan = int(line)
        daemon.kill()
    assert Path(f"/proc/{orphan}").exists()
    async with EmbeddedServer(tmp_path) as server:
        assert server.pid != orphan
        assert _is_dead(orphan)
        assert (await server.health())["config"]["sync_always"]


async def test_a_process_that_only_looks_alike_is_left_alone(tmp_path, until, monkeypatch):
    """The lock is held by a stranger: no process is our server, so none may be killed."""
    monkeypatch.setattr("remediator.bus.embedded.STOP_TIMEOUT_S", 0.2)
    holder = subprocess.Popen(
        ["flock", str(tmp_path / "server.lock"), "sleep", "600"], start_new_session=True
    )
    try:
        try_lock = ["flock", "-n", str(tmp_path / "server.lock"), "true"]
        await until(lambda: subprocess.run(try_lock, check=False).returncode != 0)
        with pytest.raises(EmbeddedServerError, match="still uses"):
            await EmbeddedServer(tmp_path).start()
        assert holder.poll() is None
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.wait()


def _is_dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
