from __future__ import annotations

import re
import typing

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from remediator.engine.chain import Decision, DecisionKind, EvidenceRow, GuardRow
from remediator.engine.model import (
    Outcome,
    OutcomeStatus,
    Proof,
    ProofKind,
    Verdict,
    Work,
    node_subject,
)
from remediator.metrics import GUARD_LIMIT, Metrics


@pytest.fixture
def metrics():
    return Metrics(CollectorRegistry())


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, labels)


def decision(**fields):
    return Decision(
        **{"seq": 5, "prev": "", "at": 0.0, "leader": "a", "epoch": 1, "why": "", **fields},
        subject=node_subject("n1"),
    )


def test_names_follow_the_conventions(metrics):
    for family in text_string_to_metric_families(metrics.render().decode()):
        assert re.fullmatch(r"remediator_[a-z_]+", family.name), family.name
        assert family.documentation.endswith("."), family.name
        if family.type == "histogram":
            assert family.name.endswith("_seconds")


def test_a_verdict_counts_once_where_it_changes(metrics):
    metrics.decision(decision(kind=DecisionKind.VERDICT, verdict=Verdict.DEAD))
    metrics.decision(decision(kind=DecisionKind.PLANNED, verdict=Verdict.DEAD))
    assert value(metrics, "remediator_verdict_changes_total", verdict="Dead") == 1
    assert value(metrics, "remediator_decisions_total", kind="planned") == 1
    assert value(metrics, "remediator_journal_head_seq") == 5


def test_an_outcome_counts_by_what_was_done(metrics):
    outcome = Outcome(
        action_id="inc-1/force-stop/shop/db/1",
        status=OutcomeStatus.FAILED,
        detail="",
        started_at=1.0,
        finished_at=3.0,
    )
    metrics.decision(decision(kind=DecisionKind.FINISHED, outcome=outcome))
    name = "remediator_actions_total"
    assert value(metrics, name, action="force-stop", outcome="failed") == 1
    assert value(metrics, "remediator_action_duration_seconds_sum", action="force-stop") == 2.0


def test_an_incident_is_measured_from_its_verdict_to_proof_and_end(metrics):
    lease = EvidenceRow(plane="lease", value="silent", since_s=12.5)
    proof = Proof(kind=ProofKind.REBOOTED, node="n1", boot_id="b", at=108.0, source="x")
    for incident, kind, at, fields in (
        ("inc-1", DecisionKind.OPENED, 99.0, {"verdict": Verdict.SUSPECT}),
        ("inc-1", DecisionKind.VERDICT, 100.0, {"verdict": Verdict.DEAD, "evidence": (lease,)}),
        ("inc-2", DecisionKind.VERDICT, 100.0, {"verdict": Verdict.DEAD, "evidence": (lease,)}),
        ("inc-1", DecisionKind.FINISHED, 109.0, {"proof": proof}),
        ("inc-1", DecisionKind.STARTED, 110.0, {"proof": proof}),
        ("inc-1", DecisionKind.RESOLVED, 160.0, {}),
        ("inc-2", DecisionKind.RESOLVED, 130.0, {}),  # the node came back: nothing was recovered
        ("inc-3", DecisionKind.RESOLVED, 190.0, {"proof": proof}),  # begun by an earlier leader
    ):
        metrics.decision(decision(kind=kind, at=at, incident=incident, **fields))
    for name, total, count in (("verdict", 25.0, 2), ("proof", 8.0, 1), ("recovery", 60.0, 1)):
        assert value(metrics, f"remediator_time_to_{name}_seconds_sum") == total
        assert value(metrics, f"remediator_time_to_{name}_seconds_count") == count


def test_guard_names_cannot_grow_without_bound(metrics):
    for number in range(GUARD_LIMIT + 20):
        guard = GuardRow(guard=f"guard-{number}", answer="refuse", why="")
        metrics.decision(decision(kind=DecisionKind.REFUSED, guards=(guard,)))
    zone = GuardRow(guard="guard-1: zone z7", answer="wait", why="")
    metrics.decision(decision(kind=DecisionKind.REFUSED, guards=(zone,)))
    assert value(metrics, "remediator_refusals_total", guard="other") == 20
    assert value(metrics, "remediator_refusals_total", guard="guard-1") == 2


def test_incidents_that_ended_go_back_to_zero(metrics):
    metrics.incidents({"fencing": 2})
    metrics.incidents({"held": 1})
    assert value(metrics, "remediator_incidents", state="fencing") == 0
    assert value(metrics, "remediator_incidents", state="held") == 1
    metrics.vm_incidents({("Crashed", "confirmed"): 2})
    metrics.vm_incidents({("Stuck", "suspected"): 1})
    told = {"verdict": "Crashed", "state": "confirmed"}
    assert value(metrics, "remediator_vm_incidents", **told) == 0
    told = {"verdict": "Stuck", "state": "suspected"}
    assert value(metrics, "remediator_vm_incidents", **told) == 1


@pytest.mark.parametrize("state", ["remedying", "held", "escalated"])
def test_a_vm_that_something_is_done_about_is_counted(metrics, state):
    metrics.vm_incidents({("GuestSilent", state): 3})
    told = {"verdict": "GuestSilent", "state": state}
    assert value(metrics, "remediator_vm_incidents", **told) == 3


def test_every_kind_of_action_has_a_count_from_the_start(metrics):
    for work in typing.get_args(Work):
        told = {"action": str(work.__struct_config__.tag), "outcome": "succeeded"}
        assert value(metrics, "remediator_actions_total", **told) == 0


def test_every_plane_has_its_signals_from_the_start(metrics):
    metrics.signals("lease", "up", 1)
    assert value(metrics, "remediator_signals_total", plane="lease", reading="up") == 1
    assert value(metrics, "remediator_signals_total", plane="power", reading="down") == 0


def test_a_plane_is_as_old_as_its_last_signal_and_absent_before_the_first(metrics, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("remediator.metrics.time.monotonic", lambda: clock[0])
    name = "remediator_plane_age_seconds"
    assert value(metrics, name, plane="power") is None
    metrics.signals("power", "up", 3)
    clock[0] = 107.5
    assert value(metrics, name, plane="power") == 7.5
    metrics.signals("power", "down", 1)
    assert value(metrics, name, plane="power") == 0.0


def test_verdicts_not_named_become_none(metrics):
    metrics.verdicts({"Healthy": 5, "Dead": 1}, {"Healthy": 9, "Stuck": 2, "stopped": 1}, 8.5)
    assert value(metrics, "remediator_nodes", verdict="Dead") == 1
    assert value(metrics, "remediator_vms", verdict="Stuck") == 2
    assert value(metrics, "remediator_vms", verdict="stopped") == 1
    assert value(metrics, "remediator_lease_suspicion_max") == 8.5
    metrics.verdicts({"Healthy": 6}, {"Healthy": 12}, 0.0)
    assert value(metrics, "remediator_nodes", verdict="Dead") == 0
    assert value(metrics, "remediator_nodes", verdict="Healthy") == 6
    assert value(metrics, "remediator_vms", verdict="Stuck") == 0


def test_every_verdict_has_its_place_among_nodes_or_vms(metrics):
    found = set()
    for family in text_string_to_metric_families(metrics.render().decode()):
        if family.name in ("remediator_nodes", "remediator_vms"):
            found |= {sample.labels["verdict"] for sample in family.samples}
    assert found == {*(one.value for one in Verdict), "stopped"}


def test_own_health_is_well_until_it_is_said_otherwise(metrics):
    assert value(metrics, "remediator_own_health_multiplier") == 1
    metrics.own_health(8, suspended=True)
    assert value(metrics, "remediator_own_health_multiplier") == 8
    assert value(metrics, "remediator_convictions_suspended") == 1


def test_pauses_and_requests_for_approval_are_counted(metrics):
    metrics.ordered({"freeze": 2}, 1)
    assert value(metrics, "remediator_pauses", meaning="freeze") == 2
    assert value(metrics, "remediator_pauses", meaning="ignore") == 0
    assert value(metrics, "remediator_approvals_waiting") == 1
    metrics.ordered({}, 0)
    assert value(metrics, "remediator_pauses", meaning="freeze") == 0
