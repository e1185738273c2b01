"""Which VMs look bad, for how long, and what follows.

Only VMs that look bad cost anything as time goes by: each is a *case*, looked at when one of its
objects changes, when a row of it is due, and every few seconds, since its host or its recovery may
excuse it without any of its own objects changing. All times are proven time (see ``silence.py``).
"""

from __future__ import annotations

from remediator.engine import decision_inputs, vm_incidents
from remediator.engine.chain import EvidenceRow
from remediator.engine.context import Context
from remediator.engine.incidents import VmIncident
from remediator.engine.inventory import Key
from remediator.engine.model import (
    IncidentState,
    MigrationFacts,
    Outcome,
    PodFacts,
    RunStrategy,
    Signal,
    Subject,
    VmFacts,
    VmiFacts,
    vm_subject,
)
from remediator.engine.vm_cases import Case, Cases
from remediator.engine.vm_evidence import VmEvidence
from remediator.engine.vm_recovery import Look
from remediator.engine.vm_remedies import VmRemedies
from remediator.engine.vm_verdicts import VmRow, VmValues, choose, fitting

VmObject = VmFacts | VmiFacts | PodFacts | MigrationFacts

# An incident ends when nothing has spoken against its VM for so long: what comes and goes is one.
SETTLE_S = 30.0
# What an earlier leader knew of signals and failures, this one must see again or miss for so long.
INHERITED_SETTLE_S = 600.0
# Watches without which the picture of a VM is not true.
_WATCHES = frozenset({"vms", "vmis", "pods"})


class VmWatch:
    """All VMs, as far as they need watching."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._evidence = VmEvidence(context.inventory)
        self._cases = Cases()
        self._remedies = VmRemedies(context)
        self._floor_s = 0.0  # nothing counts from before this: we were deaf
        self._inherited: frozenset[str] = frozenset()  # incidents that an earlier leader opened

    # --- taking in -------------------------------------------------------------------------------

    def lead(self) -> None:
        """Begin a term: whatever is open was opened by an earlier leader."""
        open_now = self._context.state.vm_incidents
        self._inherited = frozenset(open_now)
        for incident in open_now.values():
            self._cases.of(_key(incident.subject))
            if incident.heard_uid:
                self._evidence.heard[_key(incident.subject)] = incident.heard_uid

    def synced(self) -> None:
        """Look at all that looked bad while the inventory was not complete."""
        inventory, proven_s = self._context.inventory, self._proven_s
        self._evidence.began_s = proven_s
        for incident in self._context.state.vm_incidents.values():
            vmi = inventory.vmi(incident.subject)
            if vmi is not None and vmi.phase == "Failed" and vmi.uid == incident.vmi_uid:
                self._evidence.note_failure(vmi, proven_s)
        keys = set(self._cases.keys())
        keys.update(key for key, vm in inventory.vms.items() if _lacks_vmi(vm, inventory.vmis))
        keys.update(key for key in inventory.vmis if not inventory.has_pods(key))
        for key in sorted(keys):
            self._look(key)

    def seen(self, facts: VmObject, old: object) -> None:
        """Take in an object that was added or changed; ``old`` is what was known of it before."""
        key = _key_of(facts)
        if isinstance(facts, VmiFacts):
            before = old if isinstance(old, VmiFacts) else None
            self._evidence.note_vmi(facts, before, self._proven_s)
            was = (before.phase, before.uid) if before is not None else ("", "")
            if facts.phase == "Failed" and was != ("Failed", facts.uid):
                self._failed(facts, found=before is None)
        if key in self._cases or not self._is_ordinary(facts):
            self._look(key)

    def gone(self, facts: VmObject) -> None:
        """Take in that an object was deleted."""
        key = _key_of(facts)
        if key not in self._context.inventory.vms and key not in self._context.inventory.vmis:
            self._evidence.forget(key)
        self._look(key)

    def signal(self, signal: Signal) -> None:
        """Take in a signal about a VM."""
        if self._evidence.note_signal(signal, self._proven_s):
            self._look(_key(signal.subject))

    def deaf(self, stale_watches: tuple[str, ...]) -> None:
        """Take in which watches do not hear: what a VM does meanwhile is not known."""
        if _WATCHES & set(stale_watches):
            self._floor_s = self._proven_s

    def finished(self, outcome: Outcome) -> None:
        """Take in what came of an action about a VM."""
        subject = self._context.state.pending[outcome.action_id].subject
        self._remedies.finish(outcome)
        self._look(_key(subject))

    def tick(self) -> None:
        """Look at the cases that are due."""
        self._evidence.expire(self._proven_s)
        for key in self._cases.take_due(self._proven_s):
            self._look(key)

    def _is_ordinary(self, facts: VmObject) -> bool:
        if isinstance(facts, MigrationFacts):
            return False
        if isinstance(facts, VmFacts) and _lacks_vmi(facts, self._context.inventory.vmis):
            return not self._context.inventory.synced  # VMIs are told after their VMs
        return self._evidence.ordinary(facts)

    def _failed(self, vmi: VmiFacts, *, found: bool) -> None:
        """Note that a VMI has failed by itself: it was not asked to end, nor did its host fail."""
        key, context = _key_of(vmi), self._context
        if vmi.deleting or (found and not context.inventory.synced):
            return
        if not vm_incidents.fell_with_its_host(context, key):
            self._evidence.note_failure(vmi, self._proven_s)

    # --- looking ---------------------------------------------------------------------------------

    @property
    def _proven_s(self) -> float:
        return self._context.evidence.leases.time.proven_s

    @property
    def _patience(self) -> int:
        """The local health multiplier: every limit is so many times as long."""
        return self._context.evidence.own_health.multiplier

    @property
    def _excuse_of_all(self) -> str:
        """Why nothing at all is convicted now, or ""."""
        own = self._context.evidence.own_health
        return f"our own trouble: {'; '.join(own.reasons)}" if own.suspended else ""

    def _look(self, key: Key) -> None:
        """Bring the case of one VM up to date, and open, turn or end its incident."""
        context = self._context
        values = self._evidence.values(key, self._proven_s)
        rows = fitting(values)
        subject = vm_subject(*key)
        incident = context.state.vm_incident_on(subject)
        excused_s = self._evidence.excused_for_s(key, self._proven_s)
        if not rows and incident is None and not excused_s:
            self._cases.close(key)
            self._evidence.tidy(key, self._proven_s)
            return
        case = self._cases.of(key)
        if not context.inventory.synced:
            return  # looked at once it is
        care = vm_incidents.taken_care_of(context, key)
        if care or self._excuse_of_all or vm_incidents.doubtful_host(context, key):
            case.forget_times()
            if incident is not None:
                self._remedies.stand_by(incident)
            if care and incident is not None and not vm_incidents.goes_on(context, incident):
                inputs = decision_inputs.of_vm(context, values)
                vm_incidents.resolve(context, incident, care, self._rows(key, values), inputs)
        else:
            about = {row.name: self._evidence.about(row.name, key) for row in rows}
            case.mark(about, self._proven_s)
            self._judge(case, key, values, rows, incident)
            self._remedy(case, values, rows, subject)
        if rows or excused_s or context.state.vm_incident_on(subject) is not None:
            waits_s = self._waits_s(case, key, rows)
            self._cases.look_in(key, self._proven_s, min(waits_s, default=None))
        else:
            self._cases.close(key)

    def _judge(
        self,
        case: Case,
        key: Key,
        values: VmValues,
        rows: tuple[VmRow, ...],
        incident: VmIncident | None,
    ) -> None:
        """Open, turn or end the incident by the rows that have fitted for long enough."""
        stood = {row.name: round(self._stood_s(case, key, row), 6) for row in rows}
        if incident is not None and not rows:
            self._clear(case, key, values, incident)
        chosen = choose(rows, stood, self._patience)
        if chosen is None:
            return
        row, confirmed = chosen
        if incident is not None and not _turns(incident, row, held=confirmed):
            return
        evidence = self._rows(key, values, row, stood[row.name])
        inputs = decision_inputs.of_vm(self._context, values, stood, self._patience)
        if incident is None:
            vm_incidents.open_incident(
                self._context, key, row, evidence, inputs, confirmed=confirmed
            )
        else:
            vm_incidents.turn(self._context, incident, row, evidence, inputs, confirmed=confirmed)

    def _remedy(
        self, case: Case, values: VmValues, rows: tuple[VmRow, ...], subject: Subject
    ) -> None:
        """Do what is due about an open incident."""
        incident = self._context.state.vm_incident_on(subject)
        if incident is not None:
            self._remedies.go_on(incident, self._seen(case, values, rows, incident))

    def _seen(
        self, case: Case, values: VmValues, rows: tuple[VmRow, ...], incident: VmIncident
    ) -> Look:
        return Look(
            values=values,
            rows=rows,
            clear_s=0.0 if case.clear_s is None else self._since(case.clear_s),
            proven_s=self._proven_s,
            since=self._since,
            settle_s=self._settle_s(incident),
            patience=self._patience,
        )

    def _clear(self, case: Case, key: Key, values: VmValues, incident: VmIncident) -> None:
        """End an incident whose rows no longer fit: at once for a plain reason, else in time."""
        if incident.started:
            why = self._remedies.why_over(incident, self._seen(case, values, (), incident))
        else:
            why = vm_incidents.why_over(self._context, incident, key, values)
        clear_s = self._since(case.clear_s or 0.0)
        if not why and not incident.started and clear_s >= self._settle_s(incident):
            why = f"nothing has spoken against it for {clear_s:.0f} s"
        if why:
            inputs = decision_inputs.of_vm(self._context, values, patience=self._patience)
            evidence = self._rows(key, values)
            vm_incidents.resolve(self._context, incident, why, evidence, inputs)

    def _settle_s(self, incident: VmIncident) -> float:
        settle_s = INHERITED_SETTLE_S if incident.id in self._inherited else SETTLE_S
        return settle_s * self._patience

    def _since(self, mark_s: float) -> float:
        """Return for how long something has stood that began at ``mark_s``."""
        floor_s = max(self._floor_s, self._context.evidence.leases.time.floor_s)
        return self._proven_s - max(mark_s, floor_s)

    def _stood_s(self, case: Case, key: Key, row: VmRow) -> float:
        return self._since(case.marks[row.name][1]) - self._evidence.grace_s(row.name, key)

    def _after_s(self, row: VmRow) -> float:
        return row.after_s * self._patience

    def _confirmed_s(self, row: VmRow) -> float:
        return (row.after_s + row.hold_s) * self._patience

    def _waits_s(self, case: Case, key: Key, rows: tuple[VmRow, ...]) -> list[float]:
        """Return in how many seconds each limit is reached that is not reached yet."""
        found: list[float] = []
        for row in rows:
            if row.name in case.marks:
                stood_s = self._stood_s(case, key, row)
                limits = (self._after_s(row), self._confirmed_s(row))
                found += [limit_s - stood_s for limit_s in limits if limit_s > stood_s]
        incident = self._context.state.vm_incident_on(vm_subject(*key))
        if incident is not None and case.clear_s is not None:
            left_s = self._settle_s(incident) - self._since(case.clear_s)
            found += [left_s] if left_s > 0 else []
        return found

    def remedy_left_s(self, incident: VmIncident) -> float | None:
        """Return in how many seconds the step under way counts as failed; None: nothing waits."""
        left_s = self._remedies.left_s(incident, self._since)
        return None if left_s is None else round(max(0.0, left_s), 3)

    def _rows(
        self, key: Key, values: VmValues, row: VmRow | None = None, stood_s: float = 0.0
    ) -> tuple[EvidenceRow, ...]:
        return vm_incidents.evidence_rows(values, self.details(key), row, stood_s)

    # --- telling ---------------------------------------------------------------------------------

    def values(self, key: Key) -> VmValues:
        """Return the value of each facet of a VM now."""
        return self._evidence.values(key, self._proven_s)

    def details(self, key: Key) -> dict[str, str]:
        """Return what there is to say of each facet, for people; those without words are absent."""
        return self._evidence.details(key, self._proven_s)

    def excuse(self, key: Key) -> str:
        """Return why nothing is concluded of this VM now, or ""."""
        context = self._context
        if not context.inventory.synced:
            return "the lists of nodes, VMs and pods are not complete yet"
        care = vm_incidents.taken_care_of(context, key)
        return care or vm_incidents.doubtful_host(context, key) or self._excuse_of_all

    def standing(self, key: Key) -> list[tuple[VmRow, float, float, float]]:
        """Return the rows that fit a VM now, with their seconds.

        That is for how long each has fitted (below 0 while a grace period lasts), after how long it
        suspects, and after how long it confirms.
        """
        case = self._cases.get(key) or Case()
        return [
            (
                row,
                self._stood_s(case, key, row) if row.name in case.marks else 0.0,
                self._after_s(row),
                self._confirmed_s(row),
            )
            for row in fitting(self.values(key))
        ]

    def suspects(self) -> list[Key]:
        """Return the VMs that look bad, or whose incident is open, by name."""
        return sorted(self._cases.keys())


def _turns(incident: VmIncident, row: VmRow, *, held: bool) -> bool:
    """Whether this row says something that the incident does not say yet."""
    if row.verdict is not incident.verdict:
        return held or incident.state is IncidentState.SUSPECTED
    return held and incident.state is IncidentState.SUSPECTED


def _key(subject: Subject) -> Key:
    return subject.namespace, subject.name


def _key_of(facts: VmObject) -> Key:
    name = facts.vmi if isinstance(facts, (PodFacts, MigrationFacts)) else facts.name
    return facts.namespace, name


def _lacks_vmi(vm: VmFacts, vmis: dict[Key, VmiFacts]) -> bool:
    return vm.run_strategy is RunStrategy.ALWAYS and (vm.namespace, vm.name) not in vmis
