"""Taking back what we put on a node, once it has returned: nothing of ours stays behind."""

from __future__ import annotations

from remediator.engine import proofs
from remediator.engine.chain import DecisionKind
from remediator.engine.context import Context
from remediator.engine.incidents import Residue
from remediator.engine.model import Action, NodeFacts, Uncordon, node_subject


def owes(residue: Residue, node: NodeFacts) -> bool:
    """Whether the node is still the machine, in the boot, that the residue is about."""
    return (
        node.uid == residue.node_uid
        and bool(residue.fenced_boot_id)
        and (node.boot_id == residue.fenced_boot_id)
    )


def take_back(context: Context, residue: Residue) -> None:
    """Start the clean-up of a node that is back; forget one whose object is gone."""
    subject = node_subject(residue.node)
    if str(subject) in context.state.busy:
        return
    node = context.inventory.nodes.get(residue.node)
    if node is None or node.uid != residue.node_uid:
        if context.inventory.synced:
            context.record(
                DecisionKind.RESOLVED,
                subject,
                "the Node object that carried our taints is gone, and they with it",
                incident_id=residue.incident,
            )
        return
    if not context.enforce:
        return
    if context.now < residue.retry_at:
        context.wake_at(residue.retry_at)
        return
    if not _is_back(context, residue, node):
        return
    attempt = residue.attempts + 1
    action = Action(
        id=f"{residue.incident}/uncordon/{attempt}",
        incident=residue.incident,
        subject=subject,
        attempt=attempt,
        deadline_s=context.settings.steps.uncordon_deadline_s,
        work=Uncordon(node=node.name, node_uid=node.uid, fenced_boot_id=residue.fenced_boot_id),
    )
    context.start(action, "the node is back: take our taints off")


def _is_back(context: Context, residue: Residue, node: NodeFacts) -> bool:
    if not residue.fenced_boot_id:
        return context.evidence.values(node, context.now).lease == "up"
    if node.boot_id != residue.fenced_boot_id:
        return node.ready is True and context.evidence.values(node, context.now).lease == "up"
    standing = proofs.standing(context, node, residue.proof_at, residue.fenced_boot_id)
    if standing is proofs.Standing.VOID and not residue.alarmed:
        decision = context.record(
            DecisionKind.ESCALATED,
            node_subject(node.name),
            f"{node.name} renews its lease in the boot that was proven to be over, and its VMs "
            "run elsewhere: check for double runs, then reboot it; its taints stay",
            incident_id=residue.incident,
            stage="proof-void",
        )
        context.notice(decision)
    return False
