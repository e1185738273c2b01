"""Everything about one VM."""

from __future__ import annotations

from collections.abc import Iterator

from remediator.engine import vm_remedy_view
from remediator.engine.context import Context
from remediator.engine.match_facts import about_node
from remediator.engine.model import Subject, Verdict, VmiFacts, vm_subject
from remediator.engine.near_names import near, suggestion
from remediator.engine.planner import plan_vm
from remediator.engine.rules import first_match
from remediator.engine.verdicts import decide
from remediator.engine.view_lines import leader_line, own_line, standing_verdict
from remediator.engine.views import (
    Due,
    FacetLine,
    FittingRow,
    IncidentLine,
    NoSuch,
    PartLine,
    RowLine,
    Surroundings,
    VmView,
)
from remediator.engine.vm_health import VmHealth, vm_health
from remediator.engine.vm_verdicts import ROWS, WELL
from remediator.engine.vm_watch import VmWatch


def view(
    context: Context, watch: VmWatch, around: Surroundings, namespace: str, name: str
) -> VmView | NoSuch:
    """Return the view of one VM, or that there is none of that name."""
    subject, now = vm_subject(namespace, name), around.at
    found = vm_health(context, watch, subject)
    if found is None:
        return _no_such(context, namespace, name)
    vm, vmi = context.inventory.vm(subject), context.inventory.vmi(subject)
    verdict, row = vm_standing(context, found)
    incident = context.state.vm_incident_on(subject)
    node = vmi.node if vmi is not None else ""
    node_verdict, node_incident = _host(context, node, now)
    decides = ROWS[row].when if row else {}
    return VmView(
        at=now,
        leader=leader_line(context, now),
        own=own_line(context),
        namespace=namespace,
        name=name,
        run_strategy=vm.run_strategy.value if vm is not None else "",
        verdict=verdict,
        row=RowLine(name=row, verdict=ROWS[row].verdict, means=ROWS[row].means) if row else None,
        since_s=round(max(0.0, now - incident.verdict_at), 3) if incident is not None else None,
        unjudged=found.excuse,
        incident=_incident(context, found, now),
        node=node,
        node_verdict=node_verdict,
        node_incident=node_incident,
        parts=tuple(_parts(context, subject)),
        facets=tuple(
            FacetLine(
                facet=each.plane,
                value=each.value,
                weighed=each.plane in decides,
                well=each.value == getattr(WELL, each.plane),
                detail=each.detail,
            )
            for each in found.facets
        ),
        fitting=tuple(
            FittingRow(
                name=each.row,
                verdict=each.verdict,
                stood_s=each.stood_s,
                suspected_after_s=each.suspected_after_s,
                confirmed_after_s=each.confirmed_after_s,
            )
            for each in found.fitting
        ),
        due=tuple(vm_due(context, watch, found)),
        what_if=found.would_change,
        cannot_move=tuple(_cannot_move(context, subject, vmi)),
        if_host_dies=_if_host_dies(context, subject, vmi, now),
    )


def vm_standing(context: Context, found: VmHealth) -> tuple[Verdict, str]:
    """Return a VM's verdict and the row behind it, "" where none is.

    A row counts only once it has fitted for as long as it must.
    """
    incident = context.state.vm_incident_on(found.subject)
    if found.excuse:
        return Verdict.UNKNOWN, ""
    if incident is not None:
        return incident.verdict, incident.row
    for each in found.fitting:
        if each.stood_s >= each.suspected_after_s:
            return each.verdict, each.row
    return Verdict.HEALTHY, ""


def _no_such(context: Context, namespace: str, name: str) -> NoSuch:
    keys = context.inventory.vms.keys() | context.inventory.vmis.keys()
    here = [other for space, other in keys if space == namespace]
    if here:
        likely = [f"{namespace}/{other}" for other in near(name, here)]
    else:
        elsewhere = sorted(space for space, other in keys if other == name)[:3]
        spaces = elsewhere or near(namespace, {space for space, _ in keys})
        likely = [f"{space}/{name}" if elsewhere else f"{space}/…" for space in spaces]
    detail = f"there is no VM {namespace}/{name}{suggestion(likely)}"
    return NoSuch(subject=vm_subject(namespace, name), detail=detail)


def _host(context: Context, node: str, now: float) -> tuple[str, str]:
    """Return the verdict on a VM's host, and its incident."""
    facts = context.inventory.nodes.get(node)
    if facts is None:
        return ("no such node" if node else ""), ""
    row = decide(context.evidence.values(facts, now))
    incident = context.state.incident_on(f"node/{node}")
    verdict, _ = standing_verdict(context, facts, row, now)
    return verdict.value, "" if incident is None else f"{incident.id} ({incident.state})"


def _incident(context: Context, found: VmHealth, now: float) -> IncidentLine | None:
    incident = context.state.vm_incident_on(found.subject)
    if incident is None:
        return None
    return IncidentLine(
        id=incident.id,
        state=incident.state.value,
        verdict=incident.verdict,
        row=incident.row,
        since_s=round(max(0.0, now - incident.verdict_at), 3),
        opened_s=round(max(0.0, now - incident.opened_at), 3),
        plan=vm_remedy_view.plan_text(incident),
    )


def vm_due(context: Context, watch: VmWatch, found: VmHealth) -> Iterator[Due]:
    """Yield what is due for a VM."""
    if found.excuse:
        yield Due(what=f"nothing is concluded for now: {found.excuse}")
        return
    for each in found.fitting:
        if each.stood_s < each.suspected_after_s:
            left_s = each.suspected_after_s - each.stood_s
            yield Due(what=f"{each.verdict} is suspected ({each.row})", in_s=round(left_s, 3))
        elif each.stood_s < each.confirmed_after_s:
            left_s = each.confirmed_after_s - each.stood_s
            yield Due(what=f"{each.verdict} is confirmed ({each.row})", in_s=round(left_s, 3))
    incident = context.state.vm_incident_on(found.subject)
    if incident is not None:
        yield from vm_remedy_view.due(context, watch, incident)


# --- its objects ----------------------------------------------------------------------------------


def _parts(context: Context, subject: Subject) -> Iterator[PartLine]:
    inventory, key = context.inventory, (subject.namespace, subject.name)
    vm, vmi = inventory.vm(subject), inventory.vmi(subject)
    if vm is not None:
        state = vm.status or "no status yet"
        going = "is being deleted" if vm.deleting else ""
        yield PartLine(kind="VirtualMachine", name=vm.name, state=state, detail=going)
    if vmi is not None:
        yield PartLine(
            kind="VMI", name=vmi.name, state=vmi.phase or "no phase", detail=_vmi_words(vmi)
        )
    for pod in inventory.pods_of(subject):
        words = [f"on {pod.node}" if pod.node else "on no node"]
        words += ["target of a migration"] * pod.migration_target
        words += ["is being deleted"] * pod.deleting
        words += [f"waits: {pod.waiting}"] * bool(pod.waiting)
        words += [pod.unschedulable] * bool(pod.unschedulable)
        words += [f"{pod.restarts} restarts"] * bool(pod.restarts)
        state = pod.phase or "no phase"
        yield PartLine(kind="launcher pod", name=pod.name, state=state, detail=", ".join(words))
    for migration in inventory.migrations_of(key):
        state = migration.phase or "no phase"
        to = f"to {vmi.migrating_to}" if vmi is not None and vmi.migrating_to else ""
        yield PartLine(kind="migration", name=migration.name, state=state, detail=to)


def _vmi_words(vmi: VmiFacts) -> str:
    words = [f"on {vmi.node}" if vmi.node else "on no node"]
    why = f" ({vmi.not_ready_why})" if vmi.not_ready_why else ""
    words.append("ready" if vmi.ready else f"not ready{why}")
    if vmi.agent_known:
        words.append("agent connected" if vmi.agent_connected else "agent lost")
    else:
        words.append("no agent was ever seen")
    words += ["agent probes muted"] * vmi.probes_muted
    words += [f"paused: {vmi.paused}"] * bool(vmi.paused)
    words += [f"migrating to {vmi.migrating_to}"] * bool(vmi.migrating_to)
    words += ["is being deleted"] * vmi.deleting
    return ", ".join(words)


def _cannot_move(context: Context, subject: Subject, vmi: VmiFacts | None) -> Iterator[str]:
    """Yield what speaks against moving it alive to another host."""
    if vmi is None or vmi.phase != "Running":
        yield "it does not run"
        return
    if vmi.live_migratable is None:
        yield "KubeVirt has not said yet whether it is live migratable"
    elif not vmi.live_migratable:
        yield f"not live migratable: {vmi.not_migratable_why or 'KubeVirt gives no reason'}"
    for volume in context.inventory.volumes_of(subject.namespace, vmi.claims):
        if volume.pinned_to:
            yield f"its volume {volume.name} is only on {', '.join(volume.pinned_to)}"
    unknown = [
        claim for claim in vmi.claims if (vmi.namespace, claim) not in context.inventory.claims
    ]
    if unknown:
        yield f"nothing is known of its claims {', '.join(unknown)}"


def _if_host_dies(context: Context, subject: Subject, vmi: VmiFacts | None, now: float) -> str:
    """Say what would be done with it if its host were convicted and proven off."""
    if vmi is None or not vmi.node:
        return ""
    node = context.inventory.nodes.get(vmi.node)
    policy = None
    if node is not None:
        asked = about_node(context, node, Verdict.DEAD, float("-inf"))
        match = first_match(context.policies, asked, now)
        policy = match.policy
        if policy is None:
            return f"nothing: no policy answers a dead {vmi.node}"
        if "recover" not in policy.steps:
            return f"nothing: policy {policy.name} does not recover VMs"
    plan = plan_vm(context.inventory, policy, subject, vmi, vmi.node)
    return f"{plan.treatment}: {plan.why}"
