"""The store's own promises: order of events, immutability, the past, and who hears what."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import Any

import pytest

from remediator.sim.problems import Problem
from remediator.sim.resources import CONFIG_MAPS, NODES, PODS
from remediator.sim.store import Store

Obj = dict[str, Any]
POD = {"spec": {"containers": [{"name": "c"}]}}


@pytest.fixture
def store():
    return Store(now=lambda: 1_800_000_000.0, rng=random.Random(1), history=1000)


def config_map(name: str, namespace: str = "default", **data: str) -> Obj:
    return {"metadata": {"name": name, "namespace": namespace}, "data": data}


@contextmanager
def refusals(*statuses: int):
    """Go on after a refusal with one of these statuses."""
    try:
        yield
    except Problem as problem:
        if problem.status not in statuses:
            raise


def names(objects: list[Obj]) -> list[str]:
    return [obj["metadata"]["name"] for obj in objects]


def test_versions_only_rise_over_all_kinds(store):
    versions = [
        int(store.create(res, obj)["metadata"]["resourceVersion"])
        for res, obj in (
            (CONFIG_MAPS, config_map("a")),
            (NODES, {"metadata": {"name": "n"}}),
            (CONFIG_MAPS, config_map("b")),
        )
    ]
    assert versions == sorted(set(versions))
    assert store.resource_version == versions[-1]


def test_what_the_caller_keeps_does_not_reach_into_the_store(store):
    mine = config_map("a", key="1")
    store.create(CONFIG_MAPS, mine)
    mine["data"]["key"] = "changed"
    assert store.get(CONFIG_MAPS, "default", "a")["data"] == {"key": "1"}
    newer = config_map("a", key="2")
    store.update(CONFIG_MAPS, newer)
    newer["data"]["key"] = "changed"
    assert store.get(CONFIG_MAPS, "default", "a")["data"] == {"key": "2"}


def test_a_version_once_read_never_changes(store):
    before = store.create(CONFIG_MAPS, config_map("a", key="1"))
    store.mutate(CONFIG_MAPS, "default", "a", lambda obj: obj["data"].update(key="2"))
    store.delete(CONFIG_MAPS, "default", "a")
    assert before["data"] == {"key": "1"}


def test_a_mutation_that_fails_leaves_everything_as_it_was(store):
    before = store.create(CONFIG_MAPS, config_map("a", key="1"))

    def spoil(obj):
        obj["data"]["key"] = "2"
        raise LookupError

    with pytest.raises(LookupError):
        store.mutate(CONFIG_MAPS, "default", "a", spoil)
    assert store.get(CONFIG_MAPS, "default", "a") == before


def test_subscribers_hear_each_change_with_what_was_before(store):
    heard = []
    leave = store.subscribe(
        CONFIG_MAPS,
        lambda kind, obj, old: heard.append((kind, obj.get("data"), old and old.get("data"))),
    )
    store.create(CONFIG_MAPS, config_map("a", key="1"))
    store.create(NODES, {"metadata": {"name": "n"}})
    store.mutate(CONFIG_MAPS, "default", "a", lambda obj: obj["data"].update(key="2"))
    store.mutate(CONFIG_MAPS, "default", "a", lambda obj: obj["data"].update(key="2"))
    store.delete(CONFIG_MAPS, "default", "a")
    leave()
    leave()
    store.create(CONFIG_MAPS, config_map("b"))
    assert heard == [
        ("ADDED", {"key": "1"}, None),
        ("MODIFIED", {"key": "2"}, {"key": "1"}),
        ("DELETED", {"key": "2"}, {"key": "2"}),
    ]


def test_a_change_made_in_a_callback_is_told_to_all_after_the_present_one(store):
    first, second = [], []

    def reacts(kind, obj, _old):
        first.append((kind, obj["metadata"]["resourceVersion"]))
        if kind == "ADDED":
            store.mutate(CONFIG_MAPS, "default", "a", lambda obj: obj["data"].update(key="2"))
            assert store.get(CONFIG_MAPS, "default", "a")["data"] == {"key": "2"}

    store.subscribe(CONFIG_MAPS, reacts)
    store.subscribe(
        CONFIG_MAPS,
        lambda kind, obj, _old: second.append((kind, obj["metadata"]["resourceVersion"])),
    )
    store.create(CONFIG_MAPS, config_map("a", key="1"))
    assert [kind for kind, _ in first] == ["ADDED", "MODIFIED"]
    assert first == second


def test_a_pod_removed_by_a_callback_of_its_own_deletion_is_deleted_once(store):
    store.create(PODS, {"metadata": {"name": "p"}, **POD})
    kinds = []

    def impatient(kind, obj, _old):
        kinds.append(kind)
        if kind == "MODIFIED":
            store.delete(PODS, "default", "p", uid=obj["metadata"]["uid"], grace_s=0)

    store.subscribe(PODS, impatient)
    store.delete(PODS, "default", "p")
    assert kinds == ["MODIFIED", "DELETED"]
    assert store.find(PODS, "default", "p") is None


def test_a_replacement_created_by_a_callback_survives_the_old_ones_deletion(store):
    old = store.create(PODS, {"metadata": {"name": "p"}, **POD})

    def replaces(kind, _obj, _old):
        if kind == "DELETED":
            store.create(PODS, {"metadata": {"name": "p"}, **POD})

    store.subscribe(PODS, replaces)
    store.delete(PODS, "default", "p")
    assert store.get(PODS, "default", "p")["metadata"]["uid"] != old["metadata"]["uid"]


def test_a_list_of_a_namespace_holds_no_neighbour(store):
    for namespace in ("a", "a-b", "a0", "b"):
        store.create(CONFIG_MAPS, config_map(f"in-{namespace}", namespace))
    assert names(store.list(CONFIG_MAPS, "a")) == ["in-a"]
    assert names(store.list(CONFIG_MAPS)) == ["in-a-b", "in-a", "in-a0", "in-b"]
    assert store.list(CONFIG_MAPS, "none") == []


def test_absent_objects_and_taken_names_are_told_apart(store):
    store.create(CONFIG_MAPS, config_map("a"))
    for call, status in (
        (lambda: store.create(CONFIG_MAPS, config_map("a")), 409),
        (lambda: store.get(CONFIG_MAPS, "default", "b"), 404),
        (lambda: store.update(CONFIG_MAPS, config_map("b")), 404),
        (lambda: store.mutate(CONFIG_MAPS, "default", "b", lambda _obj: None), 404),
        (lambda: store.delete(CONFIG_MAPS, "default", "b"), 404),
    ):
        with pytest.raises(Problem) as refused:
            call()
        assert refused.value.status == status
    assert store.find(CONFIG_MAPS, "default", "b") is None


def test_generated_names_and_uids_follow_the_seed(store):
    twin = Store(now=lambda: 1_800_000_000.0, rng=random.Random(1))
    made = [
        each.create(CONFIG_MAPS, {"metadata": {"generateName": "x-"}})["metadata"]
        for each in (store, twin)
    ]
    assert made[0] == made[1]
    assert made[0]["uid"][14] == "4"
    assert made[0]["uid"][19] in "89ab"


@pytest.mark.parametrize("seed", range(20))
def test_the_past_is_what_it_was(seed):
    """Any earlier version within the window lists as it did when it was the present."""
    rng = random.Random(seed)
    store = Store(now=lambda: 1_800_000_000.0, rng=rng, history=40)
    past: dict[int, list[Obj]] = {}
    for _ in range(120):
        name, namespace = rng.choice("abcdef"), rng.choice(["x", "y"])
        with refusals(404, 409, 422):
            match rng.randrange(3):
                case 0:
                    store.create(CONFIG_MAPS, config_map(name, namespace, n="0"))
                case 1:
                    store.delete(CONFIG_MAPS, namespace, name)
                case _:
                    value = str(rng.random())
                    store.mutate(
                        CONFIG_MAPS, namespace, name, lambda obj, v=value: obj["data"].update(n=v)
                    )
        past[store.resource_version] = store.list(CONFIG_MAPS)
    held = forgotten = 0
    for version, expected in past.items():
        found = store.stored_list_at(CONFIG_MAPS, None, version)
        if version < store.complete_since(CONFIG_MAPS):
            assert found is None
            assert store.events_after(CONFIG_MAPS, version) is None
            forgotten += 1
        else:
            assert found is not None
            assert [stored.obj for stored in found] == expected
            held += 1
    assert held > 0
    assert forgotten > 0


@pytest.mark.parametrize("seed", range(20))
def test_events_rebuild_the_objects(seed):
    """A mirror that applies each event holds exactly what the store holds."""
    rng = random.Random(seed)
    store = Store(now=lambda: 1_800_000_000.0, rng=rng)
    mirror: dict[str, Obj] = {}

    def apply(kind, obj, old):
        name = obj["metadata"]["name"]
        assert mirror.get(name) == old
        if kind == "DELETED":
            del mirror[name]
        else:
            mirror[name] = obj

    store.subscribe(PODS, apply)
    for _ in range(200):
        name = rng.choice("abcdef")
        finalizers = rng.choice([[], ["example.com/hold"]])
        with refusals(404, 409, 422):
            match rng.randrange(5):
                case 0:
                    store.create(
                        PODS, {"metadata": {"name": name, "finalizers": finalizers}, **POD}
                    )
                case 1:
                    store.delete(PODS, "default", name, grace_s=rng.choice([None, 0, 5]))
                case 2:
                    store.mutate(
                        PODS,
                        "default",
                        name,
                        lambda obj, f=finalizers: obj["metadata"].update(finalizers=f),
                    )
                case 3:
                    store.mutate(
                        PODS,
                        "default",
                        name,
                        lambda obj: obj["spec"].setdefault("nodeName", "n1"),
                        subresource="binding",
                    )
                case _:
                    phase = rng.choice(["Running", "Failed"])
                    store.mutate(
                        PODS,
                        "default",
                        name,
                        lambda obj, p=phase: obj["status"].update(phase=p),
                        subresource="status",
                    )
        held = {obj["metadata"]["name"]: obj for obj in store.list(PODS)}
        assert mirror == held
        for obj in held.values():
            waits = obj["metadata"].get("deletionGracePeriodSeconds") or obj["metadata"].get(
                "finalizers"
            )
            assert "deletionTimestamp" not in obj["metadata"] or waits
