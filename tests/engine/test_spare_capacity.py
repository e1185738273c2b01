"""Whether everybody fits, before anybody starts: what is missing is told, and for whom."""

from __future__ import annotations

from test_placement import GIB, Lab, apart

from remediator.engine.pod_rules import HOSTNAME, NodeTerm, PodRules, Requirement
from remediator.engine.spare_capacity import shortage
from remediator.engine.start_words import Candidate


def waits(vm, *, tier=0, since_at=1.0):
    return Candidate(vm=vm, tier=tier, since_at=since_at)


def test_nothing_is_missing_where_all_fit():
    lab = Lab()
    lab.node("n1")
    assert shortage(lab.context, [waits(lab.vm("v1")), waits(lab.vm("v2"))]) is None


def test_what_is_missing_is_told_for_the_least_important():
    lab = Lab()
    lab.node("n1", memory=6 * GIB)
    found = shortage(
        lab.context,
        [
            waits(lab.vm("low", memory=4 * GIB), tier=-1),
            waits(lab.vm("high", memory=4 * GIB), tier=1),
        ],
    )
    assert [vm.name for vm in found.homeless] == ["low"]
    assert str(found) == (
        "1 of 2 VMs fits on no node now (a/low): short of 4.0 GiB of memory."
        " It waits; the others start"
    )


def test_cpu_and_memory_are_told_together():
    lab = Lab()
    lab.node("n1", memory=2 * GIB)
    lab.node("n2", cpu_m=500)
    found = shortage(lab.context, [waits(lab.vm("v", memory=3 * GIB, cpu_m=2000))])
    assert (found.cpu_m, found.memory) == (2000, 3 * GIB)
    assert str(found) == (
        "1 of 1 VMs fits on no node now (a/v): short of 3.0 GiB of memory and 2.0 CPUs. It waits"
    )


def test_rules_are_named_where_room_is_not_the_trouble():
    lab = Lab()
    lab.node("n1")
    rules = PodRules(anti_affinity=(apart(app="db"),))
    vms = [lab.vm(f"db{number}", labels={"app": "db"}, rules=rules) for number in range(2)]
    found = shortage(lab.context, [waits(vm) for vm in vms])
    assert "(a/db1): kept off by anti-affinity. It waits" in str(found)


def test_a_disk_on_the_lost_host_alone_is_told_apart(monkeypatch):
    lab = Lab()
    lab.node("n1")
    lab.node("n2")
    terms = (NodeTerm(labels=(Requirement(key=HOSTNAME, values=("n1",)),)),)
    lab.disk("root", source="local", pinned_to=("n1",), node_terms=terms)
    vm = lab.vm("v", claims=("root",))
    monkeypatch.setattr("remediator.engine.placement.lost", lambda _context: frozenset({"n1"}))
    monkeypatch.setattr("remediator.engine.placement.unable", lambda _context: {"n1": "lost"})
    found = shortage(lab.context, [waits(vm)])
    assert found.homeless == ()
    assert str(found) == "a/v stays: the only copy of a disk is on the lost host"


def test_of_many_a_few_are_named():
    lab = Lab()
    lab.node("n1", memory=GIB // 2)
    vms = [waits(lab.vm(f"v{number}")) for number in range(7)]
    text = str(shortage(lab.context, vms))
    assert "7 of 7 VMs" in text
    assert "a/v4 …" in text
    assert "a/v5" not in text
