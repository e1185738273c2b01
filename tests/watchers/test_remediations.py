"""What others have under way holds our hands off; what it came to is said on the machine plane."""

from __future__ import annotations

import asyncio

import pytest

from remediator.engine.model import HandsOffFacts, Plane
from tests.kube import custom_examples as examples
from tests.watchers.custom_world import WAKE_S, CustomWorld

SNR = "selfnoderemediations.self-node-remediation.medik8s.io"
FAR = "fenceagentsremediations.fence-agents-remediation.medik8s.io"
MDR = "machinedeletionremediations.machine-deletion-remediation.medik8s.io"
METAL3 = "metal3remediations.infrastructure.cluster.x-k8s.io"
NHC = "nodehealthchecks.remediation.medik8s.io"
MACHINES = "machines.machine.openshift.io"
TIMED_OUT = {"remediation.medik8s.io/nhc-timed-out": examples.AT}
OF_M1 = {"machine.openshift.io/machine": f"{examples.NS}/m1"}


@pytest.fixture
def world(cluster):
    made = CustomWorld(cluster)
    made.install(SNR, FAR, MDR, METAL3, NHC, MACHINES)
    return made


# --- remediations ---------------------------------------------------------------------------------


async def test_a_remediation_holds_our_hands_off_its_node_from_its_making_to_its_end(world):
    await world.start()
    cr = examples.remediation()
    world.make(SNR, cr)
    await world.settle()
    assert world.held() == [("n1", "SelfNodeRemediation:n1")]
    (facts,) = world.published.facts(HandsOffFacts)
    assert (facts.namespace, facts.why) == (
        examples.MEDIK8S,
        "SelfNodeRemediation n1 is in flight (just made)",
    )
    world.put(SNR, examples.remediation(processing="True", succeeded="Unknown"))
    await world.settle()
    assert world.held() == [("n1", "SelfNodeRemediation:n1")]
    source = f"SelfNodeRemediation {examples.MEDIK8S}/n1"
    assert world.latest(Plane.MACHINE, "n1") == {(source, "Processing"): "down"}
    world.put(SNR, examples.remediation(processing="False", succeeded="True"))
    await world.settle()
    assert world.held() == []
    assert world.latest(Plane.MACHINE, "n1") == {
        (source, "Processing"): "unknown",
        (source, "Succeeded"): "down",
    }
    world.delete(SNR, cr)
    await world.settle()
    assert set(world.latest(Plane.MACHINE, "n1").values()) == {"unknown"}


@pytest.mark.parametrize("kind", [SNR, FAR, MDR])
@pytest.mark.parametrize(
    ("cr", "held"),
    [
        (examples.remediation(), True),
        (examples.remediation(processing="True", succeeded="Unknown"), True),
        (examples.remediation(processing="False", succeeded="True"), False),
        (examples.remediation(processing="False", succeeded="False"), False),  # it gave up
        (examples.remediation(annotations=TIMED_OUT), False),
        (examples.remediation(processing="True", annotations=TIMED_OUT), True),
    ],
    ids=["new", "processing", "succeeded", "failed", "timed out", "stopping"],
)
async def test_what_each_condition_means_for_the_guard(world, kind, cr, held):
    world.make(kind, cr)
    await world.start()
    assert bool(world.held()) is held


async def test_a_deleted_remediation_that_waits_for_its_finalizer_is_over_unless_it_still_works(
    world,
):
    first = examples.remediation("a", node="n1", finalizers=["x/y"])
    second = examples.remediation("b", processing="True", node="n1", finalizers=["x/y"])
    for each in (first, second):
        world.make(FAR, each)
    await world.start()
    for each in (first, second):
        world.delete(FAR, each)
    await world.settle()
    assert world.held() == [("n1", "FenceAgentsRemediation:b")]
    world.finish(FAR, second)
    await world.settle()
    assert world.held() == []


async def test_without_an_annotation_its_own_name_is_the_node(world):
    world.make(SNR, examples.remediation("n2.example.com", node=""))
    await world.start()
    assert world.held() == [("n2.example.com", "SelfNodeRemediation:n2.example.com")]


async def test_the_name_may_be_generated_where_the_annotation_tells_the_node(world):
    world.make(FAR, examples.remediation("n1-x7k2p", node="n1"))
    await world.start()
    assert world.held() == [("n1", "FenceAgentsRemediation:n1-x7k2p")]


async def test_one_that_a_machine_owns_is_for_the_node_of_that_machine(world):
    world.make(METAL3, examples.metal3_remediation("m1"))
    await world.start()
    # No Machine, no Node that names it: it is held by its own name, which is no node here.
    assert world.held() == [("m1", "Metal3Remediation:m1")]
    world.mark_node("n1", **OF_M1)
    await world.settle()
    assert world.held() == [("n1", "Metal3Remediation:m1")]
    world.make(MACHINES, examples.openshift_machine())
    await world.settle()
    assert world.held() == [("n1", "Metal3Remediation:m1")]


@pytest.mark.parametrize(
    ("phase", "held"),
    [("Running", True), ("Waiting", True), ("Deleting machine", True), ("Failed", False)],
)
async def test_metal3_says_a_phase(world, phase, held):
    world.mark_node("n1", **OF_M1)
    world.make(METAL3, examples.metal3_remediation(phase=phase))
    await world.start()
    assert bool(world.held()) is held


async def test_a_remediation_of_ours_holds_nobody(world):
    labels = {"app.kubernetes.io/managed-by": "remediator"}
    world.make(SNR, examples.remediation(processing="True", labels=labels))
    await world.start()
    assert world.held() == []


async def test_nothing_ever_holds_the_whole_cluster_for_want_of_a_node(world):
    world.make(SNR, examples.remediation(node=""))
    world.make(METAL3, examples.metal3_remediation("orphan", machine="gone"))
    of_no_node = {**examples.unhealthy_node("odd", kind="Odd"), "name": ""}
    world.make(NHC, examples.node_health_check(of_no_node))
    await world.start()
    assert len(world.held()) == 2
    assert all(facts.node for facts in world.published.facts(HandsOffFacts))


# --- NodeHealthChecks -----------------------------------------------------------------------------


async def test_a_node_health_check_says_who_is_unhealthy_and_holds_nobody_by_that(world):
    check = examples.node_health_check(phase="Enabled")
    world.make(NHC, check)
    await world.start()
    assert (world.said(Plane.MACHINE), world.held()) == ([], [])
    world.put(NHC, examples.node_health_check(examples.unhealthy_node()))
    await world.settle()
    source = "NodeHealthCheck workers"
    assert world.latest(Plane.MACHINE, "n1") == {(source, "unhealthy"): "down"}
    assert world.held() == []  # the SelfNodeRemediation itself does, while it is there
    assert world.published.signals(Plane.MACHINE)[0].detail == (
        "unhealthy, remediated by SelfNodeRemediation"
    )
    world.put(
        NHC,
        examples.node_health_check(examples.unhealthy_node(conditionsHealthyTimestamp=examples.AT)),
    )
    await world.settle()
    assert world.latest(Plane.MACHINE, "n1") == {(source, "unhealthy"): "unknown"}
    world.put(NHC, examples.node_health_check())
    await world.settle()
    assert len(world.said(Plane.MACHINE)) == 2


async def test_what_a_disabled_check_said_is_taken_back(world):
    world.make(NHC, examples.node_health_check(examples.unhealthy_node(kind="Custom")))
    await world.start()
    assert world.held() == [("n1", "Custom:n1")]
    world.put(
        NHC, examples.node_health_check(examples.unhealthy_node(kind="Custom"), phase="Disabled")
    )
    await world.settle()
    assert world.latest(Plane.MACHINE, "n1") == {
        ("NodeHealthCheck workers", "unhealthy"): "unknown"
    }
    assert world.held() == []


async def test_a_remediation_of_a_kind_that_we_do_not_watch_holds_until_its_check_drops_it(world):
    world.make(NHC, examples.node_health_check(examples.unhealthy_node(kind="Custom")))
    await world.start()
    assert world.held() == [("n1", "Custom:n1")]
    timed_out = examples.unhealthy_node(kind="Custom", timed_out=True)
    world.put(NHC, examples.node_health_check(timed_out))
    await world.settle()
    assert world.held() == []


async def test_two_operators_at_one_node_are_told_apart(world):
    """A MachineHealthCheck has the Machine remediated, a NodeHealthCheck the Node."""
    world.mark_node("n1", **OF_M1)
    world.make(MACHINES, examples.openshift_machine())
    snr, metal3 = examples.remediation(processing="True"), examples.metal3_remediation()
    world.make(NHC, examples.node_health_check(examples.unhealthy_node()))
    world.make(SNR, snr)
    world.make(METAL3, metal3)
    await world.start()
    both = [("n1", "Metal3Remediation:m1"), ("n1", "SelfNodeRemediation:n1")]
    assert world.held() == both
    world.put(SNR, examples.remediation(processing="False", succeeded="True"))
    await world.settle()
    assert world.held() == both[:1]  # one is done, the other is not
    world.delete(METAL3, metal3)
    await world.settle()
    assert world.held() == []


# --- CRDs that come, change, go and are refused ---------------------------------------------------


async def test_a_crd_installed_while_running_is_heard_within_a_minute(cluster):
    world = CustomWorld(cluster)
    await world.start()
    await world.settle(1000)
    world.install(SNR)
    world.make(SNR, examples.remediation(processing="True"))
    await world.settle(WAKE_S)
    assert world.held() == [("n1", "SelfNodeRemediation:n1")]
    assert [s.first for s in world.published.signals(Plane.MACHINE)] == [True]


async def test_with_its_crd_goes_what_it_held_and_said(world):
    world.make(SNR, examples.remediation(processing="True"))
    world.make(FAR, examples.remediation("n1", processing="True"))
    await world.start()
    assert len(world.held()) == 2
    world.remove(SNR)
    await world.settle(WAKE_S)
    assert world.held() == [("n1", "FenceAgentsRemediation:n1")]
    latest = world.latest(Plane.MACHINE, "n1")
    assert latest[f"SelfNodeRemediation {examples.MEDIK8S}/n1", "Processing"] == "unknown"
    assert latest[f"FenceAgentsRemediation {examples.MEDIK8S}/n1", "Processing"] == "down"
    assert world.cluster.watchers.health()["self-node-remediations"].absent


async def test_a_version_that_changes_while_a_remediation_is_in_flight_drops_no_guard(world):
    world.mark_node("n1", **OF_M1)
    world.make(METAL3, examples.metal3_remediation())
    await world.start()
    world.published.clear()
    stored = examples.STORED["infrastructure.cluster.x-k8s.io", "metal3remediations"]
    world.kinds.serve(stored, only={"v1beta1": lambda obj: obj})
    await world.settle(WAKE_S)
    assert world.published.facts(HandsOffFacts) == []
    assert world.published.gone() == []
    world.delete(METAL3, examples.metal3_remediation())
    await world.settle()
    assert [gone.name for gone in world.published.gone()] == ["Metal3Remediation:m1"]


async def test_one_that_is_forbidden_is_visible_and_harms_no_other(world):
    world.cluster.server.may_read = lambda _user, _verb, res: res.plural != "selfnoderemediations"
    world.make(SNR, examples.remediation(processing="True"))
    world.make(FAR, examples.remediation(processing="True"))
    await world.start()
    health = world.cluster.watchers.health()
    assert health["self-node-remediations"].forbidden
    assert not health["self-node-remediations"].synced
    assert [name for name, watch in health.items() if watch.forbidden] == ["self-node-remediations"]
    assert world.held() == [("n1", "FenceAgentsRemediation:n1")]
    assert "HandsOff" in world.published.synced()  # it does not wait for what it may not see
    world.cluster.server.may_read = lambda *_: True
    await world.settle(61)
    assert len(world.held()) == 2


# --- the mark -------------------------------------------------------------------------------------


async def test_with_none_of_the_crds_the_guard_is_complete_at_once(cluster):
    await cluster.start(settle_s=0.5)
    assert "HandsOff" in cluster.published.synced()
    waiting = cluster.daemon("pod-b")
    await cluster.start(waiting, lead=False, settle_s=0.0)
    async with asyncio.timeout(1.0):
        await waiting.listed()


async def test_the_guard_is_complete_after_everything_that_it_knows(world):
    for number in range(300):
        world.make(SNR, examples.remediation(f"w{number}", node=f"w{number}"))
    world.mark_node("n1", **{"harvesterhci.io/maintain-status": "running"})
    await world.start()
    subjects = world.published.subjects
    mark = subjects.index("remediator.inventory.synced.HandsOff")
    facts = [n for n, each in enumerate(subjects) if ".inventory.HandsOff." in each]
    assert len(facts) == 301
    assert max(facts) < mark


async def test_a_kind_that_is_there_and_cannot_be_listed_is_waited_for_by_the_mark_alone(world):
    world.cluster.server.initializing.add(SNR)
    await world.start(lead=False)
    waiting = asyncio.create_task(world.cluster.watchers.listed())
    await world.settle(5)
    assert not waiting.done()
    await world.settle(7)  # but nobody keeps from leading for ever
    assert waiting.done()
    world.cluster.watchers.lead()
    await world.settle(5)
    assert "HandsOff" not in world.published.synced()
    world.cluster.server.initializing.clear()
    await world.settle(11)
    assert "HandsOff" in world.published.synced()


async def test_garbage_among_the_remediations_hides_none(world):
    for number, body in enumerate(
        ({"status": 7}, {"status": {"conditions": "no"}}, {"metadata": {"annotations": 1}}, {})
    ):
        odd = {**examples.named(f"odd{number}", examples.MEDIK8S)}
        odd.update({key: value for key, value in body.items() if key != "metadata"})
        world.make(SNR, odd)
    world.make(SNR, examples.remediation(processing="True"))
    await world.start()
    assert ("n1", "SelfNodeRemediation:n1") in world.held()
    assert world.cluster.watchers.health()["self-node-remediations"].synced
