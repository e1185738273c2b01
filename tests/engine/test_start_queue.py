"""Who starts next: whatever the mix of tiers, dependencies, gates and limits."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given, settings

from remediator.engine.model import Subject, vm_subject
from remediator.engine.start_order import loops, without_loops
from remediator.engine.start_queue import Choice, back_at, choose, retry_delay_s
from remediator.engine.start_words import (
    Bound,
    Candidate,
    Fit,
    Gate,
    Limits,
    Reason,
    Rules,
    Started,
)
from remediator.engine.tiers import TIERS, parse_tier, tier_of_priority

NOW = 1000.0
NAMES = ("a", "b", "c", "d", "e", "f", "g", "h")


def vm(name: str, namespace: str = "shop") -> Subject:
    return vm_subject(namespace, name)


def wants(name: str, **facts: object) -> Candidate:
    given_facts: dict[str, object] = {"since_at": NOW, **facts}
    return Candidate(vm=vm(name), **given_facts)  # type: ignore[arg-type]


def boots(name: str, **facts: object) -> Started:
    given_facts: dict[str, object] = {"started_at": NOW - 5, **facts}
    return Started(vm=vm(name), **given_facts)  # type: ignore[arg-type]


def names(choice: Choice) -> list[str]:
    return [each.vm.name for each in choice.starts]


def reason_of(choice: Choice, name: str) -> Reason:
    return next(each.reason for each in choice.waits if each.candidate.vm.name == name)


def test_the_most_important_tier_starts_first_and_the_longest_waiting_first_within_it() -> None:
    queue = [
        wants("low", tier=TIERS["low"]),
        wants("late", tier=TIERS["high"]),
        wants("early", tier=TIERS["high"], since_at=NOW - 1),
    ]
    choice = choose(queue, [], now=NOW, rate=2)
    assert names(choice) == ["early", "late"]
    assert reason_of(choice, "low") is Reason.PLACES


def test_a_vm_that_does_not_fit_does_not_block_smaller_ones() -> None:
    queue = [wants("giant", tier=200), wants("small")]
    choice = choose(
        queue, [], now=NOW, rate=1, fits={vm("giant"): Fit(why_not="no node has 512Gi")}
    )
    assert names(choice) == ["small"]
    assert reason_of(choice, "giant") is Reason.CAPACITY


def test_a_dependent_waits_until_what_it_needs_is_ready() -> None:
    queue = [wants("app", after=(vm("db"),)), wants("db", tier=TIERS["lowest"])]
    first = choose(queue, [], now=NOW, rate=5)
    assert names(first) == ["db"]
    assert reason_of(first, "app") is Reason.DEPENDENCY
    booting = choose([queue[0]], [boots("db")], now=NOW, rate=5)
    assert reason_of(booting, "app") is Reason.DEPENDENCY
    ready = choose([queue[0]], [boots("db", booting=False, ready=True)], now=NOW, rate=5)
    assert names(ready) == ["app"]


def test_a_dependency_is_as_important_as_whoever_needs_it() -> None:
    queue = [
        wants("app", tier=200, after=(vm("db"),)),
        wants("db", tier=-200, after=(vm("disk"),)),
        wants("disk", tier=-200),
        wants("other", tier=100),
    ]
    assert names(choose(queue, [], now=NOW, rate=1)) == ["disk"]


def test_a_dependency_that_never_gets_ready_is_waited_for_only_so_long() -> None:
    queue = [wants("app", after=(vm("db"),), since_at=NOW - 600)]
    rules = Rules(dependency_timeout_s=600)
    assert names(choose(queue, [boots("db")], now=NOW, rules=rules)) == ["app"]


def test_a_dependency_on_a_vm_that_is_down_waits_and_says_why() -> None:
    queue = [wants("app", after=(vm("db"),))]
    choice = choose(queue, [], now=NOW, unready={vm("db"): "is stopped"})
    assert "is stopped" in choice.waits[0].why
    assert choice.look_at == NOW + 600


def test_a_gate_keeps_lower_tiers_waiting_until_the_tier_is_ready_or_its_time_is_up() -> None:
    rules = Rules(gates=(Gate(tier=200, timeout_s=120),))
    queue = [wants("db", tier=200), wants("web")]
    shut = choose(queue, [], now=NOW, rate=10, rules=rules)
    assert names(shut) == ["db"]
    assert reason_of(shut, "web") is Reason.TIER
    assert shut.look_at == NOW + 120
    booting = [boots("db", tier=200, booting=False)]
    settling = choose([wants("web")], booting, now=NOW, rate=10, rules=rules)
    assert reason_of(settling, "web") is Reason.TIER
    late = choose([wants("web")], booting, now=NOW + 120, rate=10, rules=rules)
    assert names(late) == ["web"]
    ready = [boots("db", tier=200, booting=False, ready=True)]
    assert names(choose([wants("web")], ready, now=NOW, rate=10, rules=rules)) == ["web"]


def test_whoever_waits_long_counts_as_more_important() -> None:
    rules = Rules(age_s=600)
    queue = [wants("old", tier=-100, since_at=NOW - 1200), wants("new", tier=0)]
    assert names(choose(queue, [], now=NOW, rate=1, rules=rules)) == ["old"]


def test_after_a_failure_a_vm_waits_and_gives_its_turn_away() -> None:
    queue = [wants("bad", tier=200, not_before=NOW + 20, attempts=1), wants("good")]
    choice = choose(queue, [], now=NOW, rate=1)
    assert names(choice) == ["good"]
    assert reason_of(choice, "bad") is Reason.BACK_OFF
    assert choice.look_at == NOW + 20


def test_the_bound_per_node_counts_starts_that_have_no_node_yet() -> None:
    limits = Limits(node=Bound(at_once=2))
    queue = [wants(name) for name in "abcdef"]
    booting = [boots("x", node="n1"), boots("y")]
    assert len(choose(queue, booting, now=NOW, limits=limits, nodes=("n1", "n2")).starts) == 2
    fits = {vm(name): Fit(node="n1") for name in "abcdef"}
    placed = choose(queue, booting, now=NOW, limits=limits, nodes=("n1", "n2"), fits=fits)
    assert len(placed.starts) == 1


def test_starts_per_minute_say_when_the_next_one_may_begin() -> None:
    limits = Limits(cluster=Bound(per_minute=2))
    booting = [boots("x", started_at=NOW - 50, booting=False), boots("y", started_at=NOW - 70)]
    choice = choose([wants("a"), wants("b")], booting, now=NOW, limits=limits)
    assert names(choice) == ["a"]
    assert reason_of(choice, "b") is Reason.PER_MINUTE
    assert choice.look_at == NOW + 10


def test_a_named_bound_takes_the_place_of_the_general_one() -> None:
    limits = Limits(storage=Bound(at_once=1), named={"storage:fast": Bound(at_once=3)})
    queue = [wants(name, storage=("fast",)) for name in "abcd"]
    queue += [wants(name, storage=("slow",)) for name in "efgh"]
    assert names(choose(queue, [], now=NOW, limits=limits)) == ["a", "b", "c", "e"]


def test_a_loop_is_found_with_its_path_and_its_vms_start_all_the_same() -> None:
    after = {
        vm("a"): (vm("b"),),
        vm("b"): (vm("c"),),
        vm("c"): (vm("a"),),
        vm("d"): (vm("a"),),
    }
    assert loops(after) == [(vm("a"), vm("b"), vm("c"), vm("a"))]
    assert without_loops(after) == {vm("d"): (vm("a"),)}
    queue = [wants(each.name, after=needed) for each, needed in after.items()]
    assert names(choose(queue, [], now=NOW)) == ["a", "b", "c"]


def test_tiers_are_names_or_numbers_and_priority_classes_lie_between_low_and_high() -> None:
    assert parse_tier(" High ") == 100
    assert parse_tier("-7") == -7
    assert parse_tier("urgent") is None
    assert parse_tier("1001") is None
    values = [-2_000_000_000, -10, 0, 10, 1000, 1_000_000, 2_000_000_000]
    tiers = [tier_of_priority(value) for value in values]
    assert tiers == sorted(set(tiers))
    assert tiers[0] >= TIERS["low"]
    assert tiers[-1] <= TIERS["high"]


def test_the_estimate_grows_with_the_place_in_the_queue() -> None:
    assert back_at(0, 0, 10, 10.0, NOW) == NOW + 10
    assert back_at(10, 0, 10, 10.0, NOW) > back_at(9, 0, 10, 10.0, NOW)
    assert back_at(0, 10, 10, 10.0, NOW) > NOW + 10
    assert back_at(0, 0, 10, 10.0, NOW, not_before=NOW + 60) == NOW + 70


def test_back_off_doubles_up_to_its_cap() -> None:
    assert [retry_delay_s(n, 10, 60) for n in (1, 2, 3, 4, 500)] == [10, 20, 40, 60, 60]


# --- whatever the mix -----------------------------------------------------------------------------

subjects = st.sampled_from([vm(name) for name in NAMES])
storages = st.lists(st.sampled_from(["fast", "slow"]), max_size=2, unique=True).map(tuple)
candidates = st.lists(
    st.builds(
        Candidate,
        vm=subjects,
        tier=st.sampled_from([-200, -100, 0, 50, 100, 200]),
        after=st.lists(subjects, max_size=2, unique=True).map(tuple),
        storage=storages,
        zone=st.sampled_from(["", "z1", "z2"]),
        since_at=st.floats(NOW - 3000, NOW),
        not_before=st.sampled_from([0.0, 0.0, 0.0, NOW + 5]),
    ),
    unique_by=lambda each: each.vm,
)
starting = st.lists(
    st.builds(
        Started,
        vm=st.sampled_from([vm(f"s{number}") for number in range(6)]),
        started_at=st.floats(NOW - 100, NOW),
        tier=st.sampled_from([-200, 0, 200]),
        booting=st.booleans(),
        ready=st.booleans(),
        storage=storages,
        zone=st.sampled_from(["", "z1", "z2"]),
    ),
    unique_by=lambda each: each.vm,
)
bounds = st.builds(
    Bound,
    at_once=st.one_of(st.none(), st.integers(0, 4)),
    per_minute=st.one_of(st.none(), st.integers(0, 4)),
)
all_limits = st.builds(Limits, cluster=bounds, zone=bounds, storage=bounds, namespace=bounds)
all_rules = st.builds(
    Rules,
    gates=st.sampled_from([(), (Gate(tier=200, timeout_s=100),), (Gate(tier=0, timeout_s=2000),)]),
)


@given(candidates, starting, all_limits, st.one_of(st.none(), st.integers(0, 6)), all_rules)
@settings(max_examples=400, deadline=None)
def test_nobody_is_forgotten_and_no_limit_is_exceeded(
    queue: list[Candidate],
    booting: list[Started],
    limits: Limits,
    rate: int | None,
    rules: Rules,
) -> None:
    choice = choose(queue, booting, now=NOW, limits=limits, rate=rate, rules=rules)
    told = [each.vm for each in choice.starts] + [each.candidate.vm for each in choice.waits]
    assert sorted(told) == sorted(each.vm for each in queue)
    assert all(each.why for each in choice.waits)
    scopes = {
        "cluster": lambda _: ("all",),
        "zone": lambda each: (each.zone,) if each.zone else (),
        "storage": lambda each: each.storage,
        "namespace": lambda each: (each.vm.namespace,),
    }
    begun = [each for each in booting if each.started_at > NOW - 60]
    for kind, of in scopes.items():
        bound: Bound = getattr(limits, kind)
        for name in {name for each in choice.starts for name in of(each)}:
            new = sum(name in of(each) for each in choice.starts)
            held = sum(name in of(each) for each in booting if each.booting)
            lately = sum(name in of(each) for each in begun)
            assert bound.at_once is None or held + new <= bound.at_once
            assert bound.per_minute is None or lately + new <= bound.per_minute
    if rate is not None and choice.starts:
        assert sum(each.booting for each in booting) + len(choice.starts) <= rate
    quick = choose(queue, booting, now=NOW, limits=limits, rate=rate, rules=rules, reasons=False)
    assert quick.starts == choice.starts


@given(candidates, all_rules)
@settings(max_examples=200, deadline=None)
def test_without_limits_only_dependencies_gates_and_back_off_hold_anybody(
    queue: list[Candidate], rules: Rules
) -> None:
    choice = choose(queue, [], now=NOW, rules=rules)
    allowed = {Reason.DEPENDENCY, Reason.TIER, Reason.BACK_OFF}
    assert {each.reason for each in choice.waits} <= allowed
    assert all(each.until is not None for each in choice.waits)


@given(candidates, st.integers(1, 5), all_rules)
@settings(max_examples=200, deadline=None)
def test_everybody_has_started_in_the_end(queue: list[Candidate], rate: int, rules: Rules) -> None:
    left, now = list(queue), NOW
    started: list[Subject] = []
    for _ in range(200):
        choice = choose(left, [], now=now, rate=rate, rules=rules)
        assert choice.starts or choice.look_at is not None or not left
        begun = {each.vm for each in choice.starts}
        started += begun
        left = [each for each in left if each.vm not in begun]
        now += 30
    assert not left
    assert len(started) == len(queue)
