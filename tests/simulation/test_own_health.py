"""The whole replica while it is itself in trouble: it doubts itself before it doubts others."""

from __future__ import annotations

import asyncio

from harness import Rehearsal

from remediator.bus.protocols import BusUnavailableError
from remediator.engine.chain import DecisionKind
from remediator.engine.model import Verdict
from remediator.own_health import Senses
from remediator.sim.cluster_spec import ClusterSpec
from remediator.sim.virtual_time import run

SMALL = ClusterSpec(nodes=6, zones=3, vms=12, seed=5)


class Trouble:
    """What a replica is told of the process that it runs in."""

    def __init__(self) -> None:
        self.lag_s = 0.0
        self.nats_away = False

    def senses(self) -> Senses:
        return Senses(loop_lag=lambda: self.lag_s, round_trip=self._round_trip)

    async def _round_trip(self, timeout_s: float) -> None:
        await asyncio.sleep(timeout_s if self.nats_away else 0.001)
        if self.nats_away:
            raise BusUnavailableError("NATS is away")


async def led(rehearsal: Rehearsal) -> tuple[Trouble, object]:
    """Start one replica whose senses can be troubled; return them and its own health."""
    trouble = Trouble()
    await rehearsal.start()
    (replica,) = rehearsal.alive.values()
    replica._senses = trouble.senses()
    await rehearsal.run(40)
    assert replica.term is not None
    own = replica.engine.context.evidence.own_health
    assert (own.multiplier, own.suspended, own.reasons) == (1, False, ())
    return trouble, own


def convicted(rehearsal: Rehearsal) -> list[str]:
    return [
        decision.subject.name
        for decision in rehearsal.decisions()
        if decision.verdict in (Verdict.DEAD, Verdict.UNREACHABLE)
    ]


def own_records(rehearsal: Rehearsal) -> list[str]:
    found = rehearsal.decisions()
    return [each.stage for each in found if each.kind is DecisionKind.OWN_HEALTH]


def test_a_stalled_loop_suspends_convictions_and_a_calm_one_lets_them_go_on():
    async def story() -> None:
        rehearsal = Rehearsal(SMALL)
        trouble, own = await led(rehearsal)
        trouble.lag_s = 4.0
        took_s = await rehearsal.until(lambda: own.suspended, 5)
        assert took_s <= 1.5
        assert own.reasons == ("the event loop is late by 4.0 s",)
        rehearsal.cluster.faults.power_loss("n02")
        await rehearsal.run(60)
        assert convicted(rehearsal) == []
        trouble.lag_s = 0.0
        await rehearsal.until(lambda: convicted(rehearsal), 40)
        assert convicted(rehearsal)[0] == "n02"
        assert own.multiplier == 1
        assert own_records(rehearsal) == ["suspended", "fine"]
        await rehearsal.until(lambda: not rehearsal.down(), 60)
        await rehearsal.stop()

    run(story())


def test_nats_away_stretches_limits_more_the_longer_it_is_away():
    async def story() -> None:
        rehearsal = Rehearsal(SMALL)
        trouble, own = await led(rehearsal)
        trouble.nats_away = True
        await rehearsal.until(lambda: own.multiplier >= 3, 10)
        assert not own.suspended
        assert any("NATS" in reason for reason in own.reasons)
        await rehearsal.until(lambda: own.suspended, 10)
        trouble.nats_away = False
        await rehearsal.until(lambda: own.multiplier == 1, 30)
        assert own.reasons == ()
        await rehearsal.stop()

    run(story())


def test_an_api_server_that_is_slow_stretches_limits_until_it_is_quick_again():
    async def story() -> None:
        rehearsal = Rehearsal(SMALL)
        _, own = await led(rehearsal)
        # Slower than a second: the canary's writes come in late, the Lease is still renewed.
        rehearsal.cluster.api_faults.latency_s = 2.5
        await rehearsal.until(lambda: own.multiplier > 1, 15)
        assert any("the API server answers after" in reason for reason in own.reasons)
        rehearsal.cluster.api_faults.latency_s = 0.0
        await rehearsal.until(lambda: own.multiplier == 1, 30)
        assert convicted(rehearsal) == []
        await rehearsal.stop()

    run(story())


def test_while_the_api_server_hangs_nobody_is_convicted_and_later_only_the_dead():
    async def story() -> None:
        rehearsal = Rehearsal(SMALL)
        _, own = await led(rehearsal)
        rehearsal.cluster.api_faults.hang()
        rehearsal.cluster.faults.power_loss("n02")
        await rehearsal.until(lambda: own.multiplier > 1, 15)
        await rehearsal.run(60)  # the Lease is lost after ten seconds, and with it the term
        assert convicted(rehearsal) == []
        rehearsal.cluster.api_faults.clear()
        await rehearsal.until(lambda: not rehearsal.down(), 180)
        assert set(convicted(rehearsal)) == {"n02"}
        assert rehearsal.cluster.ledger.double_runs == ()
        await rehearsal.stop()

    run(story())


def test_a_replica_that_is_well_never_stretches_a_limit():
    async def story() -> None:
        rehearsal = Rehearsal(SMALL)
        _, own = await led(rehearsal)
        worst = 1
        for _ in range(300):
            await rehearsal.run(1)
            worst = max(worst, own.multiplier)
        assert worst == 1
        assert own_records(rehearsal) == []
        await rehearsal.stop()

    run(story())


def test_the_same_seed_gives_the_same_journal_with_the_monitor_running():
    async def story() -> list[bytes]:
        rehearsal = Rehearsal(SMALL, seed=7)
        await rehearsal.start()
        await rehearsal.run(30)
        rehearsal.cluster.faults.power_loss("n03")
        await rehearsal.run(60)
        records = [record.payload for record in rehearsal.journal.records]
        await rehearsal.stop()
        return records

    assert run(story()) == run(story())
