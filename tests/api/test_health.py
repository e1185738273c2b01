"""The routes of health: questions go to the reader, its refusals come out as problems."""

from __future__ import annotations

import json

import aiohttp
import msgspec
import pytest
from prometheus_client import CollectorRegistry

from remediator.api.app import make_app, serving
from remediator.health_query import HealthAnswer, HealthQuery
from remediator.metrics import Metrics


class Reader:
    """Keeps the questions; gives the answer that it is told to."""

    def __init__(self):
        self.asked: list[HealthQuery] = []
        self.next = HealthAnswer(status=200, view=msgspec.Raw(b'{"at":1.5}'))

    async def answer(self, query):
        self.asked.append(query)
        return self.next


@pytest.fixture
async def desk():
    reader = Reader()
    app = make_app(
        readiness=dict,
        journal=None,
        now=lambda: 0.0,
        metrics=Metrics(CollectorRegistry()),
        health=reader,
    )
    async with serving(app, "127.0.0.1", 0) as port, aiohttp.ClientSession() as session:

        async def get(path):
            async with session.get(f"http://127.0.0.1:{port}{path}") as answer:
                return answer, json.loads(await answer.read())

        reader.get = get
        yield reader


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/api/v1/health", HealthQuery(view="cluster")),
        ("/api/v1/health?zone=zone-a", HealthQuery(view="cluster", zone="zone-a")),
        ("/api/v1/health/nodes/n1.example.com", HealthQuery(view="node", name="n1.example.com")),
        ("/api/v1/health/vms/shop/db", HealthQuery(view="vm", namespace="shop", name="db")),
        ("/api/v1/budgets", HealthQuery(view="budgets")),
        ("/api/v1/pacing", HealthQuery(view="pacing")),
        ("/api/v1/health/nodes/a%2Fb", HealthQuery(view="node", name="a/b")),
    ],
)
async def test_a_question_reaches_the_reader_and_its_view_is_the_answer(desk, path, query):
    answer, body = await desk.get(path)
    assert (answer.status, answer.content_type, body) == (200, "application/json", {"at": 1.5})
    assert desk.asked == [query]


@pytest.mark.parametrize("status", [400, 404, 503])
async def test_a_refusal_is_a_problem_with_the_readers_words(desk, status):
    desk.next = HealthAnswer(status=status, detail="there is no node n9; did you mean n8?")
    answer, body = await desk.get("/api/v1/health/nodes/n9")
    assert answer.status == status
    assert answer.content_type == "application/problem+json"
    assert body["detail"] == "there is no node n9; did you mean n8?"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/api/v1/health?zon=a", "zon: unknown key"),
        ("/api/v1/health?zone=a&zone=b", "zone is given twice"),
        ("/api/v1/health/nodes/n1?zone=a", "zone: unknown key"),
    ],
)
async def test_what_is_not_understood_is_refused_by_name(desk, path, says):
    answer, body = await desk.get(path)
    assert (answer.status, body["detail"]) == (400, says)
    assert desk.asked == []


async def test_without_a_reader_there_are_no_such_routes():
    app = make_app(
        readiness=dict, journal=None, now=lambda: 0.0, metrics=Metrics(CollectorRegistry())
    )
    assert not [route for route in app.router.routes() if "health/" in str(route.resource)]
