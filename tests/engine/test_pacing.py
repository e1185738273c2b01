"""Who starts when, as the engine grants it: tiers, gates, dependencies, failures, the limit."""

from __future__ import annotations

import msgspec

from remediator.engine import chain, pacing, pacing_view
from remediator.engine.chain import DecisionKind, Head
from remediator.engine.events import ObjectGone, ObjectSeen
from remediator.engine.incidents import Stage
from remediator.engine.machine import Engine
from remediator.engine.model import (
    FactKind,
    ForceStop,
    OutcomeStatus,
    Reading,
    RunStrategy,
    VmFacts,
    VmiFacts,
    vm_subject,
)
from remediator.engine.readiness import delay_s
from remediator.engine.restart_marks import AFTER, PRIORITY, READY_WHEN
from remediator.engine.settings import EngineSettings, PacingSettings, RateSettings
from remediator.engine.start_rate import Learned


def paced(at_once: int = 10, **pace) -> EngineSettings:
    return EngineSettings(
        pacing=PacingSettings(
            rate=RateSettings(initial=float(at_once), floor=1, ceiling=at_once), **pace
        )
    )


class Lost:
    """A cluster of which one host with marked VMs is lost; its recovery is played by hand."""

    def __init__(self, make_cluster, vms: dict[str, dict[str, str]], **engine) -> None:
        self.cluster = make_cluster(nodes=8, **engine)
        self.cluster.lead()
        for name, marks in vms.items():
            self.cluster.add_vm(name, "n1")
            self.mark(name, **marks)
        self.began: list[str] = []

    def mark(self, name: str, *, strategy: RunStrategy = RunStrategy.ALWAYS, **marks: str) -> None:
        keys = {"priority": PRIORITY, "after": AFTER, "ready": READY_WHEN}
        facts = VmFacts(
            namespace="ns",
            name=name,
            uid=f"vm-{name}",
            run_strategy=strategy,
            annotations={keys[key]: value for key, value in marks.items()},
        )
        self.cluster.handle(ObjectSeen(facts=facts))

    def lose(self) -> None:
        """Take the host to where its VMs are brought back."""
        cluster = self.cluster
        cluster.silent.add("n1")
        cluster.run(20)
        cluster.power("n1", Reading.DOWN)
        for _ in range(10):
            cluster.power("n1", Reading.DOWN)
            waiting = [each for each in cluster.actions if not isinstance(each.work, ForceStop)]
            for action in waiting:
                cluster.answer(action)
            if self.started:
                return
            cluster.run(1)

    @property
    def started(self) -> list[str]:
        """The VMs whose dead pods are being deleted now."""
        return [each.work.vmi for each in self.cluster.actions if isinstance(each.work, ForceStop)]

    def stop_succeeds(self) -> list[str]:
        """The deletions under way succeed; new VMIs appear that wait for their nodes."""
        names = self.started
        for action in [each for each in self.cluster.actions if isinstance(each.work, ForceStop)]:
            self.cluster.answer(action)
            self.cluster.drop_pods(action.work.vmi, "n1")
            self.cluster.place(action.work.vmi, "n2")
            self.began.append(action.work.vmi)
        return names

    def is_up(self, *names: str) -> None:
        for name in names:
            self.cluster.vmi(name, node="n2", phase="Running")
            self.cluster.run(1)
            self.cluster.vmi(name, node="n2", phase="Running", agent=True)

    def stage(self, name: str) -> Stage:
        return self.cluster.incident("n1").vms[f"vm/ns/{name}"].stage

    def paced(self) -> list[str]:
        return [each.why for each in self.cluster.decisions if each.kind is DecisionKind.PACED]


def test_more_important_vms_are_started_first(make_cluster):
    vms = {"a": {"priority": "low"}, "b": {}, "c": {"priority": "high"}, "d": {"priority": "7"}}
    lost = Lost(make_cluster, vms, settings=paced(1))
    lost.lose()
    for _ in vms:
        lost.is_up(*lost.stop_succeeds())
        lost.cluster.run(1)
    assert lost.began == ["c", "d", "b", "a"]


def test_the_highest_tier_is_ready_before_anything_else_starts(make_cluster):
    vms = {"db": {"priority": "highest", "ready": "20s"}, "web": {}}
    lost = Lost(make_cluster, vms, settings=paced(5))
    lost.lose()
    assert lost.stop_succeeds() == ["db"]
    lost.is_up("db")
    assert lost.stage("db") is Stage.UP
    lost.cluster.run(15)
    assert lost.started == [], "it runs for less than 20 s"
    lost.cluster.run(8)
    assert lost.started == ["web"]


def test_a_gate_whose_time_is_up_is_passed_and_a_human_told(make_cluster):
    vms = {"db": {"priority": "highest"}, "web": {}}
    lost = Lost(make_cluster, vms, settings=paced(5, gate_timeout_s=60.0))
    lost.lose()
    lost.stop_succeeds()
    lost.cluster.run(55)
    assert lost.started == []
    lost.cluster.run(10)
    assert lost.started == ["web"]
    assert any("tier highest was not ready within 60 s (ns/db)" in why for why in lost.paced())
    assert any("tier highest was not ready" in notice for notice in lost.cluster.notices)


def test_a_vm_starts_after_what_it_depends_on_is_ready(make_cluster):
    lost = Lost(make_cluster, {"app": {"after": "db"}, "db": {}}, settings=paced(5))
    lost.lose()
    assert lost.stop_succeeds() == ["db"]
    view = pacing_view.view(lost.cluster.engine.context, lost.cluster.now)
    assert [(line.vm, line.reason) for line in view.queue] == [("ns/app", "dependency")]
    lost.is_up("db")
    assert lost.started == ["app"]


def test_a_loop_is_told_with_its_path_and_its_vms_start_all_the_same(make_cluster):
    vms = {"a": {"after": "b"}, "b": {"after": "c"}, "c": {"after": "ns/a"}}
    lost = Lost(make_cluster, vms, settings=paced(5))
    told = "remediator.io/start-after forms a loop and is not obeyed for its VMs: "
    path = "ns/a → ns/b → ns/c → ns/a"
    assert [each for each in lost.paced() if "loop" in each] == [told + path]
    assert any(path in notice for notice in lost.cluster.notices)
    lost.lose()
    assert sorted(lost.started) == ["a", "b", "c"]


def test_a_priority_that_is_changed_while_its_vm_waits_is_followed(make_cluster):
    lost = Lost(make_cluster, {"a": {}, "b": {}, "c": {}}, settings=paced(1))
    lost.lose()
    assert lost.started == ["a"]
    lost.mark("c", priority="high")
    lost.is_up(*lost.stop_succeeds())
    assert lost.started == ["c"]


def test_a_vm_that_is_deleted_or_stopped_while_it_waits_gives_its_turn_away(make_cluster):
    lost = Lost(make_cluster, {"a": {}, "b": {}, "c": {}}, settings=paced(1))
    lost.lose()
    for kind in (FactKind.VMI, FactKind.VM):
        lost.cluster.handle(ObjectGone(kind=kind, namespace="ns", name="b"))
    lost.is_up(*lost.stop_succeeds())
    assert lost.stage("b") is Stage.GONE
    assert lost.started == ["c"]


def test_a_deletion_that_fails_is_tried_again_later_and_gives_its_place_away(make_cluster):
    lost = Lost(make_cluster, {"a": {}, "b": {}}, settings=paced(1))
    lost.lose()
    assert lost.started == ["a"]
    action = next(each for each in lost.cluster.actions if isinstance(each.work, ForceStop))
    lost.cluster.answer(action, OutcomeStatus.FAILED, "the API server said no")
    assert lost.started == ["b"]
    lost.is_up(*lost.stop_succeeds())
    lost.cluster.run(10)
    assert lost.started == ["a"]


def test_a_new_vmi_that_fails_gives_its_place_away_and_is_a_failure_of_its_own(make_cluster):
    lost = Lost(make_cluster, {"a": {}, "b": {}}, settings=paced(1))
    lost.lose()
    lost.stop_succeeds()
    lost.cluster.vmi("a", node="n2", phase="Failed")
    assert lost.stage("a") is Stage.FAILED
    assert lost.started == ["b"]
    assert lost.cluster.engine.context.pace.rate.limit == 1
    progress = lost.cluster.incident("n1").vms["vm/ns/a"]
    assert progress.retry_at == lost.cluster.now + 10
    lost.cluster.place("a", "n3")  # KubeVirt makes another one
    assert lost.stage("a") is Stage.REQUESTED


def test_a_vm_whose_starts_keep_failing_is_told_of_and_still_watched(make_cluster):
    lost = Lost(make_cluster, {"a": {}}, settings=paced(1, retries=3))
    lost.lose()
    lost.stop_succeeds()
    for _ in range(3):
        lost.cluster.vmi("a", node="n2", phase="Failed")
        lost.cluster.place("a", "n2")
    assert lost.stage("a") is Stage.STUCK
    assert any("failed 3 times" in notice for notice in lost.cluster.notices)
    lost.is_up("a")
    assert lost.cluster.incident("n1") is None, "it is up after all"


def test_boots_that_others_began_take_places_too(make_cluster):
    lost = Lost(make_cluster, {"a": {}}, settings=paced(1))
    lost.cluster.add_vm("other", "n3")
    lost.cluster.place("other", "n4")
    lost.lose()
    lost.cluster.run(5)
    assert lost.started == []
    lost.cluster.vmi("other", node="n4", phase="Running", agent=True)
    lost.cluster.run(1)
    assert lost.started == ["a"]


def test_the_limit_grows_with_what_is_seen_and_the_next_leader_goes_on_with_it(make_cluster):
    names = {f"v{number:02d}": {} for number in range(40)}
    settings = EngineSettings(
        pacing=PacingSettings(rate=RateSettings(initial=6.0), starts_at_once_node=20)
    )
    lost = Lost(make_cluster, names, settings=settings)
    lost.lose()
    for _ in range(3):
        begun = lost.stop_succeeds()
        for name in begun:
            lost.cluster.vmi(name, node="n2", phase="Running")
        lost.cluster.run(10)
        for name in begun:
            lost.cluster.vmi(name, node="n2", phase="Running", agent=True)
        lost.cluster.run(1)
    assert any("may boot at once from now on (before: 6)" in why for why in lost.paced())
    learned = lost.cluster.engine.state.pace.learned
    assert learned is not None
    assert learned.limit > 6
    again, head = Engine(settings=settings), Head()
    for seq, payload in enumerate(lost.cluster.journal, start=1):
        head, decision = chain.check_link(head, seq, payload)
        again.replay(decision, head)
    assert again.state.pace == lost.cluster.engine.state.pace
    assert pacing.rate_of(again.context).learned == learned


def test_a_snapshot_holds_what_was_learned():
    engine = Engine()
    engine.state.pace.learned = Learned(limit=17.5, base_s=9.0, sure=True)
    engine.state.pace.loops.add("ns/a → ns/a")
    other = Engine()
    other.restore(engine.snapshot())
    assert other.state.pace == engine.state.pace


def test_the_view_names_every_vm_once_with_its_reason_and_its_estimate(make_cluster):
    vms = {"a": {}, "b": {}, "c": {"priority": "high"}, "d": {"after": "a"}}
    lost = Lost(make_cluster, vms, settings=paced(1))
    lost.lose()
    view = pacing_view.view(lost.cluster.engine.context, lost.cluster.now)
    assert [line.vm for line in view.boots] == ["ns/c"]
    assert [line.vm for line in view.queue] == ["ns/a", "ns/b", "ns/d"]
    assert view.by_reason == {"places": 2, "dependency": 1}
    assert view.by_tier == {"medium": 3}
    backs = [line.back_in_s for line in view.queue[:2]]
    assert backs == sorted(backs)
    assert all(line.why for line in view.queue)
    assert msgspec.json.decode(msgspec.json.encode(view), type=pacing_view.PacingView) == view


def test_a_vm_on_a_host_in_trouble_is_waited_for_by_its_dependents(make_cluster):
    lost = Lost(make_cluster, {"app": {"after": "db, gone, ns/off"}}, settings=paced(5))
    lost.cluster.add_vm("db", "n5")
    off = VmFacts(namespace="ns", name="off", uid="o", run_strategy=RunStrategy.HALTED)
    lost.cluster.handle(ObjectSeen(facts=off))
    lost.cluster.vmi("db", node="n5", phase="Scheduling")
    lost.lose()
    lost.cluster.run(3)
    assert lost.started == []
    view = pacing_view.view(lost.cluster.engine.context, lost.cluster.now)
    assert "starts after ns/db" in view.queue[0].why
    lost.cluster.vmi("db", node="n5", phase="Running", agent=True)
    lost.cluster.run(2)
    assert lost.started == ["app"]


def test_what_cannot_be_read_counts_as_not_said(make_cluster):
    lost = Lost(make_cluster, {"a": {"priority": "urgent", "ready": "soon", "after": " , /"}})
    candidate = vm_subject("ns", "a")
    inventory = lost.cluster.engine.context.inventory
    assert pacing.restart_marks.tier_of(inventory, candidate) == 0
    assert pacing.restart_marks.after_of(inventory.vm(candidate)) == ()
    assert [delay_s(word) for word in ("90s", "5m", "2h", "7", "soon", "-1s", "")] == [
        90.0,
        300.0,
        7200.0,
        7.0,
        None,
        None,
        None,
    ]


def test_a_namespace_has_a_tier_for_vms_that_say_nothing(make_cluster):
    lost = Lost(make_cluster, {"a": {}, "b": {"priority": "low"}})
    inventory = lost.cluster.engine.context.inventory
    tiers = {"other": "highest", "n*": "high", "*": "low"}
    by_name = {
        name: pacing.restart_marks.tier_of(inventory, vm_subject("ns", name), tiers)
        for name in ("a", "b")
    }
    assert by_name == {"a": 100, "b": -100}
    pod = inventory.pods_of(vm_subject("ns", "a"))[0]
    lost.cluster.handle(ObjectSeen(facts=msgspec.structs.replace(pod, priority=1000)))
    of_pod = pacing.restart_marks.tier_of(inventory, vm_subject("ns", "a"), tiers)
    assert of_pod == 33, "its PriorityClass is nearer to it than its namespace"


def test_a_vmi_without_a_vm_has_no_marks(make_cluster):
    lost = Lost(make_cluster, {})
    lost.cluster.handle(ObjectSeen(facts=VmiFacts(namespace="ns", name="bare", uid="u")))
    inventory = lost.cluster.engine.context.inventory
    assert pacing.restart_marks.tier_of(inventory, vm_subject("ns", "bare")) == 0


def test_a_vm_whose_agent_used_to_answer_holds_its_place_until_it_answers_again(make_cluster):
    lost = Lost(make_cluster, {"a": {}, "b": {"priority": "low"}}, settings=paced(1))
    lost.lose()
    assert lost.stop_succeeds() == ["a"]
    lost.cluster.vmi("a", node="n2", phase="Running")
    lost.cluster.run(90)
    assert lost.stage("a") is Stage.RUNNING, "slow storage is no reason to start more"
    assert lost.started == []
    lost.is_up("a")
    lost.cluster.run(2)
    assert lost.started == ["b"]
