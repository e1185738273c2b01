"""virt-controller's snapshot controller: what becomes of a VirtualMachineSnapshot.

kv pkg/storage/snapshot: the storage makes a snapshot of each volume, which takes its time; what is
not ready by ``failureDeadline`` (5 minutes, where it does not say) has failed for good.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from remediator.sim.controllers.conditions import set_condition
from remediator.sim.controllers.environment import Environment
from remediator.sim.controllers.metadata import Obj, is_deleting, key_of, phase_of, uid_of
from remediator.sim.controllers.work_queue import Key
from remediator.sim.resources import VIRTUAL_MACHINE_SNAPSHOTS, VIRTUAL_MACHINES
from remediator.sim.timestamps import parse_rfc3339

_TAKES_S = (4.0, 12.0)  # of a storage that copies nothing, only notes what is there
_DEADLINE_S = 300.0  # kv DefaultFailureDeadline
_CHECK_S = 1.0


class SnapshotController:
    """Brings each snapshot to its end."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._queue = env.queue("snapshot", self._reconcile)
        self._ready_at: dict[str, float] = {}  # uid -> when its storage is through with it
        self._end: Callable[[], None] | None = None

    def start(self) -> None:
        """Subscribe to snapshots."""
        self._end = self._env.store.subscribe(VIRTUAL_MACHINE_SNAPSHOTS, self._changed)
        self.forget()

    def forget(self) -> None:
        """Look at every snapshot again."""
        for snapshot in self._env.store.list(VIRTUAL_MACHINE_SNAPSHOTS):
            self._queue.add(key_of(snapshot))

    def stop(self) -> None:
        """End subscriptions and timers."""
        if self._end is not None:
            self._end()
        self._queue.close()

    def _changed(self, kind: str, snapshot: Obj, _old: Obj | None) -> None:
        if kind != "DELETED":
            self._queue.add(key_of(snapshot))

    def _reconcile(self, key: Key) -> float | None:
        env = self._env
        snapshot = env.store.find(VIRTUAL_MACHINE_SNAPSHOTS, *key)
        if snapshot is None or is_deleting(snapshot):
            return None
        if phase_of(snapshot) in ("Succeeded", "Failed"):
            return None
        source = snapshot["spec"]["source"]["name"]
        vm = env.store.find(VIRTUAL_MACHINES, key[0], source)
        made_at = parse_rfc3339(snapshot["metadata"]["creationTimestamp"])
        if env.now() >= made_at + _deadline_s(snapshot):
            self._write(key, _failed, vm)
            return None
        if vm is None or f"{key[0]}/{source}" in env.troubles.snapshot_fails:
            self._write(key, _in_trouble, vm)
            return _CHECK_S
        ready_at = self._ready_at.setdefault(
            uid_of(snapshot), env.now() + env.rng.uniform(*_TAKES_S)
        )
        if env.now() < ready_at:
            self._write(key, _in_progress, vm)
            return max(_CHECK_S / 10, ready_at - env.now())
        self._write(key, _succeeded, vm)
        return None

    def _write(self, key: Key, change: Callable[[Obj, str], None], vm: Obj | None) -> None:
        now = self._env.timestamp()

        def apply(snapshot: Obj) -> None:
            status = snapshot.setdefault("status", {})
            if vm is not None:
                status["sourceUID"] = uid_of(vm)
            change(snapshot, now)

        self._env.store.mutate(VIRTUAL_MACHINE_SNAPSHOTS, *key, apply, subresource="status")


def _in_progress(snapshot: Obj, now: str) -> None:
    snapshot["status"].update(phase="InProgress", readyToUse=False)
    set_condition(snapshot, "Progressing", "True", now=now, reason="Source locked")


def _in_trouble(snapshot: Obj, now: str) -> None:
    _in_progress(snapshot, now)
    error = snapshot["status"].get("error") or {"time": now}
    snapshot["status"]["error"] = {**error, "message": "Failed to create snapshot content"}


def _failed(snapshot: Obj, now: str) -> None:
    error = snapshot["status"].get("error") or {
        "time": now,
        "message": "snapshot deadline exceeded",
    }
    snapshot["status"].update(phase="Failed", readyToUse=False, error=error)
    set_condition(snapshot, "Progressing", "False", now=now, reason="Operation failed")
    set_condition(snapshot, "Failure", "True", now=now, reason="snapshot deadline exceeded")


def _succeeded(snapshot: Obj, now: str) -> None:
    snapshot["status"].update(phase="Succeeded", readyToUse=True, creationTime=now)
    snapshot["status"].pop("error", None)
    set_condition(snapshot, "Progressing", "False", now=now, reason="Operation complete")
    set_condition(snapshot, "Ready", "True", now=now, reason="Operation complete")


def _deadline_s(snapshot: Obj) -> float:
    """Return spec.failureDeadline, a Go duration of hours, minutes and seconds, in seconds."""
    text = snapshot["spec"].get("failureDeadline") or ""
    parts = re.findall(r"(\d+(?:\.\d+)?)([hms])", text)
    seconds = {"h": 3600.0, "m": 60.0, "s": 1.0}
    return sum(float(n) * seconds[unit] for n, unit in parts) if parts else _DEADLINE_S


def volume_statuses(vm: Obj, *, enabled: bool) -> list[Obj]:
    """Return ``status.volumeSnapshotStatuses`` of a VM: which of its volumes can be kept."""
    found: list[Obj] = []
    for volume in (vm["spec"].get("template", {}).get("spec", {}).get("volumes")) or ():
        if "persistentVolumeClaim" not in volume and "dataVolume" not in volume:
            reason = "Snapshot is not supported for this volumeSource type"
            found.append({"name": volume["name"], "enabled": False, "reason": reason})
        elif enabled:
            found.append({"name": volume["name"], "enabled": True})
        else:
            reason = (
                "No VolumeSnapshotClass: Volume snapshots are not configured for this StorageClass"
            )
            found.append({"name": volume["name"], "enabled": False, "reason": reason})
    return found
