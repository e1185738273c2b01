"""Control-plane nodes: one at a time, and only while etcd keeps its quorum without it."""

from __future__ import annotations

from remediator.engine.chain import GuardRow, Plan
from remediator.engine.context import Context
from remediator.engine.guard_answers import Answer, answers, ask, grant, named, refuse, wait
from remediator.engine.incidents import Incident
from remediator.engine.model import NodeFacts, Record
from remediator.engine.safeguards import shares
from remediator.engine.safeguards.rows import CONTROL_PLANE


class QuorumSeen(Record, frozen=True, kw_only=True):
    """What is known of etcd's members, where this node holds one."""

    member: bool  # it is a control-plane node, or holds a member
    fences: bool  # the plan takes it down
    known: bool = False  # which nodes hold the members is known
    members: int = 0
    down: tuple[str, ...] = ()  # other members that are or may be down, or in an incident
    unheard: tuple[str, ...] = ()  # other members that were not heard since this one failed
    well: int = 0  # other members that are well


@answers(CONTROL_PLANE, QuorumSeen)
def _quorum(saw: QuorumSeen) -> Answer:
    if not saw.member:
        return grant("a worker")
    if not saw.fences:
        return grant("the plan does not fence")
    if not saw.known:
        return refuse("etcd quorum is not known here: a human must decide")
    needed = saw.members // 2 + 1
    if saw.members < 3:
        return refuse(f"etcd has {saw.members} members: no quorum without it; a human must decide")
    if saw.unheard:
        return wait(f"etcd members not heard since it fell silent: {', '.join(saw.unheard)}")
    if saw.well < needed:
        why = f"etcd keeps {saw.well} of {saw.members} members without it, and needs {needed}"
        return refuse(f"{why}; down: {', '.join(saw.down)}; a human must decide")
    if saw.down:
        return wait(f"one control-plane node at a time: {', '.join(saw.down)} is down as well")
    return grant(f"etcd keeps {saw.well} of {saw.members} members, and needs {needed}")


def control_plane(context: Context, incident: Incident, node: NodeFacts, plan: Plan) -> GuardRow:
    """Leave control-plane nodes alone unless etcd is known to keep its quorum.

    The other members count as well only once they were heard since this one must have failed: what
    took it down may have taken them along.
    """
    fences = "fence" in plan.steps
    if not (node.control_plane or node.etcd):
        return ask(CONTROL_PLANE, QuorumSeen(member=False, fences=fences))
    members = _members(context)
    if node.name not in members:
        return ask(CONTROL_PLANE, QuorumSeen(member=True, fences=fences))
    others = members - {node.name}
    down = {
        name
        for name in others
        if name in shares.unhealthy(context) or context.inventory.nodes[name].ready is not True
    }
    unheard = set(shares.unheard(context, incident, others - down))
    return ask(
        CONTROL_PLANE,
        QuorumSeen(
            member=True,
            fences=fences,
            known=True,
            members=len(members),
            down=named(down),
            unheard=named(unheard),
            well=len(others) - len(down) - len(unheard),
        ),
    )


def _members(context: Context) -> frozenset[str]:
    """Return the nodes that hold the members of etcd; none where that is not known."""
    nodes = context.inventory.nodes.values()
    labelled = frozenset(node.name for node in nodes if node.etcd)
    if labelled:
        return labelled
    if context.settings.budgets.etcd_on_control_plane:
        return frozenset(node.name for node in nodes if node.control_plane)
    return frozenset()
