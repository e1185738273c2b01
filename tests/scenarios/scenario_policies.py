"""Policies that a story adds to the shipped ones, by name; asked before them."""

from __future__ import annotations

from collections.abc import Iterable

from scenario_vm_policies import OF_VMS

from remediator.engine.model import Verdict
from remediator.engine.rules import Approval, OnFailure, Policy, StepOptions
from remediator.policy.loader import load_directory, shipped_directory

_SICK = (Verdict.DEGRADED, Verdict.HANDLER_DOWN, Verdict.KUBELET_DOWN)


def _evacuate(name: str, **more: object) -> Policy:
    given = {
        "verdicts": _SICK,
        "steps": ("cordon", "migrate"),
        "priority": 10,
        **more,
    }
    return Policy(name=name, source=f"{name}.yaml", content_hash=name, **given)


_NEXT = StepOptions(on_failure=OnFailure.NEXT)
_HOLD = StepOptions(on_failure=OnFailure.HOLD)

NAMED = {
    policy.name: policy
    for policy in (
        _evacuate("degraded-migrate"),
        _evacuate(
            "degraded-restart",
            steps=("cordon", "migrate", "restart"),
            step_options={"migrate": _NEXT},
        ),
        _evacuate("degraded-hold", step_options={"migrate": _HOLD}),
        _evacuate("drain", verdicts=(Verdict.MAINTENANCE,), step_options={"migrate": _HOLD}),
        _evacuate(
            "drain-and-restart",
            verdicts=(Verdict.MAINTENANCE,),
            steps=("cordon", "migrate", "restart"),
            step_options={"migrate": _NEXT},
        ),
    )
}


_LOST = {"verdicts": (Verdict.DEAD, Verdict.UNREACHABLE), "priority": 10}

APPROVED = {
    policy.name: policy
    for policy in (
        Policy(
            name="lost-on-approval",
            source="lost-on-approval.yaml",
            content_hash="lost-on-approval",
            approval=Approval(by=("ann",), lapses_after_s=120.0),
            **_LOST,
        ),
        Policy(
            name="lost-unless-denied",
            source="lost-unless-denied.yaml",
            content_hash="lost-unless-denied",
            approval=Approval(lapses_after_s=60.0, proceeds=True),
            **_LOST,
        ),
    )
}


def policies(names: Iterable[str]) -> list[Policy]:
    """Return the shipped policies and those that a story names."""
    known = {**NAMED, **OF_VMS, **APPROVED}
    return [*load_directory(shipped_directory()), *(known[name] for name in names)]
