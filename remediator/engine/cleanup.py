"""Taking back what we put on a node, once it has returned: nothing of ours stays behind."""

from __future__ import annotations

from remediator.engine import conviction, evacuation_course, fencing, proofs, safeguards
from remediator.engine.chain import DecisionKind
from remediator.engine.context import Context
from remediator.engine.incidents import Residue
from remediator.engine.model import (
    Action,
    NodeFacts,
    PowerOn,
    Proof,
    ProofKind,
    Uncordon,
    Verdict,
    Work,
    node_subject,
)


def owes(residue: Residue, node: NodeFacts) -> bool:
    """Whether the node is still the machine, in the boot, that the residue is about."""
    return (
        node.uid == residue.node_uid
        and bool(residue.fenced_boot_id)
        and (node.boot_id == residue.fenced_boot_id)
    )


def take_back(context: Context, residue: Residue) -> None:
    """Start the clean-up of a node that is back; forget one whose object is gone."""
    if str(node_subject(residue.node)) in context.state.busy:
        return
    node = context.inventory.nodes.get(residue.node)
    if node is None or (node.uid != residue.node_uid and not _leaves_objects(context, residue)):
        _forget(context, residue)
        return
    if not context.enforce:
        return
    if context.now < residue.retry_at:
        context.wake_at(residue.retry_at)
        return
    if not _is_back(context, residue, node):
        _switch_on(context, residue, node)
        return
    if evacuation_course.call_back(context, residue):
        return
    work = Uncordon(
        node=node.name,
        node_uid=node.uid,
        fenced_boot_id=residue.fenced_boot_id or residue.by_hand_boot_id,
        fence_method=residue.fence_method,
    )
    _start(
        context,
        residue,
        work,
        residue.attempts + 1,
        context.settings.steps.uncordon_deadline_s,
        "the node is back: take our taints off",
    )


def _forget(context: Context, residue: Residue) -> None:
    """End a clean-up that nothing is left for; what stands elsewhere waits for a node's return."""
    gone = context.inventory.nodes.get(residue.node) is None
    if not context.inventory.synced or (gone and _leaves_objects(context, residue)):
        return
    context.record(
        DecisionKind.RESOLVED,
        node_subject(residue.node),
        "the Node object that carried our taints is gone, and they with it",
        incident_id=residue.incident,
    )


def _leaves_objects(context: Context, residue: Residue) -> bool:
    """Whether its fence may have left objects in the cluster that outlive the Node object."""
    return any(
        method.name == residue.fence_method and method.leaves_objects
        for method in context.fence_methods
    )


def _switch_on(context: Context, residue: Residue, node: NodeFacts) -> None:
    """Power a fenced host on again, where its configuration asks for it, once its VMs are back."""
    method = fencing.method_for(context, node.name)
    wanted = method is not None and method.power_on and method.name == residue.fence_method
    tried = residue.power_on_attempts
    if (
        not wanted
        or residue.powered_on
        or not owes(residue, node)
        or context.state.incident_on(node_subject(node.name)) is not None
        or tried >= context.settings.steps.attempts
        or context.evidence.values(node, context.now).lease == "up"
        or node.name in context.state.kept_off
        or safeguards.hands_off(context, node)  # whoever works on it may need it off
    ):
        return
    work = PowerOn(
        node=node.name,
        node_uid=node.uid,
        method=residue.fence_method,
        fenced_boot_id=residue.fenced_boot_id,
    )
    deadline_s = context.settings.steps.power_on_deadline_s
    why = "its VMs are back elsewhere: switch the host on again"
    _start(context, residue, work, tried + 1, deadline_s, why)


def _start(
    context: Context, residue: Residue, work: Work, attempt: int, deadline_s: float, why: str
) -> None:
    step = "power-on" if isinstance(work, PowerOn) else "uncordon"
    action = Action(
        id=f"{residue.incident or f'by-hand-{residue.node}'}/{step}/{attempt}",
        incident=residue.incident,
        subject=node_subject(residue.node),
        attempt=attempt,
        deadline_s=deadline_s,
        work=work,
    )
    context.start(action, why)


def _is_back(context: Context, residue: Residue, node: NodeFacts) -> bool:
    lease_up = context.evidence.values(node, context.now).lease == "up"
    if residue.evacuated and not residue.fenced_boot_id:
        well = conviction.judge(context, node).verdict is Verdict.HEALTHY
        return well and not context.evidence.is_holding(node.name)
    if node.uid != residue.node_uid:  # registered anew: another boot, or another machine
        return node.ready is True and lease_up
    if not residue.fenced_boot_id:
        by_hand = bool(residue.by_hand_boot_id) and node.boot_id == residue.by_hand_boot_id
        return lease_up and not by_hand
    if node.boot_id != residue.fenced_boot_id:
        return node.ready is True and lease_up
    proof = Proof(
        kind=ProofKind.POWER_OFF_VERIFIED,  # a residue does not say which it was
        node=node.name,
        boot_id=residue.fenced_boot_id,
        at=residue.proof_at,
        source="",
    )
    standing = proofs.standing(context, node, proof)
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
