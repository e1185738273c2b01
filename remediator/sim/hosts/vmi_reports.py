"""What virt-handler tells the API of its VMIs: written until the API agrees with the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remediator.kube.transport import TransportError
from remediator.sim.hosts.domain import DomainEnd
from remediator.sim.hosts.launcher import Launcher
from remediator.sim.hosts.vmi_status import (
    FINAL,
    drop_condition,
    has_condition,
    node_of,
    paused_why,
    phase_of,
    set_condition,
    set_phase,
)
from remediator.sim.hosts.wire import Obj, RefusedError, decode_obj

if TYPE_CHECKING:
    from remediator.sim.hosts.virt_handler import VirtHandler

# Somebody else wrote the VMI meanwhile: client-go's rate limiter begins at 5 ms and doubles.
_CONFLICT_RETRY_S = 0.02
# kv virt-handler: reasons of the Paused condition, and what it says of each.
PAUSED_BY_USER = "PausedByUser"
PAUSED_BY_IO_ERROR = "PausedIOError"
_PAUSED = {
    PAUSED_BY_USER: "VMI was paused by user",
    PAUSED_BY_IO_ERROR: "VMI was paused, low-level IO error detected",
}
_VMIS = "/apis/kubevirt.io/v1/namespaces/{}/virtualmachineinstances/{}"


class VmiReports:
    """Writes of one virt-handler, at most one under way for each VMI."""

    def __init__(self, handler: VirtHandler) -> None:
        self._handler = handler
        self._reporting: set[str] = set()  # VMIs that have a report under way
        self._dirty: set[str] = set()  # of these, those whose truth changed meanwhile
        self._given_up: set[str] = set()  # Scheduled VMIs without a launcher for too long

    def clear(self) -> None:
        """Forget everything: the process starts anew."""
        self._reporting.clear()
        self._dirty.clear()
        self._given_up.clear()

    def give_up(self, uid: str) -> None:
        """Call a VMI Failed whose launcher never answered."""
        self._given_up.add(uid)
        self.report(uid)

    def differs(self, vmi: Obj, launcher: Launcher | None) -> bool:
        """Tell whether the VMI's status says something else than the host."""
        phase = phase_of(vmi)
        if node_of(vmi) != self._handler.host.name or phase not in ("Scheduled", "Running"):
            return False
        domain = None if launcher is None else launcher.domain
        if domain is None:
            if vmi["metadata"]["uid"] in self._given_up:
                return True
            return phase == "Running" and not self._handler.migrations.moved_away(vmi)
        if not domain.alive:
            return domain.end is not DomainEnd.MIGRATED
        return (
            phase == "Scheduled"
            or has_condition(vmi, "AgentConnected") is not domain.agent_answers
            or paused_why(vmi) != domain.held
        )

    def report(self, uid: str) -> None:
        """Write the truth about this VMI; a report under way is done once more."""
        if uid in self._reporting:
            self._dirty.add(uid)
        else:
            self._reporting.add(uid)
            self._handler.spawn(self._report(uid))

    async def _report(self, uid: str) -> None:
        # Ends when the VMI is gone or final, or agrees with the host; each failed try waits.
        while True:
            self._dirty.discard(uid)
            again_s = self._handler.rng.uniform(*self._handler.host.settings.retry_s)
            try:
                await self._report_once(uid)
            except RefusedError as error:
                if error.status == 404:  # the VMI went meanwhile: nothing is left to tell
                    self._reporting.discard(uid)
                    return
                if error.status == 409:
                    again_s = _CONFLICT_RETRY_S
                elif not error.transient:
                    raise
            except TransportError:
                pass  # written again below: the truth is told as often as it takes
            else:
                if uid in self._dirty:
                    continue
                self._reporting.discard(uid)
                return
            await self._handler.sleep(again_s)

    async def _report_once(self, uid: str) -> None:
        seen = self._handler.vmis.get(uid)
        if seen is None:
            return
        meta = seen["metadata"]
        path = _VMIS.format(meta["namespace"], meta["name"])
        vmi = decode_obj(await self._handler.request("GET", path))
        if vmi["metadata"]["uid"] != uid or phase_of(vmi) in FINAL:
            return
        migratable = await self._disks_are_shared(vmi)
        changed = self._tell_truth(vmi, migratable=migratable)
        if changed:
            await self._handler.request("PUT", path, vmi)
            if phase_of(vmi) == "Failed":
                self._handler.tell(vmi, "Stopped", "The VirtualMachineInstance crashed.")

    def _tell_truth(self, vmi: Obj, *, migratable: bool) -> bool:
        launcher = self._handler.host.launchers.get(vmi["metadata"]["uid"])
        changed = launcher is not None and self._handler.migrations.tell_truth(vmi, launcher)
        if not self.differs(vmi, launcher):
            return changed
        now = self._handler.host.now()
        domain = None if launcher is None else launcher.domain
        if domain is None or not domain.alive:
            ended_well = domain is not None and domain.end is DomainEnd.SHUTDOWN
            set_phase(vmi, "Succeeded" if ended_well else "Failed", now)
            drop_condition(vmi, "AgentConnected")
            return True
        if phase_of(vmi) == "Scheduled":
            set_phase(vmi, "Running", now)
            # kv virt-handler says "none" without SELinux; virt-controller migrates nothing before.
            vmi["status"]["selinuxContext"] = "none"
            _set_migratable(vmi, now, migratable=migratable)
        if domain.agent_answers:
            set_condition(vmi, "AgentConnected", "True", now)
        else:
            drop_condition(vmi, "AgentConnected")
        if paused_why(vmi) != domain.held:
            drop_condition(vmi, "Paused")
        if domain.held:
            text = _PAUSED.get(domain.held, "")
            set_condition(vmi, "Paused", "True", now, reason=domain.held, message=text)
        return True

    async def _disks_are_shared(self, vmi: Obj) -> bool:
        handler, namespace = self._handler, vmi["metadata"]["namespace"]
        for volume in vmi["spec"].get("volumes") or ():
            claim = (volume.get("persistentVolumeClaim") or {}).get("claimName") or (
                volume.get("dataVolume") or {}
            ).get("name")
            if claim:
                found = await handler.host.fleet.volumes.find(namespace, claim, handler.get)
                if found is None or not found.shared:
                    return False
        return True


def _set_migratable(vmi: Obj, now: float, *, migratable: bool) -> None:
    if migratable:
        set_condition(vmi, "LiveMigratable", "True", now)
    else:
        set_condition(
            vmi,
            "LiveMigratable",
            "False",
            now,
            reason="DisksNotLiveMigratable",
            message="cannot migrate VMI: a PVC is not shared, live migration requires that all "
            "PVCs must be shared (using ReadWriteMany access mode)",
        )
