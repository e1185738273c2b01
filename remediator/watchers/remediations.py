"""Remediations that others have under way, and the NodeHealthChecks behind them.

In flight they hold our hands off; what they came to is a word of the machine plane.
"""

from __future__ import annotations

from typing import Final

from remediator.engine.model import HandsOffFacts, Reading
from remediator.kube.machine_api import CLUSTER_API, OPENSHIFT
from remediator.kube.remediations import NodeHealthCheck, Remediation, UnhealthyNode
from remediator.watchers.hands_off import HandsOffBoard
from remediator.watchers.linked import JudgingSink, LinkedSink
from remediator.watchers.machine_links import MachineKey, MachineLinks
from remediator.watchers.statements import Aspect, Statements, Word

# The kinds whose own objects say when they are over.
WATCHED_KINDS: Final = frozenset(
    {
        "SelfNodeRemediation",
        "FenceAgentsRemediation",
        "MachineDeletionRemediation",
        "Metal3Remediation",
    }
)
_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
_OURS: Final = "remediator"


class RemediationSink(LinkedSink[Remediation]):
    """Remediations of one kind.

    For which node? The annotation tells; else the Machine that owns it; else its own name, which
    is the node's where a NodeHealthCheck made it. One that we made ourselves holds nobody.
    """

    def __init__(
        self, kind: str, links: MachineLinks, statements: Statements, board: HandsOffBoard
    ) -> None:
        self._kind = kind
        self._statements = statements
        self._board = board
        super().__init__(links)

    def anchors(self, obj: Remediation) -> tuple[MachineKey, ...]:
        """Return the Machine that owns it, of either family: its reference does not say which."""
        owner = None if obj.node_name else obj.owner("Machine")
        if owner is None:
            return ()
        families = (OPENSHIFT, CLUSTER_API)
        return tuple(MachineKey(family, obj.namespace, owner.name) for family in families)

    def judge(self, obj: Remediation, *, first: bool) -> None:
        """Say how far it is, and keep hands off while it is in flight."""
        node = self._node(obj)
        words: dict[Aspect, Word] = {}
        for kind in ("Processing", "Succeeded"):
            condition = obj.condition(kind)
            if condition is not None and condition.status == "True":
                detail = f"{kind}=True {condition.reason or ''}".strip()
                words[Aspect(node, kind)] = Word(Reading.DOWN, detail)
        if obj.phase and obj.condition("Processing") is None:  # Metal3 says no more than that
            reading = Reading.UNKNOWN if obj.phase == "Failed" else Reading.DOWN
            words[Aspect(node, "phase")] = Word(reading, obj.phase)
        self._statements.say(self._speaker(obj), self._source(obj), words, first=first)
        ours = obj.labels.get(_MANAGED_BY) == _OURS
        held = [self._facts(obj, node)] if obj.in_flight and not ours else []
        self._board.hold(self._speaker(obj), held)

    def leave(self, obj: Remediation) -> None:
        """Take its words back."""
        self._statements.say(self._speaker(obj), self._source(obj), {})
        self._board.hold(self._speaker(obj), ())

    def again(self, obj: Remediation) -> None:
        """Offer its words once more."""
        self._statements.again(self._speaker(obj))
        self._board.again(self._speaker(obj))

    def _node(self, obj: Remediation) -> str:
        linked = (self.links.node_of(key) for key in self.anchors(obj))
        return obj.node_name or next((node for node in linked if node), "") or obj.name

    def _facts(self, obj: Remediation, node: str) -> HandsOffFacts:
        processing = obj.condition("Processing")
        how = obj.phase or (f"Processing={processing.status}" if processing else "just made")
        return HandsOffFacts(
            namespace=obj.namespace,
            name=f"{self._kind}:{obj.name}",
            uid=obj.uid,
            node=node,
            why=f"{self._kind} {obj.name} is in flight ({how})",
        )

    def _speaker(self, obj: Remediation) -> str:
        return f"{self._kind}/{obj.namespace}/{obj.name}"

    def _source(self, obj: Remediation) -> str:
        return f"{self._kind} {obj.namespace}/{obj.name}"


class NodeHealthCheckSink(JudgingSink[NodeHealthCheck]):
    """NodeHealthChecks: whom they count as unhealthy.

    That one exists, or counts a node as unhealthy, is no reason to keep hands off: its remediation
    is. Of kinds that we watch the remediation itself says when it is over; of others only the list
    here tells.
    """

    def __init__(self, statements: Statements, board: HandsOffBoard) -> None:
        self._statements = statements
        self._board = board

    def judge(self, obj: NodeHealthCheck, *, first: bool) -> None:
        """Say who is unhealthy."""
        nodes = () if obj.disabled else obj.unhealthy_nodes
        words = {Aspect(node.name, "unhealthy"): _word(node) for node in nodes}
        self._statements.say(_speaker(obj), f"NodeHealthCheck {obj.name}", words, first=first)
        self._board.hold(_speaker(obj), [each for node in nodes for each in _held(obj, node)])

    def leave(self, obj: NodeHealthCheck) -> None:
        """Take its words back."""
        self._statements.say(_speaker(obj), f"NodeHealthCheck {obj.name}", {})
        self._board.hold(_speaker(obj), ())

    def again(self, obj: NodeHealthCheck) -> None:
        """Offer its words once more."""
        self._statements.again(_speaker(obj))
        self._board.again(_speaker(obj))


def _word(node: UnhealthyNode) -> Word:
    if node.healthy_again:
        return Word(Reading.UNKNOWN, "healthy again, its remediation not yet gone")
    kinds = ", ".join(each.resource.kind for each in node.remediations or ())
    return Word(Reading.DOWN, f"unhealthy, remediated by {kinds}" if kinds else "unhealthy")


def _held(check: NodeHealthCheck, node: UnhealthyNode) -> list[HandsOffFacts]:
    """Return what holds us off a node: its remediations of kinds that we do not watch."""
    return [
        HandsOffFacts(
            name=f"{each.resource.kind}:{each.resource.name}",
            namespace=each.resource.namespace,
            uid=f"{check.uid}/{node.name}",
            node=node.name,
            why=f"{each.resource.kind} {each.resource.name} of NodeHealthCheck {check.name}",
        )
        for each in node.remediations or ()
        if node.name
        and each.resource.name
        and each.resource.kind not in WATCHED_KINDS
        and each.timed_out is None
    ]


def _speaker(obj: NodeHealthCheck) -> str:
    return f"NodeHealthCheck/{obj.name}"
