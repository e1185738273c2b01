"""What a leader says of its cluster, a node and a VM: true, whole, and without consequence."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remediator.engine import health_view, node_view, vm_view
from remediator.engine.events import (
    ObjectGone,
    ObjectSeen,
    OwnHealthSeen,
    SignalSeen,
    Tick,
    WatchProgressed,
)
from remediator.engine.machine import Engine
from remediator.engine.model import (
    ClaimFacts,
    FactKind,
    HandsOffFacts,
    NodeFacts,
    Plane,
    PodFacts,
    Reading,
    RunStrategy,
    Signal,
    VmFacts,
    VmiFacts,
    VolumeFacts,
    node_subject,
    vantage_subject,
    vm_subject,
)
from remediator.engine.settings import FenceMethod
from remediator.engine.views import (
    ClusterView,
    NodeView,
    NoSuch,
    Surroundings,
    VmView,
    WatchLine,
)


def surveyed(engine, at, *, zone="", watches=()):
    work = health_view.survey(
        engine.context, engine.vms, Surroundings(at=at, watches=watches), zone=zone
    )
    slices = 0
    while True:
        try:
            next(work)
            slices += 1
        except StopIteration as done:
            return done.value


def glance(cluster, **more):
    view = surveyed(cluster.engine, cluster.now, **more)
    assert msgspec.json.decode(msgspec.json.encode(view), type=type(view)) == view
    return view


def node(cluster, name) -> NodeView:
    around = Surroundings(at=cluster.now)
    view = node_view.view(cluster.engine.context, cluster.engine.vms, around, name)
    assert msgspec.json.decode(msgspec.json.encode(view), type=type(view)) == view
    return view


def vm(cluster, name, namespace="ns") -> VmView:
    around = Surroundings(at=cluster.now)
    view = vm_view.view(cluster.engine.context, cluster.engine.vms, around, namespace, name)
    assert msgspec.json.decode(msgspec.json.encode(view), type=type(view)) == view
    return view


def whats(dues):
    return [due.what for due in dues]


# --- the cluster ----------------------------------------------------------------------------------


def test_of_a_healthy_cluster_nothing_is_listed_and_everything_counted(cluster):
    cluster.add_vm("db", "n1")
    view = glance(cluster)
    assert {zone.zone: (zone.nodes, zone.verdicts) for zone in view.zones} == {
        f"zone-{number}": (2, {"Healthy": 2}) for number in range(3)
    }
    assert (view.nodes, view.nodes_more, view.sick) == ((), 0, ())
    assert (view.vms, view.vm_verdicts) == (1, {"Healthy": 1})
    assert (view.leader.identity, view.leader.mode) == ("me", "enforce")
    assert view.leader.since_s == pytest.approx(61.0)
    assert (view.own.multiplier, view.own.suspended) == (1, False)
    assert view.at == cluster.now


def test_a_silent_node_is_listed_with_its_row_its_incident_and_what_is_next(cluster):
    cluster.add_vm("db", "n2")
    cluster.kill("n2")
    cluster.until(lambda: cluster.incident("n2"))
    view = glance(cluster)
    (line,) = view.nodes
    assert (line.name, line.zone, line.verdict, line.row) == (
        "n2", "zone-1", "Suspect", "lease-silent",
    )  # fmt: skip
    assert (line.incident, line.state, line.vms) == (cluster.incident("n2").id, "suspected", 1)
    assert line.since_s == pytest.approx(cluster.now - cluster.incident("n2").verdict_at)
    assert line.due is not None
    assert view.vm_verdicts == {"Unknown": 1}, "nothing is concluded of a VM on it"


def test_a_dead_node_keeps_the_verdict_of_its_incident_until_its_end(cluster):
    cluster.add_vm("db", "n2")
    cluster.fence_through("n2")
    view = glance(cluster)
    (line,) = view.nodes
    assert (line.verdict, line.state) == ("Dead", "recovering")
    assert line.due.what == "0 of 1 VMs done, 1 booting"
    cluster.answer()
    cluster.drop_pods("db", "n2")
    cluster.place("db", "n3")
    cluster.vmi("db", node="n3", phase="Running", agent=True)
    cluster.until(lambda: cluster.incident("n2") is None)
    (line,) = glance(cluster).nodes
    assert (line.verdict, line.state) == ("Dead", "over, our taints are left")
    assert "our taints come off once it runs another boot" in line.due.what


def test_one_zone_is_only_that_zone(cluster):
    cluster.add_vm("here", "n2")
    cluster.add_vm("there", "n1")
    cluster.kill("n1")
    cluster.until(lambda: cluster.incident("n1"))
    view = glance(cluster, zone="zone-1")
    assert [zone.zone for zone in view.zones] == ["zone-1"]
    assert (view.nodes, view.vms) == ((), 1)
    assert [line.scope for line in view.budgets if line.name == "zone-share"] == ["zone/zone-1"]


def test_a_zone_that_is_not_there_is_said_with_those_that_are(cluster):
    found = glance(cluster, zone="zone-9")
    assert isinstance(found, NoSuch)
    assert found.detail == "there is no zone zone-9; known: zone-0, zone-1, zone-2"


def test_budgets_say_what_is_down_and_what_may_be(cluster):
    cluster.kill("n1")
    cluster.until(lambda: cluster.incident("n1"))
    lines = {(each.name, each.scope): each for each in glance(cluster).budgets}
    zone = lines["zone-share", "zone/zone-0"]
    assert (zone.used, zone.limit, zone.of, zone.spent, zone.why) == (1, 1, 2, False, "n1")
    whole = lines["cluster-share", "cluster"]
    assert (whole.used, whole.limit, whole.of) == (1, 2, 6)
    assert lines["fences-at-once", "cluster"].limit == 2


def test_a_budget_that_was_past_its_limit_is_spent_until_it_is_calm(cluster):
    for name in ("n1", "n2", "n3"):
        cluster.add_vm(f"vm-{name}", name)
        cluster.kill(name)
    cluster.until(lambda: cluster.incident("n1") and cluster.incident("n3"))
    for name in ("n1", "n2", "n3"):
        cluster.power(name, Reading.DOWN)
    cluster.run(1)
    whole = next(each for each in glance(cluster).budgets if each.name == "cluster-share")
    assert (whole.used, whole.spent) == (3, True)
    for name in ("n1", "n2", "n3"):
        cluster.power(name, Reading.UP)
    cluster.silent.clear()
    cluster.run(11)
    whole = next(each for each in glance(cluster).budgets if each.name == "cluster-share")
    assert whole.spent
    assert "was past its limit lately" in whole.why


def test_what_is_not_heard_is_named(make_cluster):
    cluster = make_cluster(fence_methods=[FenceMethod(name="bmc", nodes=("n1", "n2"))])
    watches = (
        WatchLine(name="leases", synced=True, absent=False, quiet_s=9.0, limit_s=5.0),
        WatchLine(name="nodes", synced=True, absent=False, quiet_s=9.0, limit_s=75.0),
        WatchLine(name="longhorn", synced=False, absent=True, quiet_s=None, limit_s=180.0),
        WatchLine(name="pods", synced=False, absent=False, quiet_s=None, limit_s=180.0),
    )
    view = glance(cluster, watches=watches)
    assert {each.what: each.why for each in view.unheard} == {
        "watch leases": "nothing heard for 9 s (limit 5 s)",
        "watch longhorn": "CRD not installed",
        "watch pods": "not listed yet: nothing is concluded from it",
        "power": "no fence method covers n3, n4, n5, n6",
        "network": "no vantage point is heard: nobody probes the nodes",
        "storage": "no storage says which nodes it hears",
        "machine": "no Machine or health check speaks of a node",
    }


def test_a_plane_that_speaks_of_any_node_is_heard(cluster):
    say(cluster, "n1", Plane.STORAGE, "longhorn", Reading.UP)
    unheard = {each.what for each in glance(cluster).unheard}
    assert "storage" not in unheard
    assert "machine" in unheard


def test_vantage_points_are_shown_with_their_age_and_whether_they_have_a_vote(cluster):
    life(cluster, "here-1", Reading.UP, "zone-0")
    cluster.run(20)
    life(cluster, "there-1", Reading.UNKNOWN, "zone-1", "1 of 9 references answer")
    old, new = glance(cluster).vantages
    assert (old.name, old.fresh, old.age_s) == ("here-1", False, 20.0)
    assert (new.name, new.zone, new.reading, new.fresh) == ("there-1", "zone-1", "unknown", True)
    assert new.detail == "1 of 9 references answer"
    assert "network" not in {each.what for each in glance(cluster).unheard}


def test_own_trouble_is_said_with_its_reasons(cluster):
    cluster.handle(OwnHealthSeen(nats_latency_s=20.0))
    own = glance(cluster).own
    assert (own.multiplier, own.suspended) == (8, True)
    assert own.reasons == ("NATS answers after 20.0 s",)


def test_what_is_past_the_limit_of_an_answer_is_counted(make_cluster, monkeypatch):
    cluster = make_cluster(nodes=12)
    monkeypatch.setattr(health_view, "NODES_MAX", 3)
    for name in cluster.nodes:
        say(cluster, name, Plane.KUBELET, "node watch", Reading.DOWN, aspect="KernelDeadlock")
    cluster.run(70)
    view = glance(cluster)
    assert (len(view.nodes), view.nodes_more) == (3, 9)
    assert sum(zone.verdicts.get("Degraded", 0) for zone in view.zones) == 12


def test_of_a_cluster_not_listed_yet_nothing_is_claimed(make_cluster):
    cluster = make_cluster(lead=False)
    cluster.lead(sync=False)
    cluster.add_vm("db", "n1")
    view = glance(cluster)
    assert view.vm_verdicts == {"Unknown": 1}
    assert "inventory" in {each.what for each in view.unheard}


def test_an_engine_that_knows_nothing_has_a_view_too():
    engine = Engine()
    view = surveyed(engine, 0.0)
    assert isinstance(view, ClusterView)
    assert (view.zones, view.vms) == ((), 0)


# --- one node -------------------------------------------------------------------------------------


def life(cluster, name, reading, zone, detail=""):
    signal = Signal(
        plane=Plane.NETWORK, source=name, subject=vantage_subject(name), reading=reading,
        at=cluster.now, zone=zone, detail=detail,
    )  # fmt: skip
    cluster.handle(SignalSeen(signal=signal))


def say(cluster, name, plane, source, reading, *, aspect="", zone="", detail=""):
    signal = Signal(
        plane=plane, source=source, subject=node_subject(name), reading=reading, at=cluster.now,
        aspect=aspect, zone=zone, detail=detail,
    )  # fmt: skip
    cluster.handle(SignalSeen(signal=signal))


def plane(view, name):
    return next(each for each in view.planes if each.plane == name)


def test_every_plane_has_a_line_and_every_source_one_of_its_own(cluster):
    life(cluster, "here", Reading.UP, "zone-0")
    say(cluster, "n1", Plane.NETWORK, "here", Reading.UP, zone="zone-0", detail="tcp 10250: ok")
    say(cluster, "n1", Plane.STORAGE, "longhorn", Reading.UP, detail="all 3 replicas run")
    say(cluster, "n1", Plane.MACHINE, "Machine ns/m1", Reading.UP, aspect="Running")
    say(cluster, "n1", Plane.MACHINE, "BareMetalHost ns/h1", Reading.UNKNOWN)
    say(cluster, "n1", Plane.KUBELET, "node watch", Reading.DOWN, aspect="KernelDeadlock")
    cluster.power("n1", Reading.UP)
    cluster.run(3)
    view = node(cluster, "n1")
    assert [each.plane for each in view.planes] == [
        "lease", "network", "handler", "storage", "power", "kubelet", "machine", "conditions",
    ]  # fmt: skip
    network = plane(view, "network")
    assert network.value == "up"
    (sight,) = network.sources
    assert (sight.source, sight.reading, sight.age_s, sight.counts) == ("here", "up", 3.0, True)
    assert sight.detail == "in zone-0; tcp 10250: ok"
    assert {each.source for each in plane(view, "machine").sources} == {
        "Machine ns/m1", "BareMetalHost ns/h1",
    }  # fmt: skip
    (condition,) = plane(view, "conditions").sources
    assert (condition.aspect, condition.reading, condition.since_s) == ("KernelDeadlock", "down", 3)
    assert plane(view, "power").sources[0].reading == "on"
    assert plane(view, "conditions").value == "fine", "it has not stood for long enough"
    assert "not renewed for" in plane(view, "lease").detail


def test_a_reading_that_has_grown_old_does_not_count(cluster):
    life(cluster, "here", Reading.UP, "zone-0")
    say(cluster, "n1", Plane.NETWORK, "here", Reading.UP, zone="zone-0")
    cluster.power("n1", Reading.UP)
    cluster.run(30)
    view = node(cluster, "n1")
    assert plane(view, "network").value == "unknown"
    assert not plane(view, "network").sources[0].counts
    assert plane(view, "power").value == "unknown"
    assert not plane(view, "power").sources[0].counts


def test_a_bmc_that_gives_no_answer_now_is_shown_with_its_last_one(cluster):
    cluster.power("n1", Reading.DOWN)
    cluster.run(5)
    say(cluster, "n1", Plane.POWER, "test", Reading.UNKNOWN, detail="timeout")
    (line,) = plane(node(cluster, "n1"), "power").sources
    assert (line.reading, line.detail) == ("unknown", "timeout; off 5 s ago")


def test_the_row_that_decides_and_what_would_change_it(cluster):
    cluster.kill("n2")
    cluster.until(lambda: cluster.incident("n2"))
    view = node(cluster, "n2")
    assert (view.verdict, view.row.name) == ("Suspect", "lease-silent")
    assert view.row.means == "the lease is silent; no second plane agrees yet"
    told = {" and ".join(each.changes): each.verdict for each in view.what_if}
    assert told["power off"] == "Dead"
    assert told["lease up"] == "Healthy"
    assert told["handler silent"] == "Unreachable"
    assert not any("network" in words for words in told), "no vantage point is heard"
    assert view.unasked == ("network", "storage", "machine", "conditions")


def test_a_node_without_fence_method_is_not_told_that_power_off_would_convict_it(make_cluster):
    cluster = make_cluster(fence_methods=[])
    view = node(cluster, "n1")
    assert "power" in view.unasked
    assert not any("power" in change for each in view.what_if for change in each.changes)
    assert plane(view, "power").detail == "no fence method is configured for it"


def test_what_is_due_next_counts_down_to_the_second(cluster):
    cluster.silent.add("n1")
    cluster.until(lambda: cluster.engine.context.evidence.silence_s("n1") == 8.0)
    due = {each.what: each.in_s for each in node(cluster, "n1").due}
    limit_s = cluster.engine.context.evidence.limits_s("n1")[1]
    assert due["its lease counts as silent, unless renewed"] == pytest.approx(limit_s - 8.0)
    before_s = due["its lease counts as silent, unless renewed"]
    cluster.run(1)
    due = {each.what: each.in_s for each in node(cluster, "n1").due}
    assert due["its lease counts as silent, unless renewed"] == pytest.approx(before_s - 1.0)
    cluster.until(lambda: cluster.incident("n1"))
    due = {each.what: each.in_s for each in node(cluster, "n1").due}
    assert "its lease counts as silent, unless renewed" not in due
    assert due["its lease counts as lost, unless renewed"] > 0
    assert due["virt-handler counts as silent, unless it beats"] > 0


def test_it_becomes_what_it_says_when_it_says_so(cluster):
    cluster.silent.add("n1")
    cluster.until(lambda: cluster.engine.context.evidence.silence_s("n1") == 5.0)
    for what, value in (
        ("its lease counts as silent, unless renewed", {"silent"}),
        ("its lease counts as lost, unless renewed", {"lost"}),
    ):
        due = {each.what: each.in_s for each in node(cluster, "n1").due}
        seconds = due[what]
        cluster.run(seconds - 1.5)
        assert plane(node(cluster, "n1"), "lease").value not in value
        cluster.run(3)
        assert plane(node(cluster, "n1"), "lease").value in value


def test_a_condition_that_must_stand_for_a_while_is_due(cluster):
    say(cluster, "n1", Plane.KUBELET, "node watch", Reading.DOWN, aspect="KernelDeadlock")
    cluster.run(20)
    due = {each.what: each.in_s for each in node(cluster, "n1").due}
    assert due["KernelDeadlock has been bad for long enough to count"] == pytest.approx(40.0)


def test_guards_that_hold_a_plan_are_named_with_their_end(make_cluster):
    cluster = make_cluster(enforce=False)
    cluster.add_vm("db", "n2")
    cluster.lose("n2")
    cluster.run(2)
    view = node(cluster, "n2")
    assert view.incident is not None
    assert {guard.guard for guard in view.guards} == {"mode"}
    assert "guard mode withholds the plan" in whats(view.due)


def test_a_node_that_is_somebody_elses_business_says_whose(cluster):
    facts = HandsOffFacts(name="NodeMaintenance:m", uid="u", node="n1", why="m is at work")
    cluster.handle(ObjectSeen(facts=facts))
    view = node(cluster, "n1")
    assert view.hands_off == "m is at work"
    assert [guard.guard for guard in view.guards] == ["hands-off"]


def test_a_fenced_node_says_what_it_still_carries(cluster):
    cluster.add_vm("db", "n2")
    cluster.fence_through("n2")
    view = node(cluster, "n2")
    assert view.incident.proof == "power-off-verified, from bmc"
    assert any("is proven over" in mark for mark in view.marks)
    assert any(due.what == "its cool-down after the last fence ends" for due in view.due)
    (placed,) = view.vms
    assert "recovery: stopping" in placed.state
    assert view.what_if == ()
    assert view.settled.startswith("nothing, until it runs another boot")
    cluster.answer()
    cluster.drop_pods("db", "n2")
    cluster.place("db", "n3")
    cluster.vmi("db", node="n3", phase="Running")
    cluster.run(2)
    assert glance(cluster).vm_verdicts == {"Unknown": 1}, "the recovery has it in its hands"
    assert vm(cluster, "db").verdict == "Unknown"


def test_vms_of_a_node_are_listed_and_those_past_the_limit_counted(cluster, monkeypatch):
    monkeypatch.setattr(node_view, "VMS_MAX", 2)
    for number in range(5):
        cluster.add_vm(f"vm{number}", "n1")
    view = node(cluster, "n1")
    assert [each.name for each in view.vms] == ["vm0", "vm1"]
    assert view.vms_more == 3


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("n11", "there is no node n11; did you mean n1?"),
        ("N2", "there is no node N2; did you mean n2?"),
        ("worker-17.example.com", "there is no node worker-17.example.com"),
        ("", "there is no node "),
    ],
)
def test_a_node_that_is_not_there_is_said_with_names_that_are_near(cluster, name, says):
    found = node(cluster, name)
    assert isinstance(found, NoSuch)
    assert found.detail.startswith(says)


# --- one VM ---------------------------------------------------------------------------------------


def test_a_vm_that_is_well_says_so_with_its_objects(cluster):
    cluster.add_vm("db", "n1")
    view = vm(cluster, "db")
    assert (view.verdict, view.row, view.unjudged) == ("Healthy", None, "")
    assert (view.node, view.node_verdict, view.run_strategy) == ("n1", "Healthy", "Always")
    assert [part.kind for part in view.parts] == ["VirtualMachine", "VMI", "launcher pod"]
    assert "agent connected" in view.parts[1].detail or "no agent" in view.parts[1].detail
    assert view.if_host_dies == "restart: Always: KubeVirt makes a new VMI"


def test_a_vm_on_a_lost_host_is_not_judged_and_says_why(cluster):
    cluster.add_vm("db", "n2")
    cluster.lose("n2")
    view = vm(cluster, "db")
    incident = cluster.incident("n2").id
    assert view.verdict == "Unknown"
    assert incident in view.unjudged
    assert view.node_incident.startswith(incident)


def test_a_vm_that_is_paused_by_its_disk_is_sick_and_what_is_due_is_said(cluster):
    cluster.add_vm("db", "n1")
    old = cluster.engine.context.inventory.vmi(vm_subject("ns", "db"))
    cluster.handle(ObjectSeen(facts=msgspec.structs.replace(old, paused="PausedIOError")))
    view = vm(cluster, "db")
    assert (view.verdict, view.row.name) == ("Paused", "io-error")
    assert any(each.facet == "paused" and each.weighed for each in view.facets)
    assert any("is confirmed (io-error)" in what for what in whats(view.due))
    (line,) = glance(cluster).sick
    assert (line.name, line.verdict, line.row) == ("db", "Paused", "io-error")
    assert glance(cluster).vm_verdicts == {"Paused": 1}
    cluster.run(40)
    view = vm(cluster, "db")
    assert view.incident.state == "confirmed"
    assert view.since_s is not None


def test_a_vm_that_has_begun_to_start_is_not_called_stuck_before_its_time(cluster):
    cluster.handle(ObjectSeen(facts=VmFacts(namespace="ns", name="new", uid="u")))
    cluster.place("new", "n1")
    cluster.run(5)
    view = vm(cluster, "new")
    assert (view.verdict, view.row) == ("Healthy", None)
    assert glance(cluster).sick == ()
    assert all(each.stood_s < each.suspected_after_s for each in view.fitting)


def test_what_keeps_a_vm_from_moving_is_said(cluster):
    cluster.add_vm("db", "n1")
    inventory = cluster.engine.context.inventory
    old = inventory.vmi(vm_subject("ns", "db"))
    stuck = msgspec.structs.replace(
        old, live_migratable=False, not_migratable_why="DisksNotLiveMigratable", claims=("disk",)
    )
    cluster.handle(ObjectSeen(facts=stuck))
    claim = ClaimFacts(namespace="ns", name="disk", uid="c", volume="pv-1")
    cluster.handle(ObjectSeen(facts=claim))
    cluster.handle(ObjectSeen(facts=VolumeFacts(name="pv-1", uid="v", pinned_to=("n1",))))
    view = vm(cluster, "db")
    assert view.cannot_move == (
        "not live migratable: DisksNotLiveMigratable",
        "its volume pv-1 is only on n1",
    )
    assert view.if_host_dies.startswith("leave-stopped: cannot move")


def test_a_halted_vm_is_counted_as_stopped(cluster):
    halted = VmFacts(namespace="ns", name="off", uid="u", run_strategy=RunStrategy.HALTED)
    cluster.handle(ObjectSeen(facts=halted))
    cluster.run(1)
    assert glance(cluster).vm_verdicts == {"stopped": 1}
    view = vm(cluster, "off")
    assert (view.verdict, view.node, view.cannot_move) == ("Healthy", "", ("it does not run",))


@pytest.mark.parametrize(
    ("namespace", "name", "says"),
    [
        ("ns", "dbb", "there is no VM ns/dbb; did you mean ns/db?"),
        ("nss", "db", "there is no VM nss/db; did you mean ns/db?"),
        ("nss", "xyz", "there is no VM nss/xyz; did you mean ns/…?"),
        ("q", "q", "there is no VM q/q"),
    ],
)
def test_a_vm_that_is_not_there_is_said_with_names_that_are_near(cluster, namespace, name, says):
    cluster.add_vm("db", "n1")
    found = vm(cluster, name, namespace)
    assert isinstance(found, NoSuch)
    assert found.detail == says


# --- whatever was seen ----------------------------------------------------------------------------

_NAMES = ("n1", "n2", "n3")
_TEXT = st.sampled_from(("", "a", "Ready", "KernelDeadlock", "instance-gone", "pod", "attach"))
_SUBJECTS = st.sampled_from(
    (*map(node_subject, _NAMES), vantage_subject("v1"), vm_subject("ns", "db"), node_subject("n9"))
)
_SIGNALS = st.builds(
    Signal,
    plane=st.sampled_from(Plane),
    source=st.sampled_from(("s", "v1", "lease watch")),
    subject=_SUBJECTS,
    reading=st.sampled_from(Reading),
    at=st.floats(0, 2e6),
    aspect=_TEXT,
    zone=st.sampled_from(("", "z")),
    first=st.booleans(),
).map(lambda signal: SignalSeen(signal=signal))
_NODES = st.builds(
    NodeFacts,
    name=st.sampled_from(_NAMES),
    uid=st.sampled_from(("a", "b")),
    boot_id=st.sampled_from(("", "b1", "b2")),
    zone=st.sampled_from(("", "z")),
    kubevirt=st.booleans(),
    ready=st.sampled_from((None, True, False)),
)
_VMIS = st.builds(
    VmiFacts,
    namespace=st.just("ns"),
    name=st.sampled_from(("db", "web")),
    uid=st.sampled_from(("u1", "u2")),
    phase=st.sampled_from(("", "Scheduling", "Running", "Failed")),
    node=st.sampled_from(("", *_NAMES)),
    paused=st.sampled_from(("", "PausedIOError")),
    migrating_to=st.sampled_from(("", "n2")),
    claims=st.sampled_from(((), ("disk",))),
)
_PODS = st.builds(
    PodFacts,
    namespace=st.just("ns"),
    name=st.sampled_from(("p1", "p2")),
    uid=st.sampled_from(("pu1", "pu2")),
    node=st.sampled_from(("", *_NAMES)),
    vmi=st.sampled_from(("db", "web")),
    phase=st.sampled_from(("Pending", "Running")),
)
_EVENTS = st.one_of(
    _SIGNALS,
    _SIGNALS,
    st.one_of(_NODES, _VMIS, _PODS).map(lambda facts: ObjectSeen(facts=facts)),
    st.builds(ObjectGone, kind=st.just(FactKind.NODE), name=st.sampled_from(_NAMES)),
    st.builds(
        WatchProgressed, watch=st.sampled_from(("leases", "nodes")), at=st.floats(1e6, 1e6 + 900)
    ),
    st.builds(OwnHealthSeen, loop_lag_s=st.floats(0, 9), nats_latency_s=st.floats(0, 9)),
    st.just(Tick()),
)


def views(engine, at):
    yield surveyed(engine, at)
    yield surveyed(engine, at, zone="z")
    around = Surroundings(at=at)
    for name in (*_NAMES, "n9"):
        yield node_view.view(engine.context, engine.vms, around, name)
    for name in ("db", "web", "nothing"):
        yield vm_view.view(engine.context, engine.vms, around, "ns", name)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(_EVENTS, st.floats(0, 40)), max_size=40), st.booleans())
def test_views_never_fail_and_change_nothing(make_cluster, events, synced):
    """Two engines see the same; one is looked at after every event. They must decide the same."""
    watched, left_alone = (make_cluster(nodes=3, lead=False) for _ in range(2))
    for cluster in (watched, left_alone):
        cluster.lead(sync=synced)
    for event, later_s in events:
        told = []
        for cluster in (watched, left_alone):
            cluster.now += later_s
            told.append(cluster.engine.handle(event, cluster.now))
        assert told[0] == told[1]
        for view in views(watched.engine, watched.now + 0.5):
            msgspec.json.encode(view)
    assert watched.engine.snapshot() == left_alone.engine.snapshot()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(_EVENTS, st.floats(0, 40)), max_size=60))
def test_the_engine_may_go_on_between_the_slices_of_a_view(make_cluster, monkeypatch, events):
    """Whatever happens meanwhile, the view comes to its end and counts nothing twice."""
    for name in ("_NODES_AT_ONCE", "_VMS_AT_ONCE", "_SICK_AT_ONCE"):
        monkeypatch.setattr(health_view, name, 1)
    cluster = make_cluster(nodes=3)
    for number in range(4):
        cluster.add_vm(f"vm{number}", f"n{number % 3 + 1}")
    work = health_view.survey(
        cluster.engine.context, cluster.engine.vms, Surroundings(at=cluster.now)
    )
    waiting = iter(events)
    while True:
        try:
            next(work)
        except StopIteration as done:
            view = done.value
            break
        event, later_s = next(waiting, (Tick(), 1.0))
        cluster.now += later_s
        cluster.engine.handle(event, cluster.now)
    assert len({line.name for line in view.nodes}) == len(view.nodes)
    assert sum(zone.nodes for zone in view.zones) <= 3 + len(events)
    msgspec.json.encode(view)
