"""A long-running process of ours: its signals, its end in time, its exit code.

The daemon and the stand-alone prober end alike: quietly and with 0 when told to, with one clear
line and the code of docs/exit-codes.md on an error that they cannot outlive.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import structlog

from remediator.exit_codes import ExitCode

log = structlog.get_logger(__name__)

STOP_S: Final = 9.0  # of the ten seconds that SIGTERM promises; then the process ends as it is
# A thousand probes, and watches, BMCs and NATS besides. Some programs close every number up to the
# limit when they start, so it should not be without bound.
FILES_MAX: Final = 65_536

Endings = Sequence[tuple[type[Exception], ExitCode]]


def serve(
    work: Callable[[], Coroutine[Any, Any, None]], endings: Endings, *, last_line: str
) -> ExitCode:
    """Run ``work`` until SIGTERM, SIGINT or one of the errors in ``endings``.

    ``last_line`` is the event that the log then ends with. Other errors are faults of remediator
    itself, and raised.
    """
    try:
        asyncio.run(_until_signal(work))
    except Exception as raised:
        error = _innermost(raised)
        for kind, code in endings:
            if isinstance(error, kind):
                for fault in getattr(error, "problems", (error,)):  # each on a line of its own
                    why = " ".join(str(fault).split())
                    log.critical(last_line, why=why, kind=type(error).__name__, code=code)
                return code
        raise  # a fault of remediator itself: the traceback is wanted
    return ExitCode.OK


def give_up() -> None:
    """End now: something does not end in time, and the journal makes that safe."""
    log.critical("stop_overruns", after_s=STOP_S)
    os._exit(ExitCode.INTERNAL)


def raise_file_limit() -> None:
    """Take as many file descriptors as we may need: some systems still begin with 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    if resource.RLIM_INFINITY != soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _until_signal(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    loop = asyncio.get_running_loop()
    running = asyncio.ensure_future(work())
    asked: list[str] = []

    def stop(name: str) -> None:
        if asked:
            return  # once is enough; a second signal changes nothing
        asked.append(name)
        log.info("stopping", signal=name)
        loop.call_later(STOP_S, give_up)
        running.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number.name)
    try:
        await running
    except asyncio.CancelledError:
        if not asked:
            raise
        log.info("stopped")


def _innermost(error: Exception) -> Exception:
    """Return the first error inside task groups' groups."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
