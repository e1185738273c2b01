"""Longhorn on the storage plane: what its engines have of their replicas, who writes, who measures.

Independent of the Kubernetes Node are

- an engine's ``status.replicaModeMap``: it pings its replicas over the storage network;
- any status that is written under an unchanged ``status.ownerID``: only the owner's
  longhorn-manager writes it;
- what a node's own manager measures of its disks.

Not independent, and not read, are the Longhorn Node's Ready and Schedulable, a replica's
``failedAt``, an instance manager's state: Longhorn sets these when Kubernetes calls the node
NotReady. Nor are Volumes watched: their robustness sums up what the engines say, and names no node.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final, NamedTuple

from remediator.kube.storage_objects import LonghornEngine, LonghornNode, LonghornReplica
from remediator.watchers.linked import JudgingSink, QuietSink
from remediator.watchers.storage import StorageVoices

_LOST: Final = "ERR"  # an engine's word for a replica that does not answer


class _Testimony(NamedTuple):
    """What an engine has of one replica: the node it looks from, and the mode."""

    engine: str
    witness: str
    mode: str


class LonghornView:
    """Which engine has what of which replica, and so of the node that the replica is on.

    An engine pings its replicas over the storage network, whatever Kubernetes says of their nodes.
    A node is lost when engines on other nodes have its replicas, and each of these is in ERR. An
    engine that has lost the replicas of several nodes and hears none but its own is in trouble
    itself, and is not believed.
    """

    def __init__(self, voices: StorageVoices) -> None:
        self.voices = voices
        self._node_of: dict[str, str] = {}  # replica -> node
        self._replicas_on: dict[str, dict[str, None]] = defaultdict(dict)
        self._testimonies: dict[str, _Testimony] = {}  # by replica
        self._replicas_of: dict[str, tuple[str, ...]] = {}  # by engine

    def replica(self, name: str, node: str, *, first: bool) -> None:
        """Take in where a replica is; "" when it is gone."""
        before = self._node_of.get(name, "")
        if before == node:
            return
        if before:
            self._replicas_on[before].pop(name, None)
        if node:
            self._node_of[name] = node
            self._replicas_on[node][name] = None
        else:
            self._node_of.pop(name, None)
        for each in (before, node):
            if each:
                self._judge(each, first=first)

    def engine(self, engine: LonghornEngine, *, first: bool) -> None:
        """Take in what an engine has of its replicas."""
        modes = engine.modes if engine.running and not engine.deleting else {}
        self._take(engine.name, engine.node, modes, first=first)

    def engine_gone(self, name: str) -> None:
        """Take leave of an engine."""
        self._take(name, "", {}, first=False)

    def _take(self, engine: str, witness: str, modes: dict[str, str], *, first: bool) -> None:
        before = {name: self._testimonies.get(name) for name in self._replicas_of.get(engine, ())}
        now = {name: _Testimony(engine, witness, mode) for name, mode in modes.items()}
        if before == now:
            return
        for name, old in before.items():
            if name not in now and old is not None and old.engine == engine:
                del self._testimonies[name]
        self._testimonies.update(now)
        if now:
            self._replicas_of[engine] = tuple(now)
        else:
            self._replicas_of.pop(engine, None)
        touched = dict.fromkeys(self._node_of.get(name, "") for name in (*before, *now))
        for name, testimony in now.items():
            node = self._node_of.get(name, "")
            fresh = testimony != before.get(name) and not first
            if fresh and testimony.mode == "RW" and node != witness:
                self.voices.heard(node, f"engine {engine} on {witness} has replica {name} in RW")
        for node in touched:  # all: whether the engine is to be believed may have changed
            if node:
                self._judge(node, first=first)

    def _judge(self, node: str, *, first: bool) -> None:
        """Say that a node is lost, if all who can know say so."""
        believed: list[_Testimony] = []
        for name in self._replicas_on.get(node, ()):
            testimony = self._testimonies.get(name)
            if testimony is None or testimony.witness == node:
                continue
            if testimony.mode != _LOST:
                return  # one that is in trouble has nothing but lost ones
            if not self._in_trouble(testimony):
                believed.append(testimony)
        if believed:
            detail = f"{len(believed)} replicas in ERR, as seen from {believed[0].witness}"
            self.voices.lost(node, detail, first=first)

    def _in_trouble(self, testimony: _Testimony) -> bool:
        modes: dict[str, set[str]] = {}
        for name in self._replicas_of.get(testimony.engine, ()):
            node, other = self._node_of.get(name, ""), self._testimonies.get(name)
            if node and node != testimony.witness and other is not None:
                modes.setdefault(node, set()).add(other.mode)
        return len(modes) > 1 and all(seen == {_LOST} for seen in modes.values())


class LonghornReplicaSink(JudgingSink[LonghornReplica]):
    """Longhorn's replicas: which node each is on."""

    def __init__(self, view: LonghornView) -> None:
        self._view = view

    def judge(self, obj: LonghornReplica, *, first: bool) -> None:
        """Note where it is."""
        self._view.replica(obj.name, obj.node, first=first)

    def leave(self, obj: LonghornReplica) -> None:
        """Forget it."""
        self._view.replica(obj.name, "", first=False)

    def again(self, obj: LonghornReplica) -> None:
        """Nothing of its own to offer."""


class LonghornEngineSink(QuietSink[LonghornEngine]):
    """Longhorn's engines: what each has of its replicas, and who was alive to write it down."""

    def __init__(self, view: LonghornView) -> None:
        self._view = view

    def seen(self, obj: LonghornEngine, old: LonghornEngine | None, *, initial: bool) -> None:
        """Note its testimony; its author lives where it changed under the same owner."""
        self._view.engine(obj, first=initial and old is None)
        if old is not None and old.status != obj.status and old.writer == obj.writer:
            self._view.voices.heard(obj.writer, f"its longhorn-manager wrote engine {obj.name}")

    def leave(self, obj: LonghornEngine) -> None:
        """Forget it."""
        self._view.engine_gone(obj.name)

    def again(self, obj: LonghornEngine) -> None:
        """Nothing of its own to offer."""


class LonghornNodeSink(QuietSink[LonghornNode]):
    """Longhorn's nodes: what only a node's own longhorn-manager measures is its sign of life."""

    def __init__(self, view: LonghornView) -> None:
        self._voices = view.voices

    def seen(self, obj: LonghornNode, old: LonghornNode | None, *, initial: bool) -> None:
        """Hear the node where its measurements moved; those that are found are of unknown age."""
        del initial
        if old is not None and old.measured != obj.measured:
            self._voices.heard(obj.name, "its longhorn-manager measured its disks")

    def leave(self, obj: LonghornNode) -> None:
        """Take back what was said of the node."""
        self._voices.unsure(obj.name, "Longhorn has no such node any more")

    def again(self, obj: LonghornNode) -> None:
        """Offer once more that it is lost."""
        self._voices.again(obj.name)
