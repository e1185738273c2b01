"""Maintenance and upgrades: nodes, or all of the cluster, that somebody wants left alone.

A cordon alone is none of these: a cordoned host that dies must be recovered.
"""

from __future__ import annotations

from typing import Final

from remediator.engine.model import HandsOffFacts
from remediator.kube.metadata import CURRENT_CONFIG, DESIRED_CONFIG
from remediator.kube.objects import Node
from remediator.kube.remediations import ClusterVersion, NodeMaintenance
from remediator.watchers.hands_off import HandsOffBoard
from remediator.watchers.linked import JudgingSink

# Harvester: asked for, then "running" while the node is drained, then "completed".
_DRAIN_REQUESTED: Final = "harvesterhci.io/drain-requested"
_MAINTAIN_STATUS: Final = "harvesterhci.io/maintain-status"
# The one ClusterVersion that means the cluster.
_CLUSTER_VERSION: Final = "version"


class NodeMaintenanceSink(JudgingSink[NodeMaintenance]):
    """NodeMaintenances: from the wish until it is taken back. ``kind`` tells two groups apart."""

    def __init__(self, kind: str, board: HandsOffBoard) -> None:
        self._kind = kind
        self._board = board

    def judge(self, obj: NodeMaintenance, *, first: bool) -> None:
        """Keep hands off its node. One that is being deleted has ended; one of no node is none."""
        del first  # a guard holds, however it was found
        if obj.deleting or not obj.node_name:
            self._board.hold(self._owner(obj), ())
            return
        why = f"NodeMaintenance {obj.name}" + (f": {obj.reason}" if obj.reason else "")
        facts = HandsOffFacts(
            name=f"{self._kind}:{obj.name}", uid=obj.uid, node=obj.node_name, why=why[:200]
        )
        self._board.hold(self._owner(obj), [facts])

    def leave(self, obj: NodeMaintenance) -> None:
        """Let go of the node."""
        self._board.hold(self._owner(obj), ())

    def again(self, obj: NodeMaintenance) -> None:
        """Offer it once more."""
        self._board.again(self._owner(obj))

    def _owner(self, obj: NodeMaintenance) -> str:
        return f"{self._kind}/{obj.name}"


class ClusterVersionSink(JudgingSink[ClusterVersion]):
    """OpenShift's upgrade: hands off every node while it progresses."""

    def __init__(self, board: HandsOffBoard) -> None:
        self._board = board

    def judge(self, obj: ClusterVersion, *, first: bool) -> None:
        """Keep hands off all nodes while an upgrade is under way."""
        del first
        held = obj.progressing and obj.name == _CLUSTER_VERSION
        why = f"OpenShift is being upgraded to {obj.desired or 'another version'}"
        facts = HandsOffFacts(name=f"ClusterVersion:{obj.name}", uid=obj.uid, why=why)
        self._board.hold(_cluster(obj), [facts] if held else ())

    def leave(self, obj: ClusterVersion) -> None:
        """Let go."""
        self._board.hold(_cluster(obj), ())

    def again(self, obj: ClusterVersion) -> None:
        """Offer it once more."""
        self._board.again(_cluster(obj))


class NodeMarksSink(JudgingSink[Node]):
    """What a Node's annotations say: a new machine configuration, Harvester's maintenance."""

    def __init__(self, board: HandsOffBoard) -> None:
        self._board = board

    def judge(self, obj: Node, *, first: bool) -> None:
        """Keep hands off a node that is being updated or maintained."""
        del first
        marks = obj.annotations
        held = []
        current, desired = marks.get(CURRENT_CONFIG, ""), marks.get(DESIRED_CONFIG, "")
        if current and desired and current != desired:
            held.append(_mark(obj, "MachineConfig", f"is being updated to {desired}"))
        status = marks.get(_MAINTAIN_STATUS, "")
        if status or _DRAIN_REQUESTED in marks:
            held.append(_mark(obj, "Harvester", f"maintenance {status or 'requested'}"))
        self._board.hold(_node(obj), held)

    def leave(self, obj: Node) -> None:
        """Let go of a node that is no more."""
        self._board.hold(_node(obj), ())

    def again(self, obj: Node) -> None:
        """Offer it once more."""
        self._board.again(_node(obj))


def _mark(node: Node, kind: str, why: str) -> HandsOffFacts:
    # A UID of its own: the Node's facts bear the Node's.
    uid = f"{node.uid}/{kind}"
    return HandsOffFacts(
        name=f"{kind}:{node.name}", uid=uid, node=node.name, why=f"{kind}: {why}"[:200]
    )


def _cluster(obj: ClusterVersion) -> str:
    return f"ClusterVersion/{obj.name}"


def _node(obj: Node) -> str:
    return f"Node/{obj.name}"
