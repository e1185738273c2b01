"""Thousands of random clusters: the best allowed node is chosen, nothing is promised twice."""

from __future__ import annotations

import random
from collections import Counter

import random_town
from hypothesis import given, settings
from hypothesis import strategies as st
from test_placement_scheduler import Asked, subject, told

from remediator.engine import placement
from remediator.engine.locality import Kind, Locality
from remediator.engine.model import vm_subject
from remediator.engine.placement import Placement
from remediator.engine.placement_board import Board, Want
from remediator.engine.placement_table import PlaceTable


def a_disk(rng, nodes, number):
    holders = rng.sample(nodes, min(len(nodes), rng.choice((1, 2, 3))))
    return Locality(volume=f"v{number}", kind=Kind.REPLICATED, nodes=tuple(sorted(holders)))


def wants(context, waiting, nodes, rng):
    names = [each["metadata"]["name"] for each in nodes]
    found = []
    for pod in waiting:
        want = placement.want_of(context, subject(pod))
        disks = [a_disk(rng, names, number) for number in range(rng.choice((0, 1, 2)))]
        found.append(
            Want(
                vm=want.vm,
                needs=want.needs,
                labels=want.labels,
                group=want.group,
                zone=rng.choice(("", "z0", "z1")),
                disks=(*want.disks, *disks),
            )
        )
    return found


@settings(max_examples=1000, deadline=None)
@given(st.integers(0, 2**64))
def test_no_allowed_node_is_better_than_the_chosen_one(seed):
    rng = random.Random(seed)
    nodes, bound, waiting, volumes = random_town.town(rng)
    context = told(nodes, bound, waiting, volumes)
    board = Board(context.inventory, PlaceTable(context.inventory), unable={})
    for want in wants(context, waiting, nodes, rng) * 2:
        allowed = [
            each["metadata"]["name"]
            for each in nodes
            if board.allows(want, each["metadata"]["name"])
        ]
        rated = [(*board.rate(want, name), name) for name in allowed]
        choice = board.place(want)
        if not rated:
            assert choice.node == ""
            assert sum(choice.refused.values()) == len(nodes)
            continue
        best = min(rated, key=lambda each: (-each[0], -each[1], each[2]))
        assert (choice.step, choice.node) == (best[0], best[2])


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 2**64))
def test_the_same_picture_gives_the_same_plan_in_whatever_order_it_was_told(seed):
    rng = random.Random(seed)
    nodes, bound, waiting, volumes = random_town.town(rng)
    asked = [Asked(subject(pod)) for pod in waiting]
    first = placement.fits(told(nodes, bound, waiting, volumes), asked)
    rng.shuffle(nodes)
    rng.shuffle(bound)
    rng.shuffle(waiting)
    assert placement.fits(told(nodes, bound, waiting, volumes), asked) == first


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 2**64))
def test_no_node_is_promised_more_than_it_has(seed):
    rng = random.Random(seed)
    nodes, bound, _, _ = random_town.town(rng)
    waiting = [random_town.pod(rng, 100 + number) for number in range(30)]
    context = told(nodes, bound, waiting, {})
    inventory = context.inventory
    answers = placement.fits(context, [Asked(subject(pod)) for pod in waiting])
    taken = Counter()
    for answer in answers.values():
        if isinstance(answer, Placement):
            needs = placement.want_of(context, answer.vm).needs
            taken[(answer.node, "cpu")] += needs.cpu_m
            taken[(answer.node, "memory")] += needs.memory
            taken[(answer.node, "pods")] += 1
            for name, amount in needs.extra:
                taken[(answer.node, name)] += amount
    for name, facts in inventory.nodes.items():
        use = inventory.rooms.launchers[name]
        has = {"cpu": facts.cpu_m, "memory": facts.memory, "pods": facts.pods, **facts.extra}
        used = {"cpu": use.cpu_m, "memory": use.memory, "pods": use.pods, **(use.extra or {})}
        for what in {resource for node, resource in taken if node == name}:
            promised = taken[(name, what)]
            assert not promised or promised + used.get(what, 0) <= has.get(what, 0)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**64))
def test_pods_that_come_and_go_leave_the_sums_as_if_they_had_never_been(seed):
    rng = random.Random(seed)
    nodes, bound, waiting, volumes = random_town.town(rng)
    context = told(nodes, bound, waiting, volumes)
    rooms = context.inventory.rooms
    for pod in list(context.inventory.pods.values()):
        context.inventory.drop("Pod", pod.namespace, pod.name, pod.uid)
    assert not rooms.unbound
    assert not rooms.pods_in
    assert not rooms.repelling
    assert all(
        (use.cpu_m, use.memory, use.pods) == (0, 0, 0) and not any((use.extra or {}).values())
        for use in rooms.launchers.values()
    )
    assert not any(rooms.booting.values())


def test_asking_for_a_vm_that_nobody_knows_forbids_nothing():
    nodes, bound, waiting, volumes = random_town.town(random.Random(5))
    context = told(nodes, bound, waiting, volumes)
    ghost = vm_subject("nowhere", "ghost")
    answer = placement.fits(context, [Asked(ghost)])[ghost]
    assert answer.vm == ghost
