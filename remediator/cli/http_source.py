"""Reading decisions from a daemon's API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec

from remediator.bus.protocols import StoredRecord
from remediator.cli.entry import CommandError
from remediator.exit_codes import ExitCode
from remediator.journal.query import LIMIT_MAX, DecisionQuery, StoredDecision

HTTP_TIMEOUT_S = 10.0


class HttpSource:
    """The daemon's API."""

    def __init__(self, session: aiohttp.ClientSession, server: str) -> None:
        self.name = server.rstrip("/")
        self._session = session

    async def select(self, query: DecisionQuery) -> list[StoredDecision]:
        """Return one page."""
        given = {
            key: str(value)
            for key, value in msgspec.to_builtins(query).items()
            if value not in {None, ""}
        }
        body = await self._get("/api/v1/decisions", given)
        return [_stored(one) for one in body["decisions"]]

    async def get(self, seq: int) -> StoredDecision | None:
        """Return one record."""
        body = await self._get(f"/api/v1/decisions/{seq}", {}, missing_ok=True)
        return None if body is None else _stored(body)

    async def walk(self) -> AsyncIterator[StoredRecord]:
        """Yield every record that the daemon could read."""
        after = 0
        while page := await self.select(DecisionQuery(after_seq=after, limit=LIMIT_MAX)):
            for one in page:
                yield StoredRecord(one.seq, "", one.payload)
            after = page[-1].seq

    async def last_seq(self) -> int:
        """Return the newest record's sequence."""
        newest = await self.select(DecisionQuery(limit=1))
        return newest[0].seq if newest else 0

    async def _get(self, path: str, given: dict[str, str], *, missing_ok: bool = False) -> Any:
        url = f"{self.name}{path}"
        try:
            async with self._session.get(url, params={**given, "raw": "true"}) as answer:
                content = await answer.read()
        except TimeoutError as error:
            raise CommandError(
                ExitCode.NO_DAEMON, f"{self.name} gave no answer within {HTTP_TIMEOUT_S:g} s"
            ) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise CommandError(ExitCode.NO_DAEMON, f"{self.name}: {error}") from error
        if answer.status == 404 and missing_ok:
            return None
        try:
            body = msgspec.json.decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CommandError(
                ExitCode.NO_DAEMON, f"{self.name} is no remediator API: {answer.status}, no JSON"
            ) from error
        if answer.status != 200 or not isinstance(body, dict):
            detail = body.get("detail", "") if isinstance(body, dict) else ""
            code = ExitCode.USAGE if answer.status == 400 else ExitCode.NO_DAEMON
            raise CommandError(code, f"{self.name}: {detail or f'status {answer.status}'}")
        return body


def _stored(item: dict[str, Any]) -> StoredDecision:
    return StoredDecision(seq=int(item["seq"]), payload=str(item["payload"]).encode())
