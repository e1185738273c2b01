"""The desk: who answers, who asks, and what is shared."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from remediator import health_desk
from remediator.bus.protocols import BusUnavailableError, NobodyAnswersError
from remediator.clock import Clock
from remediator.engine.events import InventorySynced, LeadershipGained, ObjectSeen
from remediator.engine.machine import Engine
from remediator.engine.model import FactKind, NodeFacts
from remediator.engine.settings import DetectionSettings
from remediator.engine.views import ClusterView
from remediator.health_desk import HealthDesk
from remediator.health_query import HealthAnswer, HealthQuery, encode
from remediator.metrics import Metrics

CLUSTER = HealthQuery(view="cluster")


class Elector:
    leader = True
    holder = "me"


class Watchers:
    def health(self):
        return {}


class Replica:
    """What the desk needs of a replica, with a real engine that knows some nodes."""

    def __init__(self, nodes=120):
        self.identity = "me"
        self.detection = DetectionSettings()
        self.elector = Elector()
        self.watchers = Watchers()
        self.term = object()
        self.engine = Engine()
        self.engine.handle(LeadershipGained(identity="me", epoch=1), 1.0)
        for number in range(nodes):
            facts = NodeFacts(name=f"n{number}", uid="u", zone=f"zone-{number % 2}")
            self.engine.handle(ObjectSeen(facts=facts), 1.0)
        for kind in FactKind:
            self.engine.handle(InventorySynced(kind=kind), 1.0)


@pytest.fixture
async def replica():
    return Replica()


@pytest.fixture
async def desk(replica):
    return HealthDesk(replica, None, Clock())


@pytest.fixture
def surveys(monkeypatch):
    """Counts the views of the whole cluster that are made."""
    made = []
    survey = health_desk.health_view.survey

    def counted(*arguments, **more):
        made.append(more["zone"])
        return survey(*arguments, **more)

    monkeypatch.setattr(health_desk.health_view, "survey", counted)
    return made


def decoded(answer):
    assert answer.status == 200, answer.detail
    return msgspec.json.decode(answer.view, type=ClusterView)


async def test_a_leader_answers_itself(desk):
    view = decoded(await desk.answer(CLUSTER))
    assert sum(zone.nodes for zone in view.zones) == 120
    node = await desk.answer(HealthQuery(view="node", name="n7"))
    assert msgspec.json.decode(node.view)["zone"] == "zone-1"
    vm = await desk.answer(HealthQuery(view="vm", namespace="a", name="b"))
    assert (vm.status, vm.detail) == (404, "there is no VM a/b")


async def test_those_who_ask_together_share_one_view(desk, surveys):
    answers = await asyncio.gather(*(desk.answer(CLUSTER) for _ in range(20)))
    assert surveys == [""]
    assert len({bytes(answer.view) for answer in answers}) == 1
    await desk.answer(HealthQuery(view="cluster", zone="zone-1"))
    assert surveys == ["", "zone-1"]


async def test_a_view_is_not_shared_for_longer_than_a_second(desk, surveys, monkeypatch):
    await desk.answer(CLUSTER)
    monkeypatch.setattr(health_desk, "SHARED_FOR_S", -1.0)
    await desk.answer(CLUSTER)
    assert len(surveys) == 2


async def test_the_next_term_shares_nothing_of_the_last(desk, replica, surveys):
    await desk.answer(CLUSTER)
    replica.term = object()
    await desk.answer(CLUSTER)
    assert len(surveys) == 2


async def test_others_get_their_turn_while_a_view_is_made(desk):
    turns = 0

    async def other():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.create_task(other())
    await desk.answer(CLUSTER)
    running.cancel()
    assert turns >= 3, "120 nodes are three slices at least"


async def test_a_leader_deposed_in_the_middle_of_a_view_does_not_answer_with_it(
    desk, replica, monkeypatch
):
    async def ask(_connection, _query):
        return HealthAnswer(status=200, view=msgspec.Raw(b'"of the new leader"'))

    monkeypatch.setattr(health_desk, "ask_leader", ask)
    asking = asyncio.create_task(desk.answer(CLUSTER))
    await asyncio.sleep(0)
    replica.elector.leader, replica.elector.holder = False, "other"
    assert bytes((await asking).view) == b'"of the new leader"'
    assert await desk.on_question(encode(CLUSTER)) is None, "the new leader answers over NATS"
    assert await desk.on_question(b"garbage") is None
    replica.elector.leader = True


@pytest.mark.parametrize(
    ("error", "holder", "says"),
    [
        (
            NobodyAnswersError("nobody answers on x"),
            "other",
            "this daemon follows other, and nobody answers as leader",
        ),
        (
            NobodyAnswersError("nobody answers on x"),
            "me",
            "this daemon does not lead now, and nobody answers as leader",
        ),
        (
            BusUnavailableError("NATS is away"),
            "",
            "this daemon does not lead now, and cannot reach the leader: NATS is away",
        ),
    ],
)
async def test_a_follower_that_gets_no_answer_says_so(
    desk, replica, monkeypatch, error, holder, says
):
    async def ask(_connection, _query):
        raise error

    monkeypatch.setattr(health_desk, "ask_leader", ask)
    replica.term = None
    replica.elector = Elector()
    replica.elector.leader, replica.elector.holder = False, holder
    answer = await desk.answer(CLUSTER)
    assert (answer.status, answer.detail) == (503, says)


@pytest.mark.parametrize("payload", [b"", b"{}", b'{"view":"all"}', b"\xff", b"[" * 100_000])
async def test_what_is_no_question_gets_an_answer_that_says_so(desk, payload):
    answer = msgspec.json.decode(await desk.on_question(payload), type=HealthAnswer)
    assert answer.status == 400
    assert answer.detail.startswith("not a question: ")


async def test_the_gauges_are_the_leaders_and_a_followers_are_none(desk, replica, monkeypatch):
    monkeypatch.setattr(health_desk, "COUNT_EVERY_S", 0.01)
    metrics = Metrics(CollectorRegistry())

    async def until(count):
        async with asyncio.timeout(5):
            while value(metrics, "remediator_nodes", verdict="Unknown") != count:
                await asyncio.sleep(0.01)

    counting = asyncio.create_task(desk.count(metrics))
    await until(120)
    replica.elector = Elector()
    replica.elector.leader = False
    await until(0)
    counting.cancel()


async def test_a_defect_in_a_view_ends_nothing(desk, monkeypatch):
    def broken(*_arguments, **_more):
        raise KeyError("a bug")

    monkeypatch.setattr(health_desk.health_view, "survey", broken)
    monkeypatch.setattr(health_desk, "COUNT_EVERY_S", 0.01)
    with capture_logs() as logged:
        answer = await desk.answer(CLUSTER)
        assert (answer.status, answer.detail) == (
            500,
            "internal error; the leader's log tells more",
        )
        counting = asyncio.create_task(desk.count(Metrics(CollectorRegistry())))
        await asyncio.sleep(0.05)
        assert not counting.done()
        counting.cancel()
    assert {each["event"] for each in logged} == {"view_broken"}


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, labels)
