"""Sinks of custom objects: plain ones, and those that speak of a Node through its Machine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from typing import Generic, TypeVar

from remediator.kube.metadata import KubeObject
from remediator.kube.mirror import Key
from remediator.watchers.machine_links import MachineKey, MachineLinks

T = TypeVar("T", bound=KubeObject)


class QuietSink(ABC, Generic[T]):
    """A sink that takes objects in and out, and has nothing to tell of its watch."""

    @abstractmethod
    def seen(self, obj: T, old: T | None, *, initial: bool) -> None:
        """Take in a new or changed object."""

    @abstractmethod
    def leave(self, obj: T) -> None:
        """Take back what the object said."""

    @abstractmethod
    def again(self, obj: T) -> None:
        """Offer a known object once more."""

    def gone(self, obj: T) -> None:
        """Take its words back."""
        self.leave(obj)

    def synced(self) -> None:
        """Nothing to tell: signals need no mark, and the guard's has several watches behind it."""

    def progressed(self, at: float) -> None:
        """Ignore it: silence of these watches means nothing."""


class JudgingSink(QuietSink[T]):
    """Judges each object as it is seen."""

    @abstractmethod
    def judge(self, obj: T, *, first: bool) -> None:
        """Say what the object means now; ``first``: it was found so."""

    def seen(self, obj: T, old: T | None, *, initial: bool) -> None:
        """Judge it."""
        self.judge(obj, first=initial and old is None)


class LinkedSink(JudgingSink[T]):
    """Judges an object anew when the Node behind one of its Machines changes."""

    def __init__(self, links: MachineLinks) -> None:
        self.links = links
        self._objects: dict[Key, T] = {}
        self._found: set[Key] = set()  # whose present state was found, not seen to happen
        self._anchors: dict[Key, tuple[MachineKey, ...]] = {}
        # a dict as a set that keeps its order
        self._by_machine: dict[MachineKey, dict[Key, None]] = defaultdict(dict)
        links.listen(self._relinked)

    @abstractmethod
    def anchors(self, obj: T) -> tuple[MachineKey, ...]:
        """Return the Machines that the object's words depend on."""

    def seen(self, obj: T, old: T | None, *, initial: bool) -> None:
        """Judge it, and remember what its words depend on."""
        key = (obj.namespace, obj.name)
        self._objects[key] = obj
        if initial and old is None:
            self._found.add(key)
        else:
            self._found.discard(key)
        self._anchor(key, self.anchors(obj))
        self.judge(obj, first=key in self._found)

    def gone(self, obj: T) -> None:
        """Take its words back."""
        key = (obj.namespace, obj.name)
        self._objects.pop(key, None)
        self._found.discard(key)
        self._anchor(key, ())
        self.leave(obj)

    def _anchor(self, key: Key, now: tuple[MachineKey, ...]) -> None:
        before = self._anchors.get(key, ())
        if now == before:
            return
        for machine in before:
            keys = self._by_machine[machine]
            keys.pop(key, None)
            if not keys:
                del self._by_machine[machine]
        for machine in now:
            self._by_machine[machine][key] = None
        if now:
            self._anchors[key] = now
        else:
            self._anchors.pop(key, None)

    def _relinked(self, machine: MachineKey) -> None:
        for key in tuple(self._by_machine.get(machine, ())):
            self.judge(self._objects[key], first=key in self._found)
