"""Where ``remediator health`` asks: a daemon's API, or the leader over NATS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

import aiohttp
import msgspec

from remediator.bus.connection import BusConnection
from remediator.bus.protocols import BusUnavailableError, NobodyAnswersError
from remediator.cli.entry import CommandError
from remediator.cli.http_source import HTTP_TIMEOUT_S
from remediator.cli.source_options import DEFAULT_SERVER, SourceChoice, nats_connection
from remediator.exit_codes import ExitCode
from remediator.health_query import HealthAnswer, HealthQuery, HealthReader, ask_leader


@asynccontextmanager
async def open_health(choice: SourceChoice) -> AsyncIterator[HealthReader]:
    """Open the chosen source; without a choice, the daemon of this host."""
    if choice.server is not None and choice.nats is not None:
        raise CommandError(ExitCode.USAGE, "give one of --server and --nats, not both")
    if choice.nats is not None:
        async with nats_connection(choice) as connection:
            yield NatsHealth(connection)
        return
    timeout = aiohttp.ClientTimeout(total=HTTP_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        yield HttpHealth(session, choice.server or DEFAULT_SERVER, chosen=choice.server is not None)


class NatsHealth:
    """The leader, asked over NATS."""

    def __init__(self, connection: BusConnection) -> None:
        self._connection = connection

    async def answer(self, query: HealthQuery) -> HealthAnswer:
        """Return the leader's answer. Ends the command when there is none."""
        try:
            return await ask_leader(self._connection, query)
        except NobodyAnswersError as error:
            raise CommandError(ExitCode.NO_DAEMON, "no daemon on this NATS leads now") from error
        except BusUnavailableError as error:
            raise CommandError(ExitCode.NO_NATS, str(error)) from error


class HttpHealth:
    """A daemon's API."""

    def __init__(self, session: aiohttp.ClientSession, server: str, *, chosen: bool) -> None:
        self._session = session
        self._server = server.rstrip("/")
        self._chosen = chosen

    async def answer(self, query: HealthQuery) -> HealthAnswer:
        """Return the daemon's answer. Ends the command when there is none."""
        url = f"{self._server}{_path(query)}"
        try:
            async with self._session.get(url, params=_params(query)) as answer:
                content = await answer.read()
        except TimeoutError as error:
            raise self._away(f"gave no answer within {HTTP_TIMEOUT_S:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._away(str(error)) from error
        try:
            body = msgspec.json.decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._away(f"is no remediator API: {answer.status}, no JSON") from error
        if answer.status == 200:
            return HealthAnswer(status=200, view=msgspec.Raw(content))
        detail = body.get("detail") if isinstance(body, dict) else None
        return HealthAnswer(
            status=answer.status, detail=str(detail or f"{self._server}: status {answer.status}")
        )

    def _away(self, why: str) -> CommandError:
        elsewhere = "" if self._chosen else "; say where to ask: --server URL or --nats URL"
        return CommandError(ExitCode.NO_DAEMON, f"{self._server}: {why}{elsewhere}")


def _path(query: HealthQuery) -> str:
    if query.view == "budgets":
        return "/api/v1/budgets"
    if query.view == "pacing":
        return "/api/v1/pacing"
    if query.view == "policies":
        about = ("vms", query.namespace) if query.namespace else ("nodes",)
        whom = "/".join(quote(part, safe="") for part in (*about, query.name))
        return f"/api/v1/policies/{whom}"
    parts = {
        "cluster": (),
        "node": ("nodes", query.name),
        "drain": ("nodes", query.name, "drain"),
        "vm": ("vms", query.namespace, query.name),
    }[query.view]
    return "/".join(("/api/v1/health", *(quote(part, safe="") for part in parts)))


def _params(query: HealthQuery) -> dict[str, str]:
    given = {"zone": query.zone, "verdict": query.verdict}
    return {name: value for name, value in given.items() if value}
