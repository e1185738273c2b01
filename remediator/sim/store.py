"""The simulated cluster's objects, in memory: etcd and the generic registry in one.

Everything is synchronous: a call returns after the change is stored and every subscriber has been
told. Stored objects are plain dicts that nobody may change; what a caller hands in is copied. The
rules are those of kubernetes/kubernetes ``staging/src/k8s.io/apiserver/pkg/registry``: one
resourceVersion for the whole cluster, updates that change nothing are not stored, finalizers and
grace hold a deleted object.
"""

from __future__ import annotations

import bisect
import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from remediator.sim import object_meta, strategies
from remediator.sim.problems import Problem, already_exists, conflict, invalid, not_found, stale
from remediator.sim.resources import ResourceType
from remediator.sim.selectors import selection
from remediator.sim.timestamps import rfc3339
from remediator.sim.watching import EventWindow, StoredEvent, StoredObject, copy_json

__all__ = ["AdmissionRequest", "Problem", "Store"]

Object = dict[str, Any]
Objects = list[Object]
Versions = list[StoredObject]
Events = list[StoredEvent]
ObjectCallback = Callable[[str, Object, Object | None], None]
EventCallback = Callable[[StoredEvent], None]

# apiserver's generic registry retries a clash of generated names (since 1.30).
_NAME_TRIES = 8


class AdmissionRequest(msgspec.Struct, kw_only=True):
    """One change on its way into the store.

    ``operation`` is CREATE, UPDATE or DELETE. ``obj`` is what is to be stored and may be edited
    (on DELETE it is the stored object and must not be), ``old`` what is stored now. ``user`` is the
    client's name, empty for controllers that run on the store itself.
    """

    operation: str
    res: ResourceType
    subresource: str = ""
    obj: Object
    old: Object | None
    user: str


AdmissionHook = Callable[[AdmissionRequest], None]


class _Table:
    """Every object of one kind, its recent events and who listens."""

    __slots__ = ("keys", "listeners", "objects", "window")

    def __init__(self, history: int, complete_since: int) -> None:
        self.objects: dict[str, StoredObject] = {}
        self.keys: list[str] = []  # sorted, as etcd lists
        self.window = EventWindow(history, complete_since=complete_since)
        self.listeners: list[EventCallback] = []


class Store:
    """Objects of one cluster.

    ``now`` gives epoch seconds for timestamps, ``rng`` UIDs and generated names, ``history`` the
    number of events kept per kind for watches that start in the past.
    """

    def __init__(
        self, *, now: Callable[[], float], rng: random.Random, history: int = 2000
    ) -> None:
        self.resource_version = 1
        self.now = now
        self.rng = rng
        self._history = history
        self._compacted = 0
        self._tables: dict[ResourceType, _Table] = {}
        self._undelivered: deque[tuple[_Table, StoredEvent]] = deque()
        self._delivering = False
        self._admission: list[AdmissionHook] = []

    # --- reading ---

    def find(self, res: ResourceType, namespace: str, name: str) -> Object | None:
        """Return the object, None when it is absent. Never change it."""
        stored = self.stored(res, namespace, name)
        return None if stored is None else stored.obj

    def get(self, res: ResourceType, namespace: str, name: str) -> Object:
        """Return the object. Never change it. Raises Problem 404."""
        stored = self.stored(res, namespace, name)
        if stored is None:
            raise not_found(res, name)
        return stored.obj

    def list(
        self, res: ResourceType, namespace: str | None = None, labels: str = "", fields: str = ""
    ) -> Objects:
        """Return the selected objects in the order of their keys. Raises Problem 400."""
        wanted = selection(res, labels, fields)
        found = self.stored_list(res, namespace)
        if wanted.everything:
            return [stored.obj for stored in found]
        return [stored.obj for stored in found if wanted.matches(stored.obj)]

    def stored(self, res: ResourceType, namespace: str, name: str) -> StoredObject | None:
        """Return the stored version with its encoding, None when it is absent."""
        return self._table(res).objects.get(_key(res, namespace, name))

    def stored_list(self, res: ResourceType, namespace: str | None = None) -> Versions:
        """Return the stored versions of a namespace (of all when empty), in the order of keys."""
        table = self._table(res)
        objects = table.objects
        return [objects[key] for key in _in_namespace(res, table.keys, namespace)]

    def stored_list_at(
        self, res: ResourceType, namespace: str | None, version: int
    ) -> Versions | None:
        """Return what ``stored_list`` returned at an earlier version; None when it is forgotten."""
        table = self._table(res)
        later = table.window.after(version)
        if later is None:
            return None
        objects = dict(table.objects)
        for event in reversed(later):
            if event.old is None:
                objects.pop(event.now.key, None)
            else:
                objects[event.now.key] = event.old
        return [objects[key] for key in _in_namespace(res, sorted(objects), namespace)]

    def events_after(self, res: ResourceType, version: int) -> Events | None:
        """Return the events after this version in order; None when some are forgotten."""
        return self._table(res).window.after(version)

    def complete_since(self, res: ResourceType) -> int:
        """Return the oldest version from which a watch of this kind can start."""
        return self._table(res).window.complete_since

    # --- writing ---

    def create(self, res: ResourceType, obj: Object, *, user: str = "") -> Object:
        """Store a new object (a copy) and return it.

        Sets uid, creationTimestamp, generation and, from generateName, the name. ``user`` is for
        admission; empty for controllers that run on the store itself.
        Raises Problem 409 AlreadyExists, 422 Invalid, 400 BadRequest.
        """
        new = object_meta.ordered(res, copy_json(obj))
        if self._admission:
            new = self._admit(
                AdmissionRequest(operation="CREATE", res=res, obj=new, old=None, user=user)
            )
        table = self._table(res)
        metadata: Object = new["metadata"]
        self._name(res, table, metadata)
        name = metadata["name"]
        key = _key(res, metadata.get("namespace", ""), name)
        if key in table.objects:
            deleting = "deletionTimestamp" in table.objects[key].obj["metadata"]
            raise already_exists(res, name, deleting=deleting)
        for field in ("resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds"):
            metadata.pop(field, None)
        object_meta.drop_empty(metadata)
        metadata["uid"] = object_meta.new_uid(self.rng)
        metadata["creationTimestamp"] = rfc3339(self.now())
        metadata.pop("generation", None)
        if res.generation:
            metadata["generation"] = 1
        strategies.prepare_create(res, new)
        return self._commit(table, "ADDED", key, new, None)

    def update(
        self, res: ResourceType, obj: Object, *, subresource: str = "", user: str = ""
    ) -> Object:
        """Store a new version (from a copy) and return what is stored.

        ``subresource``: "" leaves status alone where the kind has a status subresource; "status"
        takes only status (and, of built-in kinds, labels and annotations); "binding" is the one
        that may set a pod's ``spec.nodeName``. A version that changes nothing is not stored. An
        object whose last finalizer goes while it is being deleted is removed.
        Raises Problem 404, 409 (stale resourceVersion where one is given, other UID), 422.
        """
        new = object_meta.ordered(res, copy_json(obj))
        metadata = new["metadata"]
        old = self._existing(res, metadata.get("namespace", ""), metadata.get("name", ""))
        name, was = metadata["name"], old.obj["metadata"]
        if metadata.get("uid", was["uid"]) != was["uid"]:
            why = (
                f"Precondition failed: UID in precondition: {metadata['uid']}, "
                f"UID in object meta: {was['uid']}"
            )
            raise conflict(res, name, why)
        return self._replace(res, old, new, subresource, user)

    def mutate(
        self,
        res: ResourceType,
        namespace: str,
        name: str,
        change: Callable[[Object], None],
        *,
        subresource: str = "",
        user: str = "",
    ) -> Object:
        """Let ``change`` edit a private copy and store it, as ``update``; PATCH does this.

        Raises as ``update`` does, but another UID is 422 Invalid, as for PATCH.
        """
        old = self._existing(res, namespace, name)
        new = copy_json(old.obj)
        change(new)
        return self._replace(res, old, object_meta.ordered(res, new), subresource, user)

    def delete(
        self,
        res: ResourceType,
        namespace: str,
        name: str,
        *,
        uid: str = "",
        resource_version: str = "",
        grace_s: int | None = None,
        propagation: str = "",
        user: str = "",
    ) -> Object:
        """Delete an object and return its last version.

        A pod that is bound and not ended waits for its kubelet with a deletionTimestamp; any object
        waits for its finalizers. ``grace_s=0`` removes a pod at once. ``propagation`` "Foreground"
        or "Orphan" adds the garbage collector's finalizer.
        Raises Problem 404, 409 when ``uid`` or ``resource_version`` is not the stored one.
        """
        old = self._existing(res, namespace, name)
        object_meta.check_preconditions(res, old.obj, uid=uid, version=resource_version)
        if self._admission:
            self._admit(
                AdmissionRequest(operation="DELETE", res=res, obj=old.obj, old=old.obj, user=user)
            )
        table = self._table(res)
        grace_s = 1 if grace_s is not None and grace_s < 0 else grace_s
        marked = object_meta.marked_deleted(
            res, old.obj, now=self.now(), asked_s=grace_s, propagation=propagation
        )
        new = old.obj
        if marked.obj != old.obj:
            new = self._commit(table, "MODIFIED", old.key, marked.obj, old)
        current = table.objects.get(old.key)
        if not marked.removes or current is None or current.obj is not new:
            return new  # it waits, or a subscriber was faster
        return self._remove(table, current)

    # --- listening ---

    def subscribe(self, res: ResourceType, callback: ObjectCallback) -> Callable[[], None]:
        """Call ``callback(kind, obj, old)`` after each change, in order; returns the way out.

        A change made inside a callback is told to everybody after the present one.
        """

        def tell(event: StoredEvent) -> None:
            callback(event.kind, event.now.obj, None if event.old is None else event.old.obj)

        return self.listen(res, tell)

    def listen(self, res: ResourceType, callback: EventCallback) -> Callable[[], None]:
        """As ``subscribe``, with the stored versions and their encodings."""
        listeners = self._table(res).listeners
        listeners.append(callback)

        def leave() -> None:
            if callback in listeners:
                listeners.remove(callback)

        return leave

    def add_admission(self, hook: AdmissionHook) -> None:
        """Ask ``hook`` before every create, update and delete, after those added earlier.

        It may edit the request's ``obj`` or raise Problem.
        """
        self._admission.append(hook)

    def compact(self) -> None:
        """Forget every past event: watches and lists at older versions get 410 Expired."""
        self._compacted = self.resource_version
        for table in self._tables.values():
            table.window.compact(self.resource_version)

    # --- inside ---

    def _table(self, res: ResourceType) -> _Table:
        table = self._tables.get(res)
        if table is None:
            table = self._tables[res] = _Table(self._history, self._compacted)
        return table

    def _existing(self, res: ResourceType, namespace: str, name: str) -> StoredObject:
        stored = self.stored(res, namespace, name)
        if stored is None:
            raise not_found(res, name)
        return stored

    def _admit(self, request: AdmissionRequest) -> Object:
        for hook in self._admission:
            hook(request)
        return object_meta.ordered(request.res, request.obj)

    def _commit(
        self, table: _Table, kind: str, key: str, obj: Object, old: StoredObject | None
    ) -> Object:
        self.resource_version += 1
        version = self.resource_version
        obj["metadata"]["resourceVersion"] = str(version)
        stored = StoredObject(key, obj, version)
        if kind == "DELETED":
            del table.objects[key]
            del table.keys[bisect.bisect_left(table.keys, key)]
        else:
            if old is None:
                bisect.insort(table.keys, key)
            table.objects[key] = stored
        event = StoredEvent(kind, version, stored, old)
        table.window.append(event)
        self._undelivered.append((table, event))
        if not self._delivering:
            self._deliver()
        return obj

    def _deliver(self) -> None:
        self._delivering = True
        try:
            while self._undelivered:
                table, event = self._undelivered.popleft()
                for callback in tuple(table.listeners):
                    callback(event)
        finally:
            self._delivering = False

    def _replace(
        self,
        res: ResourceType,
        old: StoredObject,
        new: Object,
        subresource: str,
        user: str,
    ) -> Object:
        metadata, was = new["metadata"], old.obj["metadata"]
        name = was["name"]
        given = metadata.get("resourceVersion")
        if given and given != was["resourceVersion"]:
            raise stale(res, name)
        for field in ("name", "namespace", "uid"):
            if metadata.get(field, was.get(field)) != was.get(field):
                text = f'Invalid value: "{metadata[field]}": field is immutable'
                raise invalid(res, name, [("FieldValueInvalid", f"metadata.{field}", text)])
        if self._admission:
            new = self._admit(
                AdmissionRequest(
                    operation="UPDATE",
                    res=res,
                    subresource=subresource,
                    obj=new,
                    old=old.obj,
                    user=user,
                )
            )
        new = strategies.prepare_update(res, new, old.obj, subresource)
        metadata = new["metadata"] = object_meta.kept(res, new["metadata"], was)
        if new == old.obj:
            return old.obj
        table = self._table(res)
        deleting = "deletionTimestamp" in was and not was.get("deletionGracePeriodSeconds")
        if deleting and not metadata.get("finalizers"):
            self._remove(table, old)
            return new
        if strategies.counts_as_generation(res, new, old.obj, subresource):
            metadata["generation"] = was.get("generation", 0) + 1
        return self._commit(table, "MODIFIED", old.key, new, old)

    def _remove(self, table: _Table, old: StoredObject) -> Object:
        last = dict(old.obj)
        last["metadata"] = dict(old.obj["metadata"])
        return self._commit(table, "DELETED", old.key, last, old)

    def _name(self, res: ResourceType, table: _Table, metadata: Object) -> None:
        if res.namespaced:
            metadata.setdefault("namespace", "default")
        else:
            metadata.pop("namespace", None)
        if metadata.get("name"):
            return
        prefix = metadata.get("generateName")
        if not prefix:
            text = "Required value: name or generateName is required"
            raise invalid(res, "", [("FieldValueRequired", "metadata.name", text)])
        for _ in range(_NAME_TRIES):
            metadata["name"] = object_meta.generated_name(prefix, self.rng)
            if _key(res, metadata.get("namespace", ""), metadata["name"]) not in table.objects:
                return


def _key(res: ResourceType, namespace: str, name: str) -> str:
    return f"{namespace}/{name}" if res.namespaced else name


def _in_namespace(res: ResourceType, keys: list[str], namespace: str | None) -> Iterable[str]:
    """Return the keys of a namespace among sorted keys, all of them when it is empty."""
    if not namespace or not res.namespaced:
        return keys
    first = bisect.bisect_left(keys, f"{namespace}/")
    return keys[first : bisect.bisect_left(keys, f"{namespace}0")]  # "0" follows "/"
