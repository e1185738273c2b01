"""Nodes that come and go, VMs that do not stay up, and many nodes lost at a time."""

from __future__ import annotations

from remediator.engine.chain import GuardRow, Plan
from remediator.engine.context import Context
from remediator.engine.disruptions import RESTARTS
from remediator.engine.guard_answers import Answer, answers, ask, grant, named, refuse, wait
from remediator.engine.incidents import Incident
from remediator.engine.model import NodeFacts, Record, Subject, Verdict
from remediator.engine.safeguards import uses

COOL_DOWN, FLAPPING, CRASH_LOOP, STORM = "cool-down", "flapping", "crash-loop", "storm-brake"


# --- a node that was fenced lately ----------------------------------------------------------------


class CoolDownSeen(Record, frozen=True, kw_only=True):
    """When the node was fenced last, and how often within the window."""

    at: float
    last_at: float | None = None
    times: int = 0
    hold_s: float = 0.0


@answers(COOL_DOWN, CoolDownSeen)
def _cool_down(saw: CoolDownSeen) -> Answer:
    if saw.last_at is None:
        return grant("not fenced lately")
    until, ago_s = saw.last_at + saw.hold_s, saw.at - saw.last_at
    if saw.at >= until:
        return grant(f"last fenced {ago_s:.0f} s ago")
    often = f"fenced {saw.times} times, last" if saw.times > 1 else "fenced"
    left_s = until - saw.at
    return wait(
        f"{often} {ago_s:.0f} s ago: it is flapping; held for another {left_s:.0f} s", until
    )


def cool_down(context: Context, incident: Incident, node: NodeFacts, _plan: Plan) -> GuardRow:
    """Hold a node that was fenced lately, twice as long with each further time."""
    last_at = context.state.fenced_at.get(node.name)
    if last_at is None or incident.proof is not None:
        return ask(COOL_DOWN, CoolDownSeen(at=context.now))
    times = max(1, fences_of(context, node.name))
    hold_s = hold_after(context, times)
    return ask(COOL_DOWN, CoolDownSeen(at=context.now, last_at=last_at, times=times, hold_s=hold_s))


def fences_of(context: Context, node: str) -> int:
    """Return how often a node was fenced within the window that flapping is looked for in."""
    since_at = context.now - context.settings.budgets.flap_window_s
    return sum(at > since_at for at in context.state.fences.get(node, ()))


def hold_after(context: Context, times: int) -> float:
    """Return how long a node is held that was fenced so often within the window, in seconds."""
    budgets = context.settings.budgets
    longest_s = max(budgets.flap_hold_max_s, budgets.fence_cooldown_s)
    return float(min(longest_s, budgets.fence_cooldown_s * 2.0 ** max(0, times - 1)))


# --- a node that comes and goes by itself ---------------------------------------------------------


class FlappingSeen(Record, frozen=True, kw_only=True):
    """How often the node came back by itself, and since when it is lost this time."""

    at: float
    times: int
    limit: int
    within_s: float
    lost_at: float
    hold_s: float
    proven: bool  # its verdict says that it is off, or dead: it comes back no more


@answers(FLAPPING, FlappingSeen)
def _flapping(saw: FlappingSeen) -> Answer:
    often = f"came back by itself {saw.times} times within {saw.within_s:.0f} s"
    until = saw.lost_at + saw.hold_s
    if saw.times < saw.limit or saw.proven or saw.at >= until:
        return grant(often)
    left_s = until - saw.at
    return wait(f"{often}, it may again: held for another {left_s:.0f} s", until)


def flapping(context: Context, incident: Incident, node: NodeFacts, _plan: Plan) -> GuardRow:
    """Hold a node that may live and came back often, twice as long with each further time."""
    budgets = context.settings.budgets
    since_at = context.now - budgets.flap_window_s
    times = sum(at > since_at for at in context.state.returns.get(node.name, ()))
    further = min(16, max(0, times - budgets.flaps))
    return ask(
        FLAPPING,
        FlappingSeen(
            at=context.now,
            times=times,
            limit=budgets.flaps,
            within_s=budgets.flap_window_s,
            lost_at=incident.convicted_at or incident.verdict_at,
            hold_s=min(budgets.flap_hold_max_s, budgets.flap_hold_s * 2.0**further),
            proven=incident.verdict is Verdict.DEAD,
        ),
    )


# --- a VM that restarts do not help ---------------------------------------------------------------


class CrashLoopSeen(Record, frozen=True, kw_only=True):
    """How often we have restarted the VM within the window."""

    times: int
    limit: int
    within_s: float
    until: float | None = None
    restarts: bool = True  # the plan restarts it


@answers(CRASH_LOOP, CrashLoopSeen)
def _crash_loop(saw: CrashLoopSeen) -> Answer:
    if not saw.restarts:
        return grant("the plan does not restart it")
    text = f"restarted {saw.times} times within {saw.within_s:.0f} s"
    if saw.times < saw.limit:
        return grant(f"{text}, limit {saw.limit}")
    return refuse(f"{text}, and it did not help: a human should look")


def crash_loop(context: Context, vm: Subject, *, restarts: bool = True) -> GuardRow:
    """Stop restarting a VM that does not stay up, and tell; ``restarts``: the plan would."""
    limits = context.settings.budgets.vms
    found = uses.lately(context, RESTARTS, subject=str(vm), within_s=limits.restarts_window_s)
    use = uses.per_time(str(vm), found, limits.restarts, within_s=limits.restarts_window_s)
    saw = CrashLoopSeen(
        times=use.used,
        limit=use.limit,
        within_s=limits.restarts_window_s,
        until=use.until,
        restarts=restarts,
    )
    return ask(CRASH_LOOP, saw)


# --- a power cut ----------------------------------------------------------------------------------


class StormSeen(Record, frozen=True, kw_only=True):
    """The most nodes lost within one window, and when the last one was."""

    at: float
    lost: int
    limit: int
    within_s: float
    last_at: float
    cooldown_s: float
    who: tuple[str, ...] = ()


@answers(STORM, StormSeen)
def _storm(saw: StormSeen) -> Answer:
    text = f"{saw.lost} nodes lost within {saw.within_s:.0f} s, limit {saw.limit}"
    until = saw.last_at + saw.cooldown_s
    if saw.lost <= saw.limit or saw.at >= until:
        return grant(text)
    return wait(f"{text}: {', '.join(saw.who)}; a power cut, or a switch?", until)


def storm(context: Context, _i: Incident, _node: NodeFacts, _plan: Plan) -> GuardRow:
    """Hold everything while many nodes are lost within a short time, and a while after."""
    return ask(STORM, storm_seen(context))


def storm_seen(context: Context) -> StormSeen:
    """Return how near the losses of late come to a storm."""
    budgets, nodes = context.settings.budgets, context.inventory.nodes
    losses = sorted(
        (at, node)
        for node, at in context.state.losses.items()
        if at > context.now - budgets.storm_window_s - budgets.storm_cooldown_s
    )
    most, first = 0, 0
    for last, (at, _) in enumerate(losses):
        while losses[first][0] <= at - budgets.storm_window_s:
            first += 1
        most = max(most, last - first + 1)
    return StormSeen(
        at=context.now,
        lost=most,
        limit=max(budgets.storm_nodes, int(budgets.storm_share * len(nodes))),
        within_s=budgets.storm_window_s,
        last_at=losses[-1][0] if losses else 0.0,
        cooldown_s=budgets.storm_cooldown_s,
        who=named(node for _, node in losses),
    )
