"""Orders about a scope: pause it (freeze), ignore it, resume it."""

from __future__ import annotations

from remediator.engine import order_records
from remediator.engine.context import Context
from remediator.engine.events import CommandGiven, Verb
from remediator.engine.model import Subject

SCOPES = "cluster, zone/NAME, node/NAME, namespace/NAME or vm/NAMESPACE/NAME"


def give(context: Context, command: CommandGiven) -> None:
    """Obey or refuse it. It is no disruption, so a daemon that only observes takes it too."""
    scope = scope_of(command.target)
    if scope is None:
        daemon = Subject("daemon", context.identity)
        why = f"{command.target!r} is no scope: write {SCOPES}"
        order_records.refuse(context, command, daemon, why)
        return
    refusal = _why_not(context, command, scope)
    if refusal:
        order_records.refuse(context, command, scope, refusal)
    else:
        lasts = command.lasts_s
        note = f"it ends by itself after {lasts:g} s" if lasts is not None else ""
        order_records.obey(context, command, scope, note=note)


def scope_of(target: str) -> Subject | None:
    """Return the scope that is meant; None where it is none."""
    match target.split("/"):
        case ["cluster"]:
            return Subject("cluster", "")
        case ["zone" | "node" | "namespace" as kind, name] if name:
            return Subject(kind, name)
        case ["vm", namespace, name] if namespace and name:
            return Subject("vm", name, namespace)
        case _:
            return None


def expire(context: Context) -> bool:
    """End the pauses whose time is up, as records; whether there was one."""
    over = [
        pause
        for pause in context.state.pauses.values()
        if pause.until is not None and context.now >= pause.until
    ]
    for pause in over:
        scope = scope_of(pause.scope)
        assert scope is not None  # it was one when it was ordered
        command = CommandGiven(
            id="", verb=Verb.RESUME, target=pause.scope, by="remediator", reason="its time is up"
        )
        order_records.record(context, command, scope, note=f"it was paused by {pause.by}")
    return bool(over)


def _why_not(context: Context, command: CommandGiven, scope: Subject) -> str:
    """Say why it cannot be obeyed; empty where it can."""
    if command.verb is Verb.RESUME:
        return _why_not_resumed(context, scope)
    if command.lasts_s is not None and command.lasts_s <= 0:
        return "its time is up already: --until must lie ahead"
    return _unknown(context, scope)


def _why_not_resumed(context: Context, scope: Subject) -> str:
    pauses = context.state.pauses
    if str(scope) in pauses:
        return ""
    return f"{scope} is not paused; paused are: {', '.join(sorted(pauses)) or 'none'}"


def _unknown(context: Context, scope: Subject) -> str:
    """Say that there is no such node, zone or VM: a pause of a misspelt one would pause nothing."""
    inventory = context.inventory
    if not inventory.synced:
        return ""
    match scope.kind:
        case "node":
            known = scope.name in inventory.nodes
        case "zone":
            known = any(node.zone == scope.name for node in inventory.nodes.values())
        case "vm":
            key = (scope.namespace, scope.name)
            known = key in inventory.vms or key in inventory.vmis
        case _:
            known = True  # namespaces without a VM may get one
    return "" if known else f"there is no {scope}"
