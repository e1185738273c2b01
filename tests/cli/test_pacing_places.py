"""`remediator pacing -o wide` says where those that wait would go, and why there."""

from __future__ import annotations

import sys
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))

from test_placement import GIB, Lab, apart

from remediator.cli.pacing import pacing_text
from remediator.engine import pacing_view
from remediator.engine.pod_rules import PodRules

PAGE = Path(__file__).parents[2] / "docs" / "placement.md"


def town() -> Lab:
    """Five nodes; a VM with replicas, one of two that must be apart, and one too large."""
    lab = Lab()
    lab.context.identity = "remediator-0"
    for number, zone in enumerate(("zone-a", "zone-b", "zone-c", "zone-a", "zone-b"), 1):
        lab.node(f"n0{number}", zone=zone)
    lab.node("n06", zone="zone-c", unschedulable=True)
    rules = PodRules(anti_affinity=(apart(app="web"),))
    for number in range(1, 5):
        lab.vm(
            f"web-{number}",
            node=f"n0{number}",
            namespace="shop",
            labels={"app": "web"},
            rules=rules,
        )
    for disk in ("db-root", "db-data"):
        lab.disk(disk, namespace="shop", driver="driver.longhorn.io", handle=disk)
    lab.replicas("db-root", "n03", "n04")
    lab.replicas("db-data", "n04", "n05")
    lab.vm("db", namespace="shop", claims=("db-root", "db-data"), cpu_m=400, memory=8 * GIB)
    lab.vm("web-5", namespace="shop", labels={"app": "web"}, rules=rules, group="shop/web")
    lab.vm("analytics", namespace="team", memory=48 * GIB)
    lab.context.inventory.synced_kinds.update({"Node", "VirtualMachine"})
    return lab


def wide() -> str:
    lab = town()
    view = pacing_view.view(lab.context, lab.context.now)
    return click.unstyle(pacing_text(view, wide=True))


def places() -> str:
    lines = wide().splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("WOULD GO"))
    return "\n".join(line.rstrip() for line in lines[start:])


def test_those_that_wait_are_told_their_place_and_why():
    text = places()
    assert "shop/db" in text
    assert "replica on the node of all 2 disks" in text
    assert "fits on no node: 5 memory" in text


def test_the_page_shows_what_the_command_says():
    assert places() in PAGE.read_text()
