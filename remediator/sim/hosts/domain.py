"""One domain (a qemu process) with its guest: it boots, writes, shuts down, dies with its host."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from remediator.sim.hosts.settings import HostSettings
from remediator.sim.hosts.wire import Obj
from remediator.sim.ledger import Copy, Ledger
from remediator.sim.storage import Boot, SharedStorage

ANNOTATION_NO_AGENT = "sim.remediator.io/no-guest-agent"
"""On a VMI: its guest has no guest agent."""
ANNOTATION_IGNORES_SHUTDOWN = "sim.remediator.io/ignores-shutdown"
"""On a VMI: its guest ignores the power button, so that its end takes the whole grace period."""
ANNOTATION_BOOT_IOS = "sim.remediator.io/boot-ios"
"""On a VMI: I/Os that its boot needs, when not the storage's default."""


_NEXT_WRITE_S = 1.0  # a guest that goes on writes to its disk so soon


class DomainEnd(StrEnum):
    """How a domain ended, as libvirt tells it."""

    SHUTDOWN = "shutdown"  # the guest ended in order
    DESTROYED = "destroyed"  # killed
    CRASHED = "crashed"  # the guest's kernel panicked, or qemu ended by itself
    MIGRATED = "migrated"  # it runs on elsewhere


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """What a domain runs, read from its VMI."""

    vm: str
    vmi_uid: str
    persistent: bool
    agent: bool
    ignores_shutdown: bool
    boot_ios: float | None
    grace_s: float

    @classmethod
    def of(cls, vmi: Obj) -> Guest:
        """Read it from a VMI."""
        meta, spec = vmi["metadata"], vmi["spec"]
        annotations = meta.get("annotations") or {}
        ios = annotations.get(ANNOTATION_BOOT_IOS)
        return cls(
            vm=f"{meta['namespace']}/{meta['name']}",
            vmi_uid=meta["uid"],
            persistent=any(
                "persistentVolumeClaim" in volume or "dataVolume" in volume
                for volume in spec.get("volumes") or ()
            ),
            agent=ANNOTATION_NO_AGENT not in annotations,
            ignores_shutdown=ANNOTATION_IGNORES_SHUTDOWN in annotations,
            boot_ios=None if ios is None else float(ios),
            # kv: DefaultGracePeriodSeconds 30
            grace_s=float(spec.get("terminationGracePeriodSeconds", 30)),
        )


class Domain:
    """A running domain. It begins at once; ``warm`` says that its guest is up already.

    ``changed`` is called when something of it changes that virt-handler tells the API, ``ended``
    once at its end. ``held``: why qemu has stopped its CPUs, as KubeVirt's Paused condition says
    it; empty while it runs. ``paused`` is the host's doing. ``failing``: which probes fail.
    """

    def __init__(
        self,
        guest: Guest,
        node: str,
        *,
        ledger: Ledger,
        storage: SharedStorage,
        rng: random.Random,
        settings: HostSettings,
        changed: Callable[[Domain], None],
        ended: Callable[[Domain], None],
        warm: bool = False,
        incoming: Copy | None = None,
    ) -> None:
        self.guest = guest
        self.node = node
        self.end: DomainEnd | None = None
        self.paused = False
        self.cut = False
        self.held = ""
        self.agent_silent = False
        self.hung = False
        self.disk_fails = ""  # how KubeVirt calls the pause that follows each write
        self.failing: set[str] = set()
        self._ledger = ledger
        self._storage = storage
        self._rng = rng
        self._settings = settings
        self._changed = changed
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._boot: Boot | None = None
        self._end_at: float | None = None  # when a shutdown under way will be through
        self._end_left_s = 0.0  # of it, while paused
        self._end_how = DomainEnd.SHUTDOWN
        self._end_timer: asyncio.TimerHandle | None = None
        if incoming is not None:
            self.copy = ledger.moved(incoming, node)
            warm = self.copy.up_at is not None
        else:
            self.copy = ledger.started(
                guest.vm, node=node, vmi_uid=guest.vmi_uid, persistent=guest.persistent, up=warm
            )
        if not warm:
            self._begin_boot()

    @property
    def alive(self) -> bool:
        """Whether the qemu process exists."""
        return self.end is None

    @property
    def up(self) -> bool:
        """Whether the guest has booted."""
        return self.copy.up_at is not None

    @property
    def agent_answers(self) -> bool:
        """Whether virt-handler hears the guest agent."""
        return self.up and self.guest.agent and not self.agent_silent

    @property
    def stopping(self) -> bool:
        """Whether a shutdown is under way."""
        return self._end_at is not None

    def shut_down(self, within_s: float) -> None:
        """Ask the guest to shut down; kill it after ``within_s``. The earliest such end counts."""
        if not self.alive:
            return
        guest_s = self._rng.uniform(*self._settings.guest_shutdown_s)
        ignores = self.guest.ignores_shutdown or self.hung or not self.up
        how = DomainEnd.DESTROYED if ignores or guest_s > within_s else DomainEnd.SHUTDOWN
        self._end_within(within_s if how is DomainEnd.DESTROYED else guest_s, how)

    def destroy(self, why: str, how: DomainEnd = DomainEnd.DESTROYED) -> None:
        """End it now; it writes no more from this instant."""
        if self.alive:
            self._finish(how)
            self._ledger.ended(self.copy, why)
            self._ended(self)

    def hand_over(self) -> Copy:
        """End it because its migration target takes over; the ledger books both in one instant."""
        self._finish(DomainEnd.MIGRATED)
        return self.copy

    def migrated_away(self) -> None:
        """Tell who waits for the end, after ``hand_over``."""
        self._ended(self)

    def pause(self, why: str) -> None:
        """Stop its CPUs (host hang): it still holds its disks and may go on."""
        if self.alive and not self.paused:
            if not self.held:
                self._still()
                self._ledger.paused(self.copy, why)
            self.paused = True

    def resume(self) -> None:
        """Go on after ``pause``."""
        if self.alive and self.paused:
            self.paused = False
            if not self.held:
                self._ledger.resumed(self.copy)
                self._go_on()

    def hold(self, reason: str) -> None:
        """Stop its CPUs: its owner asked for it, or its disk failed."""
        if self.alive and not self.held:
            if not self.paused:
                self._still()
                self._ledger.paused(self.copy, reason)
            self.held = reason
            self._changed(self)

    def release(self) -> None:
        """Let its CPUs go on after ``hold``."""
        if self.alive and self.held:
            self.held = ""
            if not self.paused:
                self._ledger.resumed(self.copy)
                self._go_on()
            self._changed(self)

    def go_on(self) -> None:
        """Let its CPUs go on, on somebody's order; a disk that still fails stops them again."""
        self.release()
        if self.disk_fails and self.alive:
            self._loop.call_later(_NEXT_WRITE_S, self._write_fails)

    def fail_disk(self, reason: str) -> None:
        """Let its disk fail from now on; ``reason`` is that of the Paused condition."""
        self.disk_fails = reason
        self.hold(reason)

    def mend_disk(self) -> None:
        """Let its disk work again; the guest stands still until somebody lets it go on."""
        self.disk_fails = ""

    def _write_fails(self) -> None:
        if self.disk_fails:
            self.hold(self.disk_fails)

    def soft_reboot(self) -> None:
        """Ask the guest to reboot; one that hangs, stands still or has not booted does not."""
        if self.alive and self.up and not (self.hung or self.held or self.paused):
            self.reboot("soft reboot")

    def hang(self) -> None:
        """Freeze the guest's operating system: qemu runs on, nothing in the guest answers.

        Its agent's channel stays open, so KubeVirt calls the agent connected all the same.
        """
        self.hung = True
        self.failing |= {"readiness", "liveness"}
        self._changed(self)

    def set_agent(self, *, silent: bool) -> None:
        """Let the guest agent answer, or not; the guest goes on."""
        self.agent_silent = silent
        self._changed(self)

    def changed(self) -> None:
        """Tell virt-handler and kubelet that something of it is not as it was."""
        self._changed(self)

    def crash(self, why: str) -> None:
        """End qemu by itself, not by order."""
        self.destroy(why, DomainEnd.CRASHED)

    def reboot(self, why: str) -> None:
        """Let the guest boot again in the same qemu; what was wrong inside it is over."""
        if self.alive:
            if self._boot is not None:
                self._boot.cancel()
            self.agent_silent = self.hung = False
            self.failing.clear()
            self._ledger.rebooting(self.copy, why)
            self._begin_boot()
            self._changed(self)

    def cut_off(self, why: str) -> None:
        """Lose the storage: its I/O hangs, nothing it writes arrives."""
        if self.alive and not self.cut:
            self.cut = True
            if self._boot is not None:
                self._boot.suspend()
            self._ledger.cut_off(self.copy, why)

    def rejoin(self) -> None:
        """Have the storage back: hanging I/O goes on."""
        if self.alive and self.cut:
            self.cut = False
            self._ledger.rejoined(self.copy)
            if self._boot is not None and not self.paused and not self.held:
                self._boot.resume()

    def _finish(self, how: DomainEnd) -> None:
        self.end = how
        if self._boot is not None:
            self._boot.cancel()
            self._boot = None
        if self._end_timer is not None:
            self._end_timer.cancel()
            self._end_timer = None

    def _begin_boot(self) -> None:
        self._boot = self._storage.boot(
            self._up, ios=self.guest.boot_ios, restarted=self._boot_timed_out
        )
        if self.cut or self.paused or self.held:
            self._boot.suspend()

    def _up(self) -> None:
        self._boot = None
        self._ledger.up(self.copy)
        self._changed(self)

    def _boot_timed_out(self) -> None:
        self._ledger.rebooting(self.copy, "boot timed out")
        self._changed(self)

    def _end_within(self, seconds: float, how: DomainEnd) -> None:
        now = self._loop.time()
        if self._end_at is None or now + seconds < self._end_at:
            self._end_at = now + seconds
            self._end_how = how
            if self.paused or self.held:
                self._end_left_s = seconds
            else:
                self._arm(seconds)

    def _arm(self, seconds: float) -> None:
        if self._end_timer is not None:
            self._end_timer.cancel()
        why = "guest shut down" if self._end_how is DomainEnd.SHUTDOWN else "grace over"
        self._end_timer = self._loop.call_later(seconds, self.destroy, why, self._end_how)

    def _still(self) -> None:
        if self._boot is not None:
            self._boot.suspend()
        if self._end_timer is not None and self._end_at is not None:
            self._end_left_s = self._end_at - self._loop.time()
            self._end_timer.cancel()
            self._end_timer = None

    def _go_on(self) -> None:
        if self._boot is not None and not self.cut:
            self._boot.resume()
        if self._end_at is not None:
            self._end_at = self._loop.time() + self._end_left_s
            self._arm(self._end_left_s)
