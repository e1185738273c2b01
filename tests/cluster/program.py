"""One program of the control plane as a child process."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from pathlib import Path

STOP_S = 10.0
_PR_SET_PDEATHSIG = 1


class StartError(Exception):
    """A program did not come up; the text has the end of its log."""


class Program:
    """One child process, which can be ended and started again with the same arguments."""

    def __init__(self, name: str, command: list[str], directory: Path) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._wanted = False

    def start(self) -> None:
        self._wanted = True
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one system call, no locks, no memory
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def signal(self, number: int) -> None:
        if self.alive():
            assert self._process is not None
            self._process.send_signal(number)

    def revive(self) -> None:
        """Start it again when it ended by itself, as a kubelet does."""
        if self._wanted and not self.alive():
            self.start()

    def stop(self, *, kill: bool = False) -> None:
        self._wanted = False
        if self._process is None:
            return
        self.signal(signal.SIGKILL if kill else signal.SIGTERM)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def tail(self, size: int = 2000) -> str:
        return self.log.read_bytes()[-size:].decode(errors="replace")


_libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    """In the child: be killed when the parent dies, however it dies."""
    if _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        os._exit(127)
