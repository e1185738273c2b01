"""The garbage collector: deletes objects whose owners are gone (k8s garbagecollector)."""

from __future__ import annotations

from collections.abc import Callable

from remediator.sim.controllers.environment import Environment
from remediator.sim.controllers.metadata import (
    Obj,
    finalizers_of,
    is_deleting,
    key_of,
    remove_finalizer,
    uid_of,
)
from remediator.sim.controllers.work_queue import Key, WorkQueue
from remediator.sim.object_meta import FOREGROUND_FINALIZER, ORPHAN_FINALIZER
from remediator.sim.resources import (
    LEASES,
    NODES,
    PODS,
    VIRTUAL_MACHINE_INSTANCE_MIGRATIONS,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    ResourceType,
)

_KINDS: tuple[ResourceType, ...] = (
    NODES,
    VIRTUAL_MACHINES,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINE_INSTANCE_MIGRATIONS,
    PODS,
    LEASES,
)
"""Kinds that own or are owned in this simulation."""


class OwnerGarbageCollector:
    """Deletes an object when none of its owners exists any more (background propagation).

    An owner deleted with "Foreground" waits here for its dependents, one deleted with "Orphan" for
    its references to be removed from them.
    """

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._uids: set[str] = set()
        # Owner UID to its dependents; dicts, as a set's order would differ from run to run.
        self._dependents: dict[str, dict[tuple[ResourceType, Key], None]] = {}
        self._queues: dict[ResourceType, WorkQueue] = {
            res: env.queue(f"owner-gc-{res.plural}", self._reconciler(res)) for res in _KINDS
        }
        self._ends: list[Callable[[], None]] = []

    def start(self) -> None:
        """Subscribe to every kind and take on what is there."""
        for res in _KINDS:
            self._ends.append(self._env.store.subscribe(res, self._follower(res)))
            for obj in self._env.store.list(res):
                self._changed(res, "ADDED", obj, None)

    def forget(self) -> None:
        """Check every dependent again."""
        for dependents in self._dependents.values():
            for res, key in dependents:
                self._queues[res].add(key)

    def stop(self) -> None:
        """End subscriptions and timers."""
        for end in self._ends:
            end()
        for queue in self._queues.values():
            queue.close()

    def _follower(self, res: ResourceType) -> Callable[[str, Obj, Obj | None], None]:
        return lambda kind, obj, old: self._changed(res, kind, obj, old)

    def _reconciler(self, res: ResourceType) -> Callable[[Key], float | None]:
        return lambda key: self._reconcile(res, key)

    def _changed(self, res: ResourceType, kind: str, obj: Obj, old: Obj | None) -> None:
        key, uid = key_of(obj), uid_of(obj)
        owners = _owner_uids(obj)
        if kind == "DELETED":
            self._uids.discard(uid)
            self._unlink(res, key, owners)
            for other, other_key in self._dependents.get(uid, ()):
                self._queues[other].add(other_key)
            return
        self._uids.add(uid)
        if old is not None and (held := _owner_uids(old)) != owners:
            self._unlink(res, key, held)
        for owner in owners:
            self._dependents.setdefault(owner, {})[res, key] = None
        if owners and (old is None or not owners <= self._uids):
            self._queues[res].add(key)
        if is_deleting(obj) and _is_ours(obj):
            self._queues[res].add(key)

    def _unlink(self, res: ResourceType, key: Key, owners: set[str]) -> None:
        for owner in owners:
            dependents = self._dependents.get(owner)
            if dependents is None:
                continue
            dependents.pop((res, key), None)
            if not dependents:
                del self._dependents[owner]

    def _reconcile(self, res: ResourceType, key: Key) -> float | None:
        obj = self._env.store.find(res, *key)
        if obj is None:
            return None
        if is_deleting(obj):
            return self._finish_owner(res, obj) if _is_ours(obj) else None
        owners = _owner_uids(obj)
        if owners and not owners & self._uids:
            self._env.store.delete(res, *key, uid=uid_of(obj))
        return None

    def _finish_owner(self, res: ResourceType, owner: Obj) -> float | None:
        """Carry out a Foreground or Orphan deletion; return when to look again."""
        uid, key = uid_of(owner), key_of(owner)
        dependents = list(self._dependents.get(uid, ()))
        if ORPHAN_FINALIZER in finalizers_of(owner):
            for other, other_key in dependents:
                self._env.store.mutate(other, *other_key, lambda obj: _disown(obj, uid))
            self._env.store.mutate(res, *key, lambda o: remove_finalizer(o, ORPHAN_FINALIZER))
            return None
        if not dependents:
            self._env.store.mutate(res, *key, lambda o: remove_finalizer(o, FOREGROUND_FINALIZER))
            return None
        for other, other_key in dependents:
            dependent = self._env.store.find(other, *other_key)
            if dependent is not None and not is_deleting(dependent):
                self._env.store.delete(other, *other_key, uid=uid_of(dependent))
        return 1.0


def _owner_uids(obj: Obj) -> set[str]:
    return {reference["uid"] for reference in obj["metadata"].get("ownerReferences") or ()}


def _is_ours(obj: Obj) -> bool:
    held = finalizers_of(obj)
    return FOREGROUND_FINALIZER in held or ORPHAN_FINALIZER in held


def _disown(obj: Obj, uid: str) -> None:
    held = obj["metadata"].get("ownerReferences") or []
    obj["metadata"]["ownerReferences"] = [each for each in held if each["uid"] != uid]
