"""The way to one Redfish service: its address, its login, and what its answers mean.

Credentials go into headers of requests to the configured endpoint and nowhere else: redirects are
not followed, and no address that an answer names is used. With ``session`` the password is sent
once, to log in, and a token in each request after that.
"""

from __future__ import annotations

import asyncio
import base64
from typing import Final
from urllib.parse import urlsplit

import msgspec
import structlog

from remediator.actions.fence.credentials import CredentialsError, Login, Logins
from remediator.http_client import HttpClient, HttpError, HttpResponse
from remediator.logs import redact, register_secret

log = structlog.get_logger(__name__)

SESSIONS: Final = "/redfish/v1/SessionService/Sessions"
_DETAIL_LIMIT: Final = 200  # characters of a BMC's own words that go into a record
_TOKEN_LIMIT: Final = 4096


class RedfishError(Exception):
    """The BMC did not answer, or not usably; the text is one line for a human.

    ``final`` marks what no repeat cures: refused credentials, no such system.
    """

    def __init__(self, detail: str, *, final: bool = False) -> None:
        super().__init__(detail)
        self.final = final


class RedfishDoor:
    """Sends authenticated requests to one endpoint. ``timeout_s`` limits each of them."""

    def __init__(
        self, http: HttpClient, logins: Logins, *, endpoint: str, timeout_s: float, session: bool
    ) -> None:
        self._http = http
        self._logins = logins
        self.endpoint = endpoint.rstrip("/")
        self._timeout_s = timeout_s
        self._by_session = session
        self._token = ""
        self._token_path = ""  # where the session is, to end it
        self._logging_in = asyncio.Lock()

    async def send(self, method: str, path: str, body: bytes | None = None) -> HttpResponse:
        """Send one request; any status but 401 on an old session is an answer.

        Raises RedfishError.
        """
        if not self._by_session:
            return await self._send(method, path, body, await self._basic())
        token = self._token or await self._log_in("")
        answer = await self._send(method, path, body, {"x-auth-token": token})
        if answer.status == 401:  # the session has ended: BMCs drop idle ones, and all on a restart
            token = await self._log_in(token)
            answer = await self._send(method, path, body, {"x-auth-token": token})
        return answer

    async def close(self) -> None:
        """Log out: BMCs have few sessions, and some keep them for half an hour."""
        token, path = self._token, self._token_path
        self._token = self._token_path = ""
        if token and path:
            try:
                await self._send("DELETE", path, None, {"x-auth-token": token})
            except RedfishError as error:
                log.info("redfish_logout_failed", endpoint=self.endpoint, error=str(error))

    async def _log_in(self, stale: str) -> str:
        async with self._logging_in:
            if self._token and self._token != stale:
                return self._token  # somebody else has logged in meanwhile
            login = await self._login()
            body = msgspec.json.encode({"UserName": login.username, "Password": login.password})
            answer = await self._send("POST", SESSIONS, body, {})
            token = answer.headers.get("x-auth-token", "")[:_TOKEN_LIMIT]
            if answer.status not in (200, 201, 204) or not token:
                raise refusal("POST", SESSIONS, answer)
            register_secret(token)
            location = urlsplit(answer.headers.get("location", ""))
            self._token, self._token_path = token, location.path
            return token

    async def _basic(self) -> dict[str, str]:
        login = await self._login()
        token = base64.b64encode(f"{login.username}:{login.password}".encode()).decode()
        register_secret(token)  # as good as the password to whoever reads it
        return {"authorization": f"Basic {token}"}

    async def _login(self) -> Login:
        try:
            return await self._logins.login()
        except CredentialsError as error:
            raise RedfishError(str(error), final=True) from error

    async def _send(
        self, method: str, path: str, body: bytes | None, authority: dict[str, str]
    ) -> HttpResponse:
        headers = {"accept": "application/json", **authority}
        if body is not None:
            headers["content-type"] = "application/json"
        try:
            async with asyncio.timeout(self._timeout_s + 1.0):  # the door's own limit comes first
                return await self._http.request(
                    method,
                    self.endpoint + path,
                    headers=headers,
                    body=body,
                    timeout_s=self._timeout_s,
                )
        except HttpError as error:
            raise RedfishError(str(error)) from error
        except TimeoutError as error:
            raise RedfishError(f"{method} {path}: no answer in {self._timeout_s:g} s") from error


def refusal(method: str, path: str, answer: HttpResponse) -> RedfishError:
    """Say in one line what a status that we cannot use means."""
    status = answer.status
    where = f"{method} {path}: {status}"
    if status in (401, 403):
        return RedfishError(f"{where}: the BMC refuses the credentials", final=True)
    if 300 <= status < 400:
        return RedfishError(f"{where}: the BMC redirects; redirects are not followed", final=True)
    if status == 404:
        return RedfishError(f"{where}: the BMC knows no such resource", final=True)
    # A service may quote what it was sent: redacted before it is cut, or half a secret would stay.
    words = redact(answer.body.decode(errors="replace"))[:_DETAIL_LIMIT]
    return RedfishError(f"{where}: {' '.join(words.split())}")
