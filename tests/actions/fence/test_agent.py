"""Fencing by Debian's fence_ipmilan against OpenIPMI's BMC, and by fence_dummy."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fence_lab import FixedLogins, ipmilan, order
from ipmi_sim import PASSWORD

from remediator.actions.fence.agent import AgentDriver
from remediator.actions.fence.driver import Down, NotDown
from remediator.actions.world import SparedError
from remediator.clock import Clock
from remediator.engine.model import ProofKind, Reading
from remediator.fence_config.document import AgentFence


async def test_a_running_host_is_taken_down_and_its_status_proves_it(bmc, target):
    driver = await ipmilan(bmc, cipher="3")
    clock = Clock()
    down = await driver.take_down(target, order(clock))
    assert isinstance(down, Down), down
    assert down.ordered
    assert not bmc.power
    assert driver.proof is ProofKind.POWER_OFF_VERIFIED
    assert down.detail == "was on, off accepted, then its status said off"
    assert down.source == "fence_ipmilan 127.0.0.1"


async def test_a_host_that_is_off_is_ordered_off_again_and_never_switched_on(bmc, target):
    bmc.power = False
    driver = await ipmilan(bmc, cipher="3")
    down = await driver.take_down(target, order(Clock(), 30.0))
    assert isinstance(down, Down), down
    assert not down.ordered
    assert "1" not in bmc.orders


async def test_nothing_is_sent_when_the_last_look_spares(bmc, target):
    driver = await ipmilan(bmc, cipher="3")

    async def look() -> None:
        raise SparedError("it lives")

    with pytest.raises(SparedError):
        await driver.take_down(target, order(Clock(), look=look))
    assert bmc.orders == []
    assert bmc.power


async def test_a_wrong_password_is_a_failure_without_the_password_in_its_words(bmc, target):
    driver = await ipmilan(bmc, cipher="3", logins=FixedLogins(password="wrong-pw-canary"))
    answer = await driver.take_down(target, order(Clock()))
    assert isinstance(answer, NotDown)
    assert "canary" not in answer.detail
    assert bmc.power


async def test_another_hosts_bmc_is_never_sent_an_order(bmc, target):
    driver = await ipmilan(bmc, cipher="3")
    other = type(target)(
        node="n2", uid="u2", boot_id="b2", system_uuid="4c4c4544-0051-3510-8052-b4c04f4d3132"
    )
    answer = await driver.take_down(other, order(Clock()))
    assert isinstance(answer, NotDown)
    assert answer.detail.startswith("WrongMachine")
    assert bmc.orders == []
    checked = await driver.check(other)
    assert checked.owner == "differs"
    assert "n2" in checked.fault


async def test_in_peace_it_says_state_and_identity(bmc, target):
    checked = await (await ipmilan(bmc, cipher="3")).check(target)
    assert checked.power.reading is Reading.UP
    assert checked.owner == "matches"
    assert checked.fault == ""


async def test_the_cipher_is_settled_in_peace_and_then_used(bmc, target):
    driver = await ipmilan(bmc)  # this BMC knows 3 and not 17
    assert (await driver.check(target)).power.reading is Reading.UP
    down = await driver.take_down(target, order(Clock()))
    assert isinstance(down, Down), down


async def test_no_cipher_is_tried_out_during_an_incident(bmc, target):
    driver = await ipmilan(bmc)
    answer = await driver.take_down(target, order(Clock(), 8.0))
    assert isinstance(answer, NotDown)
    assert bmc.power


async def test_a_bmc_that_obeys_nothing_is_a_failure(bmc, target):
    bmc.mode = "deaf"
    answer = await (await ipmilan(bmc, cipher="3", power_timeout="2")).take_down(
        target, order(Clock(), 10.0)
    )
    assert isinstance(answer, NotDown)
    assert bmc.power


async def test_a_hung_bmc_ends_at_the_deadline_and_leaves_no_process(bmc, target):
    driver = await ipmilan(bmc, cipher="3")
    bmc.freeze()
    clock = Clock()
    began_at = clock.now()
    answer = await driver.take_down(target, order(clock, 3.0))
    assert isinstance(answer, NotDown)
    assert clock.now() - began_at < 8.0
    assert not [name for name in _commands() if f"-p {bmc.port}" in name and "ipmitool" in name]


async def test_an_unreachable_bmc_is_unknown_and_not_off(bmc, target):
    await bmc.stop()
    checked = await (await ipmilan(bmc, cipher="3")).check(target)
    assert checked.power.reading is Reading.UNKNOWN
    assert checked.fault


async def test_the_password_is_on_no_command_line_while_the_agent_runs(bmc, target):
    bmc.mode = "slow"
    driver = await ipmilan(bmc, cipher="3")
    running = asyncio.create_task(driver.take_down(target, order(Clock())))
    seen: set[str] = set()
    while not running.done():
        seen.update(_commands())
        await asyncio.sleep(0)
    assert isinstance(await running, Down)
    ours = [command for command in seen if str(bmc.port) in command or "fence_ipmilan" in command]
    assert ours
    assert any("ipmitool" in command for command in ours)
    assert not [command for command in ours if PASSWORD in command]


def dummy(program: Path, text: str) -> AgentDriver:
    program.write_text(text)
    program.chmod(0o755)
    settings = AgentFence(name="dummy", program=program.name)
    return AgentDriver(settings, None, Clock(), directories=[program.parent])


@pytest.mark.parametrize(
    ("script", "word"),
    [
        ("#!/bin/sh\nexit 1\n", "ended with 1: (no words)"),
        ("#!/bin/sh\necho 'ERROR: no such plug' >&2\nexit 1\n", "no such plug"),
        ("#!/usr/bin/python3\nimport nothing_like_it\n", "the agent crashed: ModuleNotFound"),
        ("#!/bin/sh\nkill -9 $$\n", "ended with -9"),
    ],
)
async def test_every_other_end_of_an_agent_is_a_failure_told_in_its_words(
    tmp_path, target, script, word
):
    answer = await dummy(tmp_path / "fence_x", script).take_down(target, order(Clock(), 2.0))
    assert isinstance(answer, NotDown)
    assert word in answer.detail


async def test_an_off_that_its_own_status_denies_is_a_failure(tmp_path, target):
    script = "#!/bin/sh\nexit 0\n"  # "off" is done, and "status" says on
    answer = await dummy(tmp_path / "fence_x", script).take_down(target, order(Clock(), 2.0))
    assert isinstance(answer, NotDown)
    assert "then status is on" in answer.detail


async def test_an_agent_that_is_not_installed_or_not_named_so_is_a_failure(target):
    for program in ("fence_nothing_like_it", "../bin/sh"):
        driver = AgentDriver(AgentFence(name="x", program=program), None, Clock())
        answer = await driver.take_down(target, order(Clock(), 2.0))
        assert isinstance(answer, NotDown)
        assert "not installed" in answer.detail


@pytest.mark.usefixtures("fence_tools")
async def test_debians_dummy_agent_takes_down_and_brings_up(tmp_path, target):
    settings = AgentFence(
        name="dummy",
        program="fence_dummy",
        parameters={"type": "file", "status_file": str(tmp_path / "{node}")},
    )
    driver = AgentDriver(settings, None, Clock())
    assert (await driver.bring_up(target, order(Clock()))) == ""
    assert (await driver.check(target)).power.reading is Reading.UP
    down = await driver.take_down(target, order(Clock()))
    assert isinstance(down, Down), down


def _commands() -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                raw = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            found.append(raw.replace(b"\0", b" ").decode("utf-8", "replace"))
    return found


async def test_a_slow_bmc_takes_its_time_and_is_verified_all_the_same(bmc, target):
    bmc.mode = "slow"
    down = await (await ipmilan(bmc, cipher="3")).take_down(target, order(Clock(), 30.0))
    assert isinstance(down, Down), down
    assert not bmc.power


async def test_a_bmc_that_lies_is_believed_by_the_agent_and_by_us(bmc, target):
    """What no fence device can see: docs/proof.md tells what catches such a lie, and what not."""
    bmc.mode = "lying"
    down = await (await ipmilan(bmc, cipher="3")).take_down(target, order(Clock(), 20.0))
    assert isinstance(down, Down)
    assert bmc.power


async def test_a_bmc_that_dies_in_the_middle_of_the_order_is_a_failure(bmc, target):
    driver = await ipmilan(bmc, cipher="3")

    async def dies() -> None:
        await bmc.stop()

    answer = await driver.take_down(target, order(Clock(), 6.0, look=dies))
    assert isinstance(answer, NotDown)
