"""virt-handler's part in a live migration, as target and as source.

The order of events is KubeVirt's: the target publishes its address, the source copies memory and
says completed, the target takes the VMI over by writing its own name into it (lab section 5).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from remediator.sim.hosts.launcher import Launcher
from remediator.sim.hosts.vmi_status import NODE_LABEL, migration_of, node_of
from remediator.sim.hosts.wire import Obj
from remediator.sim.timestamps import rfc3339

if TYPE_CHECKING:
    from remediator.sim.hosts.virt_handler import VirtHandler

_TARGET_DOWN = "Target pod is down"
_ABORTED = "Live migration aborted"


class Migrations:
    """The migrations that one virt-handler takes part in."""

    def __init__(self, handler: VirtHandler) -> None:
        self._handler = handler
        self._preparing: set[str] = set()
        self._prepared: set[str] = set()  # by migration UID, as all below
        self._copying: set[str] = set()
        self._copied: set[str] = set()
        self._broken: dict[str, str] = {}

    def clear(self) -> None:
        """Forget everything: the process starts anew."""
        for known in (self._preparing, self._prepared, self._copying, self._copied):
            known.clear()
        self._broken.clear()

    def moved_away(self, vmi: Obj) -> bool:
        """Tell whether this host has handed the guest over and the VMI does not say so yet."""
        return migration_of(vmi).get("migrationUid") in self._copied

    def concern(self, vmi: Obj, launcher: Launcher) -> bool:
        """Do this host's part; True when the VMI is not this host's to run (yet)."""
        state = migration_of(vmi)
        uid = state.get("migrationUid", "")
        me = self._handler.host.name
        if launcher.migration_uid and node_of(vmi) != me:
            if uid == launcher.migration_uid and state.get("targetNode") == me:
                self._as_target(vmi, launcher, uid)
            return True
        mine = uid and uid != launcher.migration_uid and node_of(vmi) == me
        if mine and not state.get("completed"):
            self._as_source(vmi, launcher, uid, state)
        return False

    def _as_target(self, vmi: Obj, launcher: Launcher, uid: str) -> None:
        if launcher.running_domain is not None:
            self._handler.reports.report(launcher.vmi_uid)  # the guest runs here: take the VMI over
        elif not migration_of(vmi).get("targetNodeAddress") and uid not in self._preparing:
            self._preparing.add(uid)
            self._handler.spawn(self._prepare(launcher, uid))

    async def _prepare(self, launcher: Launcher, uid: str) -> None:
        handler = self._handler
        await handler.sleep(handler.rng.uniform(*handler.host.settings.migration_prepare_s))
        self._prepared.add(uid)
        handler.reports.report(launcher.vmi_uid)

    def _as_source(self, vmi: Obj, launcher: Launcher, uid: str, state: Obj) -> None:
        if state.get("abortRequested") and uid not in self._copied:
            self._broken[uid] = _ABORTED
        if uid in self._copied or uid in self._broken:
            self._handler.reports.report(launcher.vmi_uid)
        elif (
            state.get("targetNodeAddress")
            and launcher.running_domain is not None
            and uid not in self._copying
        ):
            self._copying.add(uid)
            self._handler.reports.report(launcher.vmi_uid)
            self._handler.spawn(self._copy(vmi, launcher, uid, state["targetNode"]))

    async def _copy(self, vmi: Obj, launcher: Launcher, uid: str, target: str) -> None:
        """Copy memory to the target host, then switch over in one instant."""
        handler = self._handler
        other = handler.host.fleet.hosts.get(target)
        there = None if other is None else other.launchers.get(launcher.vmi_uid)
        try:
            await handler.sleep(handler.rng.uniform(*handler.host.settings.migration_copy_s))
        except asyncio.CancelledError:  # this host died: the target's incoming qemu ends
            if there is not None and there.domain is None:
                there.exit()
            raise
        source = launcher.running_domain
        if source is None or uid in self._broken:
            return
        if (
            other is None
            or there is None
            or there.exited.is_set()
            or not (other.works and handler.host.works)
            or source.stopping
        ):
            self._broken[uid] = _TARGET_DOWN
        else:
            there.domain = other.handler.new_domain(vmi, incoming=source.hand_over())
            self._copied.add(uid)
            source.migrated_away()
            other.handler.resync()
        handler.reports.report(launcher.vmi_uid)

    def tell_truth(self, vmi: Obj, launcher: Launcher) -> bool:
        """Write this host's progress into a VMI; True when something changed."""
        state = migration_of(vmi)
        uid = state.get("migrationUid", "")
        if not uid:
            return False
        host = self._handler.host
        now = rfc3339(host.now())
        before = dict(state)
        if launcher.migration_uid == uid and node_of(vmi) != host.name:
            if launcher.running_domain is not None:
                vmi["status"]["nodeName"] = host.name
                vmi["metadata"].setdefault("labels", {})[NODE_LABEL] = host.name
                state["targetNodeDomainDetected"] = True
                return True
            if uid in self._prepared:
                state["targetNodeAddress"] = host.spec.address
        elif launcher.migration_uid != uid and not state.get("completed"):
            if uid in self._copying or uid in self._copied:
                state.setdefault("startTimestamp", now)
            if uid in self._broken:
                state.update(failed=True, completed=True, failureReason=self._broken[uid])
                state.setdefault("endTimestamp", now)
            elif uid in self._copied:
                state.update(completed=True)
                state.setdefault("endTimestamp", now)
        return state != before
