"""Fence by a ClusterLabs agent, by its documented contract.

Exit code 0 of ``off`` means "done and verified" by the agent; it is believed only when its
``status`` then says off (exit code 2). Real agents exit 1 for everything else, also for a missing
Python module, so what went wrong is told from their words, and a timeout is a failure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from remediator.actions.fence import agent_metadata
from remediator.actions.fence.agent_process import AgentLaunchError, Answer, run_agent
from remediator.actions.fence.credentials import CredentialsError, Logins
from remediator.actions.fence.driver import Checked, Down, NotDown, Order, Target
from remediator.actions.fence.ipmi import IpmiIdentity, hide_password, speaks_ipmi
from remediator.actions.fence.verify import OFF_FOR_S, NotVerifiedError, verify_off
from remediator.clock import Clock
from remediator.engine.model import ProofKind, Reading
from remediator.fence_config.document import AgentFence
from remediator.power import PowerReading

DIRECTORIES: Final = (Path("/usr/sbin"), Path("/usr/libexec/fence-agents"), Path("/usr/local/sbin"))
PROGRAM: Final = re.compile(r"fence_[a-z0-9][a-z0-9_-]*")

# ClusterLabs defaults: power_timeout 20 s, login 5 s, shell 3 s, each status 0.1 to 2 s.
DEFAULT_TIMEOUT_S: Final = 40.0
STATUS_S: Final = 8.0
METADATA_S: Final = 15.0
# Some BMCs say off for seconds while they restart; see fence_settings.
ALREADY_OFF_FOR_S: Final = 10.0

_ON, _OFF = 0, 2  # exit codes of "status"
# ipmitool without a cipher asks the BMC for its suites and may wait 14 s for an answer (ipmitool
# issue 199): it is settled in peace. 17 is RMCP+ with SHA-256, 3 the older SHA-1.
CIPHERS: Final = ("17", "3")
_WORDS_LIMIT: Final = 200
# "2026-11-20 12:00:00,123 ERROR: " before a message of the agents' common library.
_STAMP: Final = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ [A-Z]+: ")


class AgentDriver:
    """One agent with its parameters. Give it the agent's metadata where it was read at load."""

    proof: ProofKind
    tells_power: bool
    leaves_objects = False

    def __init__(
        self,
        settings: AgentFence,
        logins: Logins | None,
        clock: Clock,
        *,
        metadata: agent_metadata.Metadata | None = None,
        directories: Sequence[Path] = DIRECTORIES,
    ) -> None:
        self._settings = settings
        self._logins = logins
        self._clock = clock
        self._metadata = metadata
        self._directories = tuple(directories)
        self._cipher: dict[str, str] = {}  # node -> the one that works
        self._speaks_for_itself = settings.program in agent_metadata.SPEAKS_FOR_ITSELF
        self.proof = (
            ProofKind.KERNEL_DEAD if self._speaks_for_itself else ProofKind.POWER_OFF_VERIFIED
        )
        self.tells_power = not self._speaks_for_itself
        self._identity = IpmiIdentity(settings.program, clock)

    @property
    def name(self) -> str:
        """The device's name in its configuration."""
        return self._settings.name

    @property
    def timeout_s(self) -> float:
        """How long one fence may need in all."""
        return self._settings.timeout_s or DEFAULT_TIMEOUT_S

    def source(self, node: str) -> str:
        """Agent, address and plug: what a person needs to find the device."""
        given = self._given(node)
        where = given.get("ip") or given.get("ipaddr") or ""
        plug = given.get("plug") or given.get("port") or ""
        parts = (self._settings.program, where, f"plug {plug}" if plug else "")
        return " ".join(part for part in parts if part)

    async def check(self, target: Target) -> Checked:
        """Ask for ``status``; settle the cipher of an IPMI device; compare its identity."""
        if self._speaks_for_itself:
            said = "listens only after a crash: nothing to ask in peace"
            return Checked(power=self._reading(target.node, Reading.UNKNOWN, said))
        power = await self._settle_cipher(target.node)
        if power.reading is Reading.UNKNOWN:
            return Checked(power=power, fault=power.detail)
        owner, identity = await self._whose(target, self._clock.now() + STATUS_S)
        fault = f"it belongs to {identity}, not to {target.node}" if owner == "differs" else ""
        return Checked(power=power, identity=identity, owner=owner, fault=fault)

    async def take_down(self, target: Target, order: Order) -> Down | NotDown:
        """``status``, identity, last look, ``off``, then ``status`` until it stays off."""
        source = self.source(target.node)
        if self._speaks_for_itself:
            return await self._await_kernel(target, order)
        before = await self._status(target.node, order.deadline_at)
        owner, identity = await self._whose(target, order.deadline_at)
        if owner == "differs":
            why = f"the device belongs to {identity}, not to {target.node}: nothing was sent"
            return NotDown(source=source, detail=f"WrongMachine: {why}")
        await order.last_look()
        answer = await self._run("off", target.node, order.deadline_at)
        if isinstance(answer, str):
            return NotDown(source=source, detail=answer)
        was_on, was_off = before.reading is Reading.UP, before.reading is Reading.DOWN

        async def read() -> PowerReading:
            return await self._status(target.node, order.deadline_at)

        if answer.code != 0 and (await read()).reading is not Reading.DOWN:
            return NotDown(source=source, detail=_told("off", answer))  # the next level may do it

        try:
            at = await verify_off(
                read,
                self._clock,
                off_for_s=OFF_FOR_S if was_on else ALREADY_OFF_FOR_S,
                deadline_at=order.deadline_at,
            )
        except NotVerifiedError as error:
            return NotDown(source=source, detail=f"{_told('off', answer)}; then {error}")
        was = {Reading.UP: "was on", Reading.DOWN: "was off before"}.get(
            before.reading, "was unknown"
        )
        detail = f"{was}, {_told('off', answer)}, then its status said off"
        return Down(at=at, source=source, detail=detail, ordered=not was_off)

    async def bring_up(self, target: Target, order: Order) -> str:
        """``on``, and ``status`` says on."""
        await order.last_look()
        answer = await self._run("on", target.node, order.deadline_at)
        if isinstance(answer, str):
            return answer
        after = await self._status(target.node, order.deadline_at)
        return "" if after.reading is Reading.UP else f"{_told('on', answer)}; then {after.detail}"

    async def take_back(self, target: Target) -> str:
        """Nothing is left behind by power."""
        del target
        return ""

    async def close(self) -> None:
        """Nothing is held open."""

    # --- calls ------------------------------------------------------------------------------------

    async def _await_kernel(self, target: Target, order: Order) -> Down | NotDown:
        """fence_kdump: its "off" waits for the message of the crashed kernel, and is the proof."""
        await order.last_look()
        answer = await self._run("off", target.node, order.deadline_at)
        source = self.source(target.node)
        if isinstance(answer, str):
            return NotDown(source=source, detail=answer)
        if answer.code != 0:
            return NotDown(source=source, detail=_told("off", answer))
        return Down(
            at=self._clock.now(), source=source, detail="its crash kernel said so", ordered=True
        )

    async def _status(self, node: str, deadline_at: float | None = None) -> PowerReading:
        limit_at = self._clock.now() + STATUS_S
        answer = await self._run("status", node, min(limit_at, deadline_at or limit_at))
        if isinstance(answer, str):
            return self._reading(node, Reading.UNKNOWN, answer)
        reading = {_ON: Reading.UP, _OFF: Reading.DOWN}.get(answer.code or 0, Reading.UNKNOWN)
        if answer.code is None:
            reading = Reading.UNKNOWN
        said = {Reading.UP: "status is on", Reading.DOWN: "status is off"}
        return self._reading(node, reading, said.get(reading) or _told("status", answer))

    async def _settle_cipher(self, node: str) -> PowerReading:
        """Ask for the status, with the cipher known to work or else with each in turn."""
        if not self._chooses_cipher(node) or node in self._cipher:
            power = await self._status(node)
            if power.reading is Reading.UNKNOWN:
                self._cipher.pop(node, None)  # its firmware may have changed: tried anew next time
            return power
        power = self._reading(node, Reading.UNKNOWN, "no cipher was tried")
        for cipher in CIPHERS:
            self._cipher[node] = cipher
            power = await self._status(node)
            if power.reading is not Reading.UNKNOWN:
                return power
        del self._cipher[node]
        return power

    def _chooses_cipher(self, node: str) -> bool:
        known = self._metadata is not None and "cipher" in self._metadata.parameters
        return known and "cipher" not in self._given(node)

    async def _whose(self, target: Target, deadline_at: float) -> tuple[str, str]:
        """Return ("matches" | "differs" | "unknown", what the device calls itself)."""
        try:
            parameters = await self._parameters(target.node)
        except CredentialsError:
            return "unknown", ""
        left_s = deadline_at - self._clock.now()
        return await self._identity.compare(parameters, target.system_uuid, within_s=left_s)

    async def _run(self, action: str, node: str, deadline_at: float) -> Answer | str:
        """Run one action; a line of text says why there is no answer."""
        program = self._program()
        if program is None:
            return f"{self._settings.program} is not installed"
        try:
            parameters = {**await self._parameters(node), "action": action}
            secret = parameters.get("password", "")
            left_s = max(0.1, deadline_at - self._clock.now())
            environment: dict[str, str] = {}
            if speaks_ipmi(self._settings.program):
                parameters, environment = hide_password(parameters)
            answer = await run_agent(
                program, parameters, environment=environment, deadline_s=left_s
            )
        except (CredentialsError, AgentLaunchError) as error:
            return str(error)
        if answer.code is None:
            return f"{action}: no end within {left_s:.0f} s: killed, a timeout is a failure"
        if secret:
            answer = msgspec.structs.replace(
                answer,
                stdout=answer.stdout.replace(secret, "[redacted]"),
                stderr=answer.stderr.replace(secret, "[redacted]"),
            )
        return answer

    async def _parameters(self, node: str) -> dict[str, str]:
        given = self._given(node)
        cipher = self._cipher.get(node)
        if cipher is None and self._chooses_cipher(node):
            cipher = CIPHERS[0]  # never tried out in the middle of an incident
        if cipher is not None:
            given["cipher"] = cipher
        if self._logins is not None:
            login = await self._logins.login()
            given["username"], given["password"] = login.username, login.password
        return given

    def _given(self, node: str) -> dict[str, str]:
        own = self._settings.node_parameters.get(node, {})
        merged = {**self._settings.parameters, **own}
        return {key: value.replace("{node}", node) for key, value in merged.items()}

    def _program(self) -> Path | None:
        if not PROGRAM.fullmatch(self._settings.program):
            return None
        for directory in self._directories:
            path = directory / self._settings.program
            if path.is_file():
                return path
        return None

    def _reading(self, node: str, reading: Reading, detail: str) -> PowerReading:
        return PowerReading(reading=reading, source=self.source(node), detail=detail)


def _told(action: str, answer: Answer) -> str:
    """Say how an action ended, in the agent's own last words."""
    if answer.code == 0 and action in ("off", "on"):
        return f"{action} accepted"
    lines = [_STAMP.sub("", line).strip() for line in answer.stderr.splitlines()]
    words = [line for line in lines if line] or [answer.stdout.strip().rpartition("\n")[2]]
    crashed = any(line.startswith("Traceback ") for line in lines)
    said = f"the agent crashed: {words[-1]}" if crashed else words[-1]
    return f"{action} ended with {answer.code}: {said[:_WORDS_LIMIT] or '(no words)'}"
