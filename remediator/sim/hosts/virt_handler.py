"""virt-handler: heartbeat of its node, and the domains of the VMIs on it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from remediator.kube.transport import TransportError
from remediator.sim.hosts.domain import Domain, Guest
from remediator.sim.hosts.host_events import HostEvents
from remediator.sim.hosts.launcher import Launcher
from remediator.sim.hosts.migration import Migrations
from remediator.sim.hosts.node_object import HEARTBEAT_ANNOTATION, NODES_PATH, SCHEDULABLE_LABEL
from remediator.sim.hosts.vmi_reports import VmiReports
from remediator.sim.hosts.vmi_status import (
    FINAL,
    node_of,
    phase_of,
    vm_of,
)
from remediator.sim.hosts.wire import MERGE_PATCH, HostProcess, Obj, RefusedError
from remediator.sim.ledger import Copy
from remediator.sim.timestamps import rfc3339

if TYPE_CHECKING:
    from remediator.sim.hosts.host import Host


def _grace_s(vmi: Obj | None, domain: Domain) -> float:
    """Return the grace of a guest that is to end: of its VMI now, which may have been shortened."""
    asked_s = None if vmi is None else vmi["spec"].get("terminationGracePeriodSeconds")
    return domain.guest.grace_s if asked_s is None else float(asked_s)


class VirtHandler(HostProcess):
    """One node's virt-handler.

    It compares what the API says of each VMI with the domain on its host and mends the difference:
    starts, shuts down, reports. ``vmis`` holds the newest news of VMIs that name this node.
    """

    def __init__(self, host: Host) -> None:
        super().__init__(
            host,
            host.transport,
            host.rng,
            request_timeout_s=host.settings.request_timeout_s,
            failed=host.fleet.failed,
        )
        self.host = host
        self.vmis: dict[str, Obj] = {}
        self.migrations = Migrations(self)
        self.reports = VmiReports(self)
        self.events = HostEvents(self, "virt-handler", host)
        self._starting: set[str] = set()
        self._waiting: set[str] = set()  # Scheduled VMIs without a launcher that answers

    def start(self, vmis: Mapping[str, Obj], *, warm: bool) -> None:
        """Begin, with the VMIs that name this node now."""
        self.running = True
        self.vmis = dict(vmis)
        self._starting.clear()
        self._waiting.clear()
        self.reports.clear()
        self.events.clear()
        self.migrations.clear()
        self.spawn(self._keep_heartbeat(warm=warm))
        if not warm:
            self.resync()

    async def end_in_order(self) -> None:
        """End as after a SIGTERM: the node is marked unschedulable first."""
        if self.running and self.gate.open:
            # kv: tried a few times, then it ends all the same.
            with contextlib.suppress(TransportError, RefusedError):
                await self._beat(schedulable=False)
        self.kill()

    # Heartbeat.

    async def _keep_heartbeat(self, *, warm: bool) -> None:
        settings = self.host.settings
        spread = settings.heartbeat_jitter
        if warm:  # it has been beating for long: somewhere within a period
            await self.sleep(self.rng.uniform(0.0, settings.heartbeat_s))
        while True:
            # kv: a failed heartbeat is only logged; the next comes in its time.
            with contextlib.suppress(TransportError, RefusedError):
                await self._beat(schedulable=True)
            await self.sleep(settings.heartbeat_s * (1.0 + spread * self.rng.random()))

    async def _beat(self, *, schedulable: bool) -> None:
        patch = {
            "metadata": {
                "labels": {SCHEDULABLE_LABEL: str(schedulable).lower()},
                "annotations": {HEARTBEAT_ANNOTATION: rfc3339(self.host.now())},
            }
        }
        path = f"{NODES_PATH}/{self.host.name}"
        await self.request("PATCH", path, patch, content_type=MERGE_PATCH)

    # News.

    def catch_up(self, vmis: Mapping[str, Obj]) -> None:
        """Take the newest list after a time without news."""
        self.vmis = dict(vmis)
        self.resync()

    def resync(self) -> None:
        """Compare every VMI and every domain again."""
        uids = dict.fromkeys(self.vmis) | dict.fromkeys(self.host.launchers)
        for uid in list(uids):
            self._sync(uid)

    def vmi_seen(self, vmi: Obj) -> None:
        """Take note of a new or changed VMI."""
        uid = vmi["metadata"]["uid"]
        self.vmis[uid] = vmi
        self._sync(uid)

    def vmi_gone(self, uid: str) -> None:
        """Take note that a VMI no longer exists."""
        self.vmis.pop(uid, None)
        self._sync(uid)

    def launcher_up(self, launcher: Launcher) -> None:
        """Notice a launcher's socket."""
        self._sync(launcher.vmi_uid)

    def launcher_terminating(self, launcher: Launcher) -> None:
        """Notice that a launcher was told to end."""
        self._sync(launcher.vmi_uid)

    def adopt(self, launcher: Launcher) -> None:
        """Take a VMI's domain as running and booted long ago (a warm start)."""
        vmi = self.vmis.get(launcher.vmi_uid)
        if vmi is not None and phase_of(vmi) == "Running" and node_of(vmi) == self.host.name:
            launcher.domain = self.new_domain(vmi, warm=True)

    # Mending the difference.

    def _sync(self, uid: str) -> None:
        if not (self.running and self.gate.open):
            return  # a resume or start looks at everything again
        vmi = self.vmis.get(uid)
        launcher = self.host.launchers.get(uid)
        domain = None if launcher is None else launcher.running_domain
        if vmi is None or phase_of(vmi) in FINAL:
            # Its owner is gone: end the domain, with the guest's own grace (kv vm.go: "Shutting
            # down domain for deleted VirtualMachineInstance object", "due to final phase").
            if domain is not None:
                domain.shut_down(_grace_s(vmi, domain))
            return
        if launcher is not None and self.migrations.concern(vmi, launcher):
            return
        deleting = "deletionTimestamp" in vmi["metadata"]
        if domain is not None and launcher is not None and (deleting or launcher.term_requested):
            domain.shut_down(_grace_s(vmi, domain))
        elif (
            launcher is not None
            and launcher.domain is None
            and not deleting
            and not launcher.exited.is_set()
            and phase_of(vmi) == "Scheduled"
            and node_of(vmi) == self.host.name
            and uid not in self._starting
        ):
            self._starting.add(uid)
            self.spawn(self._start_domain(launcher, vmi))
        elif self._has_no_launcher(vmi, launcher) and uid not in self._waiting:
            self._waiting.add(uid)
            self.spawn(self._await_launcher(uid))
        if self.reports.differs(vmi, launcher):
            self.reports.report(uid)

    def _has_no_launcher(self, vmi: Obj, launcher: Launcher | None) -> bool:
        gone = launcher is None or (launcher.domain is None and launcher.exited.is_set())
        return gone and phase_of(vmi) == "Scheduled" and node_of(vmi) == self.host.name

    async def _await_launcher(self, uid: str) -> None:
        """Give a Scheduled VMI up whose launcher does not answer for too long."""
        await self.sleep(self.host.settings.launcher_silent_s)
        self._waiting.discard(uid)
        vmi = self.vmis.get(uid)
        if vmi is not None and self._has_no_launcher(vmi, self.host.launchers.get(uid)):
            self.reports.give_up(uid)

    async def _start_domain(self, launcher: Launcher, vmi: Obj) -> None:
        uid = launcher.vmi_uid
        await self.sleep(self.rng.uniform(*self.host.settings.domain_start_s))
        self._starting.discard(uid)
        now = self.vmis.get(uid)
        if now is not None and vm_of(now) in self.host.fleet.troubles.no_boot:
            self.reports.give_up(uid)
            launcher.exit()
            return
        if launcher.exited.is_set() or now is None or "deletionTimestamp" in now["metadata"]:
            return
        launcher.domain = self.new_domain(vmi)
        self._sync(uid)

    def new_domain(self, vmi: Obj, *, warm: bool = False, incoming: Copy | None = None) -> Domain:
        """Start a domain on this host."""
        host = self.host
        domain = Domain(
            Guest.of(vmi),
            host.name,
            ledger=host.fleet.ledger,
            storage=host.fleet.storage,
            rng=self.rng,
            settings=host.settings,
            changed=self._domain_changed,
            ended=self._domain_ended,
            warm=warm,
            incoming=incoming,
        )
        host.domain_started(domain)
        return domain

    def tell(self, vmi: Obj, reason: str, message: str) -> None:
        """Record a Warning about a VMI, its own or in the name of its launcher."""
        self.events.record(
            {"apiVersion": "kubevirt.io/v1", **vmi}, "VirtualMachineInstance", reason, message
        )

    def _domain_changed(self, domain: Domain) -> None:
        launcher = self.host.launchers.get(domain.guest.vmi_uid)
        if launcher is not None and domain.failing:
            self.host.kubelet.probe(launcher.pod_uid, domain)
        self._sync(domain.guest.vmi_uid)

    def _domain_ended(self, domain: Domain) -> None:
        launcher = self.host.launchers.get(domain.guest.vmi_uid)
        if launcher is not None and launcher.domain is domain:
            launcher.exit()  # virt-launcher goes with its domain, virt-handler or not
        self._sync(domain.guest.vmi_uid)
