"""The installed fence agents and what each says of itself, read once and held against documents.

An agent that is not there, or that cannot fence by the contract, is found when a configuration is
loaded, and not when a host has died.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from remediator.actions.fence import agent_metadata
from remediator.actions.fence.agent import DIRECTORIES, METADATA_S, PROGRAM
from remediator.actions.fence.agent_metadata import Metadata, MetadataError
from remediator.actions.fence.agent_process import AgentLaunchError, run_agent
from remediator.fence_config.document import AgentFence, Spec
from remediator.typed_tree import Problem

AT_ONCE: Final = 4  # each is a Python program of its own: half a second of one core
TOGETHER_S: Final = 60.0  # for all of them, at start


class AgentCatalog:
    """What was read, by program: ``metadata`` where there is one, else why not in ``absent``."""

    def __init__(self, directories: Sequence[Path] = DIRECTORIES) -> None:
        self._directories = tuple(directories)
        self.metadata: dict[str, Metadata] = {}
        self.absent: dict[str, str] = {}

    async def read(self, programs: Iterable[str]) -> None:
        """Ask those that are not known yet; what failed before is tried again. Never raises."""
        wanted = sorted(set(programs) - self.metadata.keys())
        turns = asyncio.Semaphore(AT_ONCE)

        async def one(program: str) -> None:
            async with turns:
                await self._read(program)

        for program in wanted:
            self.absent[program] = f"{program}: not asked within {TOGETHER_S:g} s"
        try:
            async with asyncio.timeout(TOGETHER_S), asyncio.TaskGroup() as tasks:
                for program in wanted:
                    tasks.create_task(one(program))
        except TimeoutError:
            pass  # those that did not answer stay absent, and say so

    def faults(self, spec: Spec) -> Iterator[Problem]:
        """Yield what the agents of one configuration would not take as it is meant.

        Silent on agents that are absent; ``missing`` names those.
        """
        for at, device in enumerate(spec.devices):
            if not isinstance(device, AgentFence) or device.program not in self.metadata:
                continue
            known, where = self.metadata[device.program], ("spec", "devices", at)
            for name, text in agent_metadata.faults(known, device.parameters):
                place = ("parameters", name) if name else ("program",)
                yield Problem((*where, *place), text)
            for node, parameters in device.node_parameters.items():
                for name, text in agent_metadata.faults(known, parameters):
                    if name:
                        yield Problem((*where, "nodeParameters", node, name), text)

    def missing(self, spec: Spec) -> Iterator[Problem]:
        """Yield the agents of one configuration that are absent, and why."""
        for at, device in enumerate(spec.devices):
            if isinstance(device, AgentFence) and device.program in self.absent:
                yield Problem(("spec", "devices", at, "program"), self.absent[device.program])

    async def _read(self, program: str) -> None:
        path = self._find(program)
        if path is None:
            self.absent[program] = f"{program} is not installed"
            return
        try:
            answer = await run_agent(path, {"action": "metadata"}, deadline_s=METADATA_S)
            self.metadata[program] = agent_metadata.parse(answer.stdout)
        except (AgentLaunchError, MetadataError) as error:
            self.absent[program] = f"{program} cannot be used: {error}"
        else:
            self.absent.pop(program, None)

    def _find(self, program: str) -> Path | None:
        if not PROGRAM.fullmatch(program):
            return None
        places = (directory / program for directory in self._directories)
        return next((path for path in places if path.is_file()), None)


def programs(specs: Iterable[Spec]) -> set[str]:
    """Return the agents that these configurations use."""
    return {
        device.program
        for spec in specs
        for device in spec.devices
        if isinstance(device, AgentFence)
    }
