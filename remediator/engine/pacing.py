"""The one place where starts are granted: of VMs under recovery, and of pods behind our gate.

A start is the deletion of a dead launcher pod, or the opening of a gate. All boots in the cluster
count against the limits, whoever began them: those of recoveries, those whose gate was opened, and
those of which only a new VMI is seen. How many may boot at once is found by ``start_rate``; who is
next, by ``start_queue``.
"""

from __future__ import annotations

from collections.abc import Iterable

from remediator.engine import (
    boots,
    execution,
    gates,
    placement,
    recovery,
    restart_marks,
    spare_capacity,
)
from remediator.engine.chain import DecisionKind
from remediator.engine.context import Context
from remediator.engine.incidents import DONE_STAGES, Incident, Stage, holds_place
from remediator.engine.model import IncidentState, Subject, VmFacts, vm_subject
from remediator.engine.pace import CALM, CAPACITY, GATE_PASSED, LOOP, RATE, Launch
from remediator.engine.places import booting_now, close_ended, recovering, storage_of, teach
from remediator.engine.planner import Treatment
from remediator.engine.start_order import shut_gates
from remediator.engine.start_queue import choose
from remediator.engine.start_rate import StartRate
from remediator.engine.start_scopes import Scopes
from remediator.engine.start_words import (
    Bound,
    Candidate,
    Fit,
    Gate,
    Limits,
    Origin,
    Rules,
    Started,
)
from remediator.engine.tiers import parse_tier, tier_name

# For so long a VM that fits nowhere is not asked about again: a plan takes a while to make.
_UNPLACED_S = 5.0
# A plan for thousands takes a quarter of a second: while more and more come, not for each.
_SURVEY_S = 10.0
_ASKED_AT_ONCE = 8  # how often places are asked for the next in the queue within one call


def go_on(context: Context) -> None:
    """Start whoever may start now."""
    pace = context.pace
    pace.due = False
    if not context.inventory.synced or not context.enforce:
        return
    rate = rate_of(context)
    recoveries = recovering(context)
    close_ended(context, rate, recoveries)
    booting = booting_now(context, recoveries)
    teach(context, rate, booting, recoveries)
    limits = limits_of(context)
    if Scopes(limits, rate.limit, booting, None, context.now).spent():
        return
    candidates = waiting(context, proven=True)
    rate.waits(len(candidates))
    if not candidates:
        _calm(context, booting)
        return
    _survey(context, candidates)
    _pass_gates(context, candidates, booting)
    _grant(context, rate, candidates, booting, limits)


def waiting(context: Context, *, proven: bool = False) -> list[Candidate]:
    """Return the VMs that wait for their start.

    ``proven``: leave out those of dead nodes whose proof does not stand now, and look at it.
    """
    found: dict[Subject, Candidate] = {}
    for incident in list(context.state.incidents.values()):
        if incident.state is not IncidentState.RECOVERING:
            continue
        if proven and not _proof_stands(context, incident):
            continue
        for progress, pod in recovery.waiting(context, incident):
            vm = progress.plan.vm
            found[vm] = _candidate(
                context,
                vm,
                Origin.DELETION,
                progress.since_at,
                incident=incident.id,
                pod=pod.name,
                pod_uid=pod.uid,
                claims=progress.plan.claims,
                not_before=progress.retry_at,
                attempts=progress.attempts,
            )
    for gated in gates.waiting(context):
        incident_of = gates.recovery_of(context, gated.vm)
        tried = incident_of.vms[str(gated.vm)] if incident_of is not None else None
        vmi = context.inventory.vmi(gated.vm)
        found[gated.vm] = _candidate(
            context,
            gated.vm,
            Origin.GATE,
            gated.since_at,
            incident=incident_of.id if incident_of is not None else "",
            pod=gated.pod.name,
            pod_uid=gated.pod.uid,
            claims=vmi.claims if vmi is not None else (),
            not_before=tried.retry_at if tried is not None else 0.0,
            attempts=tried.failures if tried is not None else 0,
        )
    return list(found.values())


def _candidate(
    context: Context,
    vm: Subject,
    origin: Origin,
    since_at: float,
    *,
    claims: tuple[str, ...],
    **facts: object,
) -> Candidate:
    inventory = context.inventory
    return Candidate(
        vm=vm,
        origin=origin,
        tier=restart_marks.tier_of(inventory, vm, context.settings.pacing.namespace_tiers),
        after=restart_marks.after_of(inventory.vm(vm)),
        storage=storage_of(inventory, vm.namespace, claims),
        since_at=since_at,
        **facts,  # type: ignore[arg-type]
    )


def rate_of(context: Context) -> StartRate:
    """Return the adaptive limit, beginning with what earlier leaders have learned."""
    pace = context.pace
    if pace.rate is None:
        rate = StartRate(context.settings.pacing.rate, context.state.pace.learned)
        before = [rate.limit]

        def changed(why: str) -> None:
            learned = rate.learned
            now = round(learned.limit)
            context.record(
                DecisionKind.PACED,
                _daemon(context),
                f"{now} may boot at once from now on (before: {before[0]}): {why}",
                stage=RATE,
                learned=learned,
            )
            before[0] = now

        rate.tell(changed)
        pace.rate = rate
    return pace.rate


def limits_of(context: Context) -> Limits:
    """Return the fixed limits of the settings."""
    pacing = context.settings.pacing
    return Limits(
        cluster=_bound(pacing.starts_at_once_cluster, pacing.starts_per_minute_cluster),
        zone=_bound(pacing.starts_at_once_zone, pacing.starts_per_minute_zone),
        storage=_bound(pacing.starts_at_once_storage_class, pacing.starts_per_minute_storage_class),
        node=_bound(pacing.starts_at_once_node, pacing.starts_per_minute_node),
        namespace=_bound(pacing.starts_at_once_namespace, pacing.starts_per_minute_namespace),
    )


def _bound(at_once: int | None, per_minute: int | None) -> Bound:
    return Bound(at_once=at_once, per_minute=per_minute)


def rules_of(context: Context) -> Rules:
    """Return how waiting is ordered, by the settings."""
    pacing = context.settings.pacing
    tiers = {parse_tier(name) for name in pacing.gate_tiers}
    return Rules(
        gates=tuple(
            Gate(tier=tier, timeout_s=pacing.gate_timeout_s)
            for tier in sorted(tiers - {None}, key=str)
            if tier is not None and tier not in context.state.pace.passed
        ),
        age_s=pacing.age_s,
        dependency_timeout_s=pacing.dependency_timeout_s,
    )


def able_nodes(context: Context) -> list[str]:
    """Return the nodes that VMs may be sent to, by our own evidence and KubeVirt's word."""
    return sorted(context.inventory.nodes.keys() - placement.unable(context).keys())


def unready(context: Context, candidates: Iterable[Candidate]) -> dict[Subject, str]:
    """Return why VMs that candidates depend on are not ready, besides those in the storm."""
    needed = {vm for candidate in candidates for vm in candidate.after}
    found = ((vm, restart_marks.why_unready(context, vm)) for vm in sorted(needed))
    return {vm: why for vm, why in found if why}


def booting(context: Context) -> set[Subject]:
    """Return the VMs that hold a place: restarted by us, let through a gate, or by themselves."""
    return {each.vm for each in booting_now(context, recovering(context)) if each.booting}


def places(context: Context) -> int:
    """Return how many more VMs may start now, whichever they are."""
    held = booting_now(context, recovering(context))
    limits, nodes = limits_of(context), able_nodes(context)
    scopes = Scopes(limits, rate_of(context).limit, held, nodes, context.now)
    return scopes.places()


def holds_back(context: Context) -> bool:
    """Whether some VM of a dead host still waits for its turn, be it for places or for others.

    Whatever new pod comes meanwhile waits with them: Kubernetes may remove the dead ones itself.
    """
    by_themselves = boots.booting(context)
    return any(
        progress.stage not in DONE_STAGES
        and progress.stage is not Stage.STUCK
        and progress.plan.treatment != Treatment.LEAVE_STOPPED
        and not holds_place(progress)
        and vm not in by_themselves
        for vm, progress in recovering(context).items()
    )


# --- granting ---------------------------------------------------------------------------------


def _grant(
    context: Context,
    rate: StartRate,
    candidates: list[Candidate],
    booting: list[Started],
    limits: Limits,
) -> None:
    """Start whoever is next and fits somewhere; whoever does not lets the others pass."""
    fits = _remembered_fits(context)
    missing = unready(context, candidates)
    nodes, rules = able_nodes(context), rules_of(context)
    for _ in range(_ASKED_AT_ONCE):
        choice = choose(
            candidates,
            booting,
            now=context.now,
            limits=limits,
            rate=rate.limit,
            fits=fits,
            rules=rules,
            nodes=nodes,
            opened=context.pace.shut_since,
            unready=missing,
            reasons=False,
        )
        asked = [each for each in choice.starts if each.vm not in fits]
        if not asked:
            break
        fits.update(_ask_fits(context, asked))
    for candidate in choice.starts:
        fit = fits.get(candidate.vm, Fit())
        if not fit.why_not:
            _start(context, rate, candidate, fit)
    if choice.look_at is not None:
        context.wake_at(choice.look_at)
    _tell_capacity(context, fits)


def _start(context: Context, rate: StartRate, candidate: Candidate, fit: Fit) -> None:
    vm, now = candidate.vm, context.now
    tier = f"tier {tier_name(candidate.tier)}" if candidate.tier else ""
    why = "; ".join(filter(None, (tier, fit.why)))
    if candidate.origin is Origin.GATE:
        if not gates.open_gate(context, candidate, why=why, prefer=fit.node):
            return
    elif not recovery.start(context, candidate.incident, vm, why):
        return
    context.pace.launches[vm] = Launch(began_at=now, told=True)
    rate.started(str(vm), now)


def _remembered_fits(context: Context) -> dict[Subject, Fit]:
    remembered, now = context.pace.fits, context.now
    for vm in [vm for vm, (until, _) in remembered.items() if until <= now]:
        del remembered[vm]
    return {vm: fit for vm, (_, fit) in remembered.items()}


def _ask_fits(context: Context, asked: list[Candidate]) -> dict[Subject, Fit]:
    """Ask where these VMs would go, in the order of the queue; remember who fits nowhere."""
    found: dict[Subject, Fit] = {}
    for vm, answer in placement.fits(context, asked).items():
        if isinstance(answer, placement.Placement):
            node = context.inventory.nodes.get(answer.node)
            found[vm] = Fit(
                node=answer.node,
                zone=node.zone if node is not None else "",
                why=f"best on {answer.node}: {answer.why}" if answer.beside_data else "",
            )
        else:
            found[vm] = Fit(why_not=answer.why)
            context.pace.fits[vm] = (context.now + _UNPLACED_S, found[vm])
            context.wake_at(context.now + _UNPLACED_S)
    return found


def _survey(context: Context, candidates: list[Candidate]) -> None:
    """Before new VMs start, look whether all fit: a human is told at once what is missing."""
    pace = context.pace
    if pace.surveyed.issuperset(each.vm for each in candidates) or context.now < pace.survey_at:
        return
    pace.survey_at = context.now + _SURVEY_S
    pace.surveyed = {each.vm for each in candidates}
    if context.state.pace.unplaced:
        return
    missing = spare_capacity.shortage(context, candidates)
    if missing is not None:
        decision = context.record(
            DecisionKind.PACED, _daemon(context), str(missing), stage=f"{CAPACITY}:short"
        )
        context.notice(decision)


def _tell_capacity(context: Context, fits: dict[Subject, Fit]) -> None:
    """Tell a human once that VMs fit nowhere, and what is missing."""
    homeless = {vm: fit.why_not for vm, fit in fits.items() if fit.why_not}
    if not homeless or context.state.pace.unplaced:
        return
    first = min(homeless)
    more = f", and {len(homeless) - 1} more fit nowhere" if len(homeless) > 1 else ""
    decision = context.record(
        DecisionKind.PACED,
        first,
        f"{first.namespace}/{first.name} fits on no node now: {homeless[first]}{more}. They wait; "
        "whoever fits passes them",
        stage=f"{CAPACITY}:short",
    )
    context.notice(decision)


def _pass_gates(context: Context, candidates: list[Candidate], booting: list[Started]) -> None:
    """Note since when gates are shut, and tell whose time is up."""
    pace, now = context.pace, context.now
    pacing, rules = context.settings.pacing, rules_of(context)
    shut = shut_gates(candidates, booting, rules.gates)
    lower = min((each.tier for each in candidates), default=0)
    for tier in [tier for tier in pace.shut_since if tier not in shut]:
        del pace.shut_since[tier]
    for tier in shut:
        since_at = pace.shut_since.setdefault(tier, now)
        if now < since_at + pacing.gate_timeout_s:
            context.wake_at(since_at + pacing.gate_timeout_s)
            return  # the gates below it are shut by it, too: their time has not begun
        if lower >= tier:
            continue
        late = sorted(
            [each.vm for each in candidates if each.tier >= tier]
            + [each.vm for each in booting if each.tier >= tier and not each.ready]
        )
        names = ", ".join(f"{vm.namespace}/{vm.name}" for vm in late[:5])
        decision = context.record(
            DecisionKind.PACED,
            _daemon(context),
            f"tier {tier_name(tier)} was not ready within {pacing.gate_timeout_s:g} s ({names}"
            f"{' …' if len(late) > 5 else ''}): less important VMs start all the same",
            stage=f"{GATE_PASSED}:{tier}",
        )
        context.notice(decision)


def _calm(context: Context, booting: list[Started]) -> None:
    """Note that nobody waits any more: the next storm finds its gates shut again."""
    pace = context.pace
    pace.shut_since.clear()
    pace.surveyed.clear()
    if booting:
        return
    if context.state.pace.passed:
        context.record(
            DecisionKind.PACED, _daemon(context), "no VM waits for its start any more", stage=CALM
        )
    if context.state.pace.unplaced:
        context.record(
            DecisionKind.PACED,
            _daemon(context),
            "no VM waits for room any more",
            stage=f"{CAPACITY}:enough",
        )


def _proof_stands(context: Context, incident: Incident) -> bool:
    node = context.inventory.nodes.get(incident.subject.name)
    if node is not None and node.uid != incident.node_uid:
        node = None
    return execution.proof_stands(context, incident, node)


# --- loops of dependencies --------------------------------------------------------------------


def look_for_loops(context: Context, facts: VmFacts | None = None) -> None:
    """Tell a human once of each loop that dependencies form: of one VM's, or of all."""
    if not context.inventory.synced:
        return
    looked = [facts] if facts is not None else sorted_vms(context)
    for each in looked:
        if restart_marks.AFTER not in each.annotations:
            continue
        path = restart_marks.loop_of(context.inventory, each)
        if not path:
            continue
        text = _spoken_loop(path)
        if text in context.state.pace.loops:
            continue
        decision = context.record(
            DecisionKind.PACED,
            vm_subject(each.namespace, each.name),
            f"{restart_marks.AFTER} forms a loop and is not obeyed for its VMs: {text}",
            stage=f"{LOOP}:{text}",
        )
        context.notice(decision)


def sorted_vms(context: Context) -> list[VmFacts]:
    """Return the VMs in the order of their names, so that what is told has one order."""
    return [context.inventory.vms[key] for key in sorted(context.inventory.vms)]


def _spoken_loop(path: tuple[Subject, ...]) -> str:
    """Return one text per loop, wherever one enters it."""
    ring = path[:-1]
    first = ring.index(min(ring))
    turned = (*ring[first:], *ring[: first + 1])
    return " → ".join(f"{vm.namespace}/{vm.name}" for vm in turned)


def _daemon(context: Context) -> Subject:
    return Subject("daemon", context.identity)
