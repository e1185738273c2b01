"""kill -9 of the process that runs a real fence agent, in the middle of each of its steps."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest
from fence_lab import ipmilan, order

from remediator.actions.fence.driver import Down
from remediator.clock import Clock

HERE = Path(__file__).parent
# A daemon in small: the driver's own take_down, in a process of its own.
PROGRAM = f"""
import asyncio, sys
sys.path[:0] = [{str(HERE)!r}, {str(HERE.parents[2])!r}]
from fence_lab import ipmilan, order
from ipmi_sim import SYSTEM_UUID
from remediator.actions.fence.driver import Target
from remediator.clock import Clock

class Bmc:
    port = int(sys.argv[1])

async def main():
    driver = await ipmilan(Bmc, cipher="3")
    target = Target(node="n1", uid="u1", boot_id="b1", system_uuid=SYSTEM_UUID)
    print("begins", flush=True)
    print(await driver.take_down(target, order(Clock(), 60.0)), flush=True)

asyncio.run(main())
"""
ORPHANS_END_S = 40.0  # an agent's own timeouts: login, power


def children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return []
    found = [int(word) for word in text.split()]
    return found + [below for child in found for below in children(child)]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def until(condition, limit_s: float, what: str) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.01)
    assert condition(), what


@pytest.mark.parametrize("moment", ["asking", "ordering", "ordered"])
async def test_a_fence_killed_while_its_agent_runs_is_completed_by_the_next_process(
    bmc, target, moment
):
    bmc.mode = "slow"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(bmc.port), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(60.0):
        assert (await process.stdout.readline()).strip() == b"begins"
    agents: set[int] = set()
    seen: set[int] = set()

    def reached() -> bool:
        now = children(process.pid)
        agents.update(now)
        seen.update(one for one in now if one in children_of_process())
        return {
            "asking": bool(now),
            "ordering": len(seen) >= 3,  # status, identity, then off
            "ordered": bool(bmc.orders),
        }[moment]

    def children_of_process() -> set[int]:
        text = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        return {int(word) for word in text.read_text(encoding="ascii").split()}

    await until(reached, 60.0, moment)
    agents.update(children(process.pid))
    process.send_signal(signal.SIGKILL)
    await process.wait()
    bmc.mode = "well"
    driver = await ipmilan(bmc, cipher="3")
    down = await driver.take_down(target, order(Clock(), 60.0))
    assert isinstance(down, Down), down
    assert not bmc.power
    # An agent outlives its daemon by its own timeouts at most, and orders nothing but off.
    await until(lambda: not any(map(alive, agents)), ORPHANS_END_S, "its agents to end")
    assert not bmc.power
    assert set(bmc.orders) == {"0"}
