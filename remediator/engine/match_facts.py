"""What conditions of policies may read of a node or a VM: names, types, and where each comes from.

Each fact is computed when a condition reads it, and once for each question.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping

from remediator.engine.chain import VmPlan
from remediator.engine.context import Context
from remediator.engine.model import (
    IncidentState,
    NodeFacts,
    Record,
    Subject,
    Verdict,
    VmFacts,
    VmiFacts,
    node_subject,
)
from remediator.engine.rules import MatchInput, SubjectKind

# Plain JSON, as a record keeps it.
Value = bool | int | float | str | list[str] | dict[str, str]


class FactType(enum.StrEnum):
    """Type of a variable, as a condition sees it."""

    BOOL = "bool"
    INT = "int"
    DOUBLE = "double"
    STRING = "string"
    DURATION = "duration"  # seconds, here
    STRINGS = "list(string)"
    LABELS = "map(string, string)"


class Asked(Record, frozen=True, kw_only=True):
    """Whom the question is about: a node, or a VM and the host that it is on, if any."""

    context: Context
    verdict: Verdict
    since_at: float
    row: str  # of the verdict table
    node: NodeFacts | None
    vm: VmFacts | None = None
    vmi: VmiFacts | None = None
    subject: Subject | None = None  # of a VM


class Variable(Record, frozen=True, kw_only=True):
    """One name that a condition may use."""

    name: str
    type: FactType
    means: str
    read: Callable[[Asked], Value]


NONE: dict[FactType, Value] = {
    FactType.BOOL: False,
    FactType.INT: 0,
    FactType.DOUBLE: 0.0,
    FactType.STRING: "",
    FactType.DURATION: 0.0,
    FactType.STRINGS: [],
    FactType.LABELS: {},
}


# --- how each is read -----------------------------------------------------------------------------


def _of_node(read: Callable[[Context, NodeFacts], Value]) -> Callable[[Asked], Value | None]:
    return lambda asked: None if asked.node is None else read(asked.context, asked.node)


def _plane(name: str) -> Callable[[Asked], Value | None]:
    def read(context: Context, node: NodeFacts) -> Value:
        return str(getattr(context.evidence.values(node, context.now), name))

    return _of_node(read)


def _silent_for(context: Context, node: NodeFacts) -> float:
    if node.name not in context.evidence.leases.beats:
        return 0.0
    return round(context.evidence.silence_s(node.name), 3)


def _method(context: Context, node: NodeFacts) -> str:
    from remediator.engine.fencing import method_for  # noqa: PLC0415 - fencing imports rules

    method = method_for(context, node.name)
    return method.name if method is not None else ""


def _fenced_ago(context: Context, node: NodeFacts) -> float:
    at = context.state.fenced_at.get(node.name)
    return 1e9 if at is None else round(max(0.0, context.now - at), 3)


def _unhealthy(context: Context, among: frozenset[str] | None) -> int:
    from remediator.engine.safeguards.shares import unhealthy  # noqa: PLC0415 - imports rules

    down = unhealthy(context)
    return len(down if among is None else down & among)


def _zone(asked: Asked) -> frozenset[str]:
    if asked.node is None:
        return frozenset()
    return asked.context.inventory.zone_members(asked.node.zone)


def _ratio(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def _fencing(context: Context) -> int:
    states = (incident.state for incident in context.state.incidents.values())
    return sum(state is IncidentState.FENCING for state in states)


def _disk_kind(asked: Asked) -> str:
    from remediator.engine.fencing import disk_kind  # noqa: PLC0415 - fencing imports rules

    if asked.vmi is None or asked.subject is None:
        return ""
    plan = VmPlan(
        vm=asked.subject, vmi_uid="", run_strategy="", treatment="", why="", claims=asked.vmi.claims
    )
    return disk_kind(asked.context.inventory, plan).value


def _classes(asked: Asked) -> list[str]:
    if asked.vmi is None:
        return []
    claims = asked.context.inventory.claims
    found = (claims.get((asked.vmi.namespace, name)) for name in asked.vmi.claims)
    return sorted({claim.storage_class for claim in found if claim is not None} - {""})


def _pinned(asked: Asked) -> bool:
    if asked.vmi is None:
        return False
    volumes = asked.context.inventory.volumes_of(asked.vmi.namespace, asked.vmi.claims)
    return any(len(volume.pinned_to) == 1 for volume in volumes)


def _down_for(asked: Asked) -> float:
    """Return since when the VM's incident is open: its verdict may have changed meanwhile."""
    context = asked.context
    incident = context.state.vm_incident_on(asked.subject) if asked.subject is not None else None
    since_at = asked.since_at if incident is None else min(incident.opened_at, asked.since_at)
    return round(max(0.0, context.now - since_at), 3) if since_at > 0 else 0.0


def _restarts(asked: Asked) -> int:
    if asked.subject is None:
        return 0
    return max((pod.restarts for pod in asked.context.inventory.pods_of(asked.subject)), default=0)


def _of_vm(read: Callable[[VmFacts], Value]) -> Callable[[Asked], Value | None]:
    return lambda asked: None if asked.vm is None else read(asked.vm)


def _of_vmi(read: Callable[[VmiFacts], Value]) -> Callable[[Asked], Value | None]:
    return lambda asked: None if asked.vmi is None else read(asked.vmi)


def _stood(asked: Asked) -> float:
    return round(max(0.0, asked.context.now - asked.since_at), 3)


_B, _I, _D, _S = FactType.BOOL, FactType.INT, FactType.DOUBLE, FactType.STRING
_T, _L, _M = FactType.DURATION, FactType.STRINGS, FactType.LABELS


def _var(name: str, kind: FactType, means: str, read: Callable[[Asked], Value | None]) -> Variable:
    def always(asked: Asked) -> Value:
        found = read(asked)
        return NONE[kind] if found is None else found

    return Variable(name=name, type=kind, means=means, read=always)


# fmt: off
OF_BOTH: tuple[Variable, ...] = (
    _var("verdict.name", _S, "the verdict that is to be answered", lambda a: a.verdict.value),
    _var("verdict.row", _S, "the row of the verdict table that decided", lambda a: a.row),
    _var("verdict.stands_for", _T, "for how long the verdict has stood", _stood),
    _var("node.name", _S, "name of the node; of a VM: of its host, empty without one",
         _of_node(lambda _, n: n.name)),
    _var("node.zone", _S, "its zone label", _of_node(lambda _, n: n.zone)),
    _var("node.labels", _M, "its labels that some policy or fence configuration names",
         _of_node(lambda _, n: n.labels)),
    _var("node.ready", _B, "the kubelet says Ready; false also where that is Unknown",
         _of_node(lambda _, n: n.ready is True)),
    _var("node.schedulable", _B, "it is not cordoned", _of_node(lambda _, n: not n.unschedulable)),
    _var("node.takes_vms", _B, "virt-handler says that it takes new VMs",
         _of_node(lambda _, n: n.kubevirt and n.schedulable)),
    _var("node.control_plane", _B, "it is a control-plane node",
         _of_node(lambda _, n: n.control_plane)),
    _var("node.taints", _L, "its taints: key=value:Effect", _of_node(lambda _, n: list(n.taints))),
    _var("node.silent_for", _T, "for how long its lease was not renewed, in proven watching",
         _of_node(_silent_for)),
    _var("node.vms", _I, "how many VMs are on it",
         _of_node(lambda c, n: len(c.inventory.vmis_on(n.name)))),
    _var("node.lease", _S, "up, quiet, silent, lost or unknown", _plane("lease")),
    _var("node.network", _S, "up, down, refuted or unknown", _plane("network")),
    _var("node.handler", _S, "virt-handler: up, silent, down or unknown", _plane("handler")),
    _var("node.storage", _S, "up, down or unknown", _plane("storage")),
    _var("node.power", _S, "on, off or unknown", _plane("power")),
    _var("node.machine", _S, "up, down, gone or unknown", _plane("machine")),
    _var("node.bad_conditions", _L, "types of its conditions that are bad for long enough",
         _of_node(lambda c, n: [
             said.aspect for said in c.evidence.bad_conditions(n.name, c.now)])),
    _var("node.fence_method", _S, "its fence configuration, empty without one",
         _of_node(_method)),
    _var("node.fenced_ago", _T, "how long ago it was last fenced; over 30 years where never",
         _of_node(_fenced_ago)),
    _var("zone.nodes", _I, "nodes of its zone", lambda a: len(_zone(a))),
    _var("zone.unhealthy", _I, "of these, how many are or may be down",
         lambda a: _unhealthy(a.context, _zone(a))),
    _var("zone.unhealthy_ratio", _D, "the same as a share, 0.0 to 1.0",
         lambda a: _ratio(_unhealthy(a.context, _zone(a)), len(_zone(a)))),
    _var("cluster.nodes", _I, "nodes of the cluster", lambda a: len(a.context.inventory.nodes)),
    _var("cluster.unhealthy", _I, "of these, how many are or may be down",
         lambda a: _unhealthy(a.context, None)),
    _var("cluster.unhealthy_ratio", _D, "the same as a share, 0.0 to 1.0",
         lambda a: _ratio(_unhealthy(a.context, None), len(a.context.inventory.nodes))),
    _var("cluster.fencing", _I, "fences under way", lambda a: _fencing(a.context)),
)

OF_VMS: tuple[Variable, ...] = (
    _var("vm.name", _S, "its name", lambda a: a.subject.name if a.subject else ""),
    _var("vm.namespace", _S, "its namespace", lambda a: a.subject.namespace if a.subject else ""),
    _var("vm.labels", _M, "labels of the VirtualMachine that some policy names",
         _of_vm(lambda vm: vm.labels)),
    _var("vm.run_strategy", _S, "Always, RerunOnFailure, Manual, Once, Halted, or empty",
         _of_vm(lambda vm: vm.run_strategy.value)),
    _var("vm.status", _S, "printableStatus of the VirtualMachine", _of_vm(lambda vm: vm.status)),
    _var("vm.phase", _S, "phase of its VMI, empty without one", _of_vmi(lambda vmi: vmi.phase)),
    _var("vm.paused", _S, "why it is paused, as KubeVirt says; empty where it is not",
         _of_vmi(lambda vmi: vmi.paused)),
    _var("vm.agent", _B, "its guest agent is connected", _of_vmi(lambda vmi: vmi.agent_connected)),
    _var("vm.migratable", _B, "KubeVirt says that it can be live-migrated",
         _of_vmi(lambda vmi: vmi.live_migratable is True)),
    _var("vm.migrating", _B, "a migration of it is under way",
         _of_vmi(lambda vmi: bool(vmi.migrating_to))),
    _var("vm.disks", _I, "how many persistent disks it has",
         _of_vmi(lambda vmi: len(vmi.claims))),
    _var("vm.disk_kind", _S, "its most delicate disk: readWriteOnce, readWriteMany or none",
         _disk_kind),
    _var("vm.storage_classes", _L, "storage classes of its disks, as far as known", _classes),
    _var("vm.pinned", _B, "a disk of it exists on a single node", _pinned),
    _var("vm.down_for", _T, "for how long it has been ill, whatever the verdict", _down_for),
    _var("vm.restarts", _I, "restarts of its launcher's container", _restarts),
)
# fmt: on

VARIABLES: dict[SubjectKind, dict[str, Variable]] = {
    SubjectKind.NODE: {each.name: each for each in OF_BOTH},
    SubjectKind.VM: {each.name: each for each in (*OF_BOTH, *OF_VMS)},
}


# --- the questions --------------------------------------------------------------------------------


class MatchFacts(Mapping[str, Value]):
    """The facts of one question, each computed when it is first read."""

    def __init__(self, kind: SubjectKind, asked: Asked) -> None:
        self._variables = VARIABLES[kind]
        self._asked = asked
        self._read: dict[str, Value] = {}

    def __getitem__(self, name: str) -> Value:
        """Return one. Raises KeyError for a name that no variable has."""
        if name not in self._read:
            self._read[name] = self._variables[name].read(self._asked)
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self._variables)

    def __len__(self) -> int:
        """Return how many names there are."""
        return len(self._variables)


def about_node(
    context: Context, node: NodeFacts, verdict: Verdict, since_at: float, row: str = ""
) -> MatchInput:
    """Return what the policies are asked about a node."""
    if not row:
        incident = context.state.incident_on(node_subject(node.name))
        row = incident.row if incident is not None else ""
    asked = Asked(context=context, verdict=verdict, since_at=since_at, row=row, node=node)
    return MatchInput(
        kind=SubjectKind.NODE,
        name=node.name,
        labels=node.labels,
        verdict=verdict,
        since_at=since_at,
        facts=MatchFacts(SubjectKind.NODE, asked),
    )


def about_vm(
    context: Context, subject: Subject, verdict: Verdict, since_at: float, row: str = ""
) -> MatchInput:
    """Return what the policies are asked about a VM."""
    inventory = context.inventory
    vm, vmi = inventory.vm(subject), inventory.vmi(subject)
    if not row:
        incident = context.state.vm_incident_on(subject)
        row = incident.row if incident is not None else ""
    asked = Asked(
        context=context,
        verdict=verdict,
        since_at=since_at,
        row=row,
        node=inventory.nodes.get(vmi.node) if vmi is not None else None,
        vm=vm,
        vmi=vmi,
        subject=subject,
    )
    return MatchInput(
        kind=SubjectKind.VM,
        name=subject.name,
        namespace=subject.namespace,
        labels=vm.labels if vm is not None else {},
        verdict=verdict,
        since_at=since_at,
        facts=MatchFacts(SubjectKind.VM, asked),
    )
