"""The configured fence devices of all nodes: which ones a node has, what they say, what they do."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

import structlog

from remediator.actions.fence.driver import Down, FenceDriver, NotDown, Order, Target
from remediator.actions.fence.drivers import DriverFactory
from remediator.actions.fence.equipment import Equipped
from remediator.clock import Clock
from remediator.engine.model import ProofKind, Reading
from remediator.engine.settings import FenceLevel, FenceMethod
from remediator.fence_config.loader import FenceConfig, config_for
from remediator.power import PowerReading

log = structlog.get_logger(__name__)

T = TypeVar("T")

# A fence that had begun when its configuration was replaced keeps its devices: its own time and so
# much more, for a queue on a shared device.
_RETIRED_S: Final = 600.0
_FITTING_MAX: Final = 20_000


class FenceDevices:
    """Every configured device. ``close`` it at the end.

    ``configs`` are in the order in which they are asked; the first that fits a node is its. Raises
    ValueError where two configurations share a name.
    """

    def __init__(
        self, configs: Sequence[FenceConfig], clock: Clock, factory: DriverFactory | None = None
    ) -> None:
        self._clock = clock
        self._factory = factory or DriverFactory(clock)
        self._current = self._equip(configs, {})
        self._retired: list[Equipped] = []
        # Asked for each node every few seconds, and 20 patterns cost 50 us.
        self._fitting: dict[str, tuple[dict[str, str], FenceConfig | None]] = {}
        # (node, configuration, device) -> why it must not be used for this node: it is not its.
        self.refusals: Mapping[tuple[str, str, str], str] = {}

    @property
    def configs(self) -> tuple[FenceConfig, ...]:
        """The configurations, in the order in which they are asked."""
        return tuple(each.config for each in self._current.values())

    async def replace(self, configs: Sequence[FenceConfig]) -> bool:
        """Take other configurations from now on; tell whether anything changed.

        What did not change keeps its drivers and their connections, and a fence that is under way
        goes on with the devices that it began with. Raises ValueError, and changes nothing, where
        two share a name.
        """
        before = self._current
        after = self._equip(configs, before)
        if list(after.values()) == list(before.values()):
            return False
        self._current, self._fitting = after, {}
        now = self._clock.now()
        for name, each in before.items():
            if after.get(name) is not each:
                levels = range(len(each.config.spec.levels))
                each.gone_at = now + _RETIRED_S + max(map(each.deadline_s, levels))
                self._retired.append(each)
        await self._close([each for each in self._retired if each.gone_at <= now])
        return True

    def _equip(
        self, configs: Sequence[FenceConfig], before: Mapping[str, Equipped]
    ) -> dict[str, Equipped]:
        names = [config.name for config in configs]
        if len(set(names)) != len(names):
            raise ValueError(f"two fence configurations share a name: {', '.join(sorted(names))}")
        made: dict[str, Equipped] = {}
        for config in configs:
            old = before.get(config.name)
            same = old is not None and old.config == config
            made[config.name] = old if old and same else Equipped(config, self._factory, old)
        return made

    def _of(self, config: FenceConfig) -> Equipped:
        """Return the equipment of a configuration that was ours a moment ago, at least."""
        for each in (*self._current.values(), *reversed(self._retired)):
            if each.config is config:
                return each
        return next(
            each
            for each in (*self._current.values(), *reversed(self._retired))
            if each.config == config
        )

    def methods(self) -> tuple[FenceMethod, ...]:
        """Return what the engine has to know of each configuration."""
        return tuple(map(self._method, self._current.values()))

    def config_for(self, node: str, labels: dict[str, str]) -> FenceConfig | None:
        """Return the configuration that fences this node, None where there is none."""
        known = self._fitting.get(node)
        if known is not None and known[0] == labels:
            return known[1]
        found = config_for(self.configs, node, labels)
        if len(self._fitting) >= _FITTING_MAX:
            self._fitting.clear()  # of nodes that are gone
        self._fitting[node] = (labels, found)
        return found

    def config(self, name: str) -> FenceConfig | None:
        """Return a configuration by its name."""
        return next((config for config in self.configs if config.name == name), None)

    def drivers(self, config: FenceConfig, level: int | None = None) -> list[FenceDriver]:
        """Return the drivers of one level, or of all devices in the order of the levels."""
        levels = config.spec.levels if level is None else config.spec.levels[level : level + 1]
        names = dict.fromkeys(name for one in levels for name in one.devices)
        equipped = self._of(config)
        return [equipped.drivers[name] for name in names]

    def proof(self, config: FenceConfig, level: int) -> ProofKind:
        """Return what a level proves: the weakest of its devices' proofs."""
        order = list(ProofKind)  # strongest first
        return max((each.proof for each in self.drivers(config, level)), key=order.index)

    async def power_state(self, target: Target, labels: dict[str, str]) -> PowerReading:
        """Ask whether the node is on. Never raises: every failure is ``UNKNOWN``.

        The first level that tells decides. Of several devices on it (power supplies), all must say
        off; one that is on keeps the node on.
        """
        config = self.config_for(target.node, labels)
        if config is None:
            return PowerReading(
                reading=Reading.UNKNOWN, source="no fence device", detail="none is configured"
            )
        said: list[PowerReading] = []
        for level in range(len(config.spec.levels)):
            drivers = [each for each in self.drivers(config, level) if each.tells_power]
            if not drivers:
                continue
            readings = await asyncio.gather(
                *(self._read_power(config, each, target) for each in drivers)
            )
            together = _together(readings)
            if together.reading is not Reading.UNKNOWN:
                return together
            said += readings
        if said:
            return said[0]
        source = self.drivers(config)[0].source(target.node)
        return PowerReading(
            reading=Reading.UNKNOWN, source=source, detail="its method tells no power state"
        )

    async def take_down(
        self, config: FenceConfig, level: int, target: Target, order: Order
    ) -> Down | NotDown:
        """Take the node down by all devices of one level, at once; all must succeed.

        A failure says why; raised is only what ``order.last_look`` raises. Safe to repeat.
        """
        names = config.spec.levels[level].devices
        answers = await _all_or_none(
            [self._take_down(config, name, target, order) for name in names]
        )
        if len(answers) == 1:
            return answers[0]
        failed = [answer for answer in answers if isinstance(answer, NotDown)]
        if failed:
            detail = "; ".join(f"{one.source}: {one.detail}" for one in failed)
            return NotDown(source=failed[0].source, detail=detail)
        downs = [answer for answer in answers if isinstance(answer, Down)]
        return Down(
            at=max(down.at for down in downs),
            source=" and ".join(down.source for down in downs),
            detail="; ".join(down.detail for down in downs),
            ordered=any(down.ordered for down in downs),
        )

    async def bring_up(self, config: FenceConfig, target: Target, order: Order) -> str:
        """Switch a node on by the first level that can; return what went wrong, or ""."""
        wrong = "none of its devices can switch it on"
        for level in range(len(config.spec.levels)):
            drivers = [each for each in self.drivers(config, level) if each.tells_power]
            if drivers:
                said = await _all_or_none(
                    [self._bring_up(config, each, target, order) for each in drivers]
                )
                wrong = "; ".join(one for one in said if one)
                if not wrong:
                    return ""
        return wrong

    async def take_back(self, name: str, target: Target) -> str:
        """Remove what a configuration's devices left; return what is left to do, or ""."""
        config = self.config(name)
        if config is None:
            return ""  # removed by a person, who then owns what it left
        drivers = self.drivers(config)
        left = await asyncio.gather(*(driver.take_back(target) for driver in drivers))
        return "; ".join(one for one in left if one)

    async def ask(
        self, config: FenceConfig, driver: FenceDriver, question: Coroutine[Any, Any, T]
    ) -> T | None:
        """Put a question to a device in its turn; None where an order came first."""
        return await self._of(config).turns[driver.name].question(question)

    async def close(self) -> None:
        """Close every device's connections."""
        self._retired += self._current.values()
        self._current, self._fitting = {}, {}
        await self._close(list(self._retired))

    async def _close(self, retired: Sequence[Equipped]) -> None:
        self._retired = [each for each in self._retired if each not in retired]
        used = {
            id(driver)
            for each in (*self._current.values(), *self._retired)
            for driver in each.drivers.values()
        }
        unused = {id(each): each for one in retired for each in one.drivers.values()}
        for driver in (driver for number, driver in unused.items() if number not in used):
            await driver.close()

    async def _read_power(
        self, config: FenceConfig, driver: FenceDriver, target: Target
    ) -> PowerReading:
        refusal = self.refusals.get((target.node, config.name, driver.name))
        if refusal:
            return PowerReading(
                reading=Reading.UNKNOWN,
                source=driver.source(target.node),
                detail=f"configuration fault: {refusal}",
            )
        checked = await self.ask(config, driver, driver.check(target))
        if checked is None:
            return PowerReading(
                reading=Reading.UNKNOWN,
                source=driver.source(target.node),
                detail="an order on this device came first",
            )
        return checked.power

    async def _bring_up(
        self, config: FenceConfig, driver: FenceDriver, target: Target, order: Order
    ) -> str:
        async with self._of(config).turns[driver.name].order():
            return await driver.bring_up(target, order)

    async def _take_down(
        self, config: FenceConfig, name: str, target: Target, order: Order
    ) -> Down | NotDown:
        """One device, in its turn, after its delay, again as often as configured."""
        equipped, device = self._of(config), config.device(name)
        driver = equipped.drivers[name]
        refusal = self.refusals.get((target.node, config.name, name))
        if refusal:
            return NotDown(
                source=driver.source(target.node),
                detail=f"configuration fault, nothing was sent: {refusal}",
            )
        answer: Down | NotDown = NotDown(
            source=driver.source(target.node),
            detail="other orders on this device took all the time",
        )
        try:
            async with asyncio.timeout(order.deadline_at - self._clock.now()) as waiting:
                async with equipped.turns[name].order():
                    waiting.reschedule(None)
                    await asyncio.sleep(device.delay_s)
                    for _ in range(1 + device.retries):
                        answer = await driver.take_down(target, order)
                        if isinstance(answer, Down) or self._clock.now() >= order.deadline_at:
                            break
        except TimeoutError:
            log.warning("fence_device_busy", config=config.name, device=name, node=target.node)
        return answer

    def _method(self, equipped: Equipped) -> FenceMethod:
        config = equipped.config
        return FenceMethod(
            name=config.name,
            nodes=config.spec.nodes.names or ("*",),
            labels=dict(config.spec.nodes.labels),
            levels=tuple(
                FenceLevel(
                    name=" and ".join(level.devices),
                    attempts=level.attempts,
                    deadline_s=equipped.deadline_s(at),
                    proof=self.proof(config, at),
                )
                for at, level in enumerate(config.spec.levels)
            ),
            power_on=config.spec.power_on,
            leaves_objects=any(each.leaves_objects for each in self.drivers(config)),
        )


async def _all_or_none(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Return all results. Where one raises, the others are ended first: none acts afterwards."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _together(readings: Sequence[PowerReading]) -> PowerReading:
    """Return what several power supplies of one node say together."""
    if len(readings) == 1:
        return readings[0]
    said = {one.reading for one in readings}
    if Reading.UP in said:
        reading = Reading.UP
    else:
        reading = Reading.DOWN if said == {Reading.DOWN} else Reading.UNKNOWN
    return PowerReading(
        reading=reading,
        source=" and ".join(one.source for one in readings),
        detail="; ".join(one.detail for one in readings),
    )
