"""Signals before the event loop takes them over: a process that began nothing ends in order."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from remediator.exit_codes import ExitCode


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Until the event loop takes the signals over, end in order: nothing was begun yet."""

    def end(_number: int, _frame: FrameType | None) -> None:
        sys.exit(ExitCode.OK)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
