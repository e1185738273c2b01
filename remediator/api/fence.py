"""The route of the fence devices: how they answered last; POST asks them now."""

from __future__ import annotations

import msgspec
from aiohttp import web

from remediator.api.problems import ProblemError
from remediator.api.vitals import json_answer
from remediator.fence_query import NODES_MAX, FenceQuery, FenceReader


def add_fence_routes(app: web.Application, reader: FenceReader) -> None:
    """Serve the table."""

    async def table(request: web.Request) -> web.Response:
        return await _answer(reader, _query(request))

    async def ask(request: web.Request) -> web.Response:
        """Have the devices asked at once; the answer is the table before that."""
        return await _answer(reader, msgspec.structs.replace(_query(request), now=True))

    app.router.add_get("/api/v1/fence/devices", table)
    app.router.add_post("/api/v1/fence/devices", ask)


def _query(request: web.Request) -> FenceQuery:
    unknown = sorted(set(request.query) - {"node", "after"})
    if unknown:
        raise ProblemError(400, f"{unknown[0]}: unknown key")
    after = request.query.getall("after", [""])
    if len(after) > 1:
        raise ProblemError(400, "after is given twice")
    nodes = request.query.getall("node", [])
    if len(nodes) > NODES_MAX:
        raise ProblemError(400, f"more than {NODES_MAX} nodes")
    return FenceQuery(nodes=tuple(nodes), after=after[0])


async def _answer(reader: FenceReader, query: FenceQuery) -> web.Response:
    answer = await reader.answer(query)
    if answer.status != 200:
        raise ProblemError(answer.status, answer.detail)
    return json_answer(answer)
