"""A Redfish BMC: read the power state, force it off, and believe only what is read back.

Redfish (DMTF DSP0266, schema ComputerSystem) needs four calls for this, so there is no client
library here. The rules: ``PowerState: Off`` is off and nothing else is; the status of the order is
not the proof (202 means that a task began), the state read back afterwards is.
"""

from __future__ import annotations

import asyncio
from typing import Final
from urllib.parse import quote, urlsplit

import msgspec

from remediator.actions.fence import identity
from remediator.actions.fence.credentials import Logins
from remediator.actions.fence.driver import Checked, Down, NotDown, Order, Target
from remediator.actions.fence.redfish_door import RedfishDoor, RedfishError, refusal
from remediator.actions.fence.verify import OFF_FOR_S, POLL_S, NotVerifiedError, verify_off
from remediator.clock import Clock
from remediator.engine.model import ProofKind, Reading
from remediator.fence_config.document import RedfishFence
from remediator.http_client import HttpClient, HttpResponse
from remediator.power import PowerReading

SYSTEMS: Final = "/redfish/v1/Systems"
RESET_ACTION: Final = "#ComputerSystem.Reset"
FORCE_OFF: Final = "ForceOff"  # ResetType: cut the power at once, no shutdown of the guest OS
ON: Final = "On"
ORDERS_MAX: Final = 3  # the order is repeated while the BMC is busy; ForceOff is safe to repeat
ORDER_PAUSE_S: Final = 1.0
# Hardware needs up to about 10 s to report a forced power-off (sushy-tools' emulator does, too).
DEFAULT_TIMEOUT_S: Final = 20.0
_SYSTEMS_ASKED: Final = 16  # blades behind one service; more are named by path

_READINGS: Final = {"On": Reading.UP, "Off": Reading.DOWN}


class WrongMachineError(RedfishError):
    """This BMC's system is not the node: its UUID is another. Nothing may be sent to it."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, final=True)


class System(msgspec.Struct, frozen=True, kw_only=True):
    """One reading of the ComputerSystem resource. ``raw_state`` is the BMC's own word."""

    path: str
    reading: Reading
    raw_state: str
    reset_path: str
    resets: tuple[str, ...]  # the ResetTypes that it offers; empty: it does not say
    uuid: str
    marks: str  # serial number and asset tag, for a person


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
    serial_number: str | None = None
    asset_tag: str | None = None
    actions: _Actions | None = None


class _Member(msgspec.Struct):
    path: str = msgspec.field(name="@odata.id")


class _Collection(msgspec.Struct, rename="pascal"):
    members: list[_Member]


_system_decoder = msgspec.json.Decoder(_SystemBody)
_collection_decoder = msgspec.json.Decoder(_Collection)


class RedfishDriver:
    """One kind of BMC; ``endpoint`` and ``system`` name each node's own."""

    proof = ProofKind.POWER_OFF_VERIFIED
    tells_power = True
    leaves_objects = False

    def __init__(
        self, settings: RedfishFence, http: HttpClient, logins: Logins, clock: Clock
    ) -> None:
        self._settings = settings
        self._http = http
        self._logins = logins
        self._clock = clock
        self._doors: dict[str, RedfishDoor] = {}  # by endpoint
        self._systems: dict[str, str] = {}  # node -> path, where it had to be found

    @property
    def name(self) -> str:
        """The device's name in its configuration."""
        return self._settings.name

    @property
    def timeout_s(self) -> float:
        """How long one fence may need in all."""
        return self._settings.timeout_s or DEFAULT_TIMEOUT_S

    def source(self, node: str) -> str:
        """Name the BMC and the system; holds no credentials."""
        endpoint = _for_node(self._settings.endpoint, node).rstrip("/")
        system = _for_node(self._settings.system, node) or self._systems.get(node, "")
        return f"redfish {endpoint}{system}"

    async def check(self, target: Target) -> Checked:
        """Read state and identity."""
        try:
            system = await self.read(target)
        except RedfishError as error:
            owner = "differs" if isinstance(error, WrongMachineError) else "unknown"
            power = self._reading(target, Reading.UNKNOWN, str(error))
            return Checked(power=power, owner=owner, fault=str(error))
        power = self._reading(target, system.reading, f"PowerState is {system.raw_state}")
        known = identity.parse(system.uuid) and identity.parse(target.system_uuid)
        fault = _no_force_off(system)
        return Checked(
            power=power,
            identity=" ".join(part for part in (system.uuid, system.marks) if part),
            owner="matches" if known else "unknown",
            fault=fault,
        )

    async def take_down(self, target: Target, order: Order) -> Down | NotDown:
        """Force the power off, and read it back as Off.

        The order is sent even if the BMC says Off: some say so while they restart, and one that is
        off bears it. Off counts when it was read for ``OFF_FOR_S`` after an order to a system that
        was on, else for ``alreadyOffFor``.
        """
        try:
            return await self._take_down(target, order)
        except RedfishError as error:
            return NotDown(source=self.source(target.node), detail=str(error))

    async def bring_up(self, target: Target, order: Order) -> str:
        """Power it on, and read it back as On."""
        try:
            system = await self.read(target)
            if system.reading is Reading.UP:
                return ""
            await order.last_look()
            answer = await self._door(target).send("POST", system.reset_path, _reset(ON))
            if answer.status not in (200, 202, 204):
                return str(refusal("POST", system.reset_path, answer))
            while self._clock.now() + POLL_S < order.deadline_at:
                await asyncio.sleep(POLL_S)
                system = await self.read(target)
                if system.reading is Reading.UP:
                    return ""
        except RedfishError as error:
            return str(error)
        return f"{ON} accepted, but PowerState is {system.raw_state}"

    async def take_back(self, target: Target) -> str:
        """Nothing is left behind by power."""
        del target
        return ""

    async def close(self) -> None:
        """End the sessions, and the connections with them."""
        for door in self._doors.values():
            await door.close()
        await self._http.close()

    async def read(self, target: Target) -> System:
        """Read the system of this node, after checking that it is the node's machine.

        Raises WrongMachineError, RedfishError.
        """
        return await self._read(target, await self._path(target))

    # --- steps ------------------------------------------------------------------------------------

    async def _take_down(self, target: Target, order: Order) -> Down | NotDown:
        before = await self.read(target)
        was_on, was_off = before.reading is Reading.UP, before.reading is Reading.DOWN
        missing = _no_force_off(before)
        if missing and not was_off:
            return NotDown(source=self.source(target.node), detail=missing)
        try:
            said = await self._order_off(target, before.reset_path, order)
        except RedfishError as refused:
            if not was_off:
                raise
            said = f"{FORCE_OFF} refused ({refused})"

        async def read() -> PowerReading:
            try:
                system = await self._read(target, before.path)
            except RedfishError as error:
                if error.final:
                    raise
                return self._reading(target, Reading.UNKNOWN, str(error))
            return self._reading(target, system.reading, f"PowerState is {system.raw_state}")

        began_at = self._clock.now()
        try:
            at = await verify_off(
                read,
                self._clock,
                off_for_s=OFF_FOR_S if was_on else self._settings.already_off_for_s,
                deadline_at=order.deadline_at,
            )
        except NotVerifiedError as error:
            after_s = self._clock.now() - began_at
            why = f"{said}, but not off after {after_s:.0f} s: {error}"
            return NotDown(source=self.source(target.node), detail=why)
        detail = f"was {before.raw_state}, {said}, then read back as Off"
        return Down(at=at, source=self.source(target.node), detail=detail, ordered=not was_off)

    async def _order_off(self, target: Target, reset_path: str, order: Order) -> str:
        """Send ForceOff, again while the BMC is busy; return what became of it, in words.

        No answer is no failure here: the order may have been carried out, and the state read back
        tells. A clear refusal raises RedfishError.
        """
        said = ""
        for attempt in range(ORDERS_MAX):
            if attempt:
                if self._clock.now() + ORDER_PAUSE_S >= order.deadline_at:
                    break
                await asyncio.sleep(ORDER_PAUSE_S)
            await order.last_look()
            try:
                answer = await self._door(target).send("POST", reset_path, _reset(FORCE_OFF))
            except RedfishError as error:
                said = f"{FORCE_OFF} sent without an answer ({error})"
                break
            if answer.status in (200, 202, 204):
                return f"{FORCE_OFF} accepted ({answer.status})"
            if answer.status not in {409, 429} and answer.status < 500:
                raise refusal("POST", reset_path, answer)
            # Busy, confused, or in a state that forbids it (409: going off already): ask again.
            said = f"{FORCE_OFF} answered with {answer.status}"
        return said

    def _door(self, target: Target) -> RedfishDoor:
        endpoint = _for_node(self._settings.endpoint, target.node)
        door = self._doors.get(endpoint)
        if door is None:
            door = self._doors[endpoint] = RedfishDoor(
                self._http,
                self._logins,
                endpoint=endpoint,
                timeout_s=self._settings.request_timeout_s,
                session=self._settings.session,
            )
        return door

    async def _path(self, target: Target) -> str:
        """Return the path of the node's system: as configured, or found in the service's list."""
        if self._settings.system:
            return _for_node(self._settings.system, target.node)
        known = self._systems.get(target.node)
        if known is not None:
            return known
        answer = await self._door(target).send("GET", SYSTEMS)
        if answer.status != 200:
            raise refusal("GET", SYSTEMS, answer)
        try:
            members = _collection_decoder.decode(answer.body).members
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RedfishError(f"{SYSTEMS} lists no systems: {error}") from error
        paths = [urlsplit(member.path).path for member in members[:_SYSTEMS_ASKED]]
        if len(paths) != 1:
            paths = [path for path in paths if await self._is_of(target, path)]
        if len(paths) != 1:
            raise RedfishError(
                f"{SYSTEMS} lists {len(members)} systems, {len(paths)} of them with the UUID of "
                "the node: name it as 'system'",
                final=True,
            )
        self._systems[target.node] = paths[0]
        return paths[0]

    async def _is_of(self, target: Target, path: str) -> bool:
        try:
            system = await self._read(target, path)
        except WrongMachineError:
            return False
        known = identity.parse(system.uuid) and identity.parse(target.system_uuid)
        return known is not None

    async def _read(self, target: Target, path: str) -> System:
        answer = await self._door(target).send("GET", path)
        if answer.status != 200:
            raise refusal("GET", path, answer)
        body = _decoded(answer)
        uuid = body.uuid or ""
        if identity.differ(target.system_uuid, uuid):
            raise WrongMachineError(
                f"WrongMachine: the BMC's system has UUID {uuid[:64]}, the node "
                f"{target.system_uuid}"
            )
        reset = body.actions.reset if body.actions is not None else None
        marks = (("serial", body.serial_number), ("asset", body.asset_tag))
        return System(
            path=path,
            reading=_READINGS.get(body.power_state or "", Reading.UNKNOWN),
            raw_state=(body.power_state or "")[:64] or "(no PowerState)",
            reset_path=_reset_path(reset, path),
            resets=tuple((reset.allowed if reset is not None else None) or ()),
            uuid=uuid[:64],
            marks=" ".join(f"{key} {value[:64]}" for key, value in marks if value),
        )

    def _reading(self, target: Target, reading: Reading, detail: str) -> PowerReading:
        return PowerReading(reading=reading, source=self.source(target.node), detail=detail)


def _for_node(template: str, node: str) -> str:
    return template.replace("{node}", quote(node, safe=""))


def _reset(kind: str) -> bytes:
    return msgspec.json.encode({"ResetType": kind})


def _decoded(answer: HttpResponse) -> _SystemBody:
    try:
        return _system_decoder.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RedfishError(f"the answer is not a ComputerSystem: {error}") from error


def _no_force_off(system: System) -> str:
    """Say that this BMC cannot cut the power; empty where it can, or does not say."""
    if not system.resets or FORCE_OFF in system.resets:
        return ""
    return f"the BMC offers no {FORCE_OFF}, only {', '.join(system.resets)}"


def _reset_path(reset: _ResetAction | None, system_path: str) -> str:
    """Where to post the order: what the BMC advertises, on the configured endpoint only."""
    fallback = f"{system_path.rstrip('/')}/Actions/ComputerSystem.Reset"
    if reset is None or not reset.target:
        return fallback
    target = urlsplit(reset.target)
    if target.scheme or target.netloc or not target.path.startswith("/"):
        return fallback  # never carry the password to a place that an answer names
    return target.path
