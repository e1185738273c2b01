"""Asking every fence device in peace, so that a broken one is known before it is needed.

Gently: each device once per period of its configuration, spread over the nodes, few at once. What
is found is a table, not evidence: the power plane's own polls are in ``probes.power``. A device
that is another machine's, or that two nodes name, is refused to every fence until it is set right.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec
import structlog

from remediator.actions.fence.check_rows import (
    MISCONFIGURED,
    CheckRow,
    Claims,
    FaultKind,
    Key,
)
from remediator.actions.fence.devices import FenceDevices
from remediator.actions.fence.driver import Checked, FenceDriver, Target
from remediator.actions.fence.places import place_of
from remediator.clock import Clock
from remediator.engine.model import Reading
from remediator.fence_config.loader import FenceConfig
from remediator.logs import redact
from remediator.metrics import METRICS, Metrics
from remediator.power import PowerReading

log = structlog.get_logger(__name__)

AT_ONCE: Final = 8  # BMCs are slow, and some of them share a switch or a service
# For one check: an agent may try two ciphers, eight seconds each, and ask for the identity.
DEADLINE_S: Final = 30.0
_LOOK_S: Final = 5.0  # how soon a new node or configuration is noticed
_AGAIN_S: Final = 0.5  # how soon it is seen that a check has ended that another waits for
_PERIOD_S: Final = 300.0  # where a node has no configuration (yet)
# A healthy kubelet renews its lease every 10 s with 4 % jitter: so long after a device said off,
# a node that lives has renewed.
_RENEWS_WITHIN_S: Final = 12.0

Node = tuple[Target, dict[str, str]]  # with its labels
Nodes = Callable[[], Iterable[Node]]
# When we last saw a node renew its lease, None for never.
LastBeat = Callable[[str], tuple[str, float] | None]


class FenceChecks:
    """Keeps the table. ``run`` works until cancelled; ``check_now`` may be called meanwhile."""

    def __init__(
        self,
        devices: FenceDevices,
        nodes: Nodes,
        clock: Clock,
        *,
        rng: random.Random,
        last_beat: LastBeat = lambda _node: None,
        metrics: Metrics = METRICS,
    ) -> None:
        self._devices = devices
        self._nodes = nodes
        self._clock = clock
        self._rng = rng
        self._last_beat = last_beat
        self._metrics = metrics
        self._rows: dict[Key, CheckRow] = {}
        self._claims = Claims()
        self._refusals: dict[Key, str] = {}
        devices.refusals = self._refusals
        self._known: dict[str, FenceConfig | None] = {}
        self._due: dict[str, float] = {}
        self._asking: dict[str, asyncio.Lock] = {}
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._hurried: set[str] = set()  # to be asked at once
        self._woken = asyncio.Event()

    def rows(self, nodes: Iterable[str] = ()) -> list[CheckRow]:
        """Return the table, of these nodes or of all, by node, level and device.

        A device that was not asked yet has ``asked_at`` 0.
        """
        wanted = set(nodes)
        found: list[CheckRow] = []
        for target, labels in self._nodes():
            if not wanted or target.node in wanted:
                config = self._devices.config_for(target.node, labels)
                blank = _blank_rows(config, target.node) if config is not None else ()
                found += (self._rows.get(row.key, row) for row in blank)
        return sorted(found, key=lambda row: (row.node, row.level, row.device))

    def covered(self) -> set[str]:
        """Return the nodes that some configuration fences."""
        return {
            target.node
            for target, labels in self._nodes()
            if self._devices.config_for(target.node, labels) is not None
        }

    def hurry(self, nodes: Iterable[str] = ()) -> None:
        """Have ``run`` ask the devices of these nodes (of all, if none is named) at once."""
        wanted = set(nodes)
        self._hurried |= self._due.keys() & wanted if wanted else self._due.keys()
        self._woken.set()

    async def check_now(self, nodes: Iterable[str] = ()) -> list[CheckRow]:
        """Ask the devices of these nodes (of all, if none is named) now, and return their rows."""
        wanted = set(nodes)
        self._adopt({target.node: (target, labels) for target, labels in self._nodes()})
        async with asyncio.TaskGroup() as tasks:
            for target, labels in list(self._nodes()):
                if not wanted or target.node in wanted:
                    tasks.create_task(self._check_node(target, labels))
        return self.rows(wanted)

    async def run(self) -> None:
        """Ask in peace, until cancelled; what is known then is forgotten: another will lead."""
        known: dict[str, Node] = {}
        self._due, self._known = {}, {}
        look_at = 0.0
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    now = self._clock.now()
                    if now >= look_at or self._hurried - known.keys():
                        look_at = now + _LOOK_S
                        known = {target.node: (target, labels) for target, labels in self._nodes()}
                        self._adopt(known)
                        self._metrics.fence_table(self._rows.values())
                    due = {node for node, at in self._due.items() if at <= now}
                    for node in sorted(due | (self._hurried & known.keys())):
                        if self._lock(node).locked():
                            # Slower than its period: not now. Hurried: as soon as it has ended.
                            share = 0.0 if node in self._hurried else 1.0
                            self._schedule(node, share, at_least_s=_AGAIN_S)
                            continue
                        self._hurried.discard(node)
                        self._schedule(node, self._rng.uniform(0.9, 1.1))
                        asking = self._check_node(*known[node])
                        tasks.create_task(asking, name=f"fence-check-{node}")
                    await self._rest(look_at)
        finally:
            self._rows.clear()
            self._claims = Claims()
            self._metrics.fence_table(())

    def _adopt(self, known: dict[str, Node]) -> None:
        """Take in new nodes and new configurations, and forget those that are gone."""
        fitting = {
            node: self._devices.config_for(node, labels) for node, (_, labels) in known.items()
        }
        changed = [
            node for node, config in fitting.items() if self._known.get(node, _NEW) is not config
        ]
        if not changed and fitting.keys() == self._known.keys():
            return
        self._known = fitting
        for node in changed:
            self._schedule(node, self._rng.uniform(0.0, 1.0))
        for node in self._due.keys() - known.keys():
            del self._due[node]
            self._hurried.discard(node)
            self._asking.pop(node, None)
        places = {
            row.key: place_of(config.device(row.device), node)
            for node, config in fitting.items()
            if config is not None
            for row in _blank_rows(config, node)
        }
        for key in self._rows.keys() - places.keys():
            del self._rows[key]
        self._claims.configured(places)
        self._refusals.clear()
        self._judge(places)

    async def _rest(self, look_at: float) -> None:
        """Sleep until something is due, or somebody is in a hurry."""
        self._woken.clear()
        wait_s = min(look_at, min(self._due.values(), default=look_at)) - self._clock.now()
        try:
            async with asyncio.timeout(max(0.0, wait_s)):
                await self._woken.wait()
        except TimeoutError:
            pass  # the usual case

    def _schedule(self, node: str, share: float, *, at_least_s: float = 0.0) -> None:
        config = self._known.get(node)
        period_s = config.spec.check_period_s if config is not None else _PERIOD_S
        self._due[node] = self._clock.now() + max(at_least_s, period_s * share)

    def _lock(self, node: str) -> asyncio.Lock:
        return self._asking.setdefault(node, asyncio.Lock())

    async def _check_node(self, target: Target, labels: dict[str, str]) -> None:
        config = self._devices.config_for(target.node, labels)
        if config is None:
            return
        async with self._lock(target.node):
            for blank in _blank_rows(config, target.node):
                (driver,) = (
                    each
                    for each in self._devices.drivers(config, blank.level - 1)
                    if each.name == blank.device
                )
                row = await self._ask(blank, driver, target)
                if self._devices.config(config.name) is not config:
                    return  # another configuration took its place meanwhile
                self._take(row)

    async def _ask(self, blank: CheckRow, driver: FenceDriver, target: Target) -> CheckRow:
        async with self._at_once:
            asked_at = self._clock.now()
            checked = await self._answer(blank, driver, target)
            took_s = self._clock.now() - asked_at
        self._metrics.fence_check(blank.method, took_s, failed=bool(checked.fault))
        row = msgspec.structs.replace(
            blank,
            source=driver.source(target.node),
            power={Reading.UP: "on", Reading.DOWN: "off"}.get(checked.power.reading, "unknown"),
            owner=checked.owner,
            identity=redact(checked.identity),
            detail=redact(checked.power.detail),
            asked_at=asked_at,
            took_s=took_s,
        )
        fault, kind = redact(checked.fault), FaultKind.NO_ANSWER
        if checked.owner == "differs":
            kind = FaultKind.WRONG_MACHINE
        elif not fault and checked.power.reading is Reading.DOWN:
            async with self._at_once:
                fault = await self._contradicted(blank, driver, target)
                kind = FaultKind.CONTRADICTED
        return msgspec.structs.replace(row, fault=fault, kind=kind if fault else FaultKind.NONE)

    async def _contradicted(self, blank: CheckRow, driver: FenceDriver, target: Target) -> str:
        """Say that a device says off of a node that lives; "" where that cannot be said."""
        said_at = self._clock.now()
        beat = self._last_beat(target.node)
        if beat is None or said_at - beat[1] >= _RENEWS_WITHIN_S:
            return ""
        await asyncio.sleep(_RENEWS_WITHIN_S)
        beat = self._last_beat(target.node)
        if beat is None or beat[1] <= said_at:
            return ""
        again = await self._answer(blank, driver, target)
        if again.power.reading is not Reading.DOWN:
            return ""
        return f"it says off while {target.node} renews its lease: another machine's, or it lies"

    async def _answer(self, blank: CheckRow, driver: FenceDriver, target: Target) -> Checked:
        """Ask a device in its turn; one that is busy with an order is asked once more after it."""
        for _ in range(2):
            config = self._devices.config(blank.config)
            if config is None:
                break
            checked = await self._devices.ask(config, driver, _check(driver, target))
            if checked is not None:
                return checked
        return _failed(driver, target, "orders on this device came first")

    def _take(self, row: CheckRow) -> None:
        """Put a device's answer into the table, and see what it means for the others'."""
        before = self._rows.get(row.key)
        if row.kind is FaultKind.NO_ANSWER and before is not None and before.kind in MISCONFIGURED:
            # Silence does not say that it was set right.
            row = msgspec.structs.replace(
                row,
                kind=before.kind,
                fault=before.fault,
                detail=row.fault,
                identity=before.identity,
                owner=before.owner,
            )
        good_at = before.good_at if before is not None else 0.0
        if not row.fault:
            good_at = row.asked_at + row.took_s
        self._rows[row.key] = msgspec.structs.replace(row, good_at=good_at)
        self._judge(self._claims.says(row.key, row.identity))
        now = self._rows[row.key]
        if before is None or now.fault != before.fault:
            _tell(now, new=before is None)

    def _judge(self, keys: Iterable[Key]) -> None:
        """Refuse the devices that are not their node's own, and allow them when they are again."""
        for key in keys:
            claimed, row = self._claims.why(key), self._rows.get(key)
            refusal = claimed
            if row is not None:
                if claimed and row.kind is not FaultKind.WRONG_MACHINE:
                    row = msgspec.structs.replace(row, kind=FaultKind.CLAIMED_TWICE, fault=claimed)
                elif row.kind is FaultKind.CLAIMED_TWICE and not claimed:
                    silent = row.detail if row.power == "unknown" else ""
                    kind = FaultKind.NO_ANSWER if silent else FaultKind.NONE
                    row = msgspec.structs.replace(row, kind=kind, fault=silent)
                self._rows[key] = row
                refusal = row.fault if row.kind in MISCONFIGURED else ""
            if refusal:
                self._refusals[key] = refusal
            else:
                self._refusals.pop(key, None)


_NEW: Final = object()  # not None, which is a node without a configuration


def _blank_rows(config: FenceConfig, node: str) -> Iterator[CheckRow]:
    """Yield one row for each device of a node, each at the first level that uses it."""
    seen: set[str] = set()
    for level, one in enumerate(config.spec.levels, 1):
        for name in one.devices:
            if name not in seen:
                seen.add(name)
                method = str(type(config.device(name)).__struct_config__.tag)
                yield CheckRow(
                    node=node, config=config.name, device=name, method=method, level=level
                )


async def _check(driver: FenceDriver, target: Target) -> Checked:
    try:
        async with asyncio.timeout(DEADLINE_S):
            return await driver.check(target)
    except TimeoutError:
        return _failed(driver, target, f"no answer within {DEADLINE_S:g} s")
    except Exception as error:  # noqa: BLE001 - a device's fault is a row, not the checks' end
        return _failed(driver, target, f"{type(error).__name__}: {error}")


def _failed(driver: FenceDriver, target: Target, why: str) -> Checked:
    source = driver.source(target.node)
    return Checked(
        power=PowerReading(reading=Reading.UNKNOWN, source=source, detail=why), fault=why
    )


def _tell(row: CheckRow, *, new: bool) -> None:
    place = {"node": row.node, "config": row.config, "device": row.device, "source": row.source}
    if row.fault:
        log.warning("fence_device_faulty", **place, kind=row.kind.value, why=row.fault)
    elif not new:
        log.info("fence_device_well_again", **place)
