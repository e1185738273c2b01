"""One host: power, operating system, network; kubelet and virt-handler run on it."""

from __future__ import annotations

import asyncio
import random
import uuid
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from remediator.kube.transport import Transport
from remediator.sim.hosts.domain import Domain
from remediator.sim.hosts.handler_pod import HandlerPod
from remediator.sim.hosts.hangs import Hangs
from remediator.sim.hosts.kubelet import Kubelet
from remediator.sim.hosts.launcher import Launcher
from remediator.sim.hosts.node_problems import NodeProblems
from remediator.sim.hosts.settings import HostSettings, HostSpec
from remediator.sim.hosts.virt_handler import VirtHandler
from remediator.sim.hosts.wire import HostProcess

if TYPE_CHECKING:
    from remediator.sim.hosts.fleet import Fleet

log = structlog.get_logger(__name__)


class Host:
    """A machine that can lose power, network, storage or its senses, each on its own.

    It is a ``bmc.PoweredMachine``. ``connected``: its packets reach the API server. ``works``: its
    processes run. VMs on it go on through everything but a loss of power.
    """

    def __init__(
        self,
        spec: HostSpec,
        fleet: Fleet,
        transport: Transport,
        *,
        rng: random.Random,
        settings: HostSettings,
    ) -> None:
        self.spec = spec
        self.name = spec.name
        self.system_uuid = spec.system_uuid
        self.serial = spec.serial
        self.fleet = fleet
        self.transport = transport
        self.rng = rng
        self.settings = settings
        self.mains = True
        self.network = True
        self.api_route = True
        self.storage = True
        self.storage_fenced = False  # by the storage itself, until it is unfenced
        self.frozen = False
        self.crashed = False
        self.clock_skew_s = 0.0
        self.boot_id = _new_boot_id(rng)
        self.boots = 0
        self.launchers: dict[str, Launcher] = {}
        self._powered = False
        self._loop = asyncio.get_running_loop()
        self._timers: set[asyncio.TimerHandle] = set()
        self._attachments_changed = asyncio.Event()
        self.kubelet = Kubelet(self)
        self.handler = VirtHandler(self)
        self.handler_pod = HandlerPod(self)
        self.problems = NodeProblems(self)
        self._hangs = Hangs(
            {
                "host": (self.kubelet, self.handler, self.problems),
                "kubelet": (self.kubelet,),
                "handler": (self.handler,),
            }
        )

    def now(self) -> float:
        """Return the time on this host's own clock."""
        return self.fleet.clock.now() + self.clock_skew_s

    @property
    def powered(self) -> bool:
        """Whether it is on."""
        return self._powered

    @property
    def connected(self) -> bool:
        """Whether packets reach the API server and back."""
        return self._online and self._powered and not self.crashed

    @property
    def _online(self) -> bool:
        return self.network and self.api_route

    @property
    def answers(self) -> bool:
        """Whether its kernel is up and answers what comes from the network."""
        return self.works and self.network and self.kubelet.running

    @property
    def kubelet_serves(self) -> bool:
        """Whether its kubelet answers requests, and not only the kernel behind its port."""
        return self.kubelet.running and self.kubelet.gate.open

    @property
    def works(self) -> bool:
        """Whether its kernel runs."""
        return self._powered and not self.frozen and not self.crashed

    @property
    def ready(self) -> bool:
        """Whether kubelet and virt-handler run."""
        return self.kubelet.running and self.handler.running

    def domains(self) -> list[Domain]:
        """Return the domains that exist on it now."""
        return [d for d in (each.running_domain for each in self.launchers.values()) if d]

    # Power.

    def power_on(self, *, boot_s: float | None = None) -> None:
        """Switch on; the operating system is up after ``boot_s`` (default: the settings')."""
        if self.mains and not self._powered:
            log.debug("host_powers_on", node=self.name)
            self._powered = True
            self._later(self.settings.os_boot_s if boot_s is None else boot_s, self._boot)

    def power_off(self, why: str) -> None:
        """Cut the power: every domain is gone in this instant, and so is every process."""
        if not self._powered:
            return
        log.debug("host_powers_off", node=self.name, why=why)
        self._die(why)
        self._powered = False

    def panic(self, why: str) -> None:
        """Crash the kernel: all is gone as without power, but it stays on until it is reset."""
        if self._powered:
            self._die(why)
            self.crashed = True

    def _die(self, why: str) -> None:
        domains = self.domains()
        self._stop_everything()
        for domain in domains:
            domain.destroy(why)

    def press_power_button(self) -> None:
        """Shut the operating system down, guests first; or switch on."""
        if not self._powered:
            self.power_on()
        elif self.works:  # a dead kernel ignores the button
            self._shut_down_os()

    def start_warm(self) -> None:
        """Be on and booted long ago, with what the API says runs here running."""
        self._powered = True
        self._boot(warm=True)

    def stop(self) -> None:
        """End the emulation without any effect on the books."""
        self._stop_everything()
        self._powered = False

    def _stop_everything(self) -> None:
        self.frozen = False
        self.crashed = False
        self._hangs.clear()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self.handler_pod.stop()
        for process in (self.kubelet, self.handler, self.problems):
            process.kill()
            process.gate.reopen()
        self.launchers = {}

    def _boot(self, *, warm: bool = False) -> None:
        self.boots += 1
        if not warm:
            self.boot_id = _new_boot_id(self.rng)
        if warm:  # virt-handler first: it tells which launchers have a domain
            self.handler.start(self.fleet.vmis_on(self.name), warm=True)
            self.handler_pod.works()
        else:
            self._later(self.settings.handler_start_s, self.start_handler)
        self.problems.start()
        self.kubelet.start(warm=warm)

    def start_handler(self) -> None:
        """Start a new virt-handler process, which does not hang."""
        self._resume("handler")
        self.handler.start(self.fleet.vmis_on(self.name) if self._online else {}, warm=False)
        self.handler_pod.works(after_s=self.settings.handler_ready_s)

    def kubelet_ready(self, *, warm: bool) -> None:
        """Give the registered kubelet the pods bound to this node."""
        if self._online:
            self.kubelet.catch_up(self.fleet.pods_on(self.name), warm=warm)

    def reboot(self, *, boot_s: float | None = None) -> None:
        """Restart the operating system in order, guests first; it is up ``boot_s`` after its end.

        Nobody cordons or drains it: that is an operator's business.
        """
        if self.works:
            self._shut_down_os(restart=True, boot_s=boot_s)

    def _shut_down_os(self, *, restart: bool = False, boot_s: float | None = None) -> None:
        for domain in self.domains():
            domain.shut_down(domain.guest.grace_s)
        deadline = self._loop.time() + self.settings.os_shutdown_max_s
        self._await_guests(deadline, restart, boot_s)

    def _await_guests(self, deadline: float, restart: bool, boot_s: float | None) -> None:  # noqa: FBT001 - a timer's arguments
        if self.domains() and self._loop.time() < deadline:
            self._later(1.0, self._await_guests, deadline, restart, boot_s)
        elif not restart:
            self.power_off("operating system shut down")
        else:  # a warm reset: the power stays on, and the BMC sees nothing of it
            log.debug("host_reboots", node=self.name)
            self._die("operating system restarts")
            self._later(self.settings.os_boot_s if boot_s is None else boot_s, self._boot)

    def _later(self, delay_s: float, callback: Callable[..., None], *args: object) -> None:
        """Call back unless the power goes before."""

        def run() -> None:
            self._timers.discard(timer)
            callback(*args)

        timer = self._loop.call_later(delay_s, run)
        self._timers.add(timer)

    # Hangs.

    def freeze(self, why: str) -> None:
        """Hang the kernel: nothing runs, guests stand still, all may go on later."""
        if self.works:
            self.frozen = True
            self._hangs.begin("host")
            for domain in self.domains():
                domain.pause(why)

    def thaw(self) -> None:
        """Go on after ``freeze``."""
        if self.frozen:
            self.frozen = False
            for domain in self.domains():
                domain.resume()
            self._resume("host")

    def hang_kubelet(self) -> None:
        """Hang the kubelet alone; containers and domains go on."""
        if self._powered:
            self._hangs.begin("kubelet")

    def hang_handler(self) -> None:
        """Hang virt-handler alone."""
        if self._powered:
            self._hangs.begin("handler")
            self.handler_pod.fails()

    def resume(self) -> None:
        """End every hang."""
        self.thaw()
        self._resume("kubelet")
        self._resume("handler")

    def _resume(self, cause: str) -> None:
        for process in self._hangs.end(cause):
            self._catch_up(process)
            if process is self.handler and process.running:
                self.handler_pod.works()

    # Network and storage.

    def cut_network(self) -> None:
        """Cut it off everybody: the API server, probes; VMs go on writing to their storage."""
        self.network = False

    def heal_network(self) -> None:
        """Connect it again; its watches are back a moment later."""
        if not self.network:
            self.network = True
            self._back_online()

    def set_api_route(self, *, whole: bool) -> None:
        """Let packets pass between it and the API server, or not; probes reach it all the same."""
        if whole and not self.api_route:
            self.api_route = True
            self._back_online()
        self.api_route = whole

    def _back_online(self) -> None:
        if self._powered and self._online:
            self._later(self.rng.uniform(*self.settings.reconnect_s), self._reconnected)

    def cut_storage(self) -> None:
        """Cut it off the shared storage: guests' writes hang."""
        self.storage = False
        for domain in self.domains():
            domain.cut_off("host cut off the storage")

    def fence_storage(self) -> None:
        """Have the storage refuse it, whatever becomes of its cables, until it is unfenced."""
        self.storage_fenced = True
        self.cut_storage()

    def unfence_storage(self) -> None:
        """Have the storage take its writes again."""
        self.storage_fenced = False
        self.heal_storage()

    def heal_storage(self) -> None:
        """Connect it to the storage again: hanging writes go on, unless the storage refuses it."""
        if not self.storage and not self.storage_fenced:
            self.storage = True
            for domain in self.domains():
                domain.rejoin()

    def domain_started(self, domain: Domain) -> None:
        """Let a new domain share this host's fate."""
        if not self.storage and domain.guest.persistent:
            domain.cut_off("host cut off the storage")
        if self.frozen:
            domain.pause("host hangs")

    def _reconnected(self) -> None:
        self._catch_up(self.kubelet)
        self._catch_up(self.handler)
        self.attachments_changed()

    def _catch_up(self, process: HostProcess) -> None:
        if not (process.running and process.gate.open and self.connected):
            return
        if process is self.kubelet:
            self.kubelet.catch_up(self.fleet.pods_on(self.name))
        else:
            self.handler.catch_up(self.fleet.vmis_on(self.name))

    # Volumes and containers.

    def attachments_changed(self) -> None:
        """Wake pods that wait for their volumes."""
        self._attachments_changed.set()
        self._attachments_changed = asyncio.Event()

    async def attached(self, volume: str) -> None:
        """Return when the API says that the volume is attached to this node."""
        while not (self.connected and self.fleet.is_attached(volume, self.name)):
            await self._attachments_changed.wait()
        await self.kubelet.gate.passed()

    def launcher_gone(self, launcher: Launcher) -> None:
        """Forget a launcher whose container is gone."""
        if self.launchers.get(launcher.vmi_uid) is launcher:
            del self.launchers[launcher.vmi_uid]

    def pod_ip(self, uid: str) -> str:
        """Return an address for a pod: the same for the same pod."""
        low = zlib.crc32(f"{self.name}/{uid}".encode())
        return f"10.{128 + (low >> 16) % 64}.{(low >> 8) % 256}.{low % 254 + 1}"


def _new_boot_id(rng: random.Random) -> str:
    """Return what the kernel draws at each boot (/proc/sys/kernel/random/boot_id)."""
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))
