"""What can go wrong inside hosts: with their guests, their virt-handlers, their conditions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from remediator.clock import Clock
from remediator.sim.api_faults import ApiFaults
from remediator.sim.bmc import Bmc
from remediator.sim.hosts.domain import Domain
from remediator.sim.hosts.fleet import Fleet
from remediator.sim.hosts.host import Host
from remediator.sim.hosts.probing import KINDS
from remediator.sim.hosts.vmi_reports import PAUSED_BY_IO_ERROR, PAUSED_BY_USER
from remediator.sim.hosts.wire import Obj
from remediator.sim.network_faults import FaultEntry, NetworkFaults
from remediator.sim.reach import Reach

# How long the slowest new virt-handler of a rollout is waited for before the next is replaced.
_ROLLOUT_PATIENCE_S = 300.0


class GuestFaults(NetworkFaults):
    """Breaks and mends guests. ``vm`` is ``NAMESPACE/NAME``.

    Raises KeyError for a node that does not exist, LookupError for a VM that does not run.
    """

    def __init__(
        self, fleet: Fleet, bmcs: Mapping[str, Bmc], api: ApiFaults, reach: Reach, clock: Clock
    ) -> None:
        super().__init__(fleet, bmcs, api, reach, clock)
        self._rollouts: set[asyncio.Task[None]] = set()

    # Guests.

    def guest_hang(self, vm: str) -> FaultEntry:
        """Freeze a guest's operating system: its probes fail, qemu runs on.

        Its liveness probe kills it after half a minute; ``probes`` spares it that.
        """
        self._domain(vm).hang()
        return self._note("guest-hang", vm)

    def guest_freezes(self, vm: str) -> FaultEntry:
        """Freeze a guest whose agent's channel goes with it; it has a readiness probe only.

        It obeys no soft reboot, and no power button.
        """
        domain = self._domain(vm)
        domain.hung = True
        domain.failing.add("readiness")
        domain.set_agent(silent=True)
        return self._note("guest-freezes", vm)

    def agent_lost(self, vm: str) -> FaultEntry:
        """Let the guest agent fall silent; the guest works on."""
        self._domain(vm).set_agent(silent=True)
        return self._note("agent-lost", vm)

    def agent_back(self, vm: str) -> FaultEntry:
        """Let the guest agent answer again."""
        self._domain(vm).set_agent(silent=False)
        return self._note("agent-back", vm)

    def probes(
        self, vm: str, *, readiness: bool | None = None, liveness: bool | None = None
    ) -> FaultEntry:
        """Let probes of a guest pass (True) or fail (False); others stay as they are."""
        domain = self._domain(vm)
        said = []
        for kind, passes in zip(KINDS, (readiness, liveness), strict=True):
            if passes is None:
                continue
            said.append(f"{kind} {'passes' if passes else 'fails'}")
            if passes:
                domain.failing.discard(kind)
                domain.hung = domain.hung and bool(domain.failing)
            else:
                domain.failing.add(kind)
        domain.changed()
        return self._note("probes", vm, ", ".join(said))

    def guest_panic(self, vm: str, *, reboots: bool = False) -> FaultEntry:
        """Panic a guest's kernel, seen by its panic device: qemu ends.

        With ``reboots`` (kdump) the guest boots again instead.
        """
        host, domain = self._running(vm)
        host.handler.tell(self._vmi(host, domain), "GuestPanicked", "GuestPanicked: type=pvpanic")
        if reboots:
            domain.reboot("guest panicked")
        else:
            domain.crash("guest panicked")
        return self._note("guest-panic", vm, "reboots" if reboots else "")

    def guest_watchdog(self, vm: str, *, action: str = "reset") -> FaultEntry:
        """Let a guest's watchdog fire. KubeVirt writes no event of it.

        ``reset``: it boots again. ``poweroff``: qemu ends at once, which looks like a crash.
        Raises ValueError for another action.
        """
        domain = self._domain(vm)
        if action == "reset":
            domain.reboot("watchdog")
        elif action == "poweroff":
            domain.crash("watchdog")
        else:
            raise ValueError(f"a watchdog resets or powers off, it does not {action!r}")
        return self._note("guest-watchdog", vm, action)

    def io_error(self, vm: str) -> FaultEntry:
        """Let a guest's disk fail: qemu stops it, virt-handler says PausedIOError."""
        host, domain = self._running(vm)
        vmi = self._vmi(host, domain)
        volumes = vmi["spec"].get("volumes") or [{"name": "disk"}]
        text = f"VM Paused due to IO error at the volume: {volumes[0]['name']}"
        host.handler.tell(vmi, "IOerror", text)
        domain.fail_disk(PAUSED_BY_IO_ERROR)
        return self._note("io-error", vm)

    def io_heals(self, vm: str) -> FaultEntry:
        """Let the disk work again: virt-handler lets the guest go on."""
        self._domain(vm).mend_disk()
        self._domain(vm).release()
        return self._note("io-heals", vm)

    def io_mends(self, vm: str) -> FaultEntry:
        """Let the disk work again; the guest stands still until somebody lets it go on."""
        self._domain(vm).mend_disk()
        return self._note("io-mends", vm)

    def no_snapshots(self, vm: str) -> FaultEntry:
        """Let the storage class of a VM's disks have no snapshots."""
        self._fleet.troubles.no_snapshots.add(vm)
        return self._note("no-snapshots", vm)

    def snapshots_fail(self, vm: str) -> FaultEntry:
        """Let no snapshot of a VM become ready."""
        self._fleet.troubles.snapshot_fails.add(vm)
        return self._note("snapshots-fail", vm)

    def pause_guest(self, vm: str) -> FaultEntry:
        """Pause a guest as its owner would (``virtctl pause``)."""
        self._domain(vm).hold(PAUSED_BY_USER)
        return self._note("pause-guest", vm)

    def unpause_guest(self, vm: str) -> FaultEntry:
        """Let a paused guest go on."""
        self._domain(vm).release()
        return self._note("unpause-guest", vm)

    # What outlives one run of a VM.

    def crash_loop(self, vm: str) -> FaultEntry:
        """Let qemu fail at each start from now on, and end it now where it runs."""
        self._fleet.troubles.no_boot.add(vm)
        for host in self._fleet.hosts.values():
            for domain in host.domains():
                if domain.guest.vm == vm:
                    domain.crash("qemu failed")
        return self._note("crash-loop", vm)

    def boots_again(self, vm: str) -> FaultEntry:
        """Let qemu start again, and images be pulled, from the next try on."""
        self._fleet.troubles.no_boot.discard(vm)
        self._fleet.troubles.no_image.discard(vm)
        return self._note("boots-again", vm)

    def image_missing(self, vm: str) -> FaultEntry:
        """Let the images of a VM's next launcher pod be missing: ImagePullBackOff."""
        self._fleet.troubles.no_image.add(vm)
        return self._note("image-missing", vm)

    def attach_fails(self, volume: str) -> FaultEntry:
        """Let the storage refuse to attach a PersistentVolume (``pv-NAMESPACE-NAME`` of a VM)."""
        self._fleet.troubles.no_attach.add(volume)
        return self._note("attach-fails", volume)

    def attach_works(self, volume: str) -> FaultEntry:
        """Let the storage attach a PersistentVolume again."""
        self._fleet.troubles.no_attach.discard(volume)
        return self._note("attach-works", volume)

    # Hosts.

    def node_condition(
        self, node: str, kind: str, status: str, *, reason: str = "", message: str = ""
    ) -> FaultEntry:
        """Let a node condition of this type (``kind``) be "True" or "False".

        The kubelet reports its own pressures, node-problem-detector on the host all others.
        """
        self._host(node).problems.report(kind, status, reason, message)
        return self._note("node-condition", node, f"{kind}={status}")

    def reboot(self, node: str, *, boot_s: float | None = None) -> FaultEntry:
        """Restart a host in order, without cordon or drain; its BMC says On all the time."""
        self._host(node).reboot(boot_s=boot_s)
        return self._note("reboot", node)

    def handler_unready(self, node: str) -> FaultEntry:
        """Let virt-handler fail its readiness probe while it beats on."""
        self._host(node).handler_pod.fails()
        return self._note("handler-unready", node)

    def handler_ready(self, node: str) -> FaultEntry:
        """Let virt-handler pass its readiness probe again."""
        self._host(node).handler_pod.works()
        return self._note("handler-ready", node)

    def handler_rollout(self, *, away_s: float = 20.0) -> FaultEntry:
        """Replace virt-handler on all hosts, one after the other, as a new KubeVirt version does.

        Each is away for ``away_s`` and ready 15 s later; hosts that are down are passed over.
        """
        task = asyncio.get_running_loop().create_task(self._roll_out(away_s))
        self._rollouts.add(task)
        task.add_done_callback(self._rolled_out)
        return self._note("handler-rollout", "cluster", f"each away for {away_s:g} s")

    def mend_guests(self) -> None:
        """End all that was done to guests and conditions; a rollout under way stops where it is."""
        for rollout in self._rollouts:
            rollout.cancel()
        troubles = self._fleet.troubles
        for trouble in (
            troubles.no_boot,
            troubles.no_image,
            troubles.no_attach,
            troubles.no_snapshots,
            troubles.snapshot_fails,
        ):
            trouble.clear()
        for host in self._fleet.hosts.values():
            host.problems.mend()
            for domain in host.domains():
                domain.failing.clear()
                domain.hung = False
                domain.mend_disk()
                domain.release()
                if domain.agent_silent:
                    domain.set_agent(silent=False)

    def _rolled_out(self, task: asyncio.Task[None]) -> None:
        self._rollouts.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fleet.failed(error)

    async def _roll_out(self, away_s: float) -> None:
        for host in self._fleet.hosts.values():
            if host.spec.control_plane or not host.kubelet.running:
                continue
            await host.handler_pod.replace(away_s)
            for _ in range(int(_ROLLOUT_PATIENCE_S)):
                if host.handler_pod.ready or not host.kubelet.running:
                    break
                await asyncio.sleep(1.0)

    def _running(self, vm: str) -> tuple[Host, Domain]:
        for host in self._fleet.hosts.values():
            for domain in host.domains():
                if domain.guest.vm == vm:
                    return host, domain
        raise LookupError(f"VM {vm} does not run")

    def _domain(self, vm: str) -> Domain:
        return self._running(vm)[1]

    def _vmi(self, host: Host, domain: Domain) -> Obj:
        return host.handler.vmis[domain.guest.vmi_uid]
