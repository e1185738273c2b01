"""The filters against the simulated scheduler: on every node of thousands of random clusters both
must say the same, and what is planned the scheduler must be able to carry out."""

from __future__ import annotations

import random

import msgspec
import random_town
from hypothesis import given, settings
from hypothesis import strategies as st

from remediator.engine import placement
from remediator.engine.context import Context
from remediator.engine.model import ClaimFacts, VmFacts, VmiFacts, vm_subject
from remediator.engine.placement import Placement
from remediator.engine.placement_board import Board
from remediator.engine.placement_table import PlaceTable
from remediator.engine.settings import EngineSettings
from remediator.kube.objects import Node, PersistentVolume, Pod
from remediator.sim.controllers.node_affinity import required_anti_affinity
from remediator.sim.controllers.scheduler_fit import (
    NodeRoom,
    conflicting_volume,
    request_of,
    why_not,
)
from remediator.sim.controllers.scheduler_neighbours import Neighbours
from remediator.watchers.narrow import node_facts, pod_facts, volume_facts

ALL_KEYS = frozenset(
    {
        random_town.HOST,
        random_town.ZONE,
        random_town.MODEL,
        "disk",
        "generation",
        "kubevirt.io/schedulable",
        "kubernetes.io/arch",
    }
)


class Asked(msgspec.Struct, frozen=True):
    vm: object


class Judge:
    """The simulated scheduler's filters over the same objects."""

    def __init__(self, nodes, bound):
        self.rooms = {}
        for node in nodes:
            room = NodeRoom(node, 0.0, 0.0, 0.0)
            room.refresh(node)
            self.rooms[node["metadata"]["name"]] = room
        for pod in bound:
            self.bind(pod, pod["spec"]["nodeName"])

    def bind(self, pod, node):
        self.rooms[node].add(pod, request_of(pod))

    def allowed(self, pod, volumes):
        rooms = list(self.rooms.values())
        averse = [
            (other, room.node)
            for room in rooms
            for other in room.pods.values()
            if required_anti_affinity(other)
        ]
        neighbours = Neighbours(
            pod, [(room.node, room.pods.values()) for room in rooms], averse, lambda _name: {}
        )
        request = request_of(pod)
        return {
            name
            for name, room in self.rooms.items()
            if why_not(pod, request, room) is None
            and not conflicting_volume(volumes, room.node)
            and neighbours.why_not(room.node) is None
        }


def decode(kind, obj):
    return msgspec.json.decode(msgspec.json.encode(obj), type=kind)


def told(nodes, bound, waiting, volumes):
    """The same cluster as the engine is told of it, by way of the watchers' own narrowing."""
    context = Context(EngineSettings(), [], [], enforce=True)
    inventory = context.inventory
    for node in nodes:
        inventory.put(node_facts(decode(Node, node), ALL_KEYS))
    for pod in (*bound, *waiting):
        facts = pod_facts(decode(Pod, pod), ("app", "tier"))
        inventory.put(msgspec.structs.replace(facts, gated=not facts.node))
        name, namespace = facts.vmi, facts.namespace
        inventory.put(VmFacts(namespace=namespace, name=name, uid=f"vm-{name}"))
        claims = []
        for volume in volumes.get(pod["metadata"]["uid"], ()):
            claim = f"claim-{volume['metadata']['name']}"
            claims.append(claim)
            inventory.put(volume_facts(decode(PersistentVolume, volume)))
            inventory.put(
                ClaimFacts(
                    namespace=namespace, name=claim, uid=claim, volume=volume["metadata"]["name"]
                )
            )
        inventory.put(
            VmiFacts(
                namespace=namespace,
                name=name,
                uid=f"vmi-{name}",
                node=facts.node,
                claims=tuple(claims),
            )
        )
    return context


def subject(pod):
    return vm_subject(
        pod["metadata"]["namespace"], pod["metadata"]["labels"]["vm.kubevirt.io/name"]
    )


def wants_strangers(pod):
    """Affinity to pods that are nowhere: the scheduler refuses, we cannot know (docs)."""
    return "podAffinity" in (pod["spec"].get("affinity") or {})


@settings(max_examples=1000, deadline=None)
@given(st.integers(0, 2**64))
def test_on_every_node_both_say_the_same(seed):
    nodes, bound, waiting, volumes = random_town.town(random.Random(seed))
    context = told(nodes, bound, waiting, volumes)
    judge = Judge(nodes, bound)
    for pod in waiting:
        want = placement.want_of(context, subject(pod))
        board = Board(context.inventory, PlaceTable(context.inventory), unable={})
        allowed = {name for name in judge.rooms if board.allows(want, name)}
        expected = judge.allowed(pod, volumes[pod["metadata"]["uid"]])
        if wants_strangers(pod) and not expected:
            continue
        assert allowed == expected


@settings(max_examples=1000, deadline=None)
@given(st.integers(0, 2**64))
def test_the_scheduler_can_carry_out_each_promise_in_its_order(seed):
    nodes, bound, waiting, volumes = random_town.town(random.Random(seed))
    context = told(nodes, bound, waiting, volumes)
    judge = Judge(nodes, bound)
    answers = placement.fits(context, [Asked(subject(pod)) for pod in waiting])
    for pod in waiting:
        answer = answers[subject(pod)]
        expected = judge.allowed(pod, volumes[pod["metadata"]["uid"]])
        if wants_strangers(pod) and not expected:
            return  # from here on the two pictures differ
        if isinstance(answer, Placement):
            assert answer.node in expected
            judge.bind(pod, answer.node)
        else:
            assert not expected
