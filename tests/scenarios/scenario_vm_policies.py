"""Policies about VMs that a story names; asked before the shipped ones."""

from __future__ import annotations

from remediator.engine.model import Verdict
from remediator.engine.rules import OnFailure, Policy, StepOptions, SubjectKind

_HOLD = StepOptions(on_failure=OnFailure.HOLD)
_NEXT = StepOptions(on_failure=OnFailure.NEXT)


def _of_vms(name: str, *steps: str, verdicts: tuple[Verdict, ...], **more: object) -> Policy:
    given = {"priority": 10, "subject": SubjectKind.VM, **more}
    return Policy(
        name=name,
        source=f"{name}.yaml",
        content_hash=name,
        verdicts=verdicts,
        steps=steps,
        **given,
    )


_SILENT = (Verdict.GUEST_SILENT, Verdict.STUCK)
_CRASHED = (Verdict.CRASHED,)

OF_VMS = {
    policy.name: policy
    for policy in (
        _of_vms("guest-ladder", "soft-reboot", "restart", "force-stop", verdicts=_SILENT),
        _of_vms("guest-restart", "restart", "force-stop", verdicts=_SILENT),
        _of_vms(
            "guest-snapshot-first",
            "snapshot",
            "restart",
            verdicts=_SILENT,
            step_options={
                "snapshot": StepOptions(timeout_s=60.0, on_failure=OnFailure.HOLD),
            },
        ),
        _of_vms(
            "guest-snapshot-if-possible",
            "snapshot",
            "restart",
            verdicts=_SILENT,
            step_options={
                "snapshot": StepOptions(timeout_s=60.0, on_failure=OnFailure.NEXT),
            },
        ),
        _of_vms("crashed-restart", "restart", "notify", "hold", verdicts=_CRASHED),
        _of_vms("crashed-start-manual", "restart", verdicts=_CRASHED, start_manual=True),
        _of_vms("paused-resume", "unpause", "restart", verdicts=(Verdict.PAUSED,)),
        _of_vms(
            "paused-resume-or-hold",
            "unpause",
            verdicts=(Verdict.PAUSED,),
            step_options={"unpause": _HOLD},
        ),
        _of_vms(
            "stuck-force-stop",
            "force-stop",
            "hold",
            verdicts=(Verdict.STUCK,),
            step_options={
                "force-stop": StepOptions(timeout_s=60.0, attempts=1, on_failure=OnFailure.NEXT)
            },
        ),
    )
}
