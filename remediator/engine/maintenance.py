"""Nodes that a person wants empty: by order (``remediator drain``), or by an annotation.

A medik8s NodeMaintenance, Harvester's and others' are not among them: somebody else drains those,
and the guard ``hands-off`` keeps us away.
"""

from __future__ import annotations

from remediator.engine import order_records
from remediator.engine.context import Context
from remediator.engine.events import CommandGiven, Verb
from remediator.engine.inventory import MAINTENANCE
from remediator.engine.model import NodeFacts, Verdict, node_subject
from remediator.engine.verdicts import LIVING, WANTED_EMPTY, Row

ANNOTATION = MAINTENANCE  # on the Node; its value is the reason


def wanted(context: Context, node: NodeFacts) -> str:
    """Return who wants this node empty, and why; "" where nobody does."""
    ordered = context.state.drains.get(node.name, "")
    if ordered:
        return ordered
    if ANNOTATION in node.annotations:
        reason = node.annotations[ANNOTATION]
        return f"annotation {ANNOTATION}{f': {reason}' if reason else ''}"
    return ""


def wanted_nodes(context: Context) -> set[str]:
    """Return the nodes that somebody wants empty."""
    nodes = context.inventory.nodes
    ordered = {name for name in context.state.drains if name in nodes}
    return ordered | context.inventory.maintained


def over(context: Context, node: NodeFacts, row: Row) -> Row:
    """Return the row that counts: a wish to have the node empty comes before how well it lives.

    Of a node that may not live the evidence alone counts.
    """
    return WANTED_EMPTY if row.verdict in LIVING and wanted(context, node) else row


def give(context: Context, command: CommandGiven) -> None:
    """Obey or refuse DRAIN and UNDRAIN."""
    name = command.node
    subject = node_subject(name)
    incident = context.state.incident_on(subject)
    refusal = _why_not(context, command)
    if refusal:
        order_records.refuse(context, command, subject, refusal, incident=incident)
        return
    decision = order_records.record(context, command, subject, incident=incident)
    order_records.answer(context, command, decision, accepted=True)


def _why_not(context: Context, command: CommandGiven) -> str:
    name = command.node
    node = context.inventory.nodes.get(name)
    if command.verb is Verb.UNDRAIN:
        if name in context.state.drains:
            return ""
        if node is not None and ANNOTATION in node.annotations:
            how = f"kubectl annotate node {name} {ANNOTATION}-"
            return f"its annotation asks for it, not an order: take that off ({how})"
        return f"nobody has ordered {name} to be drained"
    if node is None:
        return f"there is no node {name}"
    if not context.enforce:
        return "observe mode: this daemon touches nothing"
    if name in context.state.drains:
        return f"it is ordered already: {context.state.drains[name]}"
    if not any(Verdict.MAINTENANCE in policy.verdicts for policy in context.policies):
        return f"no policy answers {Verdict.MAINTENANCE}: load policies/drain-for-maintenance.yaml"
    return ""
