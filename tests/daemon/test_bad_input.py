"""Bad input to the real process: one clear line, the documented exit code, nothing lost."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from remediator.bus.connection import BusConnection, connect
from remediator.bus.embedded import EmbeddedServer
from remediator.bus.journal_stream import NatsJournal
from remediator.bus.server_files import server_binary
from remediator.bus.settings import NatsSettings
from remediator.exit_codes import ExitCode
from remediator.sim.http_server import write_kubeconfig

_spec = importlib.util.spec_from_file_location("lab", Path(__file__).with_name("conftest.py"))
_lab = sys.modules.get("lab") or importlib.util.module_from_spec(_spec)
if sys.modules.setdefault("lab", _lab) is _lab and not hasattr(_lab, "open_lab"):
    _spec.loader.exec_module(_lab)
open_lab, until = _lab.open_lab, _lab.until

START_S = 40.0  # a start takes 2 s; the machine may be busy


@pytest.fixture
async def lab(tmp_path) -> AsyncIterator[_lab.Lab]:
    async with open_lab(tmp_path, nodes=1, zones=1, vms=0) as opened:
        yield opened


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that nobody listens on, and that nobody else can take meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture
def mute_port() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen(64)
        yield mute.getsockname()[1]


@contextlib.asynccontextmanager
async def web_server(status: int, body: str = "", kind: str = "text/html") -> AsyncIterator[int]:
    async def answer(_request: web.BaseRequest) -> web.Response:
        return web.Response(status=status, text=body, content_type=kind)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def refused(lab, code: ExitCode, *words: str, lines: int = 1, arguments=()) -> list[str]:
    """Start the daemon; it must end with ``code`` and say why in ``lines`` lines with ``words``."""
    daemon = lab.daemon
    daemon.log.unlink(missing_ok=True)
    daemon.start(*arguments)
    assert await daemon.ended(START_S) == code
    log = daemon.log.read_text()
    assert "Traceback" not in log
    ends = [event for event in daemon.events() if event.get("event") == "daemon_ends"]
    said = [event["why"] for event in ends]
    assert all(event["code"] == code for event in ends)
    if not said:  # before there are settings there is no log, only stderr
        said = log.splitlines()
        assert said[0].startswith("remediator: "), log
    assert len(said) == lines, said
    for word in words:
        assert any(word in line for line in said), (word, said)
    return said


async def lead(lab) -> None:
    """Start the daemon and wait until it has written to the journal."""
    lab.daemon.start()
    await until(lambda: lab.daemon.decided() >= 1, START_S, "the daemon to lead")


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mode: observe\ndetektion: {}\n", ["config.yaml:2:1", "detektion: unknown key"]),
        ("http: {port: eighty}\n", ["config.yaml:1:8", "http.port", "expected int"]),
        (
            "election: {timing: {lease_duration_s: 15 parsecs}}\n",
            ["election.timing.lease_duration_s", "'15 parsecs' is not a duration"],
        ),
        ("mode: [enforce\nx: }{\n", ["config.yaml:2:2", "expected ',' or ']'"]),
        ("nats: {url: 'http://10.0.0.1:4222'}\n", ["nats.url", "nats:// or tls://"]),
        ("nats: {url: 'nats://h:4222', user: u, password_file: /nope}\n", ["/nope", "No such"]),
    ],
)
async def test_wrong_settings_name_file_line_key_and_fault(tmp_path, text, words):
    daemon = _lab.Daemon(tmp_path)
    daemon.config.write_text(text)
    await refused(_Bare(daemon), ExitCode.USAGE, *words)


async def test_every_wrong_key_gets_its_line(tmp_path):
    daemon = _lab.Daemon(tmp_path)
    daemon.config.write_text("a: 1\nmode: maybe\nhttp:\n  port: []\n")
    await refused(_Bare(daemon), ExitCode.USAGE, "a: unknown key", "'maybe'", "http.port", lines=3)


@pytest.mark.parametrize("content", [None, b"\x00\xff\xfe\x80"])
async def test_a_config_file_that_is_missing_or_no_text(tmp_path, content):
    daemon = _lab.Daemon(tmp_path)
    if content is not None:
        daemon.config.write_bytes(content)
    await refused(_Bare(daemon), ExitCode.USAGE, str(daemon.config))


async def test_a_wrong_variable_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("REMEDIATOR_HTTP__PROT", "80")
    daemon = _lab.Daemon(tmp_path)
    daemon.config.write_text("{}")
    await refused(_Bare(daemon), ExitCode.USAGE, "REMEDIATOR_HTTP__PROT", "did you mean 'port'")


class _Bare:
    """As much of a lab as ``refused`` needs."""

    def __init__(self, daemon) -> None:
        self.daemon = daemon


# --- policies and secrets -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, ["holds no policy"]),
        ({"a.yaml": "kind: [\n"}, ["a.yaml:2:1"]),
        (None, ["is not a directory"]),
    ],
)
async def test_policies_that_cannot_be_used(lab, files, words):
    directory = lab.directory / "policies"
    if files is not None:
        directory.mkdir()
        for name, text in files.items():
            (directory / name).write_text(text)
    lab.configure(policies=str(directory))
    await refused(lab, ExitCode.USAGE, str(directory), *words)


async def test_each_fault_of_a_policy_gets_its_line(lab):
    shipped = Path(_lab.__file__).parents[2] / "policies" / "node-lost.yaml"
    directory = lab.directory / "policies"
    directory.mkdir()
    wrong = (
        shipped.read_text().replace("verdicts:", "verdict:").replace("spec:", "spec:\n  x: 1", 1)
    )
    (directory / "mine.yaml").write_text(wrong)
    lab.configure(policies=str(directory))
    said = await refused(lab, ExitCode.USAGE, "spec.x: unknown key", "spec.verdict", lines=3)
    assert all(f"{directory}/mine.yaml:" in line for line in said)


@pytest.mark.parametrize("content", [None, "\n"])
async def test_a_missing_or_empty_bmc_password_is_found_at_start(lab, content):
    password = lab.directory / "password"
    password.unlink()
    if content is not None:
        password.write_text(content)
    await refused(lab, ExitCode.USAGE, "fence.devices[0].password_file", str(password))


FENCE_CONFIG = """apiVersion: remediator.io/v1alpha1
kind: FenceConfig
metadata: {{name: racks}}
spec:
  devices:
    - {{name: bmc, method: redfish, endpoint: {endpoint}, credentials: {{{login}}}}}
    - {{name: pdu, method: agent, program: fence_of_mine}}
  levels: [{{devices: [bmc, pdu]}}]
"""


async def test_every_fault_of_the_fence_configurations_is_found_at_start(lab):
    directory = lab.directory / "fence"
    directory.mkdir()
    text = FENCE_CONFIG.format(endpoint="bmc.example", login="username: a, passwordFile: /none")
    (directory / "racks.yaml").write_text(text)
    (directory / "more.yaml").write_text("kind: FenceConfig\n")
    lab.configure(fence={"configs": str(directory)})
    said = await refused(lab, ExitCode.USAGE, "is no URL of a BMC", "is missing", lines=4)
    assert all(f"{directory}/" in line for line in said)
    (directory / "more.yaml").unlink()
    (directory / "racks.yaml").write_text(text.replace("bmc.example", "https://bmc.example"))
    await refused(lab, ExitCode.USAGE, "racks.yaml:7:", "fence_of_mine is not installed")


async def test_a_login_of_a_fence_configuration_that_cannot_be_read_is_found_at_start(lab):
    directory = lab.directory / "fence"
    directory.mkdir()
    text = FENCE_CONFIG.format(
        endpoint="https://bmc.example", login="username: a, passwordFile: /none"
    )
    lines = [line for line in text.splitlines() if "pdu, method" not in line]
    (directory / "racks.yaml").write_text("\n".join(lines).replace("[bmc, pdu]", "[bmc]"))
    lab.configure(fence={"configs": str(directory)})
    await refused(lab, ExitCode.USAGE, "racks.yaml: device 'bmc': file /none: No such file")


# --- Kubernetes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["No such file"]),
        (b"\x00\x01\xff\xfe", ["not a text file"]),
    ],
)
async def test_a_kubeconfig_that_cannot_be_used(lab, content, words):
    path = lab.directory / "mine"
    if content is not None:
        path.write_bytes(content)
    lab.configure(kube={"kubeconfig": str(path)})
    await refused(lab, ExitCode.NO_KUBERNETES, str(path), *words)


async def test_a_kubeconfig_that_may_not_be_read(lab):
    path = lab.directory / "mine"
    if os.geteuid() == 0:
        path.mkdir()  # nothing is forbidden to root; a directory is as unreadable
    else:
        path.write_text("")
        path.chmod(0)
    lab.configure(kube={"kubeconfig": str(path)})
    await refused(lab, ExitCode.NO_KUBERNETES, str(path))


async def test_an_api_server_that_refuses_connections(lab, closed_port):
    path = lab.directory / "mine"
    write_kubeconfig(path, f"http://127.0.0.1:{closed_port}")
    lab.configure(kube={"kubeconfig": str(path)})
    await refused(lab, ExitCode.NO_KUBERNETES, str(path), f"127.0.0.1:{closed_port}")


async def test_an_api_server_that_does_not_answer(lab, mute_port):
    path = lab.directory / "mine"
    write_kubeconfig(path, f"http://127.0.0.1:{mute_port}")
    lab.configure(kube={"kubeconfig": str(path)})
    await refused(lab, ExitCode.NO_KUBERNETES, str(path), "no answer within 10 s")


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (401, '{"kind":"Status","reason":"Unauthorized"}', "application/json", ["401"]),
        (
            403,
            '{"kind":"Status","reason":"Forbidden","message":"nodes is forbidden: User \\"x\\""}',
            "application/json",
            ["403", "nodes is forbidden"],
        ),
    ],
)
async def test_an_api_server_that_says_no(lab, status, body, kind, words):
    path = lab.directory / "mine"
    async with web_server(status, body, kind) as port:
        write_kubeconfig(path, f"http://127.0.0.1:{port}")
        lab.configure(kube={"kubeconfig": str(path)})
        await refused(lab, ExitCode.NO_KUBERNETES, str(path), *words)


# --- NATS -----------------------------------------------------------------------------------------


async def test_nats_that_cannot_be_reached(lab, closed_port):
    lab.configure(nats={"url": f"nats://127.0.0.1:{closed_port}", "connect_timeout_s": 1})
    await refused(lab, ExitCode.NO_NATS, f"127.0.0.1:{closed_port}", "connection refused")


async def test_a_web_server_at_the_nats_url(lab):
    async with web_server(400) as port:
        lab.configure(nats={"url": f"nats://127.0.0.1:{port}"})
        await refused(lab, ExitCode.NO_NATS, f"127.0.0.1:{port}", "is it a NATS server?")


async def test_a_nats_that_never_greets(lab, mute_port):
    lab.configure(nats={"url": f"nats://127.0.0.1:{mute_port}", "connect_timeout_s": 1})
    await refused(lab, ExitCode.NO_NATS, f"127.0.0.1:{mute_port}", "no answer in 1 s")


async def test_a_wrong_nats_password_which_is_not_shown(lab):
    wrong = lab.directory / "wrong"
    wrong.write_text("guessed-in-vain")
    async with EmbeddedServer(lab.directory / "other-nats") as server:
        url = server.settings.url
        lab.configure(nats={"url": url, "user": "remediator", "password_file": str(wrong)})
        await refused(lab, ExitCode.NO_NATS, "refused our login", url)
    assert "guessed-in-vain" not in lab.daemon.log.read_text()


async def test_a_nats_without_jetstream(lab):
    ports = lab.directory / "ports"
    ports.mkdir()
    process = subprocess.Popen(
        [str(server_binary()), "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", str(ports)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        await until(lambda: list(ports.glob("*.ports")), 10, "nats-server to serve")
        (found,) = ports.glob("*.ports")
        await until(found.read_text, 10, "nats-server to tell its port")
        url = _lab.msgspec.json.decode(found.read_text())["nats"][0]
        lab.configure(nats={"url": url})
        await refused(lab, ExitCode.NO_NATS, "$JS.API")
    finally:
        process.kill()
        process.wait()


async def test_a_directory_in_use_by_another_daemon(lab):
    await lead(lab)
    second = _lab.Daemon(lab.directory / "second")
    second.directory.mkdir()
    second.config = lab.daemon.config
    holder = lab.daemon.process.pid
    data = lab.directory / "data" / "nats"
    await refused(_Bare(second), ExitCode.NO_NATS, str(data), "in use", f"process {holder}")
    assert lab.daemon.process.poll() is None
    assert await lab.daemon.end() == ExitCode.OK


async def test_an_embedded_server_that_will_not_stay_up_ends_the_daemon(lab):
    await lead(lab)
    directory = lab.directory / "data" / "nats"
    (directory / "store").rename(directory / "store-aside")
    (directory / "store").write_text("no directory")
    os.kill(nats_pid(lab), 9)
    assert await lab.daemon.ended(START_S) == ExitCode.NO_NATS
    (end,) = [event for event in lab.daemon.events() if event["event"] == "daemon_ends"]
    assert "keeps dying" in end["why"]
    (directory / "store").unlink()
    (directory / "store-aside").rename(directory / "store")
    lab.daemon.start()
    await until(lambda: lab.daemon.decided() >= 2, START_S, "the daemon to lead again")


def nats_pid(lab) -> int:
    return [e["pid"] for e in lab.daemon.events() if e.get("event") == "nats_server_started"][-1]


# --- HTTP -----------------------------------------------------------------------------------------


async def test_a_port_that_is_taken(lab, mute_port):
    lab.configure(http={"port": mute_port})
    await refused(lab, ExitCode.USAGE, f"127.0.0.1:{mute_port}", "in use")


async def test_a_host_that_is_not_ours(lab):
    lab.configure(http={"host": "nowhere.invalid", "port": 8080})
    await refused(lab, ExitCode.USAGE, "nowhere.invalid:8080")


# --- SQLite ---------------------------------------------------------------------------------------


async def test_a_corrupt_projection_is_moved_aside_and_rebuilt(lab):
    await lead(lab)
    await lab.daemon.end()
    before = lab.daemon.journal()
    file = lab.directory / "data" / "journal.sqlite"
    file.write_bytes(b"this is no database" * 1000)
    lab.daemon.start()
    await until(lambda: lab.daemon.decided() > before[-1].seq, START_S, "the daemon to go on")
    assert await lab.daemon.end() == ExitCode.OK
    after = lab.daemon.journal()
    assert after[: len(before)] == before
    assert len(after) == len(before) + 1
    assert b"no database" in file.with_name("journal.sqlite.corrupt-1").read_bytes()
    (moved,) = [e for e in lab.daemon.events() if e.get("event") == "projection_moved_aside"]
    assert "damaged" in moved["why"]


async def test_a_projection_that_cannot_be_written(lab):
    (lab.directory / "file").write_text("")
    path = lab.directory / "file" / "journal.sqlite"
    lab.configure(journal={"path": str(path)})
    await refused(lab, ExitCode.JOURNAL, str(path))


async def test_another_programs_database_is_left_alone(lab):
    path = lab.directory / "theirs.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as theirs:
        theirs.execute("CREATE TABLE accounts (money REAL)")
        theirs.commit()
    content = path.read_bytes()
    lab.configure(journal={"path": str(path)})
    await refused(lab, ExitCode.JOURNAL, str(path), "another program's database", "journal.path")
    assert path.read_bytes() == content


# --- the journal ----------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def journal_of(nats: NatsSettings) -> AsyncIterator[NatsJournal]:
    connection: BusConnection = await connect(nats, "intruder")
    try:
        yield NatsJournal(connection)
    finally:
        await connection.close()


async def intrude(nats: NatsSettings, payload: bytes) -> int:
    """Append something to the journal behind the daemon's back; return its sequence."""
    async with journal_of(nats) as journal:
        last = await journal.last_seq()
        return await journal.append(
            "remediator.decision.node.n01", payload, expected_last_seq=last, message_id="intruder"
        )


async def altered(nats: NatsSettings) -> bytes:
    """A record that says what a leader might say, and does not follow the one before it."""
    async with journal_of(nats) as journal:
        records = [record async for record in journal.read(1)]
    return records[-1].payload.replace(b'"seq":%d' % len(records), b'"seq":%d' % (len(records) + 1))


@pytest.mark.parametrize("foreign", ["garbage", "altered"])
async def test_a_broken_journal_found_at_start(lab, foreign):
    await lead(lab)
    await lab.daemon.end()
    async with EmbeddedServer(lab.directory / "data" / "nats") as server:
        payload = b"\xff no record" if foreign == "garbage" else await altered(server.settings)
        seq = await intrude(server.settings, payload)
    said = await refused(lab, ExitCode.JOURNAL, f"record {seq}: ")
    assert ("not a decision record" if foreign == "garbage" else "link is broken") in said[0]
    verify = decisions(lab, "verify")
    assert verify.returncode == ExitCode.FINDING
    assert str(seq) in verify.stdout + verify.stderr
    async with (
        EmbeddedServer(lab.directory / "data" / "nats") as server,
        journal_of(server.settings) as journal,
    ):
        assert [record.seq async for record in journal.read(1)] == list(range(1, seq + 1))


def decisions(lab, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "remediator", "decisions", *arguments),
            *("--db", str(lab.directory / "data" / "journal.sqlite")),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


async def test_a_leader_whose_journal_somebody_wrote_is_deposed_and_then_refuses_to_start(lab):
    await lead(lab)
    seq = await intrude(running_nats(lab), b"{}")
    lab.cluster.faults.power_loss("n01")  # something to record
    assert await lab.daemon.ended(START_S) == ExitCode.DEPOSED
    log = lab.daemon.log.read_text()
    assert "Traceback" not in log
    (end,) = [event for event in lab.daemon.events() if event.get("event") == "daemon_ends"]
    assert "the journal does not end at" in end["why"]
    broken = [event for event in lab.daemon.events() if event["event"] == "journal_chain_broken"]
    assert [event["seq"] for event in broken] == [seq]
    await refused(lab, ExitCode.JOURNAL, f"record {seq}: ")


async def test_a_follower_of_a_broken_journal_ends(lab):
    async with EmbeddedServer(lab.directory / "shared-nats") as server:
        nats = server.settings
        shared = {"url": nats.url, "user": nats.user, "password_file": nats.password_file}
        lab.configure(nats=shared)
        await lead(lab)
        second = _lab.Lab(lab.directory / "second", lab.cluster, lab.faces)
        second.directory.mkdir()
        second.configure(nats=shared, identity="second")
        second.daemon.start()
        try:
            await until(
                lambda: any(e["event"] == "http_listening" for e in second.daemon.events()),
                START_S,
                "the second daemon",
            )
            seq = await intrude(nats, b"{}")
            assert await second.daemon.ended(START_S) == ExitCode.JOURNAL
        finally:
            if second.daemon.process.poll() is None:
                second.daemon.kill()
        (end,) = [e for e in second.daemon.events() if e["event"] == "daemon_ends"]
        assert f"record {seq}: " in end["why"]
        assert lab.daemon.process.poll() is None  # the leader reads nothing: its next append tells
        await lab.daemon.end()


def running_nats(lab) -> NatsSettings:
    started = [e for e in lab.daemon.events() if e.get("event") == "nats_server_started"]
    return NatsSettings(
        url=f"nats://127.0.0.1:{started[-1]['port']}",
        user="remediator",
        password_file=str(lab.directory / "data" / "nats" / "password"),
    )


async def test_refused_starts_leave_the_journal_as_it_was(lab, mute_port):
    await lead(lab)
    await lab.daemon.end()
    before = lab.daemon.journal()
    lab.configure(http={"port": mute_port})
    await refused(lab, ExitCode.USAGE)
    lab.configure(journal={"path": "/proc/nope/journal.sqlite"})
    await refused(lab, ExitCode.JOURNAL)
    lab.configure()
    lab.daemon.log.unlink()
    lab.daemon.start()
    await until(lambda: lab.daemon.decided() > before[-1].seq, START_S, "the daemon to lead again")
    assert await lab.daemon.end() == ExitCode.OK
    assert lab.daemon.journal()[: len(before)] == before
