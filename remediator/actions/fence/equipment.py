"""One fence configuration with what it needs to act: a driver and a queue for each device."""

from __future__ import annotations

from typing import Final

from remediator.actions.fence.driver import FenceDriver
from remediator.actions.fence.drivers import DriverFactory
from remediator.actions.fence.turns import Turns
from remediator.fence_config.loader import FenceConfig

# Besides the devices' own time: the last looks, and waiting for a turn on a shared device.
_AROUND_S: Final = 10.0


class Equipped:
    """One configuration, with a driver and a queue for each of its devices."""

    def __init__(self, config: FenceConfig, factory: DriverFactory, old: Equipped | None) -> None:
        self.config = config
        self.gone_at = 0.0  # when another took its place, plus the time that a fence may take
        self.drivers: dict[str, FenceDriver] = {}
        self.turns: dict[str, Turns] = {}
        for device in config.spec.devices:
            kept = old is not None and device in old.config.spec.devices
            if old is not None and kept:
                self.drivers[device.name] = old.drivers[device.name]
                self.turns[device.name] = old.turns[device.name]
            else:
                self.drivers[device.name] = factory.build(device)
                self.turns[device.name] = Turns(device.concurrency)

    def deadline_s(self, level: int) -> float:
        """Return how long one attempt of a level may take in all."""
        return _AROUND_S + max(
            self.config.device(name).delay_s + self.drivers[name].timeout_s
            for name in self.config.spec.levels[level].devices
        )
