"""Which client reaches which host, and what comes back when it does not."""

from __future__ import annotations

import asyncio
import time

import pytest

from remediator.http_client import HttpError
from remediator.kube.transport import TransportError
from remediator.sim.faults import ApiMode
from remediator.sim.reach import API_HOST, API_PORT, Place

OUTSIDE = Place("outside", zone="zone-z")


async def tcp(cluster, node, place=OUTSIDE, *, port=10250, timeout_s=1.0):
    """Return what one connection brings: "accepted", "refused" or "silent"."""
    address = cluster.hosts[node].spec.address
    try:
        await cluster.dial(place).tcp(address, port, timeout_s)
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "silent"
    return "accepted"


async def icmp(cluster, node, place=OUTSIDE):
    try:
        await cluster.dial(place).icmp(cluster.hosts[node].spec.address, 1.0)
    except TimeoutError:
        return "silent"
    return "accepted"


def test_a_healthy_host_accepts_its_kubelets_port_and_refuses_ports_nothing_listens_on(in_cluster):
    async def story(cluster):
        assert await tcp(cluster, "n01") == "accepted"
        assert await tcp(cluster, "n01", port=9999) == "refused"
        assert await icmp(cluster, "n01") == "accepted"

    in_cluster(story)


@pytest.mark.parametrize("fault", ["power_loss", "kernel_panic", "host_hang", "partition"])
def test_a_host_without_power_kernel_or_network_answers_nothing(in_cluster, fault):
    async def story(cluster):
        getattr(cluster.faults, fault)("n01")
        assert await tcp(cluster, "n01") == "silent"
        assert await icmp(cluster, "n01") == "silent"
        assert await tcp(cluster, "n02") == "accepted"

    in_cluster(story)


def test_silence_takes_the_whole_timeout_of_virtual_time_and_none_of_real_time(in_cluster):
    async def story(cluster):
        cluster.faults.power_loss("n01")
        before = cluster.clock.now()
        assert await tcp(cluster, "n01", timeout_s=20.0) == "silent"
        return cluster.clock.now() - before

    began = time.monotonic()
    assert in_cluster(story) == pytest.approx(20.0, abs=1e-3)
    assert time.monotonic() - began < 10.0


def test_a_host_that_boots_is_silent_until_its_system_runs(in_cluster):
    async def story(cluster):
        cluster.faults.power_loss("n01")
        cluster.faults.power_restore("n01", boot_s=20.0)
        await asyncio.sleep(10.0)
        assert await tcp(cluster, "n01") == "silent"
        await asyncio.sleep(15.0)
        assert await tcp(cluster, "n01") == "accepted"

    in_cluster(story)


def test_a_hung_kubelet_still_has_its_connections_accepted_by_the_kernel(in_cluster):
    async def story(cluster):
        cluster.faults.kubelet_hang("n01")
        assert await tcp(cluster, "n01") == "accepted"
        address = cluster.hosts["n01"].spec.address
        dial = cluster.dial(OUTSIDE)
        with pytest.raises(TimeoutError):
            await dial.https(f"https://{address}:10250/healthz", 2.0)
        cluster.faults.resume("n01")
        assert await dial.https(f"https://{address}:10250/healthz", 2.0) == 401

    in_cluster(story)


def test_a_kubelet_that_ended_is_refused_by_a_living_kernel(in_cluster):
    async def story(cluster):
        cluster.faults.kubelet_hang("n01", refuses=True)
        assert await tcp(cluster, "n01") == "refused"
        cluster.faults.resume("n01")
        assert await tcp(cluster, "n01") == "accepted"

    in_cluster(story)


def test_a_firewall_drops_one_port_and_leaves_the_host_alone(in_cluster):
    async def story(cluster):
        cluster.faults.firewall("n01")
        assert await tcp(cluster, "n01") == "silent"
        assert await icmp(cluster, "n01") == "accepted"
        cluster.faults.firewall("n01", port=0)
        assert await icmp(cluster, "n01") == "silent"
        cluster.faults.firewall_end("n01")
        assert await tcp(cluster, "n01") == "accepted"

    in_cluster(story)


def test_a_cut_zone_reaches_itself_and_nothing_else(in_cluster):
    async def story(cluster):
        inside, outside = Place("in", "zone-a"), Place("out", "zone-b")
        cluster.reach.stand(inside)
        cluster.reach.stand(outside)
        cluster.faults.cut_zone("zone-a")
        assert await tcp(cluster, "n01", inside) == "accepted"
        assert await tcp(cluster, "n02", inside) == "silent"
        assert await tcp(cluster, "n01", outside) == "silent"
        assert await tcp(cluster, "n02", outside) == "accepted"
        cluster.faults.mend_zone("zone-a")
        assert await tcp(cluster, "n02", inside) == "accepted"

    in_cluster(story)


def test_hosts_of_a_cut_zone_renew_no_lease_and_renew_it_again_when_it_is_mended(in_cluster):
    async def story(cluster):
        cluster.faults.cut_zone("zone-a")
        assert not cluster.hosts["n01"].connected
        assert cluster.hosts["n02"].connected
        await asyncio.sleep(60.0)
        cluster.faults.mend_zone("zone-a")
        assert cluster.hosts["n01"].connected

    in_cluster(story)


def test_a_client_in_a_cut_zone_reaches_neither_the_api_server_nor_a_bmc(in_cluster):
    async def story(cluster):
        place = Place("daemon", "zone-a")
        cluster.reach.stand(place)
        transport, http = cluster.memory_transport("daemon"), cluster.memory_http(place)

        async def get():
            return await transport.request("GET", "/api/v1/nodes", timeout_s=2.0)

        async def power():
            return await http.request(
                "GET",
                cluster.bmc_url("n02"),
                headers={"authorization": "Basic YWRtaW46c2lt"},
                body=None,
                timeout_s=2.0,
            )

        assert (await get()).status == 200
        assert (await power()).status == 200
        cluster.faults.cut_zone("zone-a")
        with pytest.raises(TransportError):
            await get()
        with pytest.raises(HttpError):
            await power()
        cluster.faults.mend_zone("zone-a")
        assert (await get()).status == 200

    in_cluster(story)


def test_a_client_on_a_host_shares_its_network_and_its_end(in_cluster):
    async def story(cluster):
        place = Place("prober", "zone-a", host="n01")
        cluster.reach.stand(place)
        assert await tcp(cluster, "n02", place) == "accepted"
        cluster.faults.partition("n01")
        assert await tcp(cluster, "n02", place) == "silent"
        cluster.faults.heal("n01")
        assert await tcp(cluster, "n02", place) == "accepted"
        cluster.faults.power_loss("n01")
        assert not cluster.reach.alive(place)
        assert await tcp(cluster, "n02", place) == "silent"

    in_cluster(story)


def test_a_partition_of_one_pair_leaves_all_others_whole(in_cluster):
    async def story(cluster):
        one, other = Place("one", "zone-b"), Place("other", "zone-b")
        cluster.faults.cut("one", "n01")
        assert await tcp(cluster, "n01", one) == "silent"
        assert await tcp(cluster, "n02", one) == "accepted"
        assert await tcp(cluster, "n01", other) == "accepted"
        cluster.faults.mend("one", "n01")
        assert await tcp(cluster, "n01", one) == "accepted"

    in_cluster(story)


def test_something_else_may_answer_at_a_dead_hosts_address(in_cluster):
    async def story(cluster):
        cluster.faults.power_loss("n01")
        cluster.faults.borrow_address("n01", "fooled")
        assert await tcp(cluster, "n01", Place("fooled")) == "accepted"
        assert await tcp(cluster, "n01", Place("honest")) == "silent"

    in_cluster(story)


@pytest.mark.parametrize(
    ("mode", "answer"),
    [(ApiMode.OK, "accepted"), (ApiMode.HANG, "silent"), (ApiMode.RESET, "refused")],
)
def test_the_api_servers_own_port_follows_its_faults(in_cluster, mode, answer):
    async def story(cluster):
        cluster.faults.api(mode)
        dial = cluster.dial(OUTSIDE)
        try:
            await dial.tcp(API_HOST, API_PORT, 1.0)
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "silent"
        return "accepted"

    assert in_cluster(story) == answer


def test_a_lost_packet_is_sent_again_after_a_second_as_the_kernel_does(in_cluster):
    async def story(cluster):
        cluster.faults.packet_loss(0.5)
        found = [await tcp(cluster, "n01", timeout_s=0.9) for _ in range(200)]
        again = [await tcp(cluster, "n01", timeout_s=8.0) for _ in range(200)]
        return found.count("silent"), again.count("silent")

    once, four_times = in_cluster(story)
    assert 70 < once < 130  # half of them
    assert four_times < 30  # a sixteenth


def test_all_cuts_end_at_once(in_cluster):
    async def story(cluster):
        cluster.faults.cut_zone("zone-a")
        cluster.faults.firewall("n02")
        cluster.faults.kubelet_hang("n03", refuses=True)
        cluster.faults.end_all()
        found = [await tcp(cluster, f"n0{i}") for i in (1, 2, 3)]
        assert found == ["accepted"] * 3

    in_cluster(story)
