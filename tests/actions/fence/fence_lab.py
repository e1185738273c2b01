"""What the tests of fence methods share: logins, orders, the real agent for a simulated BMC."""

from __future__ import annotations

from pathlib import Path

from ipmi_sim import PASSWORD, USER, IpmiSim

from remediator.actions.fence.agent import AgentDriver
from remediator.actions.fence.agent_metadata import parse
from remediator.actions.fence.agent_process import run_agent
from remediator.actions.fence.credentials import Login
from remediator.actions.fence.driver import Order
from remediator.clock import Clock
from remediator.fence_config.document import AgentFence

AGENTS = Path("/usr/sbin")


class FixedLogins:
    def __init__(self, username: str = USER, password: str = PASSWORD) -> None:
        self.answer = Login(username=username, password=password)

    async def login(self) -> Login:
        return self.answer


def order(clock: Clock, deadline_s: float = 20.0, look=None) -> Order:
    async def nothing() -> None:
        pass

    return Order(
        action_id="inc-1/fence/1",
        deadline_at=clock.now() + deadline_s,
        last_look=look or nothing,
    )


async def ipmilan(bmc: IpmiSim, *, logins=None, **parameters: str) -> AgentDriver:
    """The real agent for this BMC; ``ipmi_sim`` knows cipher 3 only."""
    answer = await run_agent(AGENTS / "fence_ipmilan", {"action": "metadata"}, deadline_s=20.0)
    given = {"ip": "127.0.0.1", "ipport": str(bmc.port), "lanplus": "1", **parameters}
    settings = AgentFence(name="bmc", program="fence_ipmilan", parameters=given)
    return AgentDriver(settings, logins or FixedLogins(), Clock(), metadata=parse(answer.stdout))
