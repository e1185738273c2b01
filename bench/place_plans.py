"""What it costs to plan where the VMs of lost hosts go, in CPU time of the leader's event loop.

A mixed cluster: every second VM has two replicated disks with three replicas each, every tenth is
one of five copies that must be apart, every twentieth is bound to a zone, and every hundredth has
its disk on one node. Nodes are three quarters full.
"""

from __future__ import annotations

import random
import time

from table import Row

from remediator.engine import placement
from remediator.engine.context import Context
from remediator.engine.model import (
    ClaimFacts,
    NodeFacts,
    PodFacts,
    ReplicaSetFacts,
    VmiFacts,
    VolumeFacts,
    vm_subject,
)
from remediator.engine.pod_rules import (
    HOSTNAME,
    ZONE,
    NodeTerm,
    PodNeeds,
    PodRules,
    PodTerm,
    Requirement,
    Toleration,
)
from remediator.engine.settings import EngineSettings
from remediator.engine.start_words import Candidate

ROUNDS = 3
AIM_S = 1.0
ZONES = 5
_GIB = 2**30
_BASE = (("kubevirt.io/schedulable", "true"),)
_TOLERATIONS = (
    Toleration(key="node.kubernetes.io/not-ready", operator="Exists", effect="NoExecute"),
    Toleration(key="node.kubernetes.io/unreachable", operator="Exists", effect="NoExecute"),
)


def measure(nodes: int, vms: int) -> list[Row]:
    """Return the rows: the same VMs onto this many nodes, and onto ten times as many."""
    rows = []
    for size in (nodes, nodes * 10):
        context, waiting = _town(size, vms)
        group = f"placement, {vms:,} VMs onto {size:,} nodes, {len(context.inventory.pods):,} pods"
        aim_s = AIM_S if size == nodes else None
        rows += _rows(group, context, waiting, aim_s)
    return rows


def _rows(group: str, context: Context, waiting: list[Candidate], aim_s: float | None) -> list[Row]:
    plan_s = one_s = float("inf")
    placed = local = 0
    for _ in range(ROUNDS):
        begun = time.process_time()
        answers = placement.fits(context, waiting)
        plan_s = min(plan_s, time.process_time() - begun)
        placed = sum(isinstance(each, placement.Placement) for each in answers.values())
        local = sum("replica on the node" in each.why for each in answers.values())
        begun = time.process_time()
        placement.target(context, waiting[0].vm, exclude=("n0",))
        one_s = min(one_s, time.process_time() - begun)
    aim = f"< {aim_s:g} s" if aim_s is not None else ""
    met = plan_s < aim_s if aim_s is not None else None
    return [
        Row(group, "a whole plan", plan_s * 1000.0, "ms", aim=aim, met=met),
        Row(group, "of it per VM", plan_s / len(waiting) * 1e6, "µs"),
        Row(group, "placed", placed, ""),
        Row(group, "beside a replica of every disk", local, ""),
        Row(group, "one migration's target", one_s * 1000.0, "ms"),
    ]


def _town(nodes: int, vms: int) -> tuple[Context, list[Candidate]]:
    rng = random.Random(4)
    context = Context(EngineSettings(), [], [], enforce=True)
    put = context.inventory.put
    for number in range(nodes):
        facts = NodeFacts(
            name=f"n{number}",
            uid=f"u{number}",
            kubevirt=True,
            ready=True,
            zone=f"z{number % ZONES}",
            labels={"kubevirt.io/schedulable": "true", "cpu": "new" if number % 3 else "old"},
            cpu_m=64_000,
            memory=256 * _GIB,
            pods=250,
        )
        put(facts)
    for number in range(nodes * 10):
        put(_pod(number, f"n{number % nodes}", PodNeeds(cpu_m=400, memory=18 * _GIB), ""))
    waiting = [_waiting(context, nodes, 1_000_000 + number, rng) for number in range(vms)]
    return context, waiting


def _waiting(context: Context, nodes: int, number: int, rng: random.Random) -> Candidate:
    put = context.inventory.put
    app = f"app{number // 5}" if number % 10 < 5 and number % 100 < 50 else ""
    rules = PodRules(node_selector=_BASE, tolerations=_TOLERATIONS)
    if app:
        apart = PodTerm(topology_key=HOSTNAME, selector=(Requirement(key="app", values=(app,)),))
        rules = PodRules(node_selector=_BASE, tolerations=_TOLERATIONS, anti_affinity=(apart,))
    needs = PodNeeds(
        cpu_m=rng.choice((100, 200, 400)), memory=rng.choice((4, 8, 16)) * _GIB, rules=rules
    )
    put(_pod(number, "", needs, app))
    claims: list[str] = []
    holders: tuple[str, ...] = ()
    if number % 2:
        for disk in ("root", "data"):
            name = f"{disk}-{number}"
            claims.append(name)
            if disk == "root" or number % 4 == 1:  # else its data disk lies beside its root disk
                holders = tuple(sorted(f"n{each}" for each in rng.sample(range(nodes), 3)))
            put(ClaimFacts(namespace="a", name=name, uid=name, volume=name))
            put(VolumeFacts(name=name, uid=name, driver="driver.longhorn.io", handle=name))
            put(ReplicaSetFacts(name=f"longhorn:{name}", uid=name, nodes=holders))
    elif number % 20 == 0 or number % 100 == 2:
        name = f"root-{number}"
        claims.append(name)
        key, value = (HOSTNAME, f"n{rng.randrange(nodes)}") if number % 20 else (ZONE, "z1")
        terms = (NodeTerm(labels=(Requirement(key=key, values=(value,)),)),)
        put(ClaimFacts(namespace="a", name=name, uid=name, volume=name))
        put(VolumeFacts(name=name, uid=name, node_terms=terms))
    vm = f"vm{number}"
    put(VmiFacts(namespace="a", name=vm, uid=f"vmi{number}", claims=tuple(claims)))
    return Candidate(vm=vm_subject("a", vm))


def _pod(number: int, node: str, needs: PodNeeds, app: str) -> PodFacts:
    return PodFacts(
        namespace="a",
        name=f"virt-launcher-vm{number}",
        uid=f"p{number}",
        node=node,
        vmi=f"vm{number}",
        phase="Running" if node else "Pending",
        gated=not node,
        needs=needs,
        labels={"app": app} if app else {},
        group=f"a/{app}" if app else "",
    )
