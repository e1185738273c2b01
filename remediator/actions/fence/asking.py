"""Asking one fence device in peace, and what its answer comes to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from remediator.actions.fence.check_rows import CheckRow, FaultKind
from remediator.actions.fence.devices import FenceDevices
from remediator.actions.fence.driver import Checked, FenceDriver, Target
from remediator.clock import Clock
from remediator.engine.model import Reading
from remediator.logs import redact
from remediator.metrics import Metrics
from remediator.power import PowerReading

AT_ONCE: Final = 8  # BMCs are slow, and some of them share a switch or a service
# For one check: an agent may try two ciphers, eight seconds each, and ask for the identity.
DEADLINE_S: Final = 30.0
# A healthy kubelet renews its lease every 10 s with 4 % jitter: so long after a device said off,
# a node that lives has renewed.
_RENEWS_WITHIN_S: Final = 12.0

# When we last saw a node renew its lease, None for never.
LastBeat = Callable[[str], tuple[str, float] | None]


class Asker:
    """Asks devices, a few at once."""

    def __init__(
        self, devices: FenceDevices, clock: Clock, last_beat: LastBeat, metrics: Metrics
    ) -> None:
        self._devices = devices
        self._clock = clock
        self._last_beat = last_beat
        self._metrics = metrics
        self._at_once = asyncio.Semaphore(AT_ONCE)

    async def ask(self, blank: CheckRow, driver: FenceDriver, target: Target) -> CheckRow:
        """Ask a device in its turn and fill its row in; what goes wrong is the row's fault."""
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
