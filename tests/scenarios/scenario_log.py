"""The log of a played story, as an on-call operator would read it, and the judgement on it."""

from __future__ import annotations

import re
from collections import Counter

from scenario_migrations import over_limits
from scenario_outcome import Played, step_of

from remediator.engine.chain import Decision
from remediator.engine.model import OutcomeStatus

_SUBJECT_WIDTH, _KIND_WIDTH, _STATE_WIDTH, _VERDICT_WIDTH = 20, 21, 10, 13

# What the daemon may write at all. Everything else is a defect, whatever a story expects.
_OWN_LEASE = re.compile(
    r"/apis/coordination\.k8s\.io/v1/namespaces/"
    r"(kube-node-lease/leases(/remediator-canary-remediator-\d+)?|remediator/leases(/remediator)?)"
)
_NODE = re.compile(r"PATCH /api/v1/nodes/([^/]+)")
_POD = re.compile(r"DELETE /api/v1/namespaces/([^/]+)/pods/(virt-launcher-[^/]+)")
_START = re.compile(
    r"PUT /apis/subresources\.kubevirt\.io/v1/namespaces/([^/]+)/virtualmachines/([^/]+)/start"
)

_EVICTION = re.compile(r"POST /api/v1/namespaces/([^/]+)/pods/(virt-launcher-[^/]+)/eviction")
_MIGRATION = re.compile(
    r"(POST|DELETE) /apis/kubevirt\.io/v1/namespaces/[^/]+/"
    r"virtualmachineinstancemigrations(?:/[^/]+)?"
)
_EVACUATE_CANCEL = re.compile(
    r"PUT /apis/subresources\.kubevirt\.io/v1/namespaces/([^/]+)/"
    r"virtualmachineinstances/([^/]+)/evacuate/cancel"
)
_RESTART = re.compile(
    r"PUT /apis/subresources\.kubevirt\.io/v1/namespaces/([^/]+)/virtualmachines/([^/]+)/restart"
)

_GUEST_ORDER = re.compile(
    r"PUT /apis/subresources\.kubevirt\.io/v1/namespaces/([^/]+)/"
    r"virtualmachineinstances/([^/]+)/(softreboot|unpause)"
)
_SNAPSHOT = re.compile(
    r"POST /apis/snapshot\.kubevirt\.io/v1beta1/namespaces/([^/]+)/virtualmachinesnapshots"
)

_UNGATE = re.compile(r"PATCH /api/v1/namespaces/([^/]+)/pods/(virt-launcher-[^/]+)")

# medik8s' lease on a node that is worked on; renewals are left out of the log.
_CLAIM = re.compile(
    r"(POST|PUT|DELETE) /apis/coordination\.k8s\.io/v1/namespaces/medik8s-leases/leases"
    r"(?:/node-[^/]+)?"
)

_ALLOWED = (_NODE, _POD, _START, _UNGATE, _CLAIM, _EVICTION, _MIGRATION, _EVACUATE_CANCEL, _RESTART)
_ALLOWED = (*_ALLOWED, _GUEST_ORDER, _SNAPSHOT)


def render(played: Played) -> str:
    """Return the whole log."""
    lines = [
        (decision.at, float(decision.seq), _record_line(decision)) for decision in played.decisions
    ]
    lines += [(at, place, f"--- {text}") for at, place, text in played.happened]
    # To the millisecond: records round their time, the simulation does not.
    lines.sort(key=lambda line: (round(line[0], 3), line[1]))
    text = [f"{_tenths(at - played.zero_at):>7}  {line}".rstrip() for at, _, line in lines]
    return "\n".join([*text, "", deeds(played), truth(played), ""])


def _tenths(seconds: float) -> str:
    shown = f"{seconds:.1f}"
    return "0.0" if shown == "-0.0" else shown


def _record_line(decision: Decision) -> str:
    kind = decision.kind.value
    if decision.action is not None:
        kind = f"{kind} {step_of(decision)}"
    why = decision.why
    if decision.outcome is not None and decision.outcome.status is not OutcomeStatus.SUCCEEDED:
        why = f"{decision.outcome.status.value.upper()}: {why}"
    verdict = decision.verdict.value if decision.verdict is not None else ""
    why = why.removeprefix(f"{verdict}: ") if verdict else why
    state = decision.state.value if decision.state is not None else ""
    return (
        f"{decision.subject!s:<{_SUBJECT_WIDTH}} {kind:<{_KIND_WIDTH}} {state:<{_STATE_WIDTH}} "
        f"{verdict:<{_VERDICT_WIDTH}} {why}"
    )


def deeds(played: Played) -> str:
    """Return, in one line, everything that the daemon did to the world."""
    nodes: Counter[str] = Counter()
    claims: Counter[str] = Counter()
    moves: Counter[str] = Counter()
    pods = gates = 0
    parts: list[str] = []
    for method, path in played.writes:
        if found := _NODE.fullmatch(f"{method} {path}"):
            nodes[found[1]] += 1
        elif _POD.fullmatch(f"{method} {path}"):
            pods += 1
        elif _UNGATE.fullmatch(f"{method} {path}"):
            gates += 1
        elif found := _START.fullmatch(f"{method} {path}"):
            parts.append(f"start of {found[1]}/{found[2]}")
        elif found := _CLAIM.fullmatch(f"{method} {path}"):
            claims[found[1]] += 1
        elif _EVICTION.fullmatch(f"{method} {path}"):
            moves["evictions asked for, dry runs included"] += 1
        elif found := _MIGRATION.fullmatch(f"{method} {path}"):
            moves[f"migrations {'made' if found[1] == 'POST' else 'deleted'}"] += 1
        elif found := _EVACUATE_CANCEL.fullmatch(f"{method} {path}"):
            parts.append(f"evacuation of {found[1]}/{found[2]} taken back")
        elif found := _RESTART.fullmatch(f"{method} {path}"):
            parts.append(f"restart of {found[1]}/{found[2]}")
        elif found := _GUEST_ORDER.fullmatch(f"{method} {path}"):
            parts.append(f"{found[3]} of {found[1]}/{found[2]}")
        elif found := _SNAPSHOT.fullmatch(f"{method} {path}"):
            parts.append(f"a snapshot in {found[1]}")
    parts += [f"{what}: {count}" for what, count in sorted(moves.items())]
    parts += [
        f"{node} patched {count} time{'' if count == 1 else 's'}"
        for node, count in sorted(nodes.items())
    ]
    if claims:
        parts.append(f"claims: {claims['POST']} taken, {claims['DELETE']} given back")
    if pods:
        parts.append(f"{pods} launcher pod{'' if pods == 1 else 's'} deleted")
    if gates:
        parts.append(f"{gates} gate{'' if gates == 1 else 's'} opened")
    parts += [f"ForceOff sent to {node}" for node in sorted(played.orders)]
    return f"done to the cluster: {'; '.join(parts) or 'nothing'}"


def truth(played: Played) -> str:
    """Return the ledger's judgement."""
    parts = [f"double runs: {len(played.double_runs)}"]
    back = {vm: after for vm, after in played.lost.items() if wanted(played, vm)}
    down = sorted(vm for vm, after in back.items() if after is None)
    if back:
        up = [after for after in back.values() if after is not None]
        when = f" after {max(up):.1f} s" if up else ""
        parts.append(f"up again: {len(up)} of {len(back)}{when}")
    if down:
        parts.append(f"still down: {', '.join(down)}")
    stopped = sorted(played.lost.keys() - back.keys() - played.running)
    if stopped:
        named = [f"{vm} ({played.strategies.get(vm, 'deleted')})" for vm in stopped]
        parts.append(f"left stopped: {', '.join(named)}")
    if not played.lost:
        parts.append("no VM went down")
    asked = any(
        kind.fullmatch(f"{method} {path}")
        for method, path in played.writes
        for kind in (_EVICTION, _MIGRATION)
    )
    if asked and played.migrations is not None:
        seen = played.migrations
        ends = ", ".join(f"{count} {phase}" for phase, count in sorted(seen.ended.items()))
        parts.append(
            f"live migrations: {ends or 'none ended'}, at most {seen.peak} at once, "
            f"{seen.peak_off_node} off one node"
        )
    return "; ".join(parts)


def wanted(played: Played, vm: str) -> bool:
    """Tell whether a VM that was lost should run again by itself."""
    return played.strategies.get(vm) in ("Always", "RerunOnFailure") or vm in played.running


def problems(played: Played) -> list[str]:
    """Return everything that is not as the story's ``expect`` says."""
    expect = played.scenario.expect
    found: list[str] = []

    def same(what: str, is_: object, should: object) -> None:
        if is_ != should:
            found.append(f"{what}: {is_}, expected {should}")

    same("double runs", len(played.double_runs), expect.double_runs)
    same("not running", sorted(set(expect.running) - played.running), [])
    same("running, but should not", sorted(set(expect.not_running) & played.running), [])
    where = {vm: node for node, vms in played.on_nodes.items() for vm in vms}
    for vm, nodes in expect.on.items():
        if where.get(vm) not in nodes.split():
            found.append(f"{vm} is on {where.get(vm)}, expected {nodes}")
    same("fenced", played.fenced, sorted(expect.fenced))
    same("powered off by us", sorted(played.powered_off), sorted(expect.powered_off_by_us))
    same("our marks are left on", sorted(played.marked), sorted(expect.marks_left))
    same("cordoned by others", sorted(played.cordoned_by_others), sorted(expect.cordoned))
    said = "\n".join(str(decision.why) for decision in played.decisions)
    same("said, but should not", [word for word in expect.never_said if word in said], [])
    same("said twice in a row", _repeated(played.decisions), [])
    same("open incidents", played.open_incidents, expect.open_incidents)
    same("gates left", played.gates_left, [])
    same("pods were held back", "some" if played.gates_put else "none", expect.gates)
    most, least = expect.boots_at_once_max, expect.boots_at_once_min
    if most is not None and played.boots_at_once > most:
        found.append(f"{played.boots_at_once} booted at once, more than {most}")
    if least is not None and played.boots_at_once < least:
        found.append(f"{played.boots_at_once} booted at once, fewer than {least}")
    if expect.back_within_s is not None:
        late = {
            vm: after
            for vm, after in played.lost.items()
            if wanted(played, vm) and (after is None or after > expect.back_within_s)
        }
        same(f"not back within {expect.back_within_s:g} s", late, {})
    touched = [write for write in played.writes if not _OWN_LEASE.fullmatch(write[1])]
    foreign = [
        f"{method} {path}"
        for method, path in touched
        if not any(kind.fullmatch(f"{method} {path}") for kind in _ALLOWED)
    ]
    same("writes that the daemon must never send", foreign, [])
    same("migrations of ours left behind", played.migrations_left, [])
    if played.migrations is not None:
        same("more migrations than KubeVirt's limits", over_limits(played.migrations), [])
    for node in expect.moved_off:
        same(f"VMs still on {node}", played.on_nodes.get(node, []), [])
    same("leases of unknown origin", played.strange_leases, [])
    if expect.writes == "none":
        same("writes", [*touched, *played.orders], [])
    return found


def _repeated(decisions: list[Decision]) -> list[str]:
    """Return what two records that follow each other say of one subject in the same words."""
    last: dict[str, tuple[str, str]] = {}
    found: list[str] = []
    for decision in decisions:
        said = (decision.kind.value, decision.why)
        if last.get(str(decision.subject)) == said:
            found.append(f"{decision.subject}: {decision.why}")
        last[str(decision.subject)] = said
    return found
