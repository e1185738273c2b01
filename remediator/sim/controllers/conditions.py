"""Status conditions: the list of {type, status, reason, message} that Kubernetes objects carry."""

from __future__ import annotations

from remediator.sim.controllers.metadata import Obj


def find_condition(obj: Obj, type_: str) -> Obj | None:
    """Return the condition of this type, None when the object has none."""
    for condition in (obj.get("status") or {}).get("conditions") or ():
        if condition["type"] == type_:
            found: Obj = condition
            return found
    return None


def condition_is(obj: Obj, type_: str, status: str) -> bool:
    """Return True when the condition exists with this status ("True", "False", "Unknown")."""
    condition = find_condition(obj, type_)
    return condition is not None and condition["status"] == status


def would_change(obj: Obj, type_: str, status: str, reason: str = "", message: str = "") -> bool:
    """Return True when ``set_condition`` with these values would change the object."""
    condition = find_condition(obj, type_)
    return condition is None or (
        condition["status"],
        condition.get("reason", ""),
        condition.get("message", ""),
    ) != (status, reason, message)


def set_condition(
    obj: Obj, type_: str, status: str, *, now: str, reason: str = "", message: str = ""
) -> None:
    """Set a condition of an object that is being changed.

    ``lastTransitionTime`` moves only with ``status``. ``now`` is an RFC 3339 time.
    """
    held = obj.setdefault("status", {}).setdefault("conditions", [])
    old = next((condition for condition in held if condition["type"] == type_), None)
    since = old["lastTransitionTime"] if old and old["status"] == status else now
    new: Obj = {
        **(old or {}),
        "type": type_,
        "status": status,
        "lastTransitionTime": since,
        "reason": reason,
        "message": message,
    }
    if old is None:
        held.append(new)
    else:
        held[held.index(old)] = new


def remove_condition(obj: Obj, type_: str) -> None:
    """Remove a condition from an object that is being changed."""
    status = obj.get("status") or {}
    if any(condition["type"] == type_ for condition in status.get("conditions") or ()):
        status["conditions"] = [c for c in status["conditions"] if c["type"] != type_]
