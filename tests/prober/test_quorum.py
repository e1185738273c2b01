"""Several probe processes on a real NATS server, and what a leader makes of them."""

from __future__ import annotations

import asyncio
import signal

import pytest

pytestmark = pytest.mark.slow

ZONES = ("a", "b", "c")


async def three(site, **probes) -> None:
    for zone in ZONES:
        site.prober(zone, **probes).start()
    await site.all_see(*ZONES)


async def test_three_probers_agree_that_a_host_is_down_and_that_it_is_back(site, until):
    await three(site)
    leader = site.leader
    site.hosts["n4"].die()  # nobody asks: each notices it by itself
    await until(lambda: all(leader.said(f"zone-{zone}", "n4")[-1] == "down" for zone in ZONES))
    await leader.agreed("n4", "down")
    assert leader.evidence.network.zones("n4", leader.clock.now())[0].down == 1
    detail = next(one.detail for _, one in reversed(leader.signals) if one.subject.name == "n4")
    assert detail == f"tcp {site.hosts['n4'].port}: timeout"
    for host in sorted(set(site.hosts) - {"n4"}):
        await leader.agreed(host, "up")
    site.hosts["n4"].live()
    await leader.agreed("n4", "up")


async def test_one_prober_that_sees_a_host_down_alone_convicts_it_not(site, until):
    await three(site)
    leader = site.leader
    alone = next(one for one in site.probers if one.name == "zone-a")
    site.hosts["n4"].die()
    await leader.agreed("n4", "down")
    site.hosts["n4"].live()
    await until(lambda: leader.said("zone-b", "n4")[-1] == "up")
    # What zone-a said last may be "down": it is outvoted by one that got an answer.
    assert leader.network("n4") == "up"
    assert alone.process.poll() is None


async def test_a_prober_killed_in_the_middle_leaves_the_verdict_to_the_others(site, until):
    await three(site)
    leader = site.leader
    site.hosts["n4"].die()
    site.probers[0].kill()  # before it could say anything
    await leader.agreed("n4", "down")  # two zones of three
    await until(lambda: leader.fresh() == {"zone-b", "zone-c"})
    await leader.agreed("n4", "down")  # both zones that are left
    assert "down" not in leader.said("zone-a", "n4")


async def test_the_last_prober_of_two_zones_needs_the_other_to_be_gone_first(site, until):
    for zone in ("a", "b"):
        site.prober(zone).start()
    await site.all_see("a", "b")
    leader = site.leader
    other = site.probers[1]
    other.process.send_signal(signal.SIGSTOP)
    site.hosts["n4"].die()
    leader.asks.ask("n4")

    def too_early() -> bool:
        return leader.network("n4") == "down" and "zone-b" in leader.fresh()

    await until(lambda: leader.said("zone-a", "n4")[-1] == "down")
    await until(lambda: too_early() or leader.fresh() == {"zone-a"})
    assert not too_early()  # one zone of two is not more than half
    await leader.agreed("n4", "down")
    other.process.send_signal(signal.SIGCONT)


async def test_a_prober_cut_off_from_nats_counts_no_more_until_it_is_back(site, until):
    relay = await site.relay()
    site.prober("a", nats_port=relay.port).start()
    for zone in ("b", "c"):
        site.prober(zone).start()
    await site.all_see(*ZONES)
    leader = site.leader
    relay.stall()
    await until(lambda: leader.fresh() == {"zone-b", "zone-c"})
    site.hosts["n4"].die()
    await leader.agreed("n4", "down")
    site.hosts["n4"].live()
    relay.mend()
    await until(lambda: leader.fresh() == {"zone-a", "zone-b", "zone-c"}, 60.0)
    since = leader.clock.now()

    def asked_and_answered() -> bool:
        leader.asks.ask("n4")
        return "up" in leader.said("zone-a", "n4", since)

    await until(asked_and_answered, 60.0)
    await leader.agreed("n4", "up")


async def test_probers_outlive_a_nats_server_that_loses_its_memory(site, until):
    await three(site)
    leader = site.leader
    reconnects = leader.connection.reconnects
    site.server._process.kill()
    await until(lambda: leader.connection.reconnects > reconnects)
    since = leader.clock.now()
    await until(
        lambda: all(leader.said(f"zone-{zone}", f"zone-{zone}", since) for zone in ZONES), 60.0
    )
    await until(lambda: leader.fresh() == {"zone-a", "zone-b", "zone-c"})

    def asked_and_answered() -> bool:
        leader.asks.ask("n4")
        return all("up" in leader.said(f"zone-{zone}", "n4", since) for zone in ZONES)

    await until(asked_and_answered, 60.0)
    leader.delete("n8")  # the inventory is followed again as well: nobody answers for n8 soon
    async with asyncio.timeout(60.0):
        while True:
            asked_at = leader.clock.now()
            leader.asks.ask("n8")
            await asyncio.sleep(2.0)
            if not any(leader.said(f"zone-{zone}", "n8", asked_at) for zone in ZONES):
                break
    site.hosts["n4"].die()
    await leader.agreed("n4", "down")
    assert all(prober.process.poll() is None for prober in site.probers)


async def test_a_prober_that_stood_still_calls_nobody_down(site, until):
    await three(site)
    leader = site.leader
    stopped = site.probers[0]
    for _ in range(3):
        stopped.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(1.5)
        stopped.process.send_signal(signal.SIGCONT)
        await asyncio.sleep(0.5)
    for host in site.hosts:
        leader.asks.ask(host)
    since = leader.clock.now()
    await until(lambda: all("up" in leader.said("zone-a", host, since) for host in site.hosts))
    assert not [one for _, one in leader.signals if one.reading.value == "down"]


async def test_a_prober_that_loses_a_whole_zone_tells_and_one_that_loses_two_does_not(site, until):
    site.prober("a").start()
    await site.all_see("a")
    leader = site.leader
    for host in site.hosts.values():
        if host.zone == "b":
            host.die()
    await until(
        lambda: all(leader.said("zone-a", name)[-1] == "down" for name in ("n1", "n4", "n7"))
    )
    for host in site.hosts.values():
        if host.zone == "c":
            host.die()
    since = leader.clock.now()
    await until(lambda: "unknown" in leader.said("zone-a", "zone-a", since))
    await until(lambda: not leader.fresh())
    for name in ("n2", "n5", "n8"):
        leader.asks.ask(name)
    await until(lambda: all(leader.said("zone-a", name)[-1] == "unknown" for name in ("n2", "n5")))
    assert not any("down" in leader.said("zone-a", name) for name in ("n2", "n5", "n8"))
