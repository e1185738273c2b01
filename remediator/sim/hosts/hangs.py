"""Which processes of a host hang, and why: one may hang for several causes at once."""

from __future__ import annotations

from collections.abc import Mapping

from remediator.sim.hosts.wire import HostProcess


class Hangs:
    """The hangs of one host. ``affected`` names the processes that each cause stills."""

    def __init__(self, affected: Mapping[str, tuple[HostProcess, ...]]) -> None:
        self._affected = affected
        self._causes: set[str] = set()

    def begin(self, cause: str) -> None:
        """Still the processes that the cause affects."""
        self._causes.add(cause)
        for process in self._affected[cause]:
            process.gate.close()

    def end(self, cause: str) -> list[HostProcess]:
        """End a cause and return the processes that run again."""
        if cause not in self._causes:
            return []
        self._causes.discard(cause)
        held = {id(process) for other in self._causes for process in self._affected[other]}
        resumed = [process for process in self._affected[cause] if id(process) not in held]
        for process in resumed:
            process.gate.reopen()
        return resumed

    def clear(self) -> None:
        """Forget every cause: the processes are gone."""
        self._causes.clear()
