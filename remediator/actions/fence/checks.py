"""Asking every fence device in peace, so that a broken one is known before it is needed.

Gently: each device once per period of its configuration, spread over the nodes, few at once. What
is found is a table, not evidence: the power plane's own polls are in ``probes.power``.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
import structlog

from remediator.actions.fence import identity
from remediator.actions.fence.devices import FenceDevices
from remediator.actions.fence.driver import Checked, FenceDriver, Target
from remediator.clock import Clock
from remediator.engine.model import Reading
from remediator.fence_config.loader import FenceConfig
from remediator.power import PowerReading

log = structlog.get_logger(__name__)

AT_ONCE: Final = 8  # BMCs are slow, and some of them share a switch or a service
DEADLINE_S: Final = 20.0  # for one check: agents may need a login and a status
_LOOK_S: Final = 5.0  # how soon a new node is noticed

Nodes = Callable[[], Iterable[tuple[Target, dict[str, str]]]]  # each node with its labels


class CheckRow(msgspec.Struct, frozen=True, kw_only=True):
    """What one device of one node said last. Times are our clock, 0.0 for never."""

    node: str
    config: str
    device: str
    method: str  # "redfish", "agent", …
    level: int  # counted from 1
    source: str
    power: str  # "on", "off", "unknown"
    owner: str  # "matches", "differs", "unknown"
    identity: str
    fault: str  # empty: well
    detail: str
    asked_at: float
    took_s: float
    good_at: float  # when it was last without fault

    @property
    def well(self) -> bool:
        """Whether it could be used now."""
        return not self.fault


class FenceChecks:
    """Keeps the table. ``run`` works until cancelled; ``check_now`` may be called at any time."""

    def __init__(
        self,
        devices: FenceDevices,
        nodes: Nodes,
        clock: Clock,
        *,
        rng: random.Random,
        on_change: Callable[[CheckRow], None] = lambda _row: None,
    ) -> None:
        self._devices = devices
        self._nodes = nodes
        self._clock = clock
        self._rng = rng
        self._on_change = on_change
        self._rows: dict[tuple[str, str, str], CheckRow] = {}
        self._due: list[tuple[float, str]] = []
        self._known: set[str] = set()
        self._at_once = asyncio.Semaphore(AT_ONCE)

    def rows(self, nodes: Iterable[str] = ()) -> list[CheckRow]:
        """Return the table, of these nodes or of all, by node, level and device."""
        wanted = set(nodes)
        found = (row for row in self._rows.values() if not wanted or row.node in wanted)
        return sorted(found, key=lambda row: (row.node, row.level, row.device))

    async def check_now(self, nodes: Iterable[str] = ()) -> list[CheckRow]:
        """Ask the devices of these nodes (of all, if none is named) now, and return their rows."""
        wanted = set(nodes)
        async with asyncio.TaskGroup() as tasks:
            for target, labels in list(self._nodes()):
                if not wanted or target.node in wanted:
                    tasks.create_task(self._check_node(target, labels))
        return self.rows(wanted)

    async def run(self) -> None:
        """Ask in peace, for ever."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                now = self._clock.now()
                known = {target.node: (target, labels) for target, labels in self._nodes()}
                self._adopt(known, now)
                while self._due and self._due[0][0] <= now:
                    _, node = heapq.heappop(self._due)
                    if node not in known:
                        continue
                    tasks.create_task(self._check_node(*known[node]), name=f"fence-check-{node}")
                    self._schedule(node, now, known[node][1], spread=False)
                next_at = self._due[0][0] if self._due else now + _LOOK_S
                await asyncio.sleep(min(_LOOK_S, max(0.0, next_at - now)))

    def _adopt(self, known: dict[str, tuple[Target, dict[str, str]]], now: float) -> None:
        for node in sorted(known.keys() - self._known):
            self._schedule(node, now, known[node][1], spread=True)
        for key in [key for key in self._rows if key[0] not in known]:
            del self._rows[key]
        self._known = set(known)

    def _schedule(self, node: str, now: float, labels: dict[str, str], *, spread: bool) -> None:
        config = self._devices.config_for(node, labels)
        period_s = config.spec.check_period_s if config is not None else 300.0
        share = self._rng.uniform(0.0, 1.0) if spread else self._rng.uniform(0.9, 1.1)
        heapq.heappush(self._due, (now + period_s * share, node))

    async def _check_node(self, target: Target, labels: dict[str, str]) -> None:
        config = self._devices.config_for(target.node, labels)
        if config is None:
            return
        for level, one in enumerate(config.spec.levels):
            for name, driver in zip(one.devices, self._devices.drivers(config, level), strict=True):
                async with self._at_once:
                    await self._check(config, level, name, driver, target)

    async def _check(
        self, config: FenceConfig, level: int, name: str, driver: FenceDriver, target: Target
    ) -> None:
        asked_at = self._clock.now()
        try:
            async with asyncio.timeout(DEADLINE_S):
                checked = await driver.check(target)
        except TimeoutError:
            checked = _failed(driver, target, f"no answer within {DEADLINE_S:g} s")
        except Exception as error:  # noqa: BLE001 - a device's fault is a row, not the checks' end
            checked = _failed(driver, target, f"{type(error).__name__}: {error}")
        key = (target.node, config.name, name)
        before = self._rows.get(key)
        method = str(type(config.device(name)).__struct_config__.tag)
        fault = checked.fault or self._claimed_twice(key, driver.source(target.node), checked)
        now = self._clock.now()
        row = CheckRow(
            node=target.node,
            config=config.name,
            device=name,
            method=method,
            level=level + 1,
            source=driver.source(target.node),
            power={Reading.UP: "on", Reading.DOWN: "off"}.get(checked.power.reading, "unknown"),
            owner=checked.owner,
            identity=checked.identity,
            fault=fault,
            detail=checked.power.detail,
            asked_at=asked_at,
            took_s=now - asked_at,
            good_at=(before.good_at if before is not None else 0.0) if fault else now,
        )
        self._rows[key] = row
        if before is None or before.fault != row.fault:
            _tell(row, before)
            self._on_change(row)

    def _claimed_twice(self, key: tuple[str, str, str], source: str, checked: Checked) -> str:
        """Say that another node's device is the same one: one of them would fence the other."""
        by_place: dict[str, set[str]] = defaultdict(set)
        unique = identity.parse(checked.identity.partition(" ")[0])
        for other, row in self._rows.items():
            if other[0] == key[0]:
                continue
            same_place = row.source == source and row.method in ("redfish", "agent")
            theirs = identity.parse(row.identity.partition(" ")[0])
            if same_place or (unique is not None and unique == theirs):
                by_place[row.source].add(other[0])
        nodes = sorted(set().union(*by_place.values())) if by_place else []
        if not nodes:
            return ""
        return f"{', '.join(nodes[:3])} and {key[0]} name the same device: one fences the other"


def _failed(driver: FenceDriver, target: Target, why: str) -> Checked:
    source = driver.source(target.node)
    return Checked(
        power=PowerReading(reading=Reading.UNKNOWN, source=source, detail=why), fault=why
    )


def _tell(row: CheckRow, before: CheckRow | None) -> None:
    if row.fault:
        log.warning(
            "fence_device_faulty",
            node=row.node,
            device=row.device,
            source=row.source,
            why=row.fault,
        )
    elif before is not None:
        log.info("fence_device_well_again", node=row.node, device=row.device, source=row.source)
