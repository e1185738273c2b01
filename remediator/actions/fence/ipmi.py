"""IPMI over the network: whose BMC is it, and how its password stays off the command line.

Fence agents have no action that tells a device's identity, so its system GUID is asked for with
ipmitool. Debian's fence_ipmilan (4.12) hands ipmitool the password as an argument, which everybody
on the host can read in the process list. So the agent gets no password, and a stand-in for ipmitool
that takes it from the environment, which only the same user can read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from remediator.actions.fence import identity
from remediator.actions.fence.agent_process import AgentLaunchError, run_program
from remediator.clock import Clock

IPMITOOL: Final = Path("/usr/bin/ipmitool")
DEADLINE_S: Final = 5.0
# A BMC is asked again after this: it may have been exchanged, or the address given to another.
KEPT_S: Final = 60.0

STAND_IN: Final = Path(__file__).with_name("ipmitool-by-environment")

_OVER_LAN: Final = frozenset({"fence_ipmilan", "fence_ilo3", "fence_imm", "fence_idrac"})
_OVER_LANPLUS: Final = frozenset({"fence_ipmilanplus", "fence_ilo4", "fence_ilo5"})
_GUID: Final = re.compile(r"^System GUID\s*:\s*([0-9A-Fa-f-]{32,36})", re.MULTILINE)
_TRUE: Final = frozenset({"1", "true", "yes", "on"})


def speaks_ipmi(agent: str) -> bool:
    """Whether this agent is IPMI over the network, whatever the vendor calls its BMC."""
    return agent in _OVER_LAN | _OVER_LANPLUS


def hide_password(parameters: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return an IPMI agent's parameters without the password, and the environment that has it."""
    hidden = {key: value for key, value in parameters.items() if key != "password"}
    environment = {"IPMI_PASSWORD": parameters.get("password", "")}
    if "ipmitool_path" in hidden:
        environment["REMEDIATOR_IPMITOOL"] = hidden["ipmitool_path"]
    return {**hidden, "ipmitool_path": str(STAND_IN)}, environment


class IpmiIdentity:
    """Compares an IPMI device's system GUID with a node's system UUID."""

    def __init__(self, agent: str, clock: Clock, *, program: Path = IPMITOOL) -> None:
        self._speaks_ipmi = speaks_ipmi(agent)
        self._always_plus = agent in _OVER_LANPLUS
        self._program = program
        self._clock = clock
        self._kept: dict[tuple[str, str], tuple[float, str]] = {}

    async def compare(
        self, parameters: Mapping[str, str], system_uuid: str, *, within_s: float
    ) -> tuple[str, str]:
        """Return ``matches``, ``differs`` or ``unknown``, and the GUID where the device said one.

        A device that does not say who it is is ``unknown``; so is a blank GUID.
        """
        if not self._speaks_ipmi:
            return "unknown", ""
        guid = await self._guid(parameters, min(within_s, DEADLINE_S))
        if identity.parse(guid) is None or identity.parse(system_uuid) is None:
            return "unknown", guid
        return ("differs" if identity.differ(system_uuid, guid) else "matches"), guid

    async def _guid(self, parameters: Mapping[str, str], within_s: float) -> str:
        place = (parameters.get("ip", ""), parameters.get("ipport", "623"))
        kept = self._kept.get(place)
        if kept is not None and self._clock.now() - kept[0] < KEPT_S:
            return kept[1]
        if within_s <= 0:
            return ""
        plus = self._always_plus or parameters.get("lanplus", "").lower() in _TRUE
        arguments = ["-I", "lanplus" if plus else "lan", "-H", place[0], "-p", place[1]]
        arguments += ["-U", parameters.get("username", ""), "-E"]
        if plus:
            arguments += ["-C", parameters.get("cipher", "17")]
        try:
            answer = await run_program(
                self._program,
                [*arguments, "mc", "guid"],
                environment={"IPMI_PASSWORD": parameters.get("password", "")},
                deadline_s=within_s,
            )
        except AgentLaunchError:
            return ""
        found = _GUID.search(answer.stdout) if answer.code == 0 else None
        if found is None:
            return ""
        self._kept[place] = (self._clock.now(), found[1])
        return found[1]
