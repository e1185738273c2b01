"""kill -9 at every recorded step, in the real process over the real NATS server."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path

import pytest

from remediator.engine.chain import DecisionKind
from remediator.engine.model import OutcomeStatus

_spec = importlib.util.spec_from_file_location("lab", Path(__file__).with_name("conftest.py"))
_lab = importlib.util.module_from_spec(_spec)
sys.modules.setdefault("lab", _lab)
_spec.loader.exec_module(_lab)
open_lab, until = _lab.open_lab, _lab.until

# What a loss with two VMs leaves in the journal: leading, opened, verdict, planned, started and
# finished of cordon, fence and release, two VMs' stops, requests, runs and ups, resolved.
STEPS = range(2, 20)
AT_ONCE = 3


async def die_and_resume(directory: Path, step: int) -> str:
    """Lose a node, kill the daemon after record ``step``, start it again; return what is wrong."""
    async with open_lab(directory, seed=step) as lab:
        cluster, daemon = lab.cluster, lab.daemon
        daemon.start()
        await until(lambda: daemon.decided() >= 1, 30, f"step {step}: the daemon to lead")
        node = "n02"
        victims = cluster.vms_on(node)
        assert len(victims) == 2
        cluster.faults.power_loss(node)
        await until(lambda: daemon.decided() >= step, 30, f"step {step}: the record")
        daemon.kill()
        daemon.start()
        await until(lambda: decisions_of(daemon, "leading") >= 2, 30, f"step {step}: to lead again")
        await until(
            lambda: all(cluster.ledger.is_up(vm) for vm in victims), 60, f"step {step}: the VMs"
        )
        await until(
            lambda: decisions_of(daemon, "resolved") > 0,
            60,
            f"step {step}: the end of the incident",
        )
        code = await daemon.end()
        decisions = daemon.journal()
        problems = [str(run) for run in cluster.ledger.double_runs]
        if code != 0:
            problems.append(f"exit code {code}")
        if [one.seq for one in decisions] != list(range(1, len(decisions) + 1)):
            problems.append("the journal has a hole")
        _lab.chain.verify((one.seq, _lab.chain.encode(one)) for one in decisions)
        problems += done_twice(decisions)
        return "; ".join(f"step {step}: {problem}" for problem in problems)


def decisions_of(daemon, kind: str) -> int:
    """How many decisions of this kind its log shows."""
    return sum(
        event.get("event") == "decision" and event.get("kind") == kind for event in daemon.events()
    )


def done_twice(decisions) -> list[str]:
    """An action that changed the world may succeed once; a repeat finds the world changed."""
    problems = []
    changed: dict[str, int] = {}
    for one in decisions:
        if one.kind is DecisionKind.FINISHED and one.outcome.status is OutcomeStatus.SUCCEEDED:
            key = f"{one.subject} {type(one.action.work).__name__}"
            changed[key] = changed.get(key, 0) + one.outcome.changed
    problems += [f"{key} changed the world {n} times" for key, n in changed.items() if n > 1]
    return problems


@pytest.mark.timeout(400)
@pytest.mark.parametrize("part", range(2))
async def test_a_daemon_killed_after_any_record_resumes_and_does_nothing_twice(tmp_path, part):
    steps = [step for step in STEPS if step % 2 == part]
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(step: int) -> str:
        async with gate:
            return await die_and_resume(tmp_path / str(step), step)

    found = await asyncio.gather(*map(one, steps))
    assert [problem for problem in found if problem] == []
