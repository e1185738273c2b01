"""Portworx and Mayastor asked for their replicas: answers of their APIs, and what goes wrong."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from remediator.engine.model import FactKind, ReplicaSetFacts
from remediator.http_client import HttpError, HttpResponse
from remediator.watchers.replica_apis import (
    Mayastor,
    Portworx,
    ReplicaPolls,
    StorageApiError,
)


class Http:
    """Answers by the path of the URL; an exception is raised."""

    def __init__(self, answers):
        self.answers = answers
        self.asked: list[tuple[str, dict[str, str]]] = []

    async def request(self, method, url, *, headers, body, timeout_s):
        assert (method, body) == ("GET", None)
        assert timeout_s > 0
        self.asked.append((url, dict(headers)))
        answer = self.answers[url.partition("://")[2].partition("/")[2]]
        if isinstance(answer, Exception):
            raise answer
        status, content = answer if isinstance(answer, tuple) else (200, answer)
        body = content if isinstance(content, bytes) else msgspec.json.encode(content)
        return HttpResponse(status=status, headers={}, body=body)

    async def close(self):
        pass


CLUSTER = {
    "Status": 2,
    "Nodes": [
        {"Id": "id-1", "SchedulerNodeName": "n1", "Hostname": "host1", "Status": 2},
        {"Id": "id-2", "Hostname": "n2", "Status": 3},
        {"Id": "id-3-old", "SchedulerNodeName": "n3", "Status": 3},
        {"Id": "id-3", "SchedulerNodeName": "n3", "Status": 2},
    ],
}
VOLUMES = [
    {"volume": {"id": "7", "replica_sets": [{"nodes": ["id-1", "id-2"]}]}},
    {"id": "8", "replica_sets": [{"nodes": ["id-3"]}, {"nodes": ["id-1"]}]},
    {"id": "9", "replica_sets": [{"nodes": ["id-3-old"]}]},
    {"id": "10"},
]


def portworx(**changed):
    answers = {"v1/cluster/enumerate": CLUSTER, "v1/osd-volumes": VOLUMES, **changed}
    return Http(answers)


async def test_portworx_ids_become_nodes_and_who_is_offline_is_not_good():
    found = await Portworx(portworx(), "http://px:9001/").replicas()
    assert found == {"7": ({"n1", "n2"}, {"n1"}), "8": ({"n1", "n3"}, {"n1", "n3"})}


async def test_portworx_is_shown_the_token_of_its_file(tmp_path):
    http = portworx()
    token = tmp_path / "token"
    token.write_text("secret\n")
    await Portworx(http, "http://px:9001", str(token)).replicas()
    assert {headers["Authorization"] for _, headers in http.asked} == {"Bearer secret"}


async def test_a_token_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(StorageApiError, match="missing"):
        await Portworx(portworx(), "http://px:9001", str(tmp_path / "missing")).replicas()


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (HttpError("GET http://px: refused"), "refused"),
        ((401, {}), "status 401"),
        (b"<html>", "malformed"),
        ([{"id": 7}], "Expected `str`"),
    ],
)
async def test_what_is_no_answer_is_an_error(answer, match):
    http = portworx(**{"v1/osd-volumes": answer})
    with pytest.raises(StorageApiError, match=match):
        await Portworx(http, "http://px:9001").replicas()


def mayastor_volume(uuid, **replicas):
    topology = {
        f"r-{node}": {"node": node, "pool": "p", "state": state, "child-status": child}
        for node, (state, child) in replicas.items()
    }
    return {"spec": {"uuid": uuid}, "state": {"uuid": uuid, "replica_topology": topology}}


async def test_mayastor_is_read_page_by_page_and_rebuilding_replicas_are_not_good():
    first = {
        "entries": [mayastor_volume("u1", n1=("Online", "Online"), n2=("Online", "Degraded"))],
        "next_token": 500,
    }
    second = {"entries": [mayastor_volume("u2", n3=("Unknown", None)), {"spec": {}}]}
    http = Http(
        {
            "v0/volumes?max_entries=500&starting_token=0": first,
            "v0/volumes?max_entries=500&starting_token=500": second,
        }
    )
    assert await Mayastor(http, "http://ms:8081").replicas() == {
        "u1": ({"n1", "n2"}, {"n1"}),
        "u2": ({"n3"}, set()),
    }


class Said:
    def __init__(self):
        self.told: list[ReplicaSetFacts] = []
        self.gone_: list[str] = []

    def facts(self, facts, _version):
        self.told.append(facts)

    def gone(self, kind, facts, _suffix=""):
        assert kind is FactKind.REPLICA_SET
        self.gone_.append(facts.name)


class Storage:
    name = "mayastor"

    def __init__(self):
        self.answer = {"u1": ({"n2", "n1"}, {"n1"})}

    async def replicas(self):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class LoopClock:
    def now(self):
        return asyncio.get_running_loop().time() + 1_000.0


@pytest.fixture
async def polled():
    said, storage = Said(), Storage()
    polls = ReplicaPolls((storage,), said, LoopClock(), identity="a", period_s=60.0)
    task = asyncio.create_task(polls.run())
    yield polls, said, storage
    task.cancel()


async def test_only_the_leader_asks_and_changes_alone_are_told(polled):
    polls, said, storage = polled
    await asyncio.sleep(200)
    assert said.told == []
    polls.lead()
    await asyncio.sleep(1)
    (first,) = said.told
    assert (first.name, first.nodes, first.bad) == ("mayastor:u1", ("n1", "n2"), ("n2",))
    await asyncio.sleep(200)
    assert said.told == [first]
    storage.answer = {"u1": ({"n1", "n2"}, {"n1", "n2"})}
    await asyncio.sleep(100)
    assert said.told[-1].bad == ()
    assert said.told[-1].as_of > first.as_of


async def test_what_is_unchanged_is_told_with_a_newer_time_now_and_then(polled):
    polls, said, _ = polled
    polls.lead()
    await asyncio.sleep(1500)
    assert 2 <= len(said.told) <= 3
    assert len({facts.nodes for facts in said.told}) == 1


async def test_no_answer_takes_nothing_back(polled):
    polls, said, storage = polled
    polls.lead()
    await asyncio.sleep(1)
    storage.answer = StorageApiError("refused")
    await asyncio.sleep(300)
    assert said.gone_ == []
    storage.answer = {}
    await asyncio.sleep(100)
    assert said.gone_ == ["mayastor:u1"]
