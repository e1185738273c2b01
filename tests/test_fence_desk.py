"""The desk that answers questions about fence devices, on its own and over a real NATS."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import pytest

from remediator.actions.fence.check_rows import CheckRow
from remediator.bus.connection import connect
from remediator.bus.embedded import EmbeddedServer
from remediator.clock import Clock
from remediator.fence_desk import FenceDesk
from remediator.fence_query import FenceAnswer, FenceQuery, ask_leader, decode_answer, encode


class Checks:
    def __init__(self, rows):
        self._rows, self.hurried = rows, []

    def rows(self, nodes=(), *, after="", limit=None):
        rows = [row for row in self._rows if not nodes or row.node in nodes]
        rows = [row for row in rows if row.node > after]
        last = rows[limit - 1].node if len(rows) >= limit else "~"
        return [row for row in rows if row.node <= last]

    def covered(self):
        return {row.node for row in self._rows}

    def hurry(self, nodes=()):
        self.hurried.append(tuple(nodes))


class Replica:
    """As much of a replica as the desk looks at."""

    identity = "a"

    def __init__(self, rows, *, leads=True, bare=()):
        self.fence_checks = Checks(rows)
        self.leader, self.holder = leads, "b"
        self.elector = self.watchers = self
        self.term = object() if leads else None
        self._names = [*{row.node: None for row in rows}, *bare]

    def node_names(self):
        return self._names


def rows(nodes, devices=1):
    return [
        CheckRow(node=f"n{number:04}", config="racks", device=f"d{at}", method="agent", level=1)
        for number in range(nodes)
        for at in range(devices)
    ]


def desk(*given, connection=None, **options):
    return FenceDesk(Replica(*given, **options), connection, Clock())


async def test_many_rows_come_in_pages_and_a_nodes_rows_stay_together():
    asked = desk(rows(700, devices=3))
    found, after, pages = [], "", 0
    while True:
        answer = await asked.answer(FenceQuery(after=after))
        assert len(answer.rows) <= 1003
        assert len(encode(answer)) < 1_000_000
        found += answer.rows
        pages += 1
        if not answer.more:
            break
        assert answer.rows[-1].node == answer.more
        after = answer.more
    assert found == rows(700, devices=3)
    assert pages == 3


async def test_it_names_nodes_without_a_configuration_and_nodes_that_are_not_there():
    asked = desk(rows(2), bare=["n7", "n8"])
    whole = await asked.answer(FenceQuery())
    assert (whole.bare, whole.bare_count, whole.unknown) == (("n7", "n8"), 2, ())
    some = await asked.answer(FenceQuery(nodes=("n0001", "n8", "nobody")))
    assert [row.node for row in some.rows] == ["n0001"]
    assert (some.bare, some.unknown) == (("n8",), ("nobody",))


async def test_now_hurries_the_nodes_that_were_named():
    asked = desk(rows(2))
    await asked.answer(FenceQuery(nodes=("n0001",), now=True))
    await asked.answer(FenceQuery(now=True))
    await asked.answer(FenceQuery())
    assert asked._replica.fence_checks.hurried == [("n0001",), ()]


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b'{"nod": 1}', b'{"nodes": ["a", 1]}', b"[" * 100_000]
)
async def test_what_is_no_question_is_said_so_by_the_leader_alone(payload):
    answer = decode_answer(await desk(rows(1)).on_question(payload))
    assert answer.status == 400
    assert await desk(rows(1), leads=False).on_question(payload) is None


async def test_too_many_names_are_refused():
    query = FenceQuery(nodes=tuple(f"n{number}" for number in range(1001)))
    answer = decode_answer(await desk(rows(1)).on_question(encode(query)))
    assert (answer.status, answer.detail) == (400, "not a question: more than 1000 nodes")


async def test_an_answer_that_cannot_be_read_says_so():
    assert decode_answer(b"{}").status == 503
    assert "cannot be read" in decode_answer(b"\xff").detail


async def test_over_nats_the_leader_answers_whoever_asks_and_a_follower_passes_it_on(tmp_path):
    server = EmbeddedServer(tmp_path)
    settings = await server.start()
    connection = await connect(settings, "test")
    leader = desk(rows(2), connection=connection)
    follower = desk([], leads=False, connection=connection)
    try:
        nobody = await follower.answer(FenceQuery())
        assert (nobody.status, nobody.detail) == (
            503, "this daemon does not lead, and nobody else does"
        )  # fmt: skip
        answering = asyncio.create_task(leader.run())
        async with asyncio.timeout(20.0):
            answer = FenceAnswer(status=503)
            while answer.status == 503:
                answer = await follower.answer(FenceQuery())
        assert [row.node for row in answer.rows] == ["n0000", "n0001"]
        assert msgspec.structs.replace(await ask_leader(connection, FenceQuery()), at=0.0) == (
            msgspec.structs.replace(answer, at=0.0)
        )
        answering.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await answering
    finally:
        await connection.close()
        await server.stop()
