"""Policies as plain values, for programs and people."""

from __future__ import annotations

from typing import Any

from remediator.durations import format_duration
from remediator.engine.rules import OnFailure, Policy, StepOptions, SubjectKind


def plain(policy: Policy) -> dict[str, Any]:
    """Return a policy as JSON and YAML can hold it, with every default written out."""
    return {
        "name": policy.name,
        "source": policy.source,
        "contentHash": policy.content_hash,
        "priority": policy.priority,
        "subject": policy.subject.value,
        "verdicts": {verdict.value: policy.stands_for_s(verdict) for verdict in policy.verdicts},
        "labels": dict(policy.labels),
        "namespaces": list(policy.namespaces),
        "condition": policy.condition.text if policy.condition is not None else None,
        "activeWindows": [window.text for window in policy.windows],
        "mode": "enforce" if policy.enforce else "observe",
        "steps": [_step(step, policy) for step in policy.steps],
        "requiredProof": [kind.value for kind in policy.required_proof],
        "requiredProofByDisk": {
            kind.value: [proof.value for proof in proofs]
            for kind, proofs in policy.required_proof_by_disk.items()
        },
        "limits": {
            "atOnce": policy.limits.at_once,
            "perHour": policy.limits.per_hour,
            "perSubjectPerHour": policy.limits.per_subject_per_hour,
        },
        "approval": None
        if policy.approval is None
        else {
            "by": list(policy.approval.by),
            "lapsesAfter": policy.approval.lapses_after_s,
            "then": "proceed" if policy.approval.proceeds else "hold",
        },
        "startManual": policy.start_manual,
    }


def _step(step: str, policy: Policy) -> str | dict[str, Any]:
    options = policy.step_options.get(step)
    if options is None:
        return step
    said = {
        "do": step,
        "timeout": options.timeout_s,
        "attempts": options.attempts,
        "onFailure": options.on_failure.value,
    }
    return {key: value for key, value in said.items() if value is not None}


def described(at: int, one: Policy) -> str:
    """Return a policy as a page of a few lines; ``at`` is its place in the order."""
    about_nodes = one.subject is SubjectKind.NODE
    labels = ", ".join(f"{key}={value}" for key, value in sorted(one.labels.items()))
    held = {verdict: one.stands_for_s(verdict) for verdict in one.verdicts}
    when = " or ".join(
        f"{verdict} for {format_duration(for_s)}" if for_s else verdict
        for verdict, for_s in held.items()
    )
    lines = [
        f"{at}. {one.name} (priority {one.priority}, {one.source}, {one.content_hash[:12]})",
        f"   when    a {'node' if about_nodes else 'VM'} is {when}",
        f"   {'nodes' if about_nodes else 'vms  '}   {labels or 'all'}"
        + (f" in {', '.join(one.namespaces)}" if one.namespaces else ""),
    ]
    if one.condition is not None:
        lines.append(f"   if      {' '.join(one.condition.text.split())}")
    lines += [f"   open    {window.text}" for window in one.windows]
    lines.append(f"   then    {', '.join(_step_text(step, one) for step in one.steps)}")
    if "release" in one.steps or "recover" in one.steps:
        manual = "starts them too" if one.start_manual else "leaves them stopped"
        lines.append(f"   proof   {' or '.join(one.required_proof) or 'none'}")
        lines.append(f"   manual  VMs with run strategy Manual: {manual}")
    limits = (
        (one.limits.at_once, "at once"),
        (one.limits.per_hour, "an hour"),
        (one.limits.per_subject_per_hour, f"an hour for one {'node' if about_nodes else 'VM'}"),
    )
    told = ", ".join(f"{limit} {what}" for limit, what in limits if limit is not None)
    if told:
        lines.append(f"   limits  {told}")
    if one.approval is not None:
        who = " or ".join(one.approval.by) or "any operator"
        after = "acts" if one.approval.proceeds else "holds"
        lapse = format_duration(one.approval.lapses_after_s)
        lines.append(f"   asks    {who}; unanswered for {lapse} it {after}")
    mode = "enforce" if one.enforce else "observe"
    lines.append(f"   mode    {mode} (the daemon's may be stricter)")
    return "\n".join(lines)


def _step_text(step: str, policy: Policy) -> str:
    options = policy.step_options.get(step, StepOptions())
    said = []
    if options.timeout_s is not None:
        said.append(format_duration(options.timeout_s))
    if options.attempts is not None:
        said.append(f"{options.attempts} times" if options.attempts > 1 else "once")
    if step in policy.step_options and options.on_failure is OnFailure.HOLD:
        said.append("else hold")
    return f"{step} ({', '.join(said)})" if said else step
