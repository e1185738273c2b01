"""One probe process: how it starts, what it serves, and how it ends."""

from __future__ import annotations

import signal

import aiohttp
import pytest

from remediator.exit_codes import ExitCode

pytestmark = pytest.mark.slow


def port_of(prober) -> int | None:
    found = [one["port"] for one in prober.events() if one.get("event") == "http_listening"]
    return found[0] if found else None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_ends_quietly_when_told_to(site, number, until):
    prober = site.prober("a")
    prober.start()
    await until(lambda: "zone-a" in site.leader.fresh())
    assert await prober.end(number) == ExitCode.OK
    assert [one["event"] for one in prober.events()][-2:] == ["stopping", "stopped"]
    assert b"Traceback" not in prober.log.read_bytes()


async def test_it_ends_quietly_while_nats_is_away(site, until):
    prober = site.prober("a")
    prober.start()
    await until(lambda: "zone-a" in site.leader.fresh())
    await site.server.stop()
    await until(lambda: "nats_disconnected" in [one["event"] for one in prober.events()])
    assert await prober.end() == ExitCode.OK
    assert b"Traceback" not in prober.log.read_bytes()


async def test_a_place_is_taken_from_flags_and_environment(site, until):
    prober = site.prober("a", zone="", vantage="")
    prober.start("--vantage", "here.1", environ={"REMEDIATOR_PROBES__NODE": "n4"})
    await until(lambda: "here.1" in site.leader.fresh())
    assert "vantage/here.1" in {str(one.subject) for _, one in site.leader.signals}
    await until(lambda: site.leader.signals[-1][1].zone == "b")  # that of n4


async def test_its_health_and_metrics_can_be_asked_for(site, until):
    for host in site.hosts:
        site.leader.delete(host)
    prober = site.prober("a")
    prober.start("--http-port", "0")
    await until(lambda: port_of(prober))
    url = f"http://127.0.0.1:{port_of(prober)}"
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url}/healthz") as answer:
            assert answer.status == 200
        async with session.get(f"{url}/readyz") as answer:
            parts = (await answer.json())["parts"]
            assert answer.status == 503
            assert parts["nats"]["ok"]
            assert not parts["nodes"]["ok"]
        site.leader.offer_nodes()
        await until(lambda: "zone-a" in site.leader.fresh())
        async with session.get(f"{url}/readyz") as answer:
            parts = (await answer.json())["parts"]
            assert answer.status == 200
            assert "zones answer, 9 nodes known" in parts["sight"]["detail"]
        async with session.get(f"{url}/metrics") as answer:
            text = await answer.text()
        assert "remediator_vantage_up 1.0" in text
        assert 'remediator_probes_total{heard="answer",protocol="tcp"}' in text
        assert "remediator_nats_connected 1.0" in text


@pytest.mark.parametrize(
    ("change", "arguments", "code", "text"),
    [
        ({}, ("--nats", "nats://127.0.0.1:1"), ExitCode.NO_NATS, "127.0.0.1:1"),
        ({}, ("--nats", "embedded"), ExitCode.USAGE, "--nats URL"),
        ({}, ("--http-port", "BUSY"), ExitCode.USAGE, "cannot listen on 127.0.0.1"),
        ({"deadline_s": 0}, (), ExitCode.USAGE, "probes.deadline_s"),
        ({"references": ["gateway:80"]}, (), ExitCode.USAGE, "probes.references[0]"),
        ({}, ("--vantage", "zone a"), ExitCode.USAGE, "probes.vantage"),
    ],
)
async def test_what_cannot_work_is_said_in_one_line_with_its_code(
    site, change, arguments, code, text
):
    prober = site.prober("a", **change)
    config = prober.config.read_text()
    if "embedded" in arguments or "nats://127.0.0.1:1" in arguments:
        lines = [line for line in config.splitlines() if "user" not in line and "pass" not in line]
        prober.config.write_text("\n".join(lines))
    given = [str(site.nats_port) if one == "BUSY" else one for one in arguments]
    prober.start(*given)
    assert await prober.ended() == code
    said = prober.log.read_text()
    assert text in said
    assert "Traceback" not in said
