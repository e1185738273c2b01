"""A Redfish BMC: read the power state, force it off, and believe only what is read back.

Redfish (DMTF DSP0266, schema ComputerSystem) needs four calls for this, so there is no client
library here. The rules: ``PowerState: Off`` is off and nothing else is; the status of the order is
not the proof, the state read back afterwards is; credentials go into the header of requests to the
configured endpoint and nowhere else.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

import msgspec
import structlog

from remediator.actions.fence import identity
from remediator.clock import Clock
from remediator.engine.model import Reading
from remediator.http_client import HttpClient, HttpError, HttpResponse

log = structlog.get_logger(__name__)

RESET_ACTION: Final = "#ComputerSystem.Reset"
FORCE_OFF: Final = "ForceOff"  # ResetType: cut the power at once, no shutdown of the guest OS
OFF_FOR_S: Final = 1.0  # after On and an accepted order; one reading may be a slip
POLL_S: Final = 0.5  # between reads while it goes off; a read costs a BMC 0.1 s or more
ORDERS_MAX: Final = 3  # the order is repeated while the BMC is busy; ForceOff is safe to repeat
ORDER_PAUSE_S: Final = 1.0
_DETAIL_LIMIT: Final = 200  # characters of a BMC's own words that go into a record

_READINGS: Final = {"On": Reading.UP, "Off": Reading.DOWN}


class RedfishError(Exception):
    """The BMC did not answer, or not usably; the text is one line for a human.

    ``final`` marks what no repeat cures: refused credentials, no such system.
    """

    def __init__(self, detail: str, *, final: bool = False) -> None:
        super().__init__(detail)
        self.final = final


class WrongMachineError(RedfishError):
    """This BMC's system is not the node: its UUID is another. Nothing may be sent to it."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, final=True)


class System(msgspec.Struct, frozen=True, kw_only=True):
    """One reading of the ComputerSystem resource. ``raw_state`` is the BMC's own word."""

    reading: Reading
    raw_state: str
    reset_path: str


class PoweredOff(msgspec.Struct, frozen=True, kw_only=True):
    """The BMC says Off. ``ordered`` is False where it said so before any order was sent."""

    at: float
    detail: str
    ordered: bool


class _ResetAction(msgspec.Struct):
    target: str = ""
    allowed: list[str] | None = msgspec.field(
        name="ResetType@Redfish.AllowableValues", default=None
    )


class _Actions(msgspec.Struct):
    reset: _ResetAction | None = msgspec.field(name=RESET_ACTION, default=None)


class _SystemBody(msgspec.Struct, rename="pascal"):
    power_state: str | None = None
    uuid: str | None = msgspec.field(name="UUID", default=None)
    actions: _Actions | None = None


_system_decoder = msgspec.json.Decoder(_SystemBody)
_FORCE_OFF_BODY = msgspec.json.encode({"ResetType": FORCE_OFF})


class RedfishClient:
    """One ComputerSystem behind one BMC. ``timeout_s`` limits each request."""

    def __init__(
        self,
        http: HttpClient,
        clock: Clock,
        *,
        endpoint: str,
        system_path: str,
        username: str,
        password: str,
        timeout_s: float,
        already_off_for_s: float,
    ) -> None:
        self._already_off_for_s = already_off_for_s
        self._http = http
        self._clock = clock
        self._endpoint = endpoint.rstrip("/")
        self._system_path = system_path
        self._timeout_s = timeout_s
        token = base64.b64encode(f"{username}:{password}".encode()).decode()
        self._headers = {"authorization": f"Basic {token}", "accept": "application/json"}

    @property
    def source(self) -> str:
        """Who speaks, for records: holds no credentials."""
        return f"redfish {self._endpoint}{self._system_path}"

    async def read(self, system_uuid: str) -> System:
        """Read the power state of this system, after checking that it is the node's machine.

        ``system_uuid`` is the node's own (``status.nodeInfo.systemUUID``), empty where unknown.
        Raises WrongMachineError, RedfishError.
        """
        answer = await self._send("GET", self._system_path, None)
        if answer.status != 200:
            raise _refusal("GET", self._system_path, answer)
        try:
            body = _system_decoder.decode(answer.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RedfishError(f"the answer is not a ComputerSystem: {error}") from error
        if body.uuid is not None and identity.differ(system_uuid, body.uuid):
            raise WrongMachineError(
                f"WrongMachine: the BMC's system has UUID {body.uuid[:64]}, the node {system_uuid}"
            )
        state = body.power_state or ""
        return System(
            reading=_READINGS.get(state, Reading.UNKNOWN),
            raw_state=state[:64] or "(no PowerState)",
            reset_path=self._reset_path(body),
        )

    async def power_off(
        self,
        system_uuid: str,
        *,
        deadline_s: float,
        last_look: Callable[[], Awaitable[None]] | None = None,
    ) -> PoweredOff:
        """Force the power off and return once it is read back as Off.

        ``last_look`` is awaited just before each order is sent; what it raises goes to the caller,
        and nothing is sent. The order is sent even if the BMC says Off: some say so while they
        restart, and one that is off bears it. Off counts when it was read for ``OFF_FOR_S`` after
        an order to a system that was on, else for ``already_off_for_s``.
        Raises WrongMachineError (nothing was sent), RedfishError (not verified within
        ``deadline_s``: whether it is off is unknown).
        """
        deadline_at = self._clock.now() + deadline_s
        before = await self.read(system_uuid)
        was_off = before.reading is Reading.DOWN
        try:
            order = await self._order_off(before.reset_path, deadline_at, last_look)
        except RedfishError as refused:
            if not was_off:
                raise
            order = f"{FORCE_OFF} refused ({refused})"
        last = f"PowerState was {before.raw_state}"
        off_since: float | None = None
        off_for_s = self._already_off_for_s if was_off else OFF_FOR_S
        while True:
            try:
                state = await self.read(system_uuid)
            except RedfishError as error:
                if error.final:
                    raise
                last = str(error)
            else:
                now = self._clock.now()
                if state.reading is Reading.DOWN:
                    off_since = now if off_since is None else off_since
                    if now - off_since >= off_for_s:
                        detail = f"was {before.raw_state}, {order}, then read back as Off"
                        return PoweredOff(at=now, detail=detail, ordered=not was_off)
                else:
                    off_since = None
                last = f"PowerState is {state.raw_state}"
            if self._clock.now() + POLL_S >= deadline_at:
                raise RedfishError(f"{order}, but not off after {deadline_s:g} s: {last}")
            await asyncio.sleep(POLL_S)

    async def _order_off(
        self,
        reset_path: str,
        deadline_at: float,
        last_look: Callable[[], Awaitable[None]] | None,
    ) -> str:
        """Send ForceOff, again while the BMC is busy; return what became of it, in words.

        No answer is no failure here: the order may have been carried out, and the state read back
        tells. A clear refusal raises RedfishError.
        """
        said = ""
        for attempt in range(ORDERS_MAX):
            if attempt:
                if self._clock.now() + ORDER_PAUSE_S >= deadline_at:
                    break
                await asyncio.sleep(ORDER_PAUSE_S)
            if last_look is not None:
                await last_look()
            try:
                answer = await self._send("POST", reset_path, _FORCE_OFF_BODY)
            except RedfishError as error:
                said = f"{FORCE_OFF} sent without an answer ({error})"
                break
            if answer.status in (200, 202, 204):
                return f"{FORCE_OFF} accepted ({answer.status})"
            if answer.status not in {409, 429} and answer.status < 500:
                raise _refusal("POST", reset_path, answer)
            # Busy, confused, or in a state that forbids it (409: going off already): ask again.
            said = f"{FORCE_OFF} answered with {answer.status}"
        return said

    async def _send(self, method: str, path: str, body: bytes | None) -> HttpResponse:
        headers = dict(self._headers)
        if body is not None:
            headers["content-type"] = "application/json"
        try:
            async with asyncio.timeout(self._timeout_s + 1.0):  # the door's own limit comes first
                return await self._http.request(
                    method,
                    self._endpoint + path,
                    headers=headers,
                    body=body,
                    timeout_s=self._timeout_s,
                )
        except HttpError as error:
            raise RedfishError(str(error)) from error
        except TimeoutError as error:
            raise RedfishError(f"{method} {path}: no answer in {self._timeout_s:g} s") from error

    def _reset_path(self, body: _SystemBody) -> str:
        """Where to post the order: what the BMC advertises, on the configured endpoint only."""
        fallback = f"{self._system_path.rstrip('/')}/Actions/ComputerSystem.Reset"
        reset = body.actions.reset if body.actions is not None else None
        if reset is None or not reset.target:
            return fallback
        target = urlsplit(reset.target)
        if target.scheme or target.netloc or not target.path.startswith("/"):
            return fallback  # never carry the password to a place that an answer names
        return target.path


def _refusal(method: str, path: str, answer: HttpResponse) -> RedfishError:
    """Say in one line what a status that we cannot use means."""
    status = answer.status
    where = f"{method} {path}: {status}"
    if status in (401, 403):
        return RedfishError(f"{where}: the BMC refuses the credentials", final=True)
    if 300 <= status < 400:
        return RedfishError(f"{where}: the BMC redirects; redirects are not followed", final=True)
    if status == 404:
        return RedfishError(f"{where}: the BMC knows no such resource", final=True)
    words = answer.body[:_DETAIL_LIMIT].decode(errors="replace")
    return RedfishError(f"{where}: {' '.join(words.split())}")
