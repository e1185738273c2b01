"""A fence agent as a process: its deadline, its children, its output, its parameters."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from remediator.actions.fence.agent_process import OUTPUT_LIMIT, AgentLaunchError, run_agent


def script(path, text: str):
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


async def test_parameters_come_on_stdin_one_a_line(tmp_path):
    agent = script(tmp_path / "fence_x", "cat")
    answer = await run_agent(agent, {"action": "status", "ip": "a=b c"}, deadline_s=5.0)
    assert answer.code == 0
    assert answer.stdout == "action=status\nip=a=b c\n"


async def test_a_line_break_in_a_value_is_refused_before_anything_runs(tmp_path):
    agent = script(tmp_path / "fence_x", f"touch {tmp_path}/ran")
    with pytest.raises(AgentLaunchError, match="line break"):
        await run_agent(agent, {"plug": "1\naction=on"}, deadline_s=5.0)
    assert not (tmp_path / "ran").exists()


async def test_a_program_that_cannot_be_run_is_named(tmp_path):
    path = tmp_path / "fence_x"
    path.write_text("")
    with pytest.raises(AgentLaunchError, match="fence_x"):
        await run_agent(path, {}, deadline_s=5.0)


async def test_the_deadline_kills_the_agent_with_its_children(tmp_path):
    pids = tmp_path / "pids"
    agent = script(tmp_path / "fence_x", f"trap '' TERM\nsleep 600 &\necho $! $$ > {pids}\nwait\n")
    answer = await run_agent(agent, {}, deadline_s=0.5)
    assert answer.code is None
    assert await _gone(pids)


async def test_cancellation_kills_it_too(tmp_path):
    pids = tmp_path / "pids"
    agent = script(tmp_path / "fence_x", f"sleep 600 &\necho $! $$ > {pids}\nwait\n")
    running = asyncio.create_task(run_agent(agent, {}, deadline_s=60.0))
    async with asyncio.timeout(10.0):
        while not (pids.exists() and pids.read_text().endswith("\n")):
            await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await _gone(pids)


async def test_cancellation_at_any_moment_of_the_start_ends_and_leaves_nothing(tmp_path):
    pids = tmp_path / "pids"
    agent = script(tmp_path / "fence_x", f"sleep 600 &\necho $! $$ >> {pids}\nwait\n")
    for turns in range(40):
        running = asyncio.create_task(run_agent(agent, {}, deadline_s=60.0))
        for _ in range(turns):
            await asyncio.sleep(0)
        running.cancel()
        async with asyncio.timeout(10.0):
            with pytest.raises(asyncio.CancelledError):
                await running
    # One that was killed before its first line has written nothing, nor started a child.
    if pids.exists():
        assert await _gone(pids)


async def test_an_agent_that_prints_for_ever_is_bounded(tmp_path):
    agent = script(tmp_path / "fence_x", "exec yes")
    answer = await run_agent(agent, {}, deadline_s=0.5)
    assert answer.code is None
    assert len(answer.stdout) == OUTPUT_LIMIT


async def test_an_agent_that_reads_nothing_answers_all_the_same(tmp_path):
    agent = script(tmp_path / "fence_x", "exec <&-\necho done\nexit 2")
    answer = await run_agent(agent, {"a": "x" * 200_000}, deadline_s=5.0)
    assert (answer.code, answer.stdout) == (2, "done\n")


async def test_no_environment_of_ours_reaches_it(tmp_path, monkeypatch):
    monkeypatch.setenv("REMEDIATOR_CANARY", "s3cret-canary")
    agent = script(tmp_path / "fence_x", "env")
    answer = await run_agent(agent, {}, deadline_s=5.0)
    assert "canary" not in answer.stdout


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:  # it was reaped since
        return False


async def _gone(pids: Path) -> bool:
    """Whether all of them are gone before long: the kernel needs a moment to end what it kills."""
    async with asyncio.timeout(10.0):
        while any(_lives(int(pid)) for pid in pids.read_text().split()):
            await asyncio.sleep(0.01)
    return True
