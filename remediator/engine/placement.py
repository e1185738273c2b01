"""Which node a VM is to start on: a proposal that the scheduler follows where it can.

A plan begins with what is on its way already (pods that wait for a node, restarts whose new pod is
not there yet), and then promises each VM its place, in the order asked. Nothing is remembered of
it: the same picture gives the same plan.

It is carried out as a preferred node affinity (the webhook) or as the target of a migration. What
is not known (the size of a node that has not told it, the needs of a VM whose pod was never seen)
forbids nothing: the scheduler has the last word.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from remediator.engine import locality
from remediator.engine.context import Context
from remediator.engine.incidents import Stage
from remediator.engine.model import IncidentState, PodFacts, Record, Subject, vm_subject
from remediator.engine.placement_board import Board, Choice, Want
from remediator.engine.placement_scores import FAR, STEP_WORDS
from remediator.engine.placement_table import table_of
from remediator.engine.pod_rules import NO_NEEDS

HINTS_MAX = 200  # VMs that wait and get a hint: told once a second, while thousands may wait

_ON_ITS_WAY = frozenset({Stage.STOPPING, Stage.STOPPED, Stage.STARTING, Stage.REQUESTED})
_AHEAD = frozenset({IncidentState.CONFIRMED, IncidentState.FENCING, IncidentState.FENCED})
_OVER = frozenset({IncidentState.FENCED, IncidentState.RECOVERING})
_BOUND = frozenset({locality.Kind.PINNED, locality.Kind.REPLICATED})
_QUIET = frozenset({IncidentState.WATCHING, IncidentState.RESOLVED})


class Asking(Protocol):
    """Whoever waits for a place: all that is read of it is its VM."""

    @property
    def vm(self) -> Subject:
        """The VM."""
        ...


class Refusal(Record, frozen=True, kw_only=True):
    """How many nodes one filter refused."""

    filter: str
    nodes: int


class Placement(Record, frozen=True, kw_only=True):
    """The node that is best for a VM, and why. ``others`` have a replica of all its disks, too."""

    vm: Subject
    node: str
    why: str
    beside_data: bool = False  # a replica of every disk is on the node, or in its zone
    others: tuple[str, ...] = ()
    refused: tuple[Refusal, ...] = ()


class Unplaced(Record, frozen=True, kw_only=True):
    """No node will do now. ``stays``: its only copy is on a lost node, so that none ever will."""

    vm: Subject
    why: str
    refused: tuple[Refusal, ...] = ()
    stays: bool = False


def fits(context: Context, candidates: Iterable[Asking]) -> dict[Subject, Placement | Unplaced]:
    """Return the place of each candidate, promised in their order; whoever has none is unplaced."""
    wanted = list(dict.fromkeys(each.vm for each in candidates))
    board = _board(context, besides=frozenset(wanted))
    return {vm: _ask(context, board, vm) for vm in wanted}


def target(context: Context, vm: Subject, *, exclude: Iterable[str] = ()) -> Placement | Unplaced:
    """Return the best node for one VM other than ``exclude``, as for a migration."""
    board = _board(context, besides=frozenset({vm}))
    return _ask(context, board, vm, away=frozenset(exclude))


def hints(context: Context) -> dict[Subject, tuple[str, ...]]:
    """Return the nodes that VMs about to get a new pod should go to, best first.

    Only where their disks make some nodes better than others; among equals the scheduler chooses.
    Those whose restart has begun come first, then HINTS_MAX of those that wait for it: whoever is
    asked later gets its hint as its gate is opened.
    """
    on_way: list[Subject] = []
    waiting: list[Subject] = []
    gone = lost(context)
    for incident in context.state.incidents.values():
        if incident.state is IncidentState.RECOVERING:
            for progress in incident.vms.values():
                vm = progress.plan.vm
                if progress.stage is Stage.WAITING:
                    waiting.append(vm)
                elif progress.stage in _ON_ITS_WAY and not _is_bound(context, vm, gone):
                    on_way.append(vm)
        elif incident.state in _AHEAD and incident.plan is not None:
            # Told before the first pod is deleted: its successor is there within a second.
            waiting += [each.vm for each in incident.plan.vms]
    wanted = list(dict.fromkeys([*sorted(on_way), *sorted(waiting)[:HINTS_MAX]]))
    wanted = [vm for vm in wanted if _has_replicas(context, vm)]
    if not wanted:
        return {}
    board = _board(context, besides=frozenset(wanted))
    found: dict[Subject, tuple[str, ...]] = {}
    for vm in wanted:
        choice = board.place(want_of(context, vm))
        if choice.node and choice.step != FAR:
            found[vm] = (choice.node, *choice.local)
    return found


def _has_replicas(context: Context, vm: Subject) -> bool:
    return any(disk.kind is locality.Kind.REPLICATED for disk in want_of(context, vm).disks)


def unable(context: Context) -> dict[str, str]:
    """Return the nodes that take no VM now, and why: by our own evidence and by KubeVirt's word."""
    found: dict[str, str] = {}
    residues = context.state.residues
    for name, node in context.inventory.nodes.items():
        if not node.kubevirt:
            found[name] = "no KubeVirt"
        elif not node.schedulable:
            found[name] = "virt-handler takes no VMs"
        elif name in residues:
            found[name] = "taken out by us"
        elif context.evidence.overdue(name):
            found[name] = "silent"
        elif node.unschedulable:
            found[name] = "cordoned"
    for incident in context.state.incidents.values():
        name = incident.subject.name
        if incident.state not in _QUIET:
            found.setdefault(name, f"in an incident: {incident.verdict.value}")
    return found


def lost(context: Context) -> frozenset[str]:
    """Return the nodes whose pods are over: proven dead, or gone from the cluster's hands."""
    fenced = {name for name, residue in context.state.residues.items() if residue.fenced_boot_id}
    dead = {
        incident.subject.name
        for incident in context.state.incidents.values()
        if incident.state in _OVER
    }
    return frozenset(fenced | dead)


def want_of(context: Context, vm: Subject, *, away: frozenset[str] = frozenset()) -> Want:
    """Return what is known of a VM's needs: by its newest launcher, also one that is gone."""
    inventory = context.inventory
    pod = inventory.rooms.last.get((vm.namespace, vm.name))
    vmi = inventory.vmi(vm)
    claims = vmi.claims if vmi is not None else ()
    node = inventory.nodes.get(vmi.node if vmi is not None else "") or inventory.nodes.get(
        pod.node if pod is not None else ""
    )
    return Want(
        vm=vm,
        needs=inventory.rooms.needs_of(pod) if pod is not None else NO_NEEDS,
        labels=pod.labels if pod is not None else {},
        group=pod.group if pod is not None else "",
        zone=node.zone if node is not None else "",
        disks=locality.of_vm(inventory, vm.namespace, claims),
        away=away,
    )


def _board(context: Context, *, besides: frozenset[Subject]) -> Board:
    table = table_of(context.inventory)
    board = Board(context.inventory, table, unable=unable(context), lost=lost(context))
    for vm in _on_their_way(context):
        if vm not in besides:
            board.place(want_of(context, vm))
    return board


def _on_their_way(context: Context) -> list[Subject]:
    """Return the VMs that will be bound to some node soon without being asked again, by name."""
    found = {
        vm_subject(pod.namespace, pod.vmi)
        for pod in context.inventory.rooms.unbound.values()
        if not pod.gated
    }
    gone = lost(context)
    for incident in context.state.incidents.values():
        if incident.state is not IncidentState.RECOVERING:
            continue
        for progress in incident.vms.values():
            vm = progress.plan.vm
            if progress.stage in _ON_ITS_WAY and not _is_bound(context, vm, gone):
                found.add(vm)
    return sorted(found)


def _is_bound(context: Context, vm: Subject, gone: frozenset[str]) -> bool:
    """Whether it has a launcher on a node that counts already; ``gone`` are the lost ones."""
    return any(_counts(pod) and pod.node not in gone for pod in context.inventory.pods_of(vm))


def _counts(pod: PodFacts) -> bool:
    return bool(pod.node) and pod.phase not in ("Succeeded", "Failed")


def _ask(
    context: Context, board: Board, vm: Subject, *, away: frozenset[str] = frozenset()
) -> Placement | Unplaced:
    want = want_of(context, vm, away=away)
    choice = board.place(want)
    refused = tuple(
        Refusal(filter=word, nodes=number)
        for word, number in sorted(choice.refused.items(), key=lambda each: (-each[1], each[0]))
    )
    if choice.node:
        return Placement(
            vm=vm,
            node=choice.node,
            why=_why(context, want, choice),
            beside_data=choice.step != FAR,
            others=choice.local,
            refused=refused,
        )
    stays = _only_on_lost(context, want)
    if stays:
        return Unplaced(vm=vm, why=stays, refused=refused, stays=True)
    listed = ", ".join(f"{each.nodes} {each.filter}" for each in refused) or "there is no node"
    return Unplaced(vm=vm, why=f"fits on no node: {listed}", refused=refused)


def _only_on_lost(context: Context, want: Want) -> str:
    """Say which volume keeps a VM where it was, or ""."""
    gone = lost(context)
    for disk in want.disks:
        if disk.nodes and all(node in gone for node in disk.nodes) and disk.kind in _BOUND:
            nodes = " and ".join(disk.nodes)
            return (
                f"cannot move: the only copy of {disk.volume} is on {nodes}"
                f" ({_said(context, disk)})"
            )
    return ""


def _said(context: Context, disk: locality.Locality) -> str:
    """Say who told where a disk is, and when that was last sure."""
    if not disk.as_of:
        return disk.source
    word = "asked {} ago" if disk.source in locality.ASKED else "unchanged for {}"
    return f"{disk.source}, {word.format(_spoken(context.now - disk.as_of))}"


def _spoken(seconds: float) -> str:
    """Return a time past as a person would say it."""
    for unit, size in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _why(context: Context, want: Want, choice: Choice) -> str:
    """Say what spoke for the node, the weightiest first."""
    parts: list[str] = []
    disks = [disk for disk in want.disks if disk.kind is locality.Kind.REPLICATED]
    if disks:
        many = "of its disk" if len(disks) == 1 else f"of all {len(disks)} disks"
        word = STEP_WORDS[choice.step]
        parts.append(f"{word} {many} ({_said(context, disks[0])})" if choice.step else word)
    node = context.inventory.nodes.get(choice.node)
    if want.zone and node is not None and node.zone == want.zone:
        parts.append(f"same zone {want.zone}")
    parts.append(f"{choice.room_left:.0%} of its room left")
    if choice.copies:
        parts.append(f"{choice.copies} more of {want.group} there")
    if choice.boots:
        parts.append(f"{choice.boots} other boots there")
    if want.needs.rules.unjudged:
        parts.append(f"not judged: {', '.join(want.needs.rules.unjudged)}")
    return ", ".join(parts)
