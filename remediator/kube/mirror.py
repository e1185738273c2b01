"""The picture of one collection, and who is told when it changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Generic, Protocol, TypeVar

from remediator.kube.metadata import KubeObject

T = TypeVar("T", bound=KubeObject)
Seen_contra = TypeVar("Seen_contra", contravariant=True)

Key = tuple[str, str]  # (namespace, name)


class Sink(Protocol[Seen_contra]):
    """Who is told of changes. All sync, called on the event loop; they must not block."""

    def seen(self, obj: Seen_contra, old: Seen_contra | None, *, initial: bool) -> None:
        """Take a new (``old`` is None) or changed object; ``initial``: found by the first list."""
        ...

    def gone(self, obj: Seen_contra) -> None:
        """Take leave of an object; ``obj`` is the last state known."""
        ...

    def synced(self) -> None:
        """Note that every object that existed has been reported. Called once."""
        ...

    def progressed(self, at: float) -> None:
        """Note that we provably saw the cluster as of ``at``: silence up to then is real."""
        ...


class Mirror(Generic[T]):
    """Objects by namespace and name; tells the sink of each real change, and of nothing else.

    What ``keep`` refuses is not held: once held, it is gone from then on.
    """

    def __init__(self, sink: Sink[T], keep: Callable[[T], bool] | None = None) -> None:
        self._sink = sink
        self._keep = keep
        self._objects: dict[Key, T] = {}
        self.objects: Mapping[Key, T] = MappingProxyType(self._objects)
        self.synced = False

    def put(self, obj: T) -> Key:
        """Take an object as it is now; unchanged ones (same version) are not reported."""
        key = (obj.namespace, obj.name)
        if self._keep is not None and not self._keep(obj):
            self.remove(key, obj)
            return key
        old = self._objects.get(key)
        if old is not None:
            if old.resource_version == obj.resource_version and old.uid == obj.uid:
                return key
            if old.uid != obj.uid:  # deleted and made again while we did not look
                del self._objects[key]
                self._sink.gone(old)
                old = None
        self._objects[key] = obj
        self._sink.seen(obj, old, initial=not self.synced)
        return key

    def remove(self, key: Key, last: T | None = None) -> None:
        """Forget an object; ``last`` is its final state, where the server sent one."""
        old = self._objects.pop(key, None)
        if old is not None:
            self._sink.gone(last if last is not None else old)

    def complete(self, found: set[Key]) -> None:
        """End a list: what it did not find is gone; the first one makes the mirror synced."""
        for key in [key for key in self._objects if key not in found]:
            self.remove(key)
        if not self.synced:
            self.synced = True
            self._sink.synced()

    def reset(self) -> None:
        """Forget everything, as gone: the collection itself is no more."""
        for key in list(self._objects):
            self.remove(key)
        self.synced = False
