"""Machines, their health checks and bare metal hosts: what each says of its node."""

from __future__ import annotations

import msgspec
import pytest

from remediator.engine.model import HandsOffFacts, Plane
from remediator.kube.machine_api import Machine
from remediator.sim.resources import NODES
from remediator.watchers.machine_links import MachineKey, MachineLinks
from tests.kube import custom_examples as examples
from tests.kube.custom_examples import condition
from tests.watchers.custom_world import WAKE_S, CustomWorld

MACHINES = "machines.machine.openshift.io"
CHECKS = "machinehealthchecks.machine.openshift.io"
CAPI = "machines.cluster.x-k8s.io"
CAPI_CHECKS = "machinehealthchecks.cluster.x-k8s.io"
HOSTS = "baremetalhosts.metal3.io"
OF_M1 = {"machine.openshift.io/machine": f"{examples.NS}/m1"}
OF_CAPI_M1 = {"cluster.x-k8s.io/machine": "m1", "cluster.x-k8s.io/cluster-namespace": "capi"}
M1 = f"Machine {examples.NS}/m1"
FINALIZERS = ["machine.machine.openshift.io"]


@pytest.fixture
def world(cluster):
    made = CustomWorld(cluster)
    made.install(MACHINES, CHECKS, CAPI, CAPI_CHECKS, HOSTS)
    return made


# --- which node -----------------------------------------------------------------------------------


async def test_a_machine_speaks_of_the_node_that_names_it(world):
    world.mark_node("n1", **OF_M1)
    world.make(MACHINES, examples.openshift_machine(node=""))
    await world.start()
    assert world.latest(Plane.MACHINE, "n1") == {(M1, "phase"): "up"}
    signal = world.published.signals(Plane.MACHINE)[0]
    assert signal.first
    assert signal.detail == "Running"
    assert world.published.signals(Plane.MACHINE, "n2.example.com") == []


async def test_a_machine_speaks_of_the_node_that_it_refers_to_by_uid(world):
    world.make(MACHINES, examples.openshift_machine(uid=world.node_uid("n1")))
    world.make(MACHINES, examples.openshift_machine("m2", uid="of-another-time"))
    await world.start()
    assert {source for source, _, _ in world.said(Plane.MACHINE)} == {M1}


async def test_a_machine_of_openshift_without_uid_is_of_this_cluster(world):
    world.make(MACHINES, examples.openshift_machine())
    await world.start()
    assert world.latest(Plane.MACHINE, "n1") == {(M1, "phase"): "up"}


async def test_a_machine_of_another_cluster_whose_node_has_a_name_of_ours_says_nothing(world):
    """A management cluster of Cluster API holds the Machines of all its clusters."""
    world.make(CAPI, examples.capi_machine(namespace="other-cluster", phase="Failed"))
    await world.start()
    assert world.said(Plane.MACHINE) == []
    world.mark_node("n1", **OF_CAPI_M1)  # ours is another Machine of that name
    await world.settle()
    assert world.said(Plane.MACHINE) == []
    world.make(CAPI, examples.capi_machine())
    await world.settle()
    assert world.latest(Plane.MACHINE, "n1") == {("Machine capi/m1", "phase"): "up"}


async def test_a_machine_that_refers_to_another_node_than_the_one_that_names_it_says_nothing(world):
    world.mark_node("n1", **OF_M1)
    world.make(MACHINES, examples.openshift_machine(node="n2.example.com", uid="u"))
    await world.start()
    assert world.said(Plane.MACHINE) == []


async def test_a_node_that_comes_later_and_goes_takes_the_words_with_it(world):
    machine = world.make(MACHINES, examples.openshift_machine(node="n3"))
    await world.start()
    assert world.said(Plane.MACHINE) == []
    world.cluster.add_node("n3", **OF_M1)
    await world.settle()
    assert world.said(Plane.MACHINE, "n3") == [(M1, "phase", "up")]
    world.store.delete(NODES, "", "n3")
    await world.settle()
    assert world.latest(Plane.MACHINE, "n3") == {(M1, "phase"): "unknown"}
    assert machine["status"]["phase"] == "Running"


# --- what it says ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "reading"),
    [
        ("Running", "up"),
        ("Failed", "down"),
        ("Deleting", "down"),
        ("Deleted", "down"),
        ("Provisioned", None),
        ("", None),
        ("SomethingNew", None),
    ],
)
async def test_the_phase_is_a_reading_where_it_means_one(world, phase, reading):
    world.mark_node("n1", **OF_M1)
    world.make(MACHINES, examples.openshift_machine(phase=phase))
    await world.start()
    expected = {} if reading is None else {(M1, "phase"): reading}
    assert world.latest(Plane.MACHINE, "n1") == expected


async def test_only_changes_are_published(world):
    world.mark_node("n1", **OF_M1)
    machine = examples.openshift_machine()
    world.make(MACHINES, machine)
    await world.start()
    world.published.clear()
    for number in range(20):
        world.change(
            MACHINES, machine, lambda m, n=number: m["status"].update(lastUpdated=f"2026-{n}")
        )
    await world.settle()
    assert world.published.signals(Plane.MACHINE) == []
    world.put(MACHINES, examples.openshift_machine(phase="Failed"))
    await world.settle()
    assert world.said(Plane.MACHINE) == [(M1, "phase", "down")]
    assert not world.published.signals(Plane.MACHINE)[0].first
    world.put(MACHINES, examples.openshift_machine(phase="Provisioning"))
    await world.settle()
    assert world.said(Plane.MACHINE)[-1] == (M1, "phase", "unknown")


async def test_what_repeats_the_nodes_own_conditions_is_not_said(world):
    world.mark_node("n1", **OF_CAPI_M1)
    repeated = ("Ready", "Available", "NodeReady", "NodeHealthy")
    own = [
        condition("InfrastructureReady"),
        condition("HealthCheckSucceeded", "False", "UnhealthyNode"),
    ]
    conditions = [*(condition(kind, "False") for kind in repeated), *own]
    world.make(CAPI, examples.capi_machine(conditions=conditions))
    await world.start()
    assert world.latest(Plane.MACHINE, "n1") == {
        ("Machine capi/m1", "phase"): "up",
        ("Machine capi/m1", "InfrastructureReady"): "up",
        ("Machine capi/m1", "HealthCheckSucceeded"): "down",
    }


async def test_both_versions_of_cluster_api_say_the_same_and_a_switch_says_nothing(cluster):
    world = CustomWorld(cluster)
    stored = examples.STORED["cluster.x-k8s.io", "machines"]
    world.kinds.install(stored)
    world.mark_node("n1", **OF_CAPI_M1)
    asked = condition("OwnerRemediated", "False", "WaitingForRemediation")
    broken = condition("InfrastructureReady", "False", "InstanceStopped")
    world.make(CAPI, examples.capi_machine(conditions=[asked, broken]))
    await world.start()
    before = world.latest(Plane.MACHINE, "n1")
    assert before["Machine capi/m1", "InfrastructureReady"] == "down"
    assert world.held() == [("n1", "Machine:m1")]
    world.published.clear()
    world.kinds.serve(stored, only={"v1beta1": examples.as_capi_v1beta1})
    await world.settle(WAKE_S)
    assert world.cluster.watchers.health()["capi-machines"].synced
    assert world.said(Plane.MACHINE) == []
    assert world.published.facts(HandsOffFacts) == []
    other = await start_another(world)
    assert other.latest(Plane.MACHINE, "n1") == before
    assert other.held() == [("n1", "Machine:m1")]


async def start_another(world):
    """Start a second daemon from nothing and return what it published."""
    world.cluster.watchers.follow()
    world.published.clear()
    await world.cluster.start(world.cluster.daemon("pod-b"))
    return world


# --- the instance is gone -------------------------------------------------------------------------


async def test_a_machine_deleted_by_its_controller_while_its_node_is_there_is_an_instance_gone(
    world,
):
    world.mark_node("n1", **OF_M1)
    machine = examples.openshift_machine(finalizers=FINALIZERS)
    world.make(MACHINES, machine)
    await world.start()
    world.delete(MACHINES, machine)
    world.change(MACHINES, machine, lambda m: m["status"].update(phase="Deleting"))
    await world.settle()
    assert world.latest(Plane.MACHINE, "n1") == {(M1, "phase"): "down"}
    assert world.held() == [("n1", "Machine:m1")]  # whoever deletes it is at work on the host
    world.finish(MACHINES, machine)
    await world.settle()
    assert world.latest(Plane.MACHINE, "n1") == {
        (M1, "phase"): "unknown",
        (M1, "instance-gone"): "down",
    }
    assert world.held() == []
    # A leader after us is told of it, too, as of something found.
    world.published.clear()
    world.cluster.watchers.republish()
    await world.settle()
    assert [s.first for s in world.published.signals(Plane.MACHINE)] == [True]
    # And it ends with the node, or with a new Machine for it.
    world.mark_node("n1", **{"machine.openshift.io/machine": f"{examples.NS}/m9"})
    await world.settle()
    assert world.latest(Plane.MACHINE, "n1")[M1, "instance-gone"] == "unknown"


@pytest.mark.parametrize("phase", ["Running", "Failed"])
async def test_a_machine_that_merely_vanished_proves_nothing(world, phase):
    """Somebody took its finalizers off, or never had any: the instance may run on."""
    world.mark_node("n1", **OF_M1)
    machine = examples.openshift_machine(phase=phase)
    world.make(MACHINES, machine)
    await world.start()
    world.delete(MACHINES, machine)
    await world.settle()
    assert world.latest(Plane.MACHINE, "n1") == {(M1, "phase"): "unknown"}


async def test_a_node_whose_machine_was_never_seen_proves_nothing(world):
    """In a workload cluster the Machines live elsewhere, though their CRD may be installed."""
    world.mark_node("n1", **OF_CAPI_M1)
    await world.start()
    await world.settle(100)
    assert world.said(Plane.MACHINE) == []


async def test_machines_that_go_with_their_crd_prove_nothing(world):
    world.mark_node("n1", **OF_M1)
    machine = examples.openshift_machine(finalizers=FINALIZERS)
    world.make(MACHINES, machine)
    gone = examples.openshift_machine("m2", "n2.example.com", finalizers=FINALIZERS)
    world.mark_node("n2.example.com", **{"machine.openshift.io/machine": f"{examples.NS}/m2"})
    world.make(MACHINES, gone)
    await world.start()
    for each in (machine, gone):
        world.delete(MACHINES, each)
        world.change(MACHINES, each, lambda m: m["status"].update(phase="Deleting"))
    world.finish(MACHINES, gone)
    await world.settle()
    assert (
        world.latest(Plane.MACHINE, "n2.example.com")[f"Machine {examples.NS}/m2", "instance-gone"]
        == "down"
    )
    # The watch hears nothing more; when it looks again the resource is gone.
    world.cluster.server.end_watches(examples.STORED["machine.openshift.io", "machines"])
    world.kinds.serve(examples.STORED["machine.openshift.io", "machines"], only={})
    await world.settle(WAKE_S)
    health = world.cluster.watchers.health()["openshift-machines"]
    assert (health.absent, health.objects) == (True, 0)
    for node in ("n1", "n2.example.com"):
        assert set(world.latest(Plane.MACHINE, node).values()) == {"unknown"}
    assert world.held() == []


async def test_an_instance_that_its_provider_misses_is_gone_with_its_machine_still_there(world):
    world.mark_node("n1", **OF_M1)
    missing = condition("InstanceExists", "False", "InstanceMissing")
    world.make(MACHINES, examples.openshift_machine(conditions=[condition("InstanceExists")]))
    await world.start()
    assert world.latest(Plane.MACHINE, "n1")[M1, "InstanceExists"] == "up"
    world.put(MACHINES, examples.openshift_machine(phase="Failed", conditions=[missing]))
    await world.settle()
    assert world.latest(Plane.MACHINE, "n1") == {
        (M1, "phase"): "down",
        (M1, "InstanceExists"): "down",
        (M1, "instance-gone"): "down",
    }
    world.put(MACHINES, examples.openshift_machine(conditions=[condition("InstanceExists")]))
    await world.settle()
    assert world.latest(Plane.MACHINE, "n1")[M1, "instance-gone"] == "unknown"


# --- remediation by the Machine's owner -----------------------------------------------------------


@pytest.mark.parametrize(
    ("conditions", "annotations", "held"),
    [
        ([], {}, False),
        ([condition("HealthCheckSucceeded", "False", "UnhealthyNode")], {}, False),
        ([condition("OwnerRemediated", "False", "WaitingForRemediation")], {}, True),
        ([condition("OwnerRemediated", "True", "Done")], {}, False),
        ([condition("ExternallyRemediated", "False", "WaitingForRemediation")], {}, True),
        ([], {"host.metal3.io/external-remediation": ""}, True),
    ],
)
async def test_a_machine_that_somebody_remediates_holds_our_hands_off_its_node(
    world, conditions, annotations, held
):
    world.mark_node("n1", **OF_CAPI_M1)
    world.make(CAPI, examples.capi_machine(conditions=conditions, annotations=annotations))
    await world.start()
    assert world.held() == ([("n1", "Machine:m1")] if held else [])


async def test_a_machine_of_no_node_of_ours_holds_nobody(world):
    asked = condition("OwnerRemediated", "False", "WaitingForRemediation")
    world.make(CAPI, examples.capi_machine(node="", conditions=[asked]))
    await world.start()
    assert world.published.facts(HandsOffFacts) == []


# --- health checks --------------------------------------------------------------------------------


async def test_a_health_check_speaks_only_when_it_counts_none_of_its_machines_as_healthy(world):
    world.mark_node("n1", **OF_M1)
    world.make(MACHINES, examples.openshift_machine(labels={"pool": "workers"}))
    world.make(MACHINES, examples.openshift_machine("m2", "n2.example.com"))
    check = examples.openshift_check(expected=1, healthy=1, labels={"pool": "workers"})
    world.make(CHECKS, check)
    await world.start()
    source = f"MachineHealthCheck {examples.NS}/workers"
    assert source not in {source for source, _, _ in world.said(Plane.MACHINE)}
    world.put(CHECKS, examples.openshift_check(expected=1, healthy=0, labels={"pool": "workers"}))
    await world.settle()
    said = [each for each in world.said(Plane.MACHINE) if each[0] == source]
    assert said == [(source, "healthy", "down")]
    assert world.latest(Plane.MACHINE, "n1")[source, "healthy"] == "down"
    world.delete(CHECKS, check)
    await world.settle()
    assert world.latest(Plane.MACHINE, "n1")[source, "healthy"] == "unknown"
    assert world.held() == []  # that it exists, and what it counts, is nobody's work


async def test_a_health_check_of_cluster_api_names_its_machines(world):
    world.mark_node("n1", **OF_CAPI_M1)
    world.make(CAPI_CHECKS, examples.capi_check(targets=("m1", "elsewhere"), healthy=0))
    await world.start()
    source = "MachineHealthCheck capi/workers"
    assert world.latest(Plane.MACHINE, "n1")[source, "healthy"] == "down"


# --- bare metal hosts -----------------------------------------------------------------------------


async def test_a_host_speaks_of_the_node_of_its_machine(world):
    world.mark_node("n1", **OF_M1)
    world.make(MACHINES, examples.openshift_machine())
    host = examples.bare_metal_host()
    world.make(HOSTS, host)
    await world.start()
    source = f"BareMetalHost {examples.NS}/h1"
    assert world.latest(Plane.MACHINE, "n1") == {
        (M1, "phase"): "up",
        (source, "poweredOn"): "up",
        (source, "operationalStatus"): "up",
    }
    world.put(HOSTS, examples.bare_metal_host(powered_on=False, operational="error", error="power"))
    await world.settle()
    latest = world.latest(Plane.MACHINE, "n1")
    assert (latest[source, "poweredOn"], latest[source, "operationalStatus"]) == ("down", "down")
    assert world.published.signals(Plane.POWER) == []  # polled a minute ago: no word of that plane
    world.put(HOSTS, examples.bare_metal_host(powered_on=False, state="deprovisioning"))
    await world.settle()
    assert world.latest(Plane.MACHINE, "n1")[source, "poweredOn"] == "unknown"


async def test_a_host_of_cluster_api_is_found_by_the_metal3machine_between(world):
    world.mark_node("n1", **OF_CAPI_M1)
    consumer = ("Metal3Machine", "m1-metal3", "capi")
    world.make(HOSTS, examples.bare_metal_host(consumer=consumer))
    await world.start()
    assert world.said(Plane.MACHINE) == []
    world.make(CAPI, examples.capi_machine())
    await world.settle()
    assert world.latest(Plane.MACHINE, "n1")["BareMetalHost capi/h1", "poweredOn"] == "up"


async def test_a_host_that_somebody_reboots_holds_our_hands_off_until_the_annotation_goes(world):
    world.mark_node("n1", **OF_M1)
    key = "reboot.metal3.io/metal3-remediation-abc"
    host = examples.bare_metal_host(annotations={key: '{"mode":"hard"}'})
    world.make(HOSTS, host)
    await world.start()
    assert world.held() == [("n1", "BareMetalHost:h1")]
    (facts,) = world.published.facts(HandsOffFacts)
    assert key in facts.why
    world.change(HOSTS, host, lambda h: h["metadata"].pop("annotations"))
    await world.settle()
    assert world.held() == []
    world.change(HOSTS, host, lambda h: h["metadata"].update(annotations={key: "{}"}))
    world.change(HOSTS, host, lambda h: h["metadata"].pop("annotations"))
    await world.settle()
    # Coming and going is told each time: NATS must take none of it for a repeat.
    ids = [i for subject, _, i in world.published.offers if ".inventory.HandsOff." in subject]
    assert len(ids) == len(set(ids)) == 4


# --- many, and odd --------------------------------------------------------------------------------


async def test_thousands_of_machines_are_linked_and_said_once_each(world):
    for number in range(1500):
        world.cluster.add_node(
            f"w{number}", **{"machine.openshift.io/machine": f"{examples.NS}/m{number}"}
        )
        world.make(
            MACHINES,
            examples.openshift_machine(
                f"m{number}", f"w{number}", uid=world.node_uid(f"w{number}")
            ),
        )
    await world.start(lead=False)
    await world.settle(5)
    world.cluster.watchers.lead()
    await world.settle(5)
    assert len(world.published.signals(Plane.MACHINE)) == 1500
    world.published.clear()
    await world.settle(600)
    assert world.published.signals(Plane.MACHINE) == []


@pytest.mark.parametrize(
    "broken",
    [
        {"status": {"phase": 7}},
        {"status": {"nodeRef": "n1"}},
        {"status": {"conditions": [{"type": ["Ready"]}]}},
        {"status": "Running"},
        {"spec": [], "status": None},
    ],
    ids=str,
)
async def test_a_machine_that_is_garbage_hides_no_other(world, broken):
    world.mark_node("n1", **OF_M1)
    world.make(MACHINES, {**examples.named("broken", examples.NS), **broken})
    world.make(MACHINES, examples.openshift_machine())
    await world.start()
    assert world.latest(Plane.MACHINE, "n1") == {(M1, "phase"): "up"}
    world.change(MACHINES, examples.openshift_machine("broken"), lambda m: m.update(status=[]))
    await world.settle()
    assert world.cluster.watchers.health()["openshift-machines"].synced
    world.put(MACHINES, examples.openshift_machine(phase="Failed"))
    await world.settle()
    assert world.latest(Plane.MACHINE, "n1") == {(M1, "phase"): "down"}


async def test_a_new_leader_is_told_all_of_it_as_found(world):
    world.mark_node("n1", **OF_M1)
    asked = {"host.metal3.io/external-remediation": ""}
    world.make(MACHINES, examples.openshift_machine(annotations=asked))
    await world.start(lead=False)
    assert world.published.offers == []
    world.put(MACHINES, examples.openshift_machine(phase="Failed"))
    await world.settle()
    assert world.published.offers == []
    world.cluster.watchers.lead()
    await world.settle()
    assert [(s.reading.value, s.first) for s in world.published.signals(Plane.MACHINE)] == [
        ("down", True)
    ]
    assert world.held() == [("n1", "Machine:m1")]


def test_links_forget_what_went():
    links = MachineLinks()
    told = []
    links.listen(told.append)
    key = MachineKey("cluster.x-k8s.io", "capi", "m1")
    machine = msgspec.convert(examples.capi_machine(), Machine)
    links.machine_seen(key, machine)
    assert links.node_of(key) == ""
    assert links.node_of(MachineKey("Metal3Machine", "capi", "m1-metal3")) == ""
    links.machine_gone(key)
    links.machine_gone(key)
    assert MachineKey("Metal3Machine", "capi", "m1-metal3") in told
