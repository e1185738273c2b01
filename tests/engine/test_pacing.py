"""The fixed pace."""

from __future__ import annotations

from remediator.engine.inventory import Inventory
from remediator.engine.model import VmiFacts, vm_subject
from remediator.engine.pacing import starts_allowed
from remediator.engine.settings import PacingSettings

PACE = PacingSettings(starts_at_once_cluster=10, starts_at_once_node=4)


def inventory(**vmi_nodes: str) -> Inventory:
    made = Inventory()
    for name, node in vmi_nodes.items():
        made.put(VmiFacts(namespace="ns", name=name, uid=name, node=node))
    return made


def vms(*names: str) -> set:
    return {vm_subject("ns", name) for name in names}


def test_with_room_everywhere_the_cluster_limit_rules():
    assert starts_allowed(set(), inventory(), ["a", "b", "c"], PACE) == 10


def test_with_few_healthy_nodes_their_places_rule():
    assert starts_allowed(set(), inventory(), ["a"], PACE) == 4


def test_boots_without_a_node_take_places_too():
    assert starts_allowed(vms("x", "y"), inventory(), ["a"], PACE) == 2


def test_boots_placed_on_a_full_node_leave_the_other_nodes_places():
    placed = inventory(p="a", q="a", r="a", s="a")
    assert starts_allowed(vms("p", "q", "r", "s"), placed, ["a", "b"], PACE) == 4


def test_no_healthy_node_allows_nothing():
    assert starts_allowed(set(), inventory(), [], PACE) == 0
