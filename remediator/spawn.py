"""Starting a process so that a cancellation in the middle leaves nothing behind.

asyncio's own ``create_subprocess_exec``, cancelled between the fork and the connection of its
pipes, kills the child but not the child's children, and then waits for pipes that never close: the
caller hangs for ever (seen with CPython 3.11.7, ``base_subprocess._wait``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import Process
from typing import Any


async def spawn(program: str | os.PathLike[str], *arguments: str, **options: Any) -> Process:
    """Start a program in a session of its own; ``options`` as of ``create_subprocess_exec``.

    Cancelled meanwhile, it ends the whole process group first. Raises OSError, ValueError.
    """
    creating = asyncio.ensure_future(
        asyncio.create_subprocess_exec(program, *arguments, start_new_session=True, **options)
    )
    try:
        return await asyncio.shield(creating)
    except asyncio.CancelledError:
        await asyncio.shield(_undo(creating))
        raise


async def _undo(creating: asyncio.Future[Process]) -> None:
    """Wait the milliseconds that a fork takes, then end what came of it."""
    try:
        process = await creating
    except (OSError, ValueError):
        return  # it could not be started anyway
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # Its pipes may have been handed to others: that it has ended is enough, nobody reads them.
    process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            await process.wait()
