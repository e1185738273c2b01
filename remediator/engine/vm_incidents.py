"""Incidents of VMs: opened, turned and closed as records; and whose VMs get none.

What is done about them is in ``vm_remedies.py``. A VM whose host is in an incident, or that our own
recovery brings back, has its story told there.
"""

from __future__ import annotations

from remediator.engine import safeguards
from remediator.engine.chain import DecisionKind, EvidenceRow
from remediator.engine.context import Context
from remediator.engine.incidents import (
    DONE_STAGES,
    Incident,
    Stage,
    Trigger,
    VmIncident,
    VmProgress,
)
from remediator.engine.inputs import Inputs
from remediator.engine.inventory import Inventory, Key
from remediator.engine.model import IncidentState, Verdict, vm_subject
from remediator.engine.vm_values import FINAL_PHASES
from remediator.engine.vm_verdicts import FACETS, WELL, VmRow, VmValues


def taken_care_of(context: Context, key: Key) -> str:
    """Return which incident of a node has this VM in its care, or who ignores it, or ""."""
    state = context.state
    ignored = safeguards.ignored(context, vm_subject(*key))
    if ignored:
        return f"none of our business: {ignored}"
    for node in hosts(context.inventory, key):
        incident = state.incident_on(f"node/{node}")
        if incident is not None:
            return f"its host {node} is in an incident itself: {incident.id} goes on with it"
    for incident, progress in _recoveries(context, key):
        if progress.stage not in DONE_STAGES:
            return f"{incident.id} is bringing it back"
    return ""


def goes_on(context: Context, incident: VmIncident) -> bool:
    """Whether an incident stays open though its host has one: something was begun about the VM.

    It stands still meanwhile. Once the host's plan brings the VM back, that one goes on with it.
    """
    if safeguards.ignored(context, incident.subject):
        return False
    key = (incident.subject.namespace, incident.subject.name)
    recovering = any(each.stage not in DONE_STAGES for _, each in _recoveries(context, key))
    return incident.started > 0 and not recovering


def fell_with_its_host(context: Context, key: Key) -> bool:
    """Whether a failure of this VM now belongs to the loss of its host, which has its own story."""
    recovering = any(each.stage is not Stage.UP for _, each in _recoveries(context, key))
    return recovering or bool(doubtful_host(context, key))


def _recoveries(context: Context, key: Key) -> list[tuple[Incident, VmProgress]]:
    """Return the plans of dead nodes that this VM is in, and how far it has come in each."""
    name = str(vm_subject(*key))
    return [
        (incident, incident.vms[name])
        for incident in context.state.incidents.values()
        if name in incident.vms
    ]


def doubtful_host(context: Context, key: Key) -> str:
    """Return why a node that this VM depends on is in doubt, or "".

    Its host, though in no incident; or the target of its migration, be it in one.
    """
    vmi = context.inventory.vmis.get(key)
    target = vmi.migrating_to if vmi is not None else ""
    if target and context.state.incident_on(f"node/{target}") is not None:
        return f"the target of its migration, {target}, is in an incident"
    for node in (*hosts(context.inventory, key), target):
        if node in context.state.residues:
            return f"{node} was lost, and is not back yet"
        if context.evidence.overdue(node):
            return f"the lease of {node} is overdue"
    return ""


def hosts(inventory: Inventory, key: Key) -> list[str]:
    """Return the nodes that this VM is on, or is about to be on, by name."""
    vmi = inventory.vmis.get(key)
    found = {vmi.node} if vmi is not None else set()
    if vmi is None or vmi.phase != "Running":
        live = (pod for pod in inventory.pods_under(key) if pod.phase not in FINAL_PHASES)
        found.update(pod.node for pod in live)
    return sorted(found - {""})


def open_incident(
    context: Context,
    key: Key,
    row: VmRow,
    evidence: tuple[EvidenceRow, ...],
    inputs: Inputs,
    *,
    confirmed: bool,
) -> None:
    """Open the incident of a VM: a row has fitted for long enough to suspect it, or to be sure."""
    shell = VmIncident(
        id=f"inc-{context.state.head.seq + 1}",
        subject=vm_subject(*key),
        state=IncidentState.WATCHING,
        opened_at=context.now,
        vmi_uid=_vmi_uid(context, key),
        verdict=row.verdict,
        verdict_at=context.now,
        row=row.name,
    )
    trigger = Trigger.CONVICTED if confirmed else Trigger.SUSPECTED
    _record(context, DecisionKind.OPENED, shell, row, evidence, inputs, trigger=trigger)


def turn(
    context: Context,
    incident: VmIncident,
    row: VmRow,
    evidence: tuple[EvidenceRow, ...],
    inputs: Inputs,
    *,
    confirmed: bool,
) -> None:
    """Give an open incident the verdict of this row; ``confirmed`` where its hold is over."""
    convicts = confirmed and incident.state is IncidentState.SUSPECTED
    trigger = Trigger.CONVICTED if convicts else None
    _record(context, DecisionKind.VERDICT, incident, row, evidence, inputs, trigger=trigger)


def resolve(
    context: Context,
    incident: VmIncident,
    why: str,
    evidence: tuple[EvidenceRow, ...],
    inputs: Inputs,
) -> None:
    """Close an incident."""
    context.record(
        DecisionKind.RESOLVED,
        incident.subject,
        why,
        incident=incident,
        trigger=Trigger.CLEARED,
        evidence=evidence,
        inputs=inputs,
    )


def why_over(context: Context, incident: VmIncident, key: Key, values: VmValues) -> str:
    """Return why an incident whose rows no longer fit ends at once, or ""."""
    inventory = context.inventory
    if key not in inventory.vms and key not in inventory.vmis:
        return "the VM is gone"
    if values.wanted == "no":
        return "its owner stops or deletes it"
    if values.phase == "over" and incident.verdict is not Verdict.CRASHED:
        return "its run has ended, and its run strategy asks for no other"
    return ""


def evidence_rows(
    values: VmValues, details: dict[str, str], row: VmRow | None, stood_s: float
) -> tuple[EvidenceRow, ...]:
    """Return the evidence as a record keeps it: what decides, and what else there is to say.

    Since when is known of what speaks against the VM: at least as long as the row has fitted.
    """
    decides = row.when if row is not None else {}
    ill = {facet for facet in FACETS if getattr(values, facet) != getattr(WELL, facet)}
    return tuple(
        EvidenceRow(
            plane=facet,
            value=getattr(values, facet),
            since_s=round(max(0.0, stood_s), 3) if facet in decides and facet in ill else 0.0,
            detail=details.get(facet, ""),
        )
        for facet in FACETS
        if facet in decides or facet in details or facet in ill
    )


def _record(
    context: Context,
    kind: DecisionKind,
    incident: VmIncident,
    row: VmRow,
    evidence: tuple[EvidenceRow, ...],
    inputs: Inputs,
    *,
    trigger: Trigger | None,
) -> None:
    decision = context.record(
        kind,
        incident.subject,
        f"{row.verdict}: {row.means}",
        incident=incident,
        trigger=trigger,
        verdict=row.verdict,
        row=row.name,
        evidence=evidence,
        uid=_vmi_uid(context, (incident.subject.namespace, incident.subject.name)),
        inputs=inputs,
    )
    if decision.state is IncidentState.CONFIRMED:
        context.notice(decision)


def _vmi_uid(context: Context, key: Key) -> str:
    vmi = context.inventory.vmis.get(key)
    return vmi.uid if vmi is not None else ""
