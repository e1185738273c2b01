"""What a prober must know of a node to reach it."""

from __future__ import annotations

import msgspec

from remediator.engine.model import NodeFacts


class Target(msgspec.Struct, frozen=True, gc=False):
    """A node, and where it listens. ``address`` is an IP address, never a name."""

    node: str
    address: str
    port: int = 10250  # the kubelet's
    zone: str = ""


def target_of(facts: NodeFacts) -> Target:
    """Return a node's target; its address is empty where the node reports none."""
    return Target(facts.name, facts.address, facts.kubelet_port, facts.zone)
