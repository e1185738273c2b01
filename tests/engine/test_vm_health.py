"""What people are told of one VM when they ask."""

from __future__ import annotations

import pytest
from vm_world import VmWorld

from remediator.engine.model import IncidentState, Verdict, vm_subject
from remediator.engine.vm_health import sick_vms, vm_health


@pytest.fixture
def world(cluster) -> VmWorld:
    return VmWorld(cluster)


def ask(world: VmWorld, name: str = "db"):
    engine = world.cluster.engine
    return vm_health(engine.context, engine.vms, world.subject(name))


def test_a_vm_that_does_not_exist_has_no_health(world):
    engine = world.cluster.engine
    assert vm_health(engine.context, engine.vms, vm_subject("ns", "nobody")) is None


def test_a_vm_that_is_well_says_so_and_what_would_change_that(world):
    world.add()
    found = ask(world)
    assert (found.verdict, found.row, found.excuse) == (Verdict.HEALTHY, "", "")
    assert found.fitting == ()
    assert found.due_in_s is None
    assert "agent lost: GuestSilent (agent-lost)" in found.would_change
    assert "paused io-error: Paused (io-error)" in found.would_change
    facets = {row.plane: row for row in found.facets}
    assert facets["agent"].value == "up"
    assert facets["pod"].detail.startswith("virt-launcher-db-1 Running, on n1")


def test_a_vm_that_falls_ill_says_since_when_and_what_is_due_next(world):
    world.add()
    world.vmi(agent_connected=False)
    world.cluster.run(50)
    found = ask(world)
    assert found.verdict is Verdict.GUEST_SILENT
    assert found.incident == ""
    (standing,) = found.fitting
    assert standing.row == "agent-lost"
    assert standing.stood_s == pytest.approx(50, abs=2)
    assert (standing.suspected_after_s, standing.confirmed_after_s) == (120, 300)
    assert found.due_in_s == pytest.approx(70, abs=2)
    assert "agent up or unknown: no longer agent-lost" in found.would_change
    world.cluster.run(100)
    found = ask(world)
    assert found.state is IncidentState.SUSPECTED
    assert found.incident == world.incident().id
    assert found.due_in_s == pytest.approx(150, abs=2)
    world.cluster.run(160)
    found = ask(world)
    assert found.state is IncidentState.CONFIRMED
    assert found.due_in_s is None


def test_asking_changes_nothing(world):
    world.add()
    world.vmi(agent_connected=False)
    world.cluster.run(50)
    before = world.cluster.engine.snapshot()
    for _ in range(3):
        assert ask(world) == ask(world)
    assert world.cluster.engine.snapshot() == before


def test_a_grace_period_that_is_not_over_counts_below_zero(world):
    world.add()
    world.vmi(deleting=True)
    world.pod(deleting=True, grace_s=180.0)
    world.cluster.run(60)
    (standing,) = ask(world).fitting
    assert standing.stood_s == pytest.approx(-120, abs=2)
    assert ask(world).due_in_s == pytest.approx(180, abs=2)


def test_a_vm_of_a_lost_host_says_whose_business_it_is(world):
    world.add("db", "n1")
    world.vmi(agent_connected=False)
    world.cluster.run(10)
    world.cluster.lose("n1")
    found = ask(world)
    assert found.verdict is Verdict.UNKNOWN
    assert found.excuse.startswith("its host n1 is in an incident itself: inc-")
    assert found.due_in_s is None


def test_before_the_lists_are_complete_nothing_is_known(make_cluster):
    cluster = make_cluster(lead=False)
    cluster.lead(sync=False)
    world = VmWorld(cluster)
    world.vm()
    world.launch()
    assert "not complete" in ask(world).excuse


def test_a_silence_that_is_excused_says_why(world):
    world.vm()
    world.launch(agent=True)
    world.vmi(agent_connected=False)
    facets = {row.plane: row for row in ask(world).facets}
    assert facets["agent"].value == "unknown"
    assert "in the first minutes of its run" in facets["agent"].detail
    world.cluster.run(301)
    world.vmi(probes_muted=True)
    facets = {row.plane: row for row in ask(world).facets}
    assert "kubevirt.io/pause-guest-agent-probes" in facets["agent"].detail


def test_a_disk_plugged_into_a_running_guest_is_not_shown_as_keeping_it_from_running(world):
    world.add()
    world.signal("attach")
    facets = {row.plane: row for row in ask(world).facets}
    assert facets["volume"].value == "fine"


def test_only_those_that_look_bad_are_listed(world):
    for number in range(5):
        world.add(f"vm{number}", "n2")
    world.vmi("vm3", agent_connected=False)
    world.vmi("vm1", paused="PausedIOError")
    engine = world.cluster.engine
    assert [each.subject.name for each in sick_vms(engine.context, engine.vms)] == ["vm1", "vm3"]
