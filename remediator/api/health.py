"""The routes of ``/api/v1/health`` and ``/api/v1/budgets``: the leader's, whoever is asked."""

from __future__ import annotations

from aiohttp import web

from remediator.api.problems import ProblemError
from remediator.health_query import HealthQuery, HealthReader


def add_health_routes(app: web.Application, reader: HealthReader) -> None:
    """Serve the cluster's, each node's and each VM's health, and the limits."""
    routes = _Routes(reader)
    app.router.add_get("/api/v1/health", routes.cluster)
    app.router.add_get("/api/v1/health/nodes/{name}", routes.node)
    app.router.add_get("/api/v1/health/nodes/{name}/drain", routes.drain)
    app.router.add_get("/api/v1/budgets", routes.budgets)
    app.router.add_get("/api/v1/pacing", routes.pacing)
    app.router.add_get("/api/v1/health/vms/{namespace}/{name}", routes.vm)
    app.router.add_get("/api/v1/policies/nodes/{name}", routes.policies)
    app.router.add_get("/api/v1/policies/vms/{namespace}/{name}", routes.policies)


class _Routes:
    def __init__(self, reader: HealthReader) -> None:
        self._reader = reader

    async def cluster(self, request: web.Request) -> web.Response:
        """Return the cluster at a glance; ``zone`` narrows it to one zone."""
        zones = request.query.getall("zone", [""])
        _check(request, known=("zone",))
        if len(zones) > 1:
            raise ProblemError(400, "zone is given twice")
        return await self._answer(HealthQuery(view="cluster", zone=zones[0]))

    async def node(self, request: web.Request) -> web.Response:
        """Return all that is known of one node, and the row that decides."""
        _check(request)
        return await self._answer(HealthQuery(view="node", name=request.match_info["name"]))

    async def drain(self, request: web.Request) -> web.Response:
        """Return what emptying one node would mean now, or how far it has come."""
        _check(request)
        return await self._answer(HealthQuery(view="drain", name=request.match_info["name"]))

    async def budgets(self, request: web.Request) -> web.Response:
        """Return all limits, who uses them, and what they withhold now."""
        _check(request)
        return await self._answer(HealthQuery(view="budgets"))

    async def pacing(self, request: web.Request) -> web.Response:
        """Return what waits for its start, what boots, why, and when each VM will be back."""
        _check(request)
        return await self._answer(HealthQuery(view="pacing"))

    async def policies(self, request: web.Request) -> web.Response:
        """Return what each policy says of a node or VM now; ``verdict`` assumes another one."""
        verdicts = request.query.getall("verdict", [""])
        _check(request, known=("verdict",))
        if len(verdicts) > 1:
            raise ProblemError(400, "verdict is given twice")
        found = request.match_info
        query = HealthQuery(
            view="policies",
            namespace=found.get("namespace", ""),
            name=found["name"],
            verdict=verdicts[0],
        )
        return await self._answer(query)

    async def vm(self, request: web.Request) -> web.Response:
        """Return all that is known of one VM."""
        _check(request)
        found = request.match_info
        query = HealthQuery(view="vm", namespace=found["namespace"], name=found["name"])
        return await self._answer(query)

    async def _answer(self, query: HealthQuery) -> web.Response:
        answer = await self._reader.answer(query)
        if answer.status != 200:
            raise ProblemError(answer.status, answer.detail)
        return web.Response(body=bytes(answer.view), content_type="application/json")


def _check(request: web.Request, *, known: tuple[str, ...] = ()) -> None:
    unknown = sorted(set(request.query) - set(known))
    if unknown:
        raise ProblemError(400, f"{unknown[0]}: unknown key")
