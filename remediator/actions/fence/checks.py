"""Asking every fence device in peace, so that a broken one is known before it is needed.

Gently: each device once per period of its configuration, spread over the nodes, few at once. What
is found is a table, not evidence: the power plane's own polls are in ``probes.power``. A device
that is another machine's, or that two nodes name, is refused to every fence until it is set right.
"""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec
import structlog

from remediator.actions.fence.asking import Asker, LastBeat
from remediator.actions.fence.check_rows import (
    MISCONFIGURED,
    CheckRow,
    Claims,
    FaultKind,
    Key,
)
from remediator.actions.fence.devices import FenceDevices
from remediator.actions.fence.driver import Target
from remediator.actions.fence.places import place_of
from remediator.clock import Clock
from remediator.fence_config.loader import FenceConfig
from remediator.metrics import METRICS, Metrics

log = structlog.get_logger(__name__)

_LOOK_S: Final = 5.0  # how soon a new node or configuration is noticed
_AGAIN_S: Final = 0.5  # how soon it is seen that a check has ended that another waits for
_SLICE: Final = 250  # nodes: some milliseconds of work
_PERIOD_S: Final = 300.0  # where a node has no configuration (yet)

Node = tuple[Target, dict[str, str]]  # with its labels
Nodes = Callable[[], Iterable[Node]]


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
        self._metrics = metrics
        self._asker = Asker(devices, clock, last_beat, metrics)
        self._rows: dict[Key, CheckRow] = {}
        self._targets: dict[str, Node] = {}
        self._adopting = asyncio.Lock()
        self._claims = Claims()
        self._refusals: dict[Key, str] = {}
        devices.refusals = self._refusals
        self._known: dict[str, FenceConfig | None] = {}
        self._due: dict[str, float] = {}
        self._asking: dict[str, asyncio.Lock] = {}
        self._hurried: set[str] = set()  # to be asked at once
        self._woken = asyncio.Event()

    def rows(
        self, nodes: Iterable[str] = (), *, after: str = "", limit: int | None = None
    ) -> list[CheckRow]:
        """Return the table, of these nodes or of all, by node, level and device.

        With ``after`` only nodes behind that name, with ``limit`` no further node once there are so
        many rows. A device that was not asked yet has ``asked_at`` 0.
        """
        wanted = sorted(self._known.keys() & set(nodes) if nodes else self._known.keys())
        found: list[CheckRow] = []
        for node in wanted[bisect_right(wanted, after) :]:
            config = self._known[node]
            if limit is not None and len(found) >= limit:
                break
            blank = _blank_rows(config, node) if config is not None else ()
            of_node = [self._rows.get(row.key, row) for row in blank]
            found += sorted(of_node, key=lambda row: (row.level, row.device))
        return found

    def covered(self) -> set[str]:
        """Return the nodes that some configuration fences."""
        return {node for node, config in self._known.items() if config is not None}

    def hurry(self, nodes: Iterable[str] = ()) -> None:
        """Have ``run`` ask the devices of these nodes (of all, if none is named) at once."""
        wanted = set(nodes)
        self._hurried |= self._due.keys() & wanted if wanted else self._due.keys()
        self._woken.set()

    async def check_now(self, nodes: Iterable[str] = ()) -> list[CheckRow]:
        """Ask the devices of these nodes (of all, if none is named) now, and return their rows."""
        wanted = set(nodes)
        await self._adopt()
        async with asyncio.TaskGroup() as tasks:
            for node in self._targets:
                if not wanted or node in wanted:
                    tasks.create_task(self._check_node(node))
        return self.rows(wanted)

    async def run(self) -> None:
        """Ask in peace, until cancelled; what is known then is forgotten: another will lead.

        It runs beside the term, and no defect of ours in here may end that: it begins anew.
        """
        while True:
            try:
                await self._work()
            except Exception:
                log.exception("fence_checks_broken", again_in_s=_LOOK_S)
            await asyncio.sleep(_LOOK_S)

    async def _work(self) -> None:
        self._due, self._known, look_at = {}, {}, 0.0
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    if self._clock.now() >= look_at:
                        look_at = self._clock.now() + _LOOK_S
                        await self._adopt()
                        self._metrics.fence_table(self._rows.values())
                    now = self._clock.now()
                    due = {node for node, at in self._due.items() if at <= now}
                    for node in sorted(due | self._hurried):
                        if self._lock(node).locked():
                            # Slower than its period: not now. Hurried: as soon as it has ended.
                            share = 0.0 if node in self._hurried else 1.0
                            self._schedule(node, share, at_least_s=_AGAIN_S)
                            continue
                        self._hurried.discard(node)
                        self._schedule(node, self._rng.uniform(0.9, 1.1))
                        tasks.create_task(self._check_node(node), name=f"fence-check-{node}")
                    await self._rest(look_at)
        finally:
            self._rows.clear()
            self._known, self._targets, self._claims = {}, {}, Claims()
            self._metrics.fence_table(())

    async def _adopt(self) -> None:
        """Take in new nodes and new configurations, and forget those that are gone.

        A slice at a time: with thousands of nodes it takes longer than others should wait.
        """
        async with self._adopting:
            targets = {target.node: (target, labels) for target, labels in self._nodes()}
            fitting: dict[str, FenceConfig | None] = {}
            for number, (node, (_, labels)) in enumerate(targets.items()):
                fitting[node] = self._devices.config_for(node, labels)
                if number % _SLICE == _SLICE - 1:
                    await asyncio.sleep(0)
            self._targets = targets
            changed = [
                node
                for node, config in fitting.items()
                if self._known.get(node, _NEW) is not config
            ]
            if not changed and fitting.keys() == self._known.keys():
                return
            self._known = fitting
            for node in changed:
                self._schedule(node, self._rng.uniform(0.0, 1.0))
            for node in self._due.keys() - targets.keys():
                del self._due[node]
                self._asking.pop(node, None)
            self._hurried &= self._due.keys()
            await self._place(fitting)

    async def _place(self, fitting: dict[str, FenceConfig | None]) -> None:
        """See which devices are named twice, now that nodes or configurations are others."""
        places: dict[Key, str] = {}
        for number, (node, config) in enumerate(fitting.items()):
            for row in _blank_rows(config, node) if config is not None else ():
                places[row.key] = place_of(config.device(row.device), node) if config else ""
            if number % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
        for key in self._rows.keys() - places.keys():
            del self._rows[key]
        self._claims.configured(places)
        for key in self._refusals.keys() - places.keys():
            del self._refusals[key]
        for number, key in enumerate(places):
            self._judge((key,))
            if number % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)

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

    async def _check_node(self, node: str) -> None:
        target, labels = self._targets.get(node, (None, {}))
        config = self._devices.config_for(node, labels) if target is not None else None
        if config is None or target is None:
            return
        async with self._lock(target.node):
            for blank in _blank_rows(config, target.node):
                (driver,) = (
                    each
                    for each in self._devices.drivers(config, blank.level - 1)
                    if each.name == blank.device
                )
                row = await self._asker.ask(blank, driver, target)
                if self._devices.config(config.name) is not config:
                    return  # another configuration took its place meanwhile
                self._take(row)
        self._metrics.fence_table(self._rows.values())  # who asked looks at the metrics next

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


def _tell(row: CheckRow, *, new: bool) -> None:
    place = {"node": row.node, "config": row.config, "device": row.device, "source": row.source}
    if row.fault:
        log.warning("fence_device_faulty", **place, kind=row.kind.value, why=row.fault)
    elif not new:
        log.info("fence_device_well_again", **place)
