"""Prometheus metrics: what a person on call wants to see, with labels whose values are bounded.

No label carries a VM or pod name: those are in the decision log. Node names stand on the series of
fence devices alone (``fence_metrics``): they are as many as the cluster has devices. Children are
bound once, because ``labels()`` costs four times the increment itself. Units are seconds; counters
end in ``_total``. One process has one ``METRICS``; tests make their own with a fresh registry.
"""

from __future__ import annotations

import time
import typing
from collections.abc import Iterable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    platform_collector,
    process_collector,
)

from remediator.engine.chain import Decision, DecisionKind
from remediator.engine.model import (
    IncidentState,
    OutcomeStatus,
    Plane,
    Reading,
    Verdict,
    Work,
)
from remediator.engine.standing import PauseMeaning
from remediator.engine.start_words import Reason
from remediator.engine.tiers import TIERS
from remediator.engine.views import STOPPED
from remediator.engine.vm_verdicts import TABLE as VM_TABLE
from remediator.fence_metrics import DeviceSeries, FenceDeviceCollector, check_histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

ACTIONS = tuple(str(work.__struct_config__.tag) for work in typing.get_args(Work))
# States that the incident of a VM may be in.
OF_VM_INCIDENTS = (
    IncidentState.SUSPECTED.value,
    IncidentState.CONFIRMED.value,
    IncidentState.REMEDYING.value,
    IncidentState.HELD.value,
    IncidentState.ESCALATED.value,
)
# What became of a pod (admission.gatekeeper, admission.review).
ADMISSIONS = (
    "place",
    "has-a-place",
    "no-place",
    "storm",
    "not-gating",
    "no-leader",
    "exempt",
    "foreign",
    "unreadable",
)
GUARD_LIMIT = 32  # distinct guard names that get a series of their own; the rest is "other"
INCIDENT_LIMIT = 1000  # incidents measured at once

_OF_VMS = (
    Verdict.GUEST_SILENT,
    Verdict.CRASHED,
    Verdict.STUCK,
    Verdict.PAUSED,
    Verdict.UNPLACEABLE,
)
_OF_NODES = tuple(verdict for verdict in Verdict if verdict not in _OF_VMS)
_LOST = (Verdict.DEAD, Verdict.UNREACHABLE, Verdict.ISOLATED)

# A verdict on leases alone is due within 15 s, a whole recovery within a minute or two.
_STORY_BUCKETS = (1.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 300.0, 900.0)
_APPEND_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class _Bound:
    """The children of one counter for a fixed list of label values; anything else is "other"."""

    def __init__(self, counter: Counter, values: Iterable[str]) -> None:
        self._children = {value: counter.labels(value) for value in (*values, "other")}

    def inc(self, value: str, amount: float = 1.0) -> None:
        self._children.get(value, self._children["other"]).inc(amount)


class Metrics:
    """Every metric of the daemon, on one registry."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._lost: dict[str, float] = {}  # incident -> when its verdict was recorded
        self._proven: dict[str, float] = {}  # incident -> when its proof was held
        self._make_observing()
        self._make_judging()
        self._make_ordered()
        self._make_deciding()
        self._make_plumbing()
        self._fence_checks = check_histogram(self.registry)
        self._fence_devices = FenceDeviceCollector(self.registry)

    def _make_observing(self) -> None:
        signals = Counter(
            "remediator_signals_total",
            "Observations that reached the engine.",
            ["plane", "reading"],
            registry=self.registry,
        )
        self._signals = {
            (plane.value, reading.value): signals.labels(plane.value, reading.value)
            for plane in Plane
            for reading in Reading
        }
        self._refused = Counter(
            "remediator_signals_refused_total",
            "Messages on the signal subjects that were not let in, by reason (docs/signals.md).",
            ["reason"],
            registry=self.registry,
        )
        self.duplicates = Counter(
            "remediator_signals_duplicate_total",
            "Signals that had been taken in before.",
            registry=self.registry,
        )
        odd_times = Counter(
            "remediator_signals_odd_time_total",
            "Signals let in whose own time was odd: future, past, out-of-order, jump.",
            ["oddity"],
            registry=self.registry,
        )
        self.odd_times = {
            oddity: odd_times.labels(oddity)
            for oddity in ("future", "past", "out-of-order", "jump")
        }
        dead_letters = Counter(
            "remediator_dead_letters_total",
            "Refused messages by fate: sent to remediator.dead-letter.>, of these lost for want of "
            "room or of an answer, or dropped by the limits of what is sent.",
            ["fate"],
            registry=self.registry,
        )
        self.dead_letters_sent = dead_letters.labels("sent")
        self.dead_letters_dropped = dead_letters.labels("dropped")
        self.dead_letters_lost = dead_letters.labels("lost")
        probes = Counter(
            "remediator_probes_total",
            "Network probes of this vantage point, by protocol and what they heard.",
            ["protocol", "heard"],
            registry=self.registry,
        )
        self._probes = {
            (protocol, heard): probes.labels(protocol, heard)
            for protocol in ("tcp", "icmp", "https")
            for heard in ("answer", "silence", "nothing")
        }
        self.vantage_up = Gauge(
            "remediator_vantage_up",
            "1 while this vantage point reaches its references; else it judges no node.",
            registry=self.registry,
        )
        self.watch_lag = Gauge(
            "remediator_watch_lag_seconds",
            "Time since a watch last proved that it hears the API server.",
            ["watch"],
            registry=self.registry,
        )
        self.loop_lag = Histogram(
            "remediator_event_loop_lag_seconds",
            "How late the event loop ran a timer; long ones stretch every silence deadline.",
            buckets=_LAG_BUCKETS,
            registry=self.registry,
        )

    def _make_judging(self) -> None:
        registry = self.registry
        self.policies = Gauge(
            "remediator_policies",
            "Policies in force in this replica.",
            registry=registry,
        )
        self.policy_faults = Gauge(
            "remediator_policy_faults",
            "Faults of policies that are refused now; the last good ones stay in force.",
            registry=registry,
        )
        self.policies_loaded_at = Gauge(
            "remediator_policies_loaded_timestamp_seconds",
            "When other policies last came into force in this replica.",
            registry=registry,
        )
        self._plane_age = Gauge(
            "remediator_plane_age_seconds",
            "Time since the last signal of a plane; absent where none was ever heard.",
            ["plane"],
            registry=registry,
        )
        self._plane_heard: dict[str, float] = {}  # plane -> monotonic time of its last signal
        self._multiplier = Gauge(
            "remediator_own_health_multiplier",
            "By how much this leader stretches every silence limit for its own trouble; 1 is well.",
            registry=registry,
        )
        self._multiplier.set(1)
        self._suspended = Gauge(
            "remediator_convictions_suspended",
            "1 while this leader convicts nobody because of its own trouble.",
            registry=registry,
        )
        self._suspicion = Gauge(
            "remediator_lease_suspicion_max",
            "The highest suspicion (phi) of any node's lease, as this leader sees it.",
            registry=registry,
        )
        self._starts_limit = Gauge(
            "remediator_starts_limit",
            "How many VMs may be on their way or boot at once, as this leader has found.",
            registry=registry,
        )
        self._starts_booting = Gauge(
            "remediator_starts_booting",
            "VMs that hold a place now: on their way, or booting.",
            registry=registry,
        )
        waits = Gauge(
            "remediator_starts_waiting",
            "VMs that wait for their start, by what they wait for.",
            ["reason"],
            registry=registry,
        )
        self._starts_waiting = {each.value: waits.labels(each.value) for each in Reason}
        by_tier = Gauge(
            "remediator_starts_waiting_tier",
            "VMs that wait for their start, by tier; other: a number without a name.",
            ["tier"],
            registry=registry,
        )
        self._starts_tiers = {name: by_tier.labels(name) for name in (*TIERS, "other")}
        nodes = Gauge(
            "remediator_nodes",
            "Nodes by verdict, as this leader sees them.",
            ["verdict"],
            registry=registry,
        )
        self._nodes = {one.value: nodes.labels(one.value) for one in _OF_NODES}
        vms = Gauge(
            "remediator_vms",
            "VMs by verdict, as this leader sees them; stopped: nobody wants it to run.",
            ["verdict"],
            registry=registry,
        )
        of_vms = (Verdict.UNKNOWN, Verdict.HEALTHY, *_OF_VMS)
        self._vms = {each: vms.labels(each) for each in (*(one.value for one in of_vms), STOPPED)}

    def _make_ordered(self) -> None:
        pauses = Gauge(
            "remediator_pauses",
            "Scopes that a person has paused by an order, by meaning, as this leader knows them.",
            ["meaning"],
            registry=self.registry,
        )
        self._pauses = {each.value: pauses.labels(each.value) for each in PauseMeaning}
        self._approvals = Gauge(
            "remediator_approvals_waiting",
            "Incidents whose plan waits for a person's approval, as this leader knows them.",
            registry=self.registry,
        )

    def _make_deciding(self) -> None:
        registry = self.registry
        self._verdicts = _Bound(
            Counter(
                "remediator_verdict_changes_total",
                "Verdicts recorded for a subject, by the new verdict.",
                ["verdict"],
                registry=registry,
            ),
            [one.value for one in Verdict],
        )
        incidents = Gauge(
            "remediator_incidents",
            "Open incidents of nodes by state.",
            ["state"],
            registry=registry,
        )
        self._incidents = {one.value: incidents.labels(one.value) for one in IncidentState}
        vm_incidents = Gauge(
            "remediator_vm_incidents",
            "Open incidents of VMs by verdict and state.",
            ["verdict", "state"],
            registry=registry,
        )
        self._vm_incidents = {
            (verdict, state): vm_incidents.labels(verdict, state)
            for verdict in sorted({row.verdict.value for row in VM_TABLE})
            for state in OF_VM_INCIDENTS
        }
        actions = Counter(
            "remediator_actions_total",
            "Actions that ended, by kind and outcome.",
            ["action", "outcome"],
            registry=registry,
        )
        self._actions = {
            (kind, status.value): actions.labels(kind, status.value)
            for kind in (*ACTIONS, "other")
            for status in OutcomeStatus
        }
        self.action_seconds = Histogram(
            "remediator_action_duration_seconds",
            "How long actions took.",
            ["action"],
            buckets=_STORY_BUCKETS,
            registry=registry,
        )
        self._refusals = Counter(
            "remediator_refusals_total",
            "Times a guard or budget said wait or refuse.",
            ["guard"],
            registry=registry,
        )
        self._guards: set[str] = set()
        self._decisions = _Bound(
            Counter(
                "remediator_decisions_total",
                "Decisions that the journal acknowledged, by kind.",
                ["kind"],
                registry=registry,
            ),
            [one.value for one in DecisionKind],
        )
        self.time_to_verdict = Histogram(
            "remediator_time_to_verdict_seconds",
            "From the last sign of life to the verdict that a node is lost.",
            buckets=_STORY_BUCKETS,
            registry=registry,
        )
        self.time_to_proof = Histogram(
            "remediator_time_to_proof_seconds",
            "From the verdict to proof that the old copies no longer write.",
            buckets=_STORY_BUCKETS,
            registry=registry,
        )
        self.time_to_recovery = Histogram(
            "remediator_time_to_recovery_seconds",
            "From the verdict to the end of an incident in which a node was proven dead.",
            buckets=_STORY_BUCKETS,
            registry=registry,
        )

    def _make_plumbing(self) -> None:
        registry = self.registry
        self.append_seconds = Histogram(
            "remediator_journal_append_seconds",
            "From asking the journal to append a decision to its acknowledgement.",
            buckets=_APPEND_BUCKETS,
            registry=registry,
        )
        self.journal_head = Gauge(
            "remediator_journal_head_seq",
            "Sequence of the last decision in the journal.",
            registry=registry,
        )
        self.projected_head = Gauge(
            "remediator_journal_projected_seq",
            "Sequence of the last decision in the local SQLite projection.",
            registry=registry,
        )
        self.journal_broken = Gauge(
            "remediator_journal_broken",
            "1 when the decision chain has a broken link (see: remediator decisions verify).",
            registry=registry,
        )
        self.leader = Gauge(
            "remediator_leader", "1 while this daemon is the leader.", registry=registry
        )
        self.nats_connected = Gauge(
            "remediator_nats_connected", "1 while NATS answers.", registry=registry
        )
        self.nats_published = Counter(
            "remediator_nats_published_total", "Messages that NATS acknowledged.", registry=registry
        )
        self.nats_retried = Counter(
            "remediator_nats_retried_total",
            "Messages published again because no acknowledgement came in time.",
            registry=registry,
        )
        self.nats_dropped = Counter(
            "remediator_nats_dropped_total",
            "Observations replaced by a newer one of the same subject while NATS was away.",
            registry=registry,
        )
        admissions = Counter(
            "remediator_admissions_total",
            "Admission reviews that this replica answered, by what became of the pod.",
            ["outcome"],
            registry=registry,
        )
        self._admissions = _Bound(admissions, ADMISSIONS)
        self.certificate_ends = Gauge(
            "remediator_webhook_certificate_not_after_seconds",
            "When the webhook's certificate ends, in seconds since the epoch; 0: no webhook.",
            registry=registry,
        )
        self.gates_unattended = Counter(
            "remediator_gates_opened_unattended_total",
            "Gates that this replica opened because no leader attended to them.",
            registry=registry,
        )

    def with_process_metrics(self) -> None:
        """Add CPU, memory and file descriptors of this process; once per registry."""
        process_collector.ProcessCollector(registry=self.registry)
        platform_collector.PlatformCollector(registry=self.registry)

    def signals(self, plane: str, reading: str, count: int) -> None:
        """Count observations, and note that their plane was heard."""
        self._signals[plane, reading].inc(count)
        if plane not in self._plane_heard:
            self._plane_age.labels(plane).set_function(
                lambda: time.monotonic() - self._plane_heard[plane]
            )
        self._plane_heard[plane] = time.monotonic()

    def own_health(self, multiplier: int, *, suspended: bool) -> None:
        """Set how far this leader trusts its own eyes."""
        self._multiplier.set(multiplier)
        self._suspended.set(suspended)

    def ordered(self, pauses: Mapping[str, int], approvals_waiting: int) -> None:
        """Set what people have paused, by meaning, and how many plans wait for them."""
        for meaning, child in self._pauses.items():
            child.set(pauses.get(meaning, 0))
        self._approvals.set(approvals_waiting)

    def verdicts(self, nodes: Mapping[str, int], vms: Mapping[str, int], suspicion: float) -> None:
        """Set the nodes and VMs by verdict; verdicts not named become 0."""
        for verdict, child in self._nodes.items():
            child.set(nodes.get(verdict, 0))
        for verdict, child in self._vms.items():
            child.set(vms.get(verdict, 0))
        self._suspicion.set(suspicion)

    def pace(
        self, limit: int, booting: int, by_reason: Mapping[str, int], by_tier: Mapping[str, int]
    ) -> None:
        """Set the pace of starts; reasons and tiers not named become 0."""
        self._starts_limit.set(limit)
        self._starts_booting.set(booting)
        for reason, child in self._starts_waiting.items():
            child.set(by_reason.get(reason, 0))
        for tier, child in self._starts_tiers.items():
            if tier != "other":
                child.set(by_tier.get(tier, 0))
        unnamed = sum(count for tier, count in by_tier.items() if tier not in TIERS)
        self._starts_tiers["other"].set(unnamed)

    def admission(self, outcome: str) -> None:
        """Count one admission review."""
        self._admissions.inc(outcome)

    def refused(self, reason: str) -> None:
        """Count one message that was not let in; reasons are a fixed list."""
        self._refused.labels(reason).inc()

    def probe(self, protocol: str, heard: str) -> None:
        """Count one network probe."""
        self._probes[protocol, heard].inc()

    def fence_check(self, method: str, took_s: float, *, failed: bool) -> None:
        """Measure one check of a fence device; methods are a fixed list."""
        self._fence_checks.labels(method, "failed" if failed else "answered").observe(took_s)

    def fence_table(self, rows: Iterable[DeviceSeries]) -> None:
        """Show these devices from now on, and no others."""
        self._fence_devices.show(rows)

    def incidents(self, by_state: Mapping[str, int]) -> None:
        """Set the number of open incidents per state; states not named become 0."""
        for state, child in self._incidents.items():
            child.set(by_state.get(state, 0))

    def vm_incidents(self, by_verdict: Mapping[tuple[str, str], int]) -> None:
        """Set the number of open incidents of VMs per verdict and state; others become 0."""
        for key, child in self._vm_incidents.items():
            child.set(by_verdict.get(key, 0))

    def decision(self, decision: Decision) -> None:
        """Count a record that the journal acknowledged, with its verdict, refusals and outcome."""
        self.journal_head.set(decision.seq)
        self._story(decision)
        self._decisions.inc(decision.kind.value)
        if decision.verdict is not None and decision.kind in (
            DecisionKind.OPENED,
            DecisionKind.VERDICT,
        ):
            self._verdicts.inc(decision.verdict.value)
        for guard in decision.guards:
            if guard.answer != "grant":
                self._refusals.labels(self._guard_label(guard.guard)).inc()
        if decision.outcome is not None:
            outcome = decision.outcome
            kind = _action_kind(decision)
            self._actions[kind, outcome.status.value].inc()
            took_s = max(0.0, outcome.finished_at - outcome.started_at)
            self.action_seconds.labels(kind).observe(took_s)

    def _story(self, decision: Decision) -> None:
        """Measure an incident from its verdict to its proof and to its end, by the journal's times.

        Only incidents whose verdict this process recorded: after a take-over the rest of one is not
        measured. Bounded: the oldest is forgotten.
        """
        incident = decision.incident
        if decision.verdict in _LOST and incident not in self._lost:
            lease = next((row for row in decision.evidence if row.plane == Plane.LEASE), None)
            if lease is not None:
                self.time_to_verdict.observe(lease.since_s)
            self._lost[incident] = decision.at
            if len(self._lost) > INCIDENT_LIMIT:
                oldest = next(iter(self._lost))
                self._lost.pop(oldest)
                self._proven.pop(oldest, None)
        lost_at = self._lost.get(incident)
        if lost_at is None:
            return
        proof = decision.proof or (decision.outcome.proof if decision.outcome else None)
        if proof is not None and incident not in self._proven:
            self._proven[incident] = proof.at
            self.time_to_proof.observe(max(0.0, proof.at - lost_at))
        if decision.kind is DecisionKind.RESOLVED:
            del self._lost[incident]
            if self._proven.pop(incident, None) is not None:
                self.time_to_recovery.observe(max(0.0, decision.at - lost_at))

    def _guard_label(self, guard: str) -> str:
        """Keep guard names bounded even where one carries a name of the cluster, such as a zone."""
        name = guard.partition(":")[0].partition("/")[0].strip() or "other"
        if name not in self._guards and len(self._guards) >= GUARD_LIMIT:
            return "other"
        self._guards.add(name)
        return name

    def render(self) -> bytes:
        """Return the exposition text; about 12 us a series, so call it off the event loop."""
        return generate_latest(self.registry)


def _action_kind(decision: Decision) -> str:
    """Return the kind of the action that ended: from the record, else from the action's id."""
    if decision.action is not None:
        kind = str(type(decision.action.work).__struct_config__.tag)
    else:
        parts = decision.outcome.action_id.split("/") if decision.outcome else []
        kind = next((part for part in parts if part in ACTIONS), "other")
    return kind if kind in ACTIONS else "other"


METRICS = Metrics()
