"""Where ``remediator fence check`` asks: a daemon's API, or the leader over NATS."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
import msgspec

from remediator.bus.connection import BusConnection
from remediator.bus.protocols import BusUnavailableError, NobodyAnswersError
from remediator.cli.entry import CommandError
from remediator.cli.http_source import HTTP_TIMEOUT_S
from remediator.cli.source_options import DEFAULT_SERVER, SourceChoice, nats_connection
from remediator.exit_codes import ExitCode
from remediator.fence_query import (
    FenceAnswer,
    FenceQuery,
    FenceReader,
    ask_leader,
    decode_answer,
)

NOW_S: Final = 90.0  # a device has 30 s, and eight are asked at once
_LOOK_EVERY_S: Final = 0.5
_PAGES_MAX: Final = 1000
_PATH: Final = "/api/v1/fence/devices"


async def whole(source: FenceReader, nodes: tuple[str, ...]) -> FenceAnswer:
    """Return the table with all its pages."""
    found = await source.answer(FenceQuery(nodes=nodes))
    rows, more = list(found.rows), found.more
    for _ in range(_PAGES_MAX):
        if not more:
            break
        page = await source.answer(FenceQuery(nodes=nodes, after=more))
        if page.status != 200:
            return page
        rows += page.rows
        more = page.more
    return msgspec.structs.replace(found, rows=tuple(rows), more="")


async def ask_and_wait(source: FenceReader, nodes: tuple[str, ...]) -> FenceAnswer:
    """Have the devices asked and return their answers, or what there is of them in ``NOW_S``."""
    begun = await source.answer(FenceQuery(nodes=nodes, now=True))
    if begun.status != 200:
        return begun
    give_up_at = time.monotonic() + NOW_S
    while True:
        found = await whole(source, nodes)
        waiting = [row for row in found.rows if row.asked_at < begun.at]
        if found.status != 200 or not waiting or time.monotonic() > give_up_at:
            return found
        await asyncio.sleep(_LOOK_EVERY_S)


@asynccontextmanager
async def open_fence(choice: SourceChoice) -> AsyncIterator[FenceReader]:
    """Open the chosen source; without a choice, the daemon of this host."""
    if choice.server is not None and choice.nats is not None:
        raise CommandError(ExitCode.USAGE, "give one of --server and --nats, not both")
    if choice.nats is not None:
        async with nats_connection(choice) as connection:
            yield _Nats(connection)
        return
    timeout = aiohttp.ClientTimeout(total=HTTP_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        yield _Http(session, choice.server or DEFAULT_SERVER, chosen=choice.server is not None)


class _Nats:
    def __init__(self, connection: BusConnection) -> None:
        self._connection = connection

    async def answer(self, query: FenceQuery) -> FenceAnswer:
        """Return the leader's answer. Ends the command when there is none."""
        try:
            return await ask_leader(self._connection, query)
        except NobodyAnswersError as error:
            raise CommandError(ExitCode.NO_DAEMON, "no daemon on this NATS leads now") from error
        except BusUnavailableError as error:
            raise CommandError(ExitCode.NO_NATS, str(error)) from error


class _Http:
    def __init__(self, session: aiohttp.ClientSession, server: str, *, chosen: bool) -> None:
        self._session = session
        self._server = server.rstrip("/")
        self._chosen = chosen

    async def answer(self, query: FenceQuery) -> FenceAnswer:
        """Return the daemon's answer. Ends the command when there is none."""
        params = [("node", node) for node in query.nodes]
        if query.after:
            params.append(("after", query.after))
        method = "POST" if query.now else "GET"
        url = f"{self._server}{_PATH}"
        try:
            async with self._session.request(method, url, params=params) as answer:
                content, status = await answer.read(), answer.status
        except TimeoutError as error:
            raise self._away(f"gave no answer within {HTTP_TIMEOUT_S:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._away(str(error)) from error
        if status == 200:
            return decode_answer(content)
        try:
            body = msgspec.json.decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._away(f"is no remediator API: {status}, no JSON") from error
        detail = body.get("detail") if isinstance(body, dict) else None
        return FenceAnswer(status=status, detail=str(detail or f"{self._server}: {status}"))

    def _away(self, why: str) -> CommandError:
        elsewhere = "" if self._chosen else "; say where to ask: --server URL or --nats URL"
        return CommandError(ExitCode.NO_DAEMON, f"{self._server}: {why}{elsewhere}")
