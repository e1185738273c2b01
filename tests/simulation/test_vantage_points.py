"""Replicas and stand-alone probers in the simulated networks: what they say of hosts."""

from __future__ import annotations

import pytest
from harness import Rehearsal, Seat

from remediator.engine.model import Plane, Reading
from remediator.probe_settings import ProbeSettings
from remediator.signals import wire
from remediator.sim.cluster_spec import ClusterSpec
from remediator.sim.virtual_time import run

SMALL = ClusterSpec(nodes=6, zones=3, vms=0, seed=3)
SEATS = [Seat("zone-a", "n01"), Seat("zone-b"), Seat("zone-c")]


class Heard:
    """What every vantage point said last, by (vantage point, subject)."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self.said: dict[tuple[str, str], Reading] = {}
        self.at: dict[tuple[str, str], float] = {}
        self._clock = rehearsal.clock
        offered = rehearsal.bus.offer

        def offer(subject: str, payload: bytes, **how: object) -> None:
            if ".network." in subject:
                signal = wire.decode(payload)
                assert signal.plane is Plane.NETWORK
                key = (signal.source, str(signal.subject))
                if self.said.get(key) is not signal.reading:
                    self.at[key] = self._clock.now()
                self.said[key] = signal.reading
            offered(subject, payload, **how)

        rehearsal.bus.offer = offer

    def of(self, node: str) -> set[Reading]:
        return {reading for (_, subject), reading in self.said.items() if subject == f"node/{node}"}

    def life(self, vantage: str) -> Reading:
        return self.said[vantage, f"vantage/{vantage}"]


def rehearse(story, *, replicas: int = 3, probes: ProbeSettings | None = None) -> None:
    async def play() -> None:
        rehearsal = Rehearsal(SMALL, seats=SEATS, probes=probes)
        heard = Heard(rehearsal)
        await rehearsal.start(replicas=replicas)
        await rehearsal.run(30.0)
        await story(rehearsal, heard)
        await rehearsal.stop()

    run(play())


def test_three_replicas_say_up_of_every_host_and_of_themselves():
    async def story(rehearsal, heard):
        for number in range(1, 7):
            assert heard.of(f"n0{number}") == {Reading.UP}
        for name in rehearsal.alive:
            assert heard.life(name) is Reading.UP

    rehearse(story)


@pytest.mark.parametrize("fault", ["power_loss", "kernel_panic", "host_hang", "partition"])
def test_a_lost_host_is_down_for_all_of_them_within_ten_seconds(fault):
    async def story(rehearsal, heard):
        getattr(rehearsal.cluster.faults, fault)("n05")
        await rehearsal.run(10.0)
        assert heard.of("n05") == {Reading.DOWN}
        assert heard.of("n04") == {Reading.UP}

    rehearse(story)


@pytest.mark.parametrize("refuses", [False, True])
def test_a_host_whose_kubelet_is_dead_is_up(refuses):
    async def story(rehearsal, heard):
        rehearsal.cluster.faults.kubelet_hang("n05", refuses=refuses)
        await rehearsal.run(60.0)
        assert heard.of("n05") == {Reading.UP}

    rehearse(story)


def test_a_firewalled_port_alone_says_nothing_while_the_host_answers_echo_requests():
    async def story(rehearsal, heard):
        rehearsal.cluster.faults.firewall("n05")
        await rehearsal.run(60.0)
        assert heard.of("n05") == {Reading.UP}
        rehearsal.cluster.faults.firewall("n05", port=0)
        await rehearsal.run(10.0)
        assert heard.of("n05") == {Reading.DOWN}

    rehearse(story)


def test_a_vantage_point_whose_zone_is_cut_off_calls_nobody_down():
    async def story(rehearsal, heard):
        before = dict(heard.said)
        rehearsal.cluster.faults.cut_probes("zone-a")
        await rehearsal.run(60.0)
        assert heard.life("remediator-1") is Reading.UNKNOWN
        mine = [reading for (name, _), reading in heard.said.items() if name == "remediator-1"]
        assert Reading.DOWN not in mine
        assert before
        rehearsal.cluster.faults.mend_zone("zone-a")
        await rehearsal.run(10.0)
        assert heard.life("remediator-1") is Reading.UP

    rehearse(story)


def test_a_replica_ends_with_its_host_and_starts_again_when_that_boots():
    async def story(rehearsal, _heard):
        rehearsal.cluster.faults.power_loss("n01")
        await rehearsal.run(5.0)
        assert sorted(rehearsal.alive) == ["remediator-2", "remediator-3"]
        rehearsal.cluster.faults.power_restore("n01", boot_s=20.0)
        await rehearsal.run(60.0)
        assert sorted(rehearsal.alive) == ["remediator-2", "remediator-3", "remediator-4"]

    rehearse(story)


def test_a_prober_of_its_own_speaks_while_it_lives_and_is_asked_like_the_others():
    async def story(rehearsal, heard):
        rehearsal.start_vantage("vantage-c", Seat("zone-c", "n06"))
        await rehearsal.run(20.0)
        assert heard.life("vantage-c") is Reading.UP
        rehearsal.cluster.faults.power_loss("n06")
        await rehearsal.run(1.0)
        assert rehearsal.vantages == {}

    rehearse(story, replicas=1)
