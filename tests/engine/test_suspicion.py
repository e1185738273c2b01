"""From the first sign on any plane to the verdict: who is asked, when, and what it adds up to."""

from __future__ import annotations

import pytest

from remediator.engine.chain import DecisionKind
from remediator.engine.events import ObjectGone, ObjectSeen, SignalSeen
from remediator.engine.model import (
    FactKind,
    Fence,
    HandsOffFacts,
    IncidentState,
    NodeLeaseFacts,
    Plane,
    Reading,
    Signal,
    Subject,
    Verdict,
    node_subject,
    vantage_subject,
)
from remediator.engine.plane_values import INSTANCE_GONE
from remediator.engine.settings import (
    ConditionRule,
    DetectionSettings,
    EngineSettings,
)

UP, DOWN, UNKNOWN = Reading.UP, Reading.DOWN, Reading.UNKNOWN


def tell(
    cluster,
    subject: Subject | str,
    plane: Plane,
    reading: Reading,
    *,
    source: str = "t",
    aspect: str = "",
    zone: str = "",
) -> None:
    signal = Signal(
        plane=plane,
        source=source,
        subject=node_subject(subject) if isinstance(subject, str) else subject,
        reading=reading,
        at=cluster.now,
        aspect=aspect,
        zone=zone,
    )
    cluster.handle(SignalSeen(signal=signal))


class Probers:
    """Vantage points in three zones that probe slowly, and fast whatever they were asked for."""

    def __init__(self, cluster, zones: str = "abc") -> None:
        self.cluster = cluster
        self.zones = zones
        self.unreached: set[str] = set()
        self.uncertain: set[str] = set()  # zones whose vantage point reaches no reference

    def run(self, seconds: int) -> None:
        cluster = self.cluster
        for _ in range(seconds):
            cluster.run(1)
            for place, zone in enumerate(self.zones):
                name = f"prober-{zone}"
                reading = UNKNOWN if zone in self.uncertain else UP
                if round(cluster.now) % 5 == 0:
                    life = vantage_subject(name)
                    tell(cluster, life, Plane.NETWORK, reading, source=name, zone=zone)
                for number, node in enumerate(cluster.nodes):
                    slow = round(cluster.now) % 5 == (number + place) % 5
                    if not slow and node not in cluster.asked_probes:
                        continue
                    said = DOWN if node in self.unreached else UP
                    if zone in self.uncertain:
                        said = UNKNOWN
                    tell(cluster, node, Plane.NETWORK, said, source=name, zone=zone)

    def until(self, condition, limit_s: int = 60) -> None:
        end = self.cluster.now + limit_s
        while not condition():
            assert self.cluster.now < end, "the awaited did not come about"
            self.run(1)


def verdict(cluster, node: str) -> Verdict | None:
    incident = cluster.incident(node)
    return None if incident is None else incident.verdict


def test_a_late_lease_has_its_node_probed_but_not_its_bmc_asked(cluster):
    cluster.kill("n1")
    cluster.until(lambda: cluster.asked_probes, limit_s=12)
    assert cluster.incident("n1") is None, "nothing is suspected yet"
    assert cluster.asked_power == []
    assert cluster.asked_probes == ["n1"]


@pytest.mark.parametrize(
    ("plane", "aspect", "hold_s"),
    [
        (Plane.POWER, "", 0),
        (Plane.STORAGE, "", 0),
        (Plane.MACHINE, "HealthCheckSucceeded", 0),
        (Plane.MACHINE, INSTANCE_GONE, 0),
        (Plane.KUBELET, "", 60),
        (Plane.KUBELET, "KernelDeadlock", 60),
        (Plane.HANDLER, "pod", 150),
    ],
)
def test_the_first_sign_on_any_plane_has_the_node_probed(cluster, plane, aspect, hold_s):
    cluster.run(1)
    tell(cluster, "n1", plane, DOWN, aspect=aspect)
    cluster.run(hold_s)
    assert set(cluster.asked_probes) == {"n1"}


def test_one_vantage_point_that_does_not_reach_a_node_has_the_others_and_its_bmc_asked(cluster):
    probers = Probers(cluster)
    probers.run(20)
    tell(cluster, "n1", Plane.NETWORK, DOWN, source="prober-a", zone="a")
    assert cluster.asked_probes == ["n1"]
    assert cluster.asked_power == ["n1"]
    assert cluster.incident("n1") is None


def test_probes_are_asked_for_every_5_seconds_while_wanted_and_rarely_later(cluster):
    cluster.kill("n1")
    cluster.run(112)
    assert 18 <= len(cluster.asked_probes) <= 21
    cluster.run(300)
    before = len(cluster.asked_probes)
    cluster.run(600)
    assert 28 <= len(cluster.asked_probes) - before <= 31


def test_a_node_that_is_well_is_not_asked_about(cluster):
    probers = Probers(cluster)
    probers.run(300)
    assert cluster.asked_probes == []
    assert cluster.asked_power == []
    assert cluster.story() == ["leading daemon/me"]


def test_power_lost_with_a_bmc_that_answers_is_dead_within_about_5_seconds(cluster):
    cluster.add_vm("db", "n1")
    probers = Probers(cluster)
    probers.run(20)
    cluster.until(lambda: round(cluster.now) % 10 == 0)  # its lease has just been renewed
    died_at = cluster.now
    cluster.kill("n1")
    probers.unreached.add("n1")
    probers.until(lambda: cluster.asked_power)
    cluster.power("n1", DOWN)
    probers.until(lambda: verdict(cluster, "n1") is Verdict.DEAD)
    assert cluster.now - died_at <= 6
    assert cluster.incident("n1").row == "off-and-unreachable"
    assert cluster.actions


def test_power_lost_with_a_silent_bmc_is_unreachable_within_15_seconds(cluster):
    cluster.add_vm("db", "n1")
    probers = Probers(cluster)
    probers.run(20)
    died_at = cluster.now
    cluster.kill("n1")
    probers.unreached.add("n1")
    probers.until(lambda: verdict(cluster, "n1") is Verdict.UNREACHABLE)
    assert cluster.now - died_at <= 15


def test_a_bmc_that_lies_convicts_nobody_while_the_host_answers(cluster):
    cluster.add_vm("db", "n1")
    probers = Probers(cluster)
    probers.run(20)
    for _ in range(60):
        cluster.power("n1", DOWN)
        probers.run(1)
    assert cluster.actions == []
    assert verdict(cluster, "n1") is Verdict.CONTRADICTION


def test_probes_that_call_a_living_host_down_are_no_second_witness_for_a_bmc_that_lies(cluster):
    """Found by make bench-detect: a firewall dropped all probes, 78 s later the BMC said off."""
    cluster.add_vm("db", "n1")
    probers = Probers(cluster)
    probers.run(20)
    probers.unreached.add("n1")
    probers.run(60)
    assert verdict(cluster, "n1") is Verdict.SUSPECT
    assert cluster.incident("n1").row == "network-silent"
    probers.until(lambda: round(cluster.now) % 10 == 0)  # its lease has just been renewed
    for _ in range(30):
        cluster.power("n1", DOWN)
        probers.run(1)
    assert cluster.actions == []


def test_probes_that_call_a_living_host_down_are_no_second_witness_for_a_late_lease(cluster):
    cluster.add_vm("db", "n1")
    probers = Probers(cluster)
    probers.run(20)
    probers.unreached.add("n1")
    probers.run(60)
    cluster.silent.add("n1")  # its kubelet is restarted, and takes long
    probers.run(60)
    assert verdict(cluster, "n1") is Verdict.SUSPECT
    assert cluster.actions == []


def test_a_new_prober_that_calls_the_same_host_down_is_no_better_witness(cluster):
    cluster.add_vm("db", "n1")
    probers = Probers(cluster)
    probers.run(20)
    probers.unreached.add("n1")
    probers.run(60)
    probers.zones = "def"  # all replicas were replaced
    probers.run(18)  # the old ones are not heard any more, the new ones have just called n1 down
    for _ in range(30):
        cluster.power("n1", DOWN)
        probers.run(1)
    assert cluster.actions == []


def test_probes_are_believed_again_once_they_have_reached_the_host(cluster):
    cluster.add_vm("db", "n1")
    probers = Probers(cluster)
    probers.run(20)
    probers.unreached.add("n1")
    probers.run(60)
    probers.unreached.discard("n1")
    probers.run(20)
    cluster.kill("n1")
    probers.unreached.add("n1")
    probers.until(lambda: verdict(cluster, "n1") is Verdict.UNREACHABLE)


def test_a_host_whose_probes_fail_is_not_counted_as_down_while_its_lease_is_renewed(cluster):
    probers = Probers(cluster)
    probers.run(20)
    probers.unreached.add("n1")
    probers.run(60)
    assert cluster.engine.context.evidence.network.unreached(cluster.now) == {"n1"}
    assert cluster.engine.context.evidence.unreached(cluster.now) == set()


def test_a_kubelet_that_hangs_is_a_suspect_then_down_and_never_fenced(cluster):
    cluster.add_vm("db", "n1")
    probers = Probers(cluster)
    probers.run(20)
    cluster.silent.add("n1")
    stopped_at = cluster.now
    probers.until(lambda: verdict(cluster, "n1") is Verdict.SUSPECT)
    probers.until(lambda: verdict(cluster, "n1") is Verdict.KUBELET_DOWN)
    assert cluster.now - stopped_at >= 30
    cluster.handler_silent.add("n1")
    probers.run(300)
    assert verdict(cluster, "n1") is Verdict.KUBELET_DOWN
    assert cluster.actions == []


def test_a_host_that_is_back_on_the_network_has_a_period_to_renew_its_lease(make_cluster):
    cluster = make_cluster(fence_methods=[])
    cluster.add_vm("db", "n1")
    probers = Probers(cluster)
    probers.run(20)
    cluster.kill("n1")
    probers.unreached.add("n1")
    probers.run(300)
    assert verdict(cluster, "n1") is Verdict.UNREACHABLE
    probers.until(lambda: round(cluster.now) % 10 == 1)
    probers.unreached.discard("n1")
    cluster.silent.discard("n1")
    probers.run(8)
    assert cluster.incident("n1").row == "late-but-reached"
    probers.run(5)
    assert verdict(cluster, "n1") is None
    assert [d for d in cluster.decisions if d.verdict is Verdict.KUBELET_DOWN] == []


def test_a_host_that_is_heard_again_is_not_called_unreached_before_it_was_probed_again(
    make_cluster,
):
    cluster = make_cluster(fence_methods=[])
    cluster.add_vm("db", "n1")
    probers = Probers(cluster)
    probers.run(20)
    cluster.silent.add("n1")
    probers.unreached.add("n1")
    probers.run(30)
    cluster.silent.discard("n1")
    probers.until(lambda: cluster.incident("n1") is None)
    heard_at = cluster.now
    probers.unreached.discard("n1")
    probers.run(20)
    assert [each for each in cluster.decisions if each.at > heard_at] == []


def test_one_lost_renewal_tells_no_human(cluster):
    cluster.add_vm("db", "n1")
    probers = Probers(cluster)
    probers.run(20)
    cluster.silent.add("n1")
    probers.run(20)
    cluster.silent.discard("n1")
    probers.run(20)
    assert cluster.incident("n1") is None
    assert cluster.notices == []


def test_a_host_that_no_vantage_point_reaches_while_it_renews_is_a_suspect_until_it_is(cluster):
    cluster.add_vm("db", "n1")
    probers = Probers(cluster)
    probers.run(20)
    probers.unreached.add("n1")
    probers.run(120)
    assert cluster.incident("n1").row == "network-silent"
    assert cluster.actions == []
    probers.unreached.discard("n1")
    probers.run(5)
    assert cluster.incident("n1") is None
    assert cluster.decisions[-1].why == "n1 is reached again"


def test_one_zone_that_reaches_nobody_convicts_nobody(cluster):
    """That zone is cut off: its vantage point says down of all the others."""
    for number in range(1, 7):
        cluster.add_vm(f"vm{number}", f"n{number}")
    probers = Probers(cluster)
    probers.run(20)
    for _ in range(60):
        cluster.run(1)
        for zone in "abc":
            life = vantage_subject(f"prober-{zone}")
            tell(cluster, life, Plane.NETWORK, UP, source=f"prober-{zone}", zone=zone)
            for node in cluster.nodes:
                said = DOWN if zone == "a" else UP
                tell(cluster, node, Plane.NETWORK, said, source=f"prober-{zone}", zone=zone)
    assert cluster.story() == ["leading daemon/me"]


def test_vantage_points_that_reach_no_reference_leave_it_to_the_other_planes(cluster):
    cluster.add_vm("db", "n1")
    probers = Probers(cluster)
    probers.run(20)
    probers.uncertain.update("abc")
    cluster.kill("n1")
    probers.run(60)
    assert verdict(cluster, "n1") is Verdict.SUSPECT
    probers.run(120)
    assert cluster.incident("n1").row == "unreachable-by-handler"


def test_a_deleted_instance_is_dead_with_its_lease(cluster):
    cluster.add_vm("db", "n1")
    cluster.kill("n1")
    cluster.run(2)
    tell(cluster, "n1", Plane.MACHINE, DOWN, aspect=INSTANCE_GONE, source="Machine ns/m1")
    assert cluster.incident("n1") is None
    cluster.until(lambda: verdict(cluster, "n1") is Verdict.DEAD, limit_s=15)
    assert cluster.incident("n1").row == "instance-gone"


def test_a_bad_condition_is_degraded_and_its_end_resolves_it(make_cluster):
    rule = ConditionRule(type="DiskIsSlow", hold_s=30.0)
    settings = EngineSettings(detection=DetectionSettings(conditions=(rule,)))
    cluster = make_cluster(settings=settings)
    cluster.add_vm("db", "n1")
    tell(cluster, "n1", Plane.KUBELET, DOWN, aspect="DiskIsSlow", source="node watch")
    cluster.run(29)
    assert cluster.incident("n1") is None
    cluster.run(2)
    assert cluster.incident("n1").row == "bad-condition"
    assert verdict(cluster, "n1") is Verdict.DEGRADED
    tell(cluster, "n1", Plane.KUBELET, UP, aspect="DiskIsSlow", source="node watch")
    cluster.run(1)
    assert cluster.incident("n1") is None
    assert cluster.decisions[-1].why == "the conditions of n1 are good again"


def test_a_vantage_point_s_life_says_nothing_about_a_node_of_its_name(cluster):
    for _ in range(30):
        tell(cluster, vantage_subject("n1"), Plane.NETWORK, DOWN, source="n1", zone="a")
        cluster.run(1)
    assert cluster.incident("n1") is None


# --- hands off ------------------------------------------------------------------------------------


def claim(cluster, name: str, *, node: str = "n1", why: str = "") -> None:
    facts = HandsOffFacts(name=name, uid=f"uid-{name}", node=node, why=why)
    cluster.handle(ObjectSeen(facts=facts))


def give_back(cluster, name: str) -> None:
    cluster.handle(ObjectGone(kind=FactKind.HANDS_OFF, name=name, uid=f"uid-{name}"))


@pytest.mark.parametrize("node", ["n1", ""])
def test_a_claimed_node_is_hands_off_until_the_claim_is_gone(cluster, node):
    cluster.add_vm("db", "n1")
    claim(cluster, "SelfNodeRemediation:n1", node=node, why="SelfNodeRemediation n1 is processing")
    cluster.lose("n1")
    cluster.run(60)
    assert cluster.actions == []
    assert cluster.incident("n1").state is IncidentState.HELD
    assert verdict(cluster, "n1") is Verdict.DEAD
    (refused,) = cluster.kinds(DecisionKind.REFUSED)
    assert "hands-off: SelfNodeRemediation n1 is processing" in refused.why
    give_back(cluster, "SelfNodeRemediation:n1")
    assert cluster.actions, "at once, not with the next tick"


def test_a_claim_on_another_node_holds_nobody_here(cluster):
    cluster.add_vm("db", "n1")
    claim(cluster, "NodeMaintenance:n2", node="n2", why="n2 is in maintenance")
    cluster.lose("n1")
    assert cluster.actions


def test_all_who_claim_a_node_are_named(cluster):
    cluster.node_changes("n1", labels={"remediation.medik8s.io/exclude-from-remediation": "true"})
    cluster.add_vm("db", "n1")
    lease = NodeLeaseFacts(
        name="node-n1", uid="l", node="n1", holder="NodeHealthCheck-nhc", duration_s=1e6,
        seen_at=cluster.now,
    )  # fmt: skip
    cluster.handle(ObjectSeen(facts=lease))
    claim(cluster, "ClusterVersion:version", node="", why="OpenShift is being upgraded")
    claim(cluster, "FenceAgentsRemediation:n1", why="FenceAgentsRemediation n1 is in flight")
    cluster.lose("n1")
    why = cluster.kinds(DecisionKind.REFUSED)[-1].why
    for each in (
        "it carries the label remediation.medik8s.io/exclude-from-remediation=true",
        "NodeHealthCheck-nhc holds its medik8s lease",
        "FenceAgentsRemediation n1 is in flight",
        "OpenShift is being upgraded",
    ):
        assert each in why


def test_a_claim_that_comes_while_we_fence_holds_the_fence_back(cluster):
    cluster.add_vm("db", "n1")
    cluster.lose("n1")
    claim(cluster, "NodeMaintenance:n1", why="n1 is in maintenance")
    cluster.answer()  # the cordon
    cluster.run(30)
    assert cluster.actions == []
    assert cluster.incident("n1").state is IncidentState.HELD
    give_back(cluster, "NodeMaintenance:n1")
    (fence,) = cluster.actions
    assert isinstance(fence.work, Fence)


def test_nodes_that_nobody_reaches_count_in_the_budgets_before_their_leases_are_late(make_cluster):
    cluster = make_cluster(nodes=9, zones=3)
    cluster.add_vm("db", "n1")
    probers = Probers(cluster)
    probers.run(20)
    lost = ("n1", "n2", "n5", "n6")  # in three zones
    probers.until(lambda: round(cluster.now) % 10 == 6)  # their last renewals are 1 to 6 s old
    cluster.silent.update(lost)
    probers.unreached.update(lost)
    probers.run(4)
    cluster.power("n1", DOWN)
    assert verdict(cluster, "n1") is Verdict.DEAD
    assert cluster.actions == []
    assert "4 of 9 nodes down or silent, limit 3: n1, n2, n5, n6" in cluster.decisions[-1].why
