from __future__ import annotations

import msgspec

from remediator.engine.chain import DecisionKind
from remediator.engine.events import PoliciesLoaded
from remediator.engine.model import Verdict
from remediator.engine.rules import Policy

POLICY = Policy(
    name="node-lost",
    source="test",
    content_hash="0" * 64,
    verdicts=(Verdict.DEAD, Verdict.UNREACHABLE),
)


def changed(policy, **fields):
    fields.setdefault("content_hash", "1" * 64)
    return msgspec.structs.replace(policy, **fields)


def said(cluster):
    return [each.why for each in cluster.kinds(DecisionKind.POLICIES)]


def load(cluster, *policies):
    cluster.handle(PoliciesLoaded(policies=policies))


def test_other_policies_are_in_force_at_once_and_recorded(cluster):
    other = changed(POLICY, name="other")
    load(cluster, changed(POLICY, for_s=5.0), other)
    assert said(cluster) == ["policies in force: node-lost, other (new: other; changed: node-lost)"]
    load(cluster, other)
    assert said(cluster)[1] == "policies in force: other (gone: node-lost)"
    assert [one.name for one in cluster.engine.context.policies] == ["other"]


def test_the_same_policies_again_are_no_news(cluster):
    load(cluster, POLICY)
    assert said(cluster) == []


def test_an_incident_that_no_policy_answered_is_answered_by_a_new_one(make_cluster):
    cluster = make_cluster(policies=[])
    cluster.lose("n1")
    assert "no policy answers Dead" in cluster.kinds(DecisionKind.ESCALATED)[-1].why
    load(cluster, POLICY)
    assert cluster.kinds(DecisionKind.PLANNED)[-1].plan.policy == "node-lost"


def test_when_a_policy_last_matched_is_remembered_through_a_replay(cluster):
    cluster.lose("n1")
    planned = cluster.kinds(DecisionKind.PLANNED)[-1]
    assert cluster.engine.state.matched == {"node-lost": planned.at}


def test_a_closed_window_holds_the_incident_and_is_told_once(make_cluster):
    class Closed:
        text = "the night"

        def active(self, at):
            return at >= 1_100_000.0

        def opens_at(self, after):
            return max(after, 1_100_000.0)

    policy = Policy(
        name="at-night",
        source="t",
        content_hash="2" * 64,
        verdicts=(Verdict.DEAD,),
        windows=(Closed(),),
    )
    cluster = make_cluster(policies=[policy])
    cluster.lose("n1")
    cluster.run(5.0)
    refused = cluster.kinds(DecisionKind.REFUSED)
    assert len(refused) == 1
    assert refused[0].why.startswith("waits: at-night: active window the night is closed")
