"""Who holds a place now, whoever began it, and what the adaptive limit is told of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from remediator.engine import boots, restart_marks
from remediator.engine.context import Context
from remediator.engine.incidents import Stage, VmProgress, holds_place
from remediator.engine.inventory import Inventory
from remediator.engine.model import IncidentState, Subject
from remediator.engine.pace import Launch
from remediator.engine.start_rate import StartRate
from remediator.engine.start_scopes import MINUTE_S
from remediator.engine.start_words import Started

_FAILED = frozenset({Stage.STUCK, Stage.FAILED})
_ENDED = frozenset({"Failed", "Succeeded"})


Recoveries = Mapping[Subject, VmProgress]


def booting_now(context: Context, recoveries: Recoveries) -> list[Started]:
    """Return all that holds a place, is not ready yet, or was started within the last minute."""
    found: dict[Subject, Started] = {}
    for vm, progress in recoveries.items():
        if holds_place(progress):
            launch = _launch(context, vm, progress.started_at)
            found[vm] = _row(context, vm, launch, progress, booting=True)
    for vm in boots.booting(context):
        progress_of = recoveries.get(vm)
        if vm not in found and (progress_of is None or progress_of.stage is not Stage.STUCK):
            began_at = context.boots[vm.namespace, vm.name].since_at
            found[vm] = _row(context, vm, _launch(context, vm, began_at), booting=True)
    for vm, launch in context.pace.launches.items():
        if vm not in found:
            ready = restart_marks.is_ready(context, vm, launch.running_at)
            found[vm] = _row(context, vm, launch, recoveries.get(vm), booting=False, ready=ready)
    return list(found.values())


def recovering(context: Context) -> dict[Subject, VmProgress]:
    """Return the VMs of recoveries under way; one that was lost twice, by its last incident."""
    return {
        progress.plan.vm: progress
        for incident in context.state.incidents.values()
        if incident.state is IncidentState.RECOVERING
        for progress in incident.vms.values()
    }


def teach(
    context: Context, rate: StartRate, booting: list[Started], recoveries: Recoveries
) -> None:
    """Tell the limit of boots that began, or began to read from their disks."""
    now, launches = context.now, context.pace.launches
    for row in booting:
        launch = launches[row.vm]
        if row.booting and not launch.told:
            launch.told = True
            launch.inherited = launch.began_at <= context.leading_since
            rate.started(str(row.vm), now)
        if launch.running_at:
            continue
        vmi = context.inventory.vmi(row.vm)
        if vmi is not None and vmi.phase == "Running" and _is_new(recoveries.get(row.vm)):
            launch.running_at = now
            rate.reads(str(row.vm), now)


def close_ended(context: Context, rate: StartRate, recoveries: Recoveries) -> None:
    """Forget the starts that nobody waits for any more, and tell the limit what became of them."""
    launches, now = context.pace.launches, context.now
    if not launches:
        return
    by_themselves = boots.booting(context)
    timeout_s = context.settings.pacing.start_timeout_s
    for vm, launch in list(launches.items()):
        progress = recoveries.get(vm)
        stage = progress.stage if progress is not None else None
        granted = progress is not None and holds_place(progress)
        if granted or (stage is not Stage.STUCK and vm in by_themselves):
            continue
        if launch.told and not launch.ended:
            _tell_end(context, rate, vm, launch, stage)
        launch.ended = True
        ready = restart_marks.is_ready(context, vm, launch.running_at)
        over = stage in (Stage.LEFT, Stage.GONE, Stage.WAITING) or _is_gone(context, vm)
        waited = now >= launch.began_at + timeout_s
        if over or ((ready or waited) and now >= launch.began_at + MINUTE_S):
            del launches[vm]


def _tell_end(
    context: Context, rate: StartRate, vm: Subject, launch: Launch, stage: Stage | None
) -> None:
    vmi, now = context.inventory.vmi(vm), context.now
    failed = stage in _FAILED or (vmi is not None and vmi.phase in _ENDED)
    if launch.inherited:
        rate.left(str(vm), now)
    elif failed:
        rate.failed(str(vm), now)
    elif vmi is not None and vmi.agent_connected:
        rate.up(str(vm), now)
    else:
        rate.left(str(vm), now)  # nobody has seen when it was up


def _launch(context: Context, vm: Subject, began_at: float) -> Launch:
    launch = context.pace.launches.get(vm)
    if launch is None or launch.ended:
        launch = context.pace.launches[vm] = Launch(began_at=began_at)
    return launch


def _is_new(progress: VmProgress | None) -> bool:
    """Whether the VMI that is seen is not the one of the dead node any more."""
    return progress is None or progress.stage in (Stage.RUNNING, Stage.UP)


def _is_gone(context: Context, vm: Subject) -> bool:
    return context.inventory.vmi(vm) is None and context.inventory.vm(vm) is None


def storage_of(inventory: Inventory, namespace: str, claims: Iterable[str]) -> tuple[str, ...]:
    """Return the storage classes of these claims, as far as they are known."""
    known = (inventory.claims.get((namespace, claim)) for claim in claims)
    return tuple(dict.fromkeys(each.storage_class for each in known if each and each.storage_class))


def _row(
    context: Context,
    vm: Subject,
    launch: Launch,
    progress: VmProgress | None = None,
    *,
    booting: bool,
    ready: bool = False,
) -> Started:
    inventory = context.inventory
    vmi = inventory.vmi(vm)
    name = vmi.node if vmi is not None and _is_new(progress) else ""
    node = inventory.nodes.get(name)
    claims = vmi.claims if vmi is not None else ()
    return Started(
        vm=vm,
        started_at=launch.began_at,
        tier=restart_marks.tier_of(inventory, vm, context.settings.pacing.namespace_tiers),
        booting=booting,
        ready=ready,
        storage=storage_of(inventory, vm.namespace, claims),
        zone=node.zone if node is not None else "",
        node=name,
    )
