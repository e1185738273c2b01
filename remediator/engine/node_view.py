"""Everything about one node: what every source says, which row decides, what would change it."""

from __future__ import annotations

from collections.abc import Iterator

from remediator.engine import fencing, maintenance, safeguards
from remediator.engine.context import Context
from remediator.engine.due import guards_against, node_due, proven_off
from remediator.engine.incidents import Incident, Stage, VmProgress
from remediator.engine.model import (
    IncidentState,
    NodeFacts,
    Plane,
    Verdict,
    node_subject,
    vm_subject,
)
from remediator.engine.near_names import near, suggestion
from remediator.engine.node_sources import sources
from remediator.engine.plane_values import PlaneValues
from remediator.engine.verdicts import PLANES, Row, decide
from remediator.engine.view_lines import incident_line, leader_line, own_line, standing_verdict
from remediator.engine.views import (
    NodeView,
    NoSuch,
    PlacedVm,
    PlaneLine,
    RowLine,
    Surroundings,
)
from remediator.engine.vm_health import vm_health
from remediator.engine.vm_view import vm_standing
from remediator.engine.vm_watch import VmWatch
from remediator.engine.what_if import what_if

VMS_MAX = 200  # listed of one node

_SETTLED = (
    "nothing, until it runs another boot: it is proven off. A lease renewed in the boot that is "
    "proven over would void the proof, and a human would be told"
)


def view(context: Context, watch: VmWatch, around: Surroundings, name: str) -> NodeView | NoSuch:
    """Return the view of one node, or that there is none of that name."""
    node = context.inventory.nodes.get(name)
    if node is None:
        found = near(name, context.inventory.nodes)
        detail = f"there is no node {name}{suggestion(found)}"
        return NoSuch(subject=node_subject(name), detail=detail)
    now = around.at
    values = context.evidence.values(node, now)
    row = maintenance.over(context, node, decide(values))
    verdict, since_s = standing_verdict(context, node, row, now)
    incident = context.state.incident_on(node_subject(name))
    speaking = _speaking(context, node, now)
    settled = proven_off(context, node, incident)
    vms = list(_placed(context, watch, node, incident))
    return NodeView(
        at=now,
        leader=leader_line(context, now),
        own=own_line(context),
        name=name,
        zone=node.zone,
        boot_id=node.boot_id,
        verdict=verdict,
        row=RowLine(name=row.name, verdict=row.verdict, means=row.means),
        since_s=since_s,
        incident=incident_line(incident, now),
        hands_off=safeguards.hands_off(context, node),
        marks=tuple(_marks(context, node)),
        suspicion=_suspicion(context, name),
        planes=tuple(_plane(context, node, values, row, plane, now) for plane in _shown()),
        settled=_SETTLED if settled else "",
        what_if=() if settled else what_if(values, speaking),
        unasked=tuple(plane for plane in _shown() if plane not in speaking),
        due=node_due(context, node, row, now),
        guards=guards_against(context, node, now),
        vms=tuple(vms[:VMS_MAX]),
        vms_more=max(0, len(vms) - VMS_MAX),
    )


# --- evidence -------------------------------------------------------------------------------------


def _shown() -> tuple[str, ...]:
    """Return the planes that something outside of us speaks on."""
    return tuple(plane for plane in PLANES if plane != "own")


def _plane(
    context: Context, node: NodeFacts, values: PlaneValues, row: Row, plane: str, now: float
) -> PlaneLine:
    return PlaneLine(
        plane=plane,
        value=getattr(values, plane),
        weighed=bool(getattr(row, plane)),
        detail=_plane_detail(context, node, plane),
        sources=tuple(sources(context, node.name, plane, now)),
    )


def _plane_detail(context: Context, node: NodeFacts, plane: str) -> str:
    evidence, name = context.evidence, node.name
    if plane == Plane.LEASE and name in evidence.leases.beats:
        rhythm_s = evidence.rhythm_s(name)
        every = f", renewed every {rhythm_s:.1f} s" if rhythm_s is not None else ""
        silent_s = evidence.limits_s(name)[1]
        return f"not renewed for {evidence.silence_s(name):.1f} of {silent_s:.1f} s{every}"
    if plane == Plane.HANDLER and not node.kubevirt:
        return "virt-handler does not run here"
    if plane == Plane.HANDLER and name in evidence.handlers.beats:
        silent_s = evidence.handlers.limits_s(name)[1]
        return f"no beat for {evidence.handlers.silence_s(name):.1f} of {silent_s:.1f} s"
    if plane == Plane.POWER and not fencing.method_for(context, name):
        return "no fence method is configured for it"
    return ""


def _suspicion(context: Context, node: str) -> float | None:
    if node not in context.evidence.leases.beats:
        return None
    return round(context.evidence.suspicion(node), 2)


def _speaking(context: Context, node: NodeFacts, now: float) -> frozenset[str]:
    """Return the planes that something here can speak on, of this node."""
    evidence, said, name = context.evidence, context.evidence.said, node.name
    rules = {rule.type for rule in context.settings.detection.conditions}
    can = {
        "lease": True,
        "kubelet": True,
        "network": any(each.fresh for each in evidence.network.vantages(now)),
        "handler": node.kubevirt,
        "storage": any(True for _ in said.storage.of(name)),
        "power": bool(fencing.method_for(context, name)) or any(True for _ in said.power.of(name)),
        "machine": bool(node.machine) or any(True for _ in said.machine.of(name)),
        "conditions": any(each.aspect in rules for each in said.kubelet.of(name)),
        "own": evidence.own_health.suspended,
    }
    return frozenset(plane for plane, speaks in can.items() if speaks)


# --- the node itself ------------------------------------------------------------------------------


def _marks(context: Context, node: NodeFacts) -> Iterator[str]:
    wish = maintenance.wanted(context, node)
    if wish:
        yield f"wanted empty: {wish}"
    if node.control_plane:
        yield "control plane: never fenced by itself"
    if node.unschedulable:
        yield "cordoned"
    if not node.kubevirt:
        yield "no KubeVirt node: virt-handler does not run here"
    elif not node.schedulable:
        yield "virt-handler takes no new VMs here (kubevirt.io/schedulable=false)"
    if node.taints:
        yield f"taints: {', '.join(node.taints)}"
    residue = context.state.residues.get(node.name)
    if residue is not None and residue.fenced_boot_id:
        yield f"fenced by {residue.incident}: boot {residue.fenced_boot_id} is proven over"
    elif residue is not None and residue.evacuated:
        yield f"cordoned by {residue.incident} to be emptied: it stays so until it is well"
    elif residue is not None:
        yield f"tainted by {residue.incident}, which is not taken back yet"


def _placed(
    context: Context, watch: VmWatch, node: NodeFacts, incident: Incident | None
) -> Iterator[PlacedVm]:
    """Yield the VMs on the node, and those that its incident brings back elsewhere."""
    progress = incident.vms if incident is not None else {}
    seen = set()
    for vmi in context.inventory.vmis_on(node.name):
        subject = vm_subject(vmi.namespace, vmi.name)
        seen.add(str(subject))
        ready = (
            "ready"
            if vmi.ready
            else f"not ready{f' ({vmi.not_ready_why})' * bool(vmi.not_ready_why)}"
        )
        state = f"{vmi.phase or 'no phase'}, {ready}"
        if str(subject) in progress:
            state += f"; {_course(context, incident, progress[str(subject)])}"
        found = vm_health(context, watch, subject)
        verdict = Verdict.UNKNOWN if found is None else vm_standing(context, found)[0]
        yield PlacedVm(namespace=vmi.namespace, name=vmi.name, state=state, verdict=verdict.value)
    for key, each in sorted(progress.items()):
        if key not in seen:
            vm = each.plan.vm
            state = _course(context, incident, each)
            yield PlacedVm(namespace=vm.namespace, name=vm.name, state=state)


def _course(context: Context, incident: Incident | None, progress: VmProgress) -> str:
    """Say how far a VM's recovery, or its move off a node that lives, has come."""
    if incident is None or incident.state is not IncidentState.EVACUATING:
        return f"recovery: {progress.stage}"
    said = f"move: {progress.stage}"
    flight = context.flights.of(progress.plan.vm)
    if progress.stage is Stage.MIGRATING and flight is not None and not flight.ended:
        said += f" ({flight.stretch}, {flight.phase or 'new'})"
    return said
