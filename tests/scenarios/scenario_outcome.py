"""What came of a played story, read from the journal, the cluster and the truth ledger."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from scenario_file import Scenario
from scenario_migrations import MigrationWatch

from remediator.actions.marks import (
    CORDONED,
    FENCED_TAINT,
    LEASE_AT_RELEASE,
    OUT_OF_SERVICE,
    OUT_OF_SERVICE_TAINT,
)
from remediator.engine.chain import Decision
from remediator.engine.model import Fence, OutcomeStatus
from remediator.sim.cluster import SimCluster
from remediator.sim.resources import LEASES, NODES, VIRTUAL_MACHINES

OURS = {FENCED_TAINT.key, OUT_OF_SERVICE_TAINT.key}
OUR_NOTES = {CORDONED, OUT_OF_SERVICE, LEASE_AT_RELEASE}


@dataclass
class Played:
    """What came of a story. Times are relative to the first fault."""

    scenario: Scenario
    decisions: list[Decision] = field(default_factory=list)
    zero_at: float = 0.0
    happened: list[tuple[float, float, str]] = field(default_factory=list)  # at, place, text
    writes: list[tuple[str, str]] = field(default_factory=list)
    orders: Counter[str] = field(default_factory=Counter)  # ForceOff, by node
    powered_off: Counter[str] = field(default_factory=Counter)  # of these, to hosts that were on
    double_runs: list[str] = field(default_factory=list)
    lost: dict[str, float | None] = field(default_factory=dict)  # VM -> up again after, or None
    strategies: dict[str, str] = field(default_factory=dict)  # of the VMs that still exist
    running: set[str] = field(default_factory=set)
    marked: list[str] = field(default_factory=list)
    cordoned_by_others: list[str] = field(default_factory=list)
    open_incidents: dict[str, str] = field(default_factory=dict)
    gates_left: list[str] = field(default_factory=list)  # launcher pods that still wait
    gates_put: int = 0
    boots_at_once: int = 0
    strange_leases: list[str] = field(default_factory=list)
    migrations: MigrationWatch | None = None
    migrations_left: list[str] = field(default_factory=list)
    on_nodes: dict[str, list[str]] = field(default_factory=dict)  # running VMs, by node

    @property
    def fenced(self) -> list[str]:
        """Nodes that a record says were proven off by their fence device."""
        return sorted(
            {
                decision.action.work.node
                for decision in self.decisions
                if decision.action is not None
                and decision.outcome is not None
                and isinstance(decision.action.work, Fence)
                and decision.outcome.status is OutcomeStatus.SUCCEEDED
            }
        )


def look(played: Played, cluster: SimCluster) -> None:
    """Fill in how the cluster stands when the story ends."""
    ledger = cluster.ledger
    played.boots_at_once = ledger.peak_booting
    played.double_runs = [str(run) for run in ledger.double_runs]
    for key in cluster.vms:
        vm = cluster.store.find(VIRTUAL_MACHINES, *key.split("/"))
        if vm is not None:
            played.strategies[key] = vm["spec"]["runStrategy"]
        if ledger.running_copies(key):
            played.running.add(key)
        for copy in ledger.running_copies(key):
            played.on_nodes.setdefault(copy.node, []).append(key)
        if any(
            copy.ended_at is not None
            and copy.ended_at >= played.zero_at
            and not copy.end_reason.startswith("moved")
            for copy in ledger.copies(key)
        ):
            up_at = ledger.up_at(key)
            played.lost[key] = None if up_at is None else up_at - played.zero_at
    for node in cluster.store.list(NODES):
        name, notes = node["metadata"]["name"], node["metadata"].get("annotations", {})
        taints = [taint["key"] for taint in node["spec"].get("taints", [])]
        if OURS.intersection(taints) or OUR_NOTES.intersection(notes):
            played.marked.append(name)
        if node["spec"].get("unschedulable") and CORDONED not in notes:
            played.cordoned_by_others.append(name)
    for decision in played.decisions:
        if decision.incident and decision.state is not None and decision.subject.kind == "node":
            played.open_incidents[decision.subject.name] = decision.state.value
    played.open_incidents = {
        node: state for node, state in played.open_incidents.items() if state != "resolved"
    }
    known = set(cluster.hosts)
    played.strange_leases = [
        name
        for lease in cluster.store.list(LEASES, "kube-node-lease")
        if (name := lease["metadata"]["name"]) not in known
        and not name.startswith("remediator-canary-remediator-")
    ]


def words_of(decision: Decision) -> list[str]:
    """Return the words by which an event may wait for a record."""
    words = [decision.kind.value, str(decision.subject), decision.subject.name]
    if decision.state is not None:
        words.append(decision.state.value)
    if decision.verdict is not None:
        words.append(decision.verdict.value)
    if decision.action is not None:
        words.append(step_of(decision))
    if decision.outcome is not None:
        words.append(decision.outcome.status.value)
    if decision.stage:
        words.append(decision.stage)
    return words


def step_of(decision: Decision) -> str:
    """Return the name of a record's action: cordon, fence, release, force-stop, start, uncordon."""
    return type(decision.action.work).__struct_config__.tag
