"""Gates: launcher pods that our webhook holds back from the scheduler, until there is a place.

A gate never outlives our attention. What the leader finds it adopts: the pods' own facts are the
list, so a new leader has it as soon as it has its picture. A gate is opened in its turn (pacing),
or at once where holding it serves nobody: see ``reason_to_let_go``. Where no leader attends at all,
every replica opens what it finds (``admission.sweeper``).
"""

from __future__ import annotations

from typing import Protocol

from remediator.engine import boots, placement, safeguards
from remediator.engine.chain import DecisionKind
from remediator.engine.context import Context
from remediator.engine.incidents import Incident, holds_place
from remediator.engine.inventory import vm_of
from remediator.engine.model import (
    Action,
    Outcome,
    OutcomeStatus,
    PodFacts,
    Record,
    Subject,
    Ungate,
    VmiFacts,
)

# A watch shows a change within a second. One that has not by then is looked at again: opening a
# gate twice changes nothing.
_SEEN_WITHIN_S = 10.0


class Gated(Record, frozen=True, kw_only=True):
    """A VM whose launcher pod waits behind our gate."""

    vm: Subject
    pod: PodFacts
    since_at: float  # when this process saw the gate first


class GateHolder(Protocol):
    """What ``open_gate`` must know of a candidate for a start."""

    @property
    def vm(self) -> Subject:
        """The VM."""
        ...

    @property
    def pod_uid(self) -> str:
        """UID of its gated launcher pod."""
        ...


def waiting(context: Context) -> tuple[Gated, ...]:
    """Return the VMs that may be started by opening their gate now, longest seen first.

    Left out are those whose gate is being opened, or could not be opened a moment ago.
    """
    found: list[Gated] = []
    for pod in context.inventory.gated_pods():
        gated = Gated(vm=vm_of(pod), pod=pod, since_at=_seen_at(context, pod))
        if _may_open(context, gated):
            found.append(gated)
    return tuple(found)


def vm_free(context: Context, vm: Subject) -> None:
    """Look at a VM whose action has ended: a gate of it may have had to wait for that."""
    for pod in context.inventory.pods_of(vm):
        if pod.gated:
            _look_at(context, pod)
    context.pace.due = True


def held(context: Context) -> int:
    """Return how many pods wait behind our gate, those aside that are let go already."""
    busy, opened = context.state.busy, context.gates_opened
    return sum(
        not pod.deleting and pod.uid not in opened and str(vm_of(pod)) not in busy
        for pod in context.inventory.gated_pods()
    )


def hints(context: Context) -> dict[Subject, tuple[str, ...]]:
    """Return the nodes that VMs should go to, where some are better than others."""
    return placement.hints(context)


def vmi_seen(context: Context, vmi: VmiFacts) -> None:
    """Give a place that has just become free to whoever waits for one."""
    if boots.look(context, (vmi.namespace, vmi.name)):
        context.pace.due = True


def pod_seen(context: Context, pod: PodFacts) -> None:
    """Look at one pod whose gate may have to be opened at once, or whose VM boots now."""
    boots.look(context, (pod.namespace, pod.vmi))
    if pod.gated:
        _look_at(context, pod)


def _look_at(context: Context, pod: PodFacts) -> None:
    """Open one gate if it must not wait."""
    gated = Gated(vm=vm_of(pod), pod=pod, since_at=_seen_at(context, pod))
    if not context.inventory.synced or not _may_open(context, gated):
        return
    why = reason_to_let_go(context, gated)
    if why:
        _start(context, gated, why)


def tick(context: Context) -> None:
    """Look at everything; called every second."""
    boots.follow(context)
    attend(context)
    context.pace.due = True


def attend(context: Context) -> None:
    """Open the gates that need no place, or must not wait for one."""
    if not context.inventory.synced:
        return
    _forget_gone(context)
    for gated in waiting(context):
        why = reason_to_let_go(context, gated)
        if why:
            _start(context, gated, why)


def reason_to_let_go(context: Context, gated: Gated) -> str:
    """Say why this gate must not wait for a place; empty where it must."""
    if not context.enforce:
        return "the daemon only observes, and holds nothing back"
    paused = safeguards.paused(context, gated.vm)
    if paused:
        return f"nothing is held back while paused: {paused}"
    if gated.pod.migration_target:
        return "it is the target of a live migration, which is never held back"
    incident = recovery_of(context, gated.vm)
    if incident is not None and holds_place(incident.vms[str(gated.vm)]):
        return f"its start was granted in {incident.id}"
    held_s, max_age_s = context.now - gated.since_at, context.settings.gates.max_age_s
    if held_s >= max_age_s:
        return f"held for {held_s:.0f} s: no gate stays shut for longer than {max_age_s:g} s"
    return ""


def open_gate(context: Context, candidate: GateHolder, *, why: str = "", prefer: str = "") -> bool:
    """Open the gate of a candidate whose turn has come; False where it is gone, or busy.

    ``prefer``: the node that the scheduler is asked to choose.
    """
    for gated in waiting(context):
        if gated.vm == candidate.vm and gated.pod.uid == candidate.pod_uid:
            _start(context, gated, why or "its turn has come: there is a place", prefer=prefer)
            return True
    return False


def recovery_of(context: Context, vm: Subject) -> Incident | None:
    """Return the incident of a dead node that brings this VM back, None where none does."""
    key = str(vm)
    for incident in context.state.incidents.values():
        if key in incident.vms:
            return incident
    return None


def _may_open(context: Context, gated: Gated) -> bool:
    """Whether nothing is under way about this gate: no action, no wait after a failure."""
    pod, tried = gated.pod, context.state.gates.get(gated.pod.uid)
    if pod.deleting or str(gated.vm) in context.state.busy:
        return False
    if context.now < context.gates_opened.get(pod.uid, -_SEEN_WITHIN_S) + _SEEN_WITHIN_S:
        return False
    if tried is not None and context.now < tried.retry_at:
        context.wake_at(tried.retry_at)
        return False
    return True


def _start(context: Context, gated: Gated, why: str, *, prefer: str = "") -> None:
    pod, tried = gated.pod, context.state.gates.get(gated.pod.uid)
    attempt = (tried.attempts if tried is not None else 0) + 1
    incident = recovery_of(context, gated.vm)
    action = Action(
        id=f"gate-{pod.uid}/ungate/{attempt}",
        incident=incident.id if incident is not None else "",
        subject=gated.vm,
        attempt=attempt,
        deadline_s=context.settings.gates.open_deadline_s,
        work=Ungate(
            namespace=pod.namespace,
            vmi=pod.vmi,
            pod=pod.name,
            pod_uid=pod.uid,
            prefer=prefer,
            node=incident.subject.name if incident is not None else "",
        ),
    )
    context.start(action, why)
    boots.look(context, (pod.namespace, pod.vmi))  # from now on it holds a place


def finished(context: Context, action: Action, outcome: Outcome) -> None:
    """Note that a gate is open, though the watch may not have shown it yet."""
    work = action.work
    if isinstance(work, Ungate):
        if outcome.status is OutcomeStatus.SUCCEEDED:
            context.gates_opened[work.pod_uid] = context.now
        boots.look(context, (work.namespace, work.vmi))


def adopt(context: Context) -> None:
    """Say once in a term which gates an earlier leader, or nobody, has left to us."""
    found = [gated for gated in waiting(context) if not gated.pod.migration_target]
    if not found:
        return
    names = ", ".join(str(gated.vm) for gated in found[:5])
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    context.record(
        DecisionKind.PACED,
        Subject("daemon", context.identity),
        f"adopts {len(found)} launcher pods that wait behind our gate: {names}{more}",
        stage="gates-adopted",
    )


def _seen_at(context: Context, pod: PodFacts) -> float:
    return context.gates_seen.setdefault(pod.uid, context.now)


def _forget_gone(context: Context) -> None:
    """Drop what is remembered of pods that wait no more."""
    if not context.gates_seen and not context.gates_opened:
        return
    uids = {pod.uid for pod in context.inventory.gated_pods()}
    for remembered in (context.gates_seen, context.gates_opened):
        for uid in remembered.keys() - uids:
            del remembered[uid]
