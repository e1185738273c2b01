"""Run one fence agent: parameters on stdin, a hard deadline, and nothing left behind.

A password on the command line would stand in the process list, so every parameter goes through
stdin as ``key=value`` lines, which all ClusterLabs agents read. The agent gets a process group of
its own: at the deadline, and when we are cancelled, the whole group is killed, children included.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from remediator.spawn import spawn

OUTPUT_LIMIT: Final = 256 * 1024  # the longest metadata in Debian's package has 60 KiB
TERMINATE_S: Final = 0.5  # between asking the group to end and killing it
_GONE_POLL_S: Final = 0.005
_CHUNK: Final = 16 * 1024
_NICE: Final = 5  # about a third of the share of a process at 0

# What agents need and no more: they call ipmitool, snmpset, ssh and the like by name.
_ENVIRONMENT: Final = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "PYTHONWARNINGS": "ignore",  # a deprecation in an agent's imports is no message of the device
}


class AgentLaunchError(Exception):
    """The agent cannot be started, or a parameter cannot be handed to it; one line."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """How an agent ended. ``code`` is None where it was killed at its deadline."""

    code: int | None
    stdout: str
    stderr: str


async def run_agent(
    program: Path,
    parameters: Mapping[str, str],
    *,
    environment: Mapping[str, str] | None = None,
    deadline_s: float,
) -> Answer:
    """Run an agent to its end or its deadline. Raises AgentLaunchError.

    A parameter with a line break would be two parameters to the agent: it is refused.
    """
    lines = b"".join(_line(key, value) for key, value in parameters.items())
    return await run_program(
        program, (), stdin=lines, environment=environment, deadline_s=deadline_s
    )


async def run_program(
    program: Path,
    arguments: Sequence[str],
    *,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    deadline_s: float,
) -> Answer:
    """Run any program so. Raises AgentLaunchError. No secret may stand in ``arguments``."""
    try:
        process = await spawn(
            program,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**_ENVIRONMENT, **(environment or {})},
            cwd="/",
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise AgentLaunchError(f"{program}: {reason}") from error
    stdout, stderr = bytearray(), bytearray()
    # Twenty agents that start at once take every core: the loop that renews leases goes first.
    with contextlib.suppress(OSError):  # it has ended already
        os.setpriority(os.PRIO_PGRP, process.pid, _NICE)
    try:
        async with asyncio.timeout(deadline_s):
            await asyncio.gather(
                _feed(process, stdin),
                _drain(process.stdout, stdout),
                _drain(process.stderr, stderr),
            )
            code: int | None = await process.wait()
    except TimeoutError:
        code = None
    finally:
        await asyncio.shield(_end(process))
        # Pipes that were not read to their end stay open otherwise, two for each killed agent;
        # asyncio has no public way to close them.
        process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001
    return Answer(code=code, stdout=_text(stdout), stderr=_text(stderr))


def _line(key: str, value: str) -> bytes:
    if any(mark in key + value for mark in ("\n", "\r", "\0")):
        raise AgentLaunchError(f"parameter {key!r} holds a line break")
    return f"{key}={value}\n".encode()


async def _feed(process: asyncio.subprocess.Process, lines: bytes) -> None:
    assert process.stdin is not None  # it was asked for
    # An agent may end before it has read everything; its answer counts all the same.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(lines)
        await process.stdin.drain()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.close()


async def _drain(stream: asyncio.StreamReader | None, into: bytearray) -> None:
    """Read to the end, so that the agent never blocks, and keep the first part of it."""
    assert stream is not None  # it was asked for
    while chunk := await stream.read(_CHUNK):
        into += chunk[: max(0, OUTPUT_LIMIT - len(into))]


async def _end(process: asyncio.subprocess.Process) -> None:
    """Leave nothing of the agent's process group behind."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        # The group may outlive its leader: children that were left are ended, too.
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TERMINATE_S):
                await process.wait()
                if not _group_lives(process.pid):
                    break
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TERMINATE_S):
            await process.wait()
            # Killed children take a moment to be gone, and nothing tells when.
            while _group_lives(process.pid):  # noqa: ASYNC110
                await asyncio.sleep(_GONE_POLL_S)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _text(content: bytearray) -> str:
    return content.decode("utf-8", "replace")
