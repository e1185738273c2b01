"""What ``remediator policy explain`` is answered."""

from __future__ import annotations

import msgspec
import pytest
from vm_world import VmWorld

from remediator.engine import policy_view
from remediator.engine.model import Verdict, vm_subject
from remediator.engine.rules import Approval, Policy, SubjectKind
from remediator.engine.views import NoSuch, Surroundings

LOST = Policy(name="lost", source="t", content_hash="1" * 64, verdicts=(Verdict.DEAD,))
SLOW = msgspec.structs.replace(LOST, name="slow", for_s=60.0, priority=1)
CRASHED = Policy(
    name="crashed",
    source="t",
    content_hash="2" * 64,
    verdicts=(Verdict.CRASHED,),
    subject=SubjectKind.VM,
    steps=("restart",),
    approval=Approval(),
)


@pytest.fixture
def cluster(make_cluster):
    return make_cluster(policies=[LOST, SLOW, CRASHED])


def of_node(cluster, name="n1", assumed=None):
    around = Surroundings(at=cluster.now, watches=())
    return policy_view.node_view(cluster.engine.context, around, name, assumed)


def of_vm(cluster, name="db", assumed=None):
    around, engine = Surroundings(at=cluster.now, watches=()), cluster.engine
    subject = vm_subject("ns", name)
    return policy_view.vm_view(engine.context, engine.vms, around, subject, assumed)


def failed(view):
    return {
        word.name: [f"{row.clause}: {row.value}" for row in word.clauses if not row.held]
        for word in view.words
    }


def test_a_healthy_node_is_answered_by_nobody_and_every_policy_says_why(cluster):
    view = of_node(cluster)
    assert (view.verdict, view.chosen, view.incident) == (Verdict.HEALTHY, "", "")
    assert view.would == ("nothing: no policy matches",)
    assert failed(view) == {
        "slow": ["verdict in [Dead]: Healthy", "for 60 s: 0.0 s"],
        "lost": ["verdict in [Dead]: Healthy"],
        "crashed": ["subject VirtualMachine: Node"],
    }


def test_a_dead_node_shows_its_policy_the_plan_and_what_withholds_it(cluster):
    cluster.lose("n1")
    view = of_node(cluster)
    assert (view.verdict, view.chosen) == (Verdict.DEAD, "lost")
    assert view.would[0].startswith("cordon, fence, release, recover; 0 VMs")
    assert [guard.guard for guard in view.guards] == ["vms"]
    assert failed(view)["slow"] == ["for 60 s: 0.0 s"]
    assert [word.chosen for word in view.words] == [False, False, True]


def test_an_assumed_verdict_has_stood_for_long(cluster):
    view = of_node(cluster, assumed=Verdict.DEAD)
    assert (view.verdict, view.since_s, view.chosen) == (Verdict.DEAD, None, "slow")
    assert view.guards == ()
    assert [word.matches for word in view.words] == [True, False, True]


def test_a_vm_is_asked_about_with_its_guards(cluster):
    world = VmWorld(cluster)
    world.add()
    view = of_vm(cluster, assumed=Verdict.CRASHED)
    assert view.chosen == "crashed"
    assert view.would[:2] == ("restart; 1 VM", "a person is asked first")
    assert of_vm(cluster).chosen == ""


def test_looking_changes_nothing(cluster):
    cluster.lose("n1")
    VmWorld(cluster)
    context = cluster.engine.context
    before = cluster.engine.snapshot(), list(context.effects), context.now
    of_node(cluster)
    of_node(cluster, assumed=Verdict.UNREACHABLE)
    of_vm(cluster, assumed=Verdict.CRASHED)
    assert (cluster.engine.snapshot(), list(context.effects), context.now) == before


def test_what_is_not_there_is_said(cluster):
    view = of_node(cluster, "n99")
    assert isinstance(view, NoSuch)
    assert "there is no node n99" in view.detail
    assert isinstance(of_vm(cluster, "nothing"), NoSuch)
