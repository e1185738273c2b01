"""What is known of one VM now, for people: facets, rows, and what would change the verdict."""

from __future__ import annotations

from remediator.engine.chain import EvidenceRow
from remediator.engine.context import Context
from remediator.engine.inventory import Key
from remediator.engine.model import IncidentState, Record, Subject, Verdict, vm_subject
from remediator.engine.vm_verdicts import FACETS, VmRow, would_change
from remediator.engine.vm_watch import VmWatch


class Standing(Record, frozen=True, kw_only=True):
    """A row of the VM table that fits now. Durations are seconds of proven watching."""

    row: str
    verdict: Verdict
    means: str
    stood_s: float  # for how long it has fitted; below 0 while a grace period lasts
    suspected_after_s: float
    confirmed_after_s: float


class VmHealth(Record, frozen=True, kw_only=True):
    """All there is to say of one VM now."""

    subject: Subject
    verdict: Verdict  # of the row that decides; Healthy when none fits, Unknown when none may
    row: str  # the first that fits; "" when none does
    means: str
    excuse: str  # why nothing is concluded now: its host, its recovery, our own trouble; or ""
    incident: str  # id of its open incident, or ""
    state: IncidentState | None
    opened_at: float  # 0.0 without incident
    facets: tuple[EvidenceRow, ...]  # all of them: value, and what there is to say
    fitting: tuple[Standing, ...]  # all rows that fit, in the table's order
    due_in_s: float | None  # when one of them suspects or confirms next, if all stays as it is
    would_change: tuple[str, ...]


def vm_health(context: Context, watch: VmWatch, subject: Subject) -> VmHealth | None:
    """Return all there is to say of a VM now; None when there is no such VM. Changes nothing."""
    key: Key = (subject.namespace, subject.name)
    if key not in context.inventory.vms and key not in context.inventory.vmis:
        return None
    values, details = watch.values(key), watch.details(key)
    excuse, incident = watch.excuse(key), context.state.vm_incident_on(subject)
    standing = tuple(_standing(*each) for each in watch.standing(key))
    row, verdict, means = "", Verdict.HEALTHY, "nothing speaks against it"
    if standing:
        row, verdict, means = standing[0].row, standing[0].verdict, standing[0].means
    return VmHealth(
        subject=subject,
        verdict=Verdict.UNKNOWN if excuse else verdict,
        row=row,
        means=means,
        excuse=excuse,
        incident=incident.id if incident is not None else "",
        state=incident.state if incident is not None else None,
        opened_at=incident.opened_at if incident is not None else 0.0,
        facets=tuple(
            EvidenceRow(
                plane=facet,
                value=getattr(values, facet),
                since_s=0.0,
                detail=details.get(facet, ""),
            )
            for facet in FACETS
        ),
        fitting=standing,
        due_in_s=None if excuse else _due_in_s(standing),
        would_change=tuple(would_change(values, row)),
    )


def sick_vms(context: Context, watch: VmWatch) -> list[VmHealth]:
    """Return the VMs that look bad or have an incident, by name. Costs nothing for the others."""
    found = (vm_health(context, watch, vm_subject(*key)) for key in watch.suspects())
    return [each for each in found if each is not None]


def _standing(row: VmRow, stood_s: float, after_s: float, confirmed_s: float) -> Standing:
    return Standing(
        row=row.name,
        verdict=row.verdict,
        means=row.means,
        stood_s=round(stood_s, 3),
        suspected_after_s=after_s,
        confirmed_after_s=confirmed_s,
    )


def _due_in_s(standing: tuple[Standing, ...]) -> float | None:
    waits = [
        limit_s - each.stood_s
        for each in standing
        for limit_s in (each.suspected_after_s, each.confirmed_after_s)
        if limit_s > each.stood_s
    ]
    return round(min(waits), 3) if waits else None
