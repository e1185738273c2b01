"""What happened in the demo, and when: collected from the decision log and the truth ledger."""

from __future__ import annotations

from dataclasses import dataclass, field

from remediator.engine.chain import Decision, DecisionKind
from remediator.engine.incidents import Stage
from remediator.engine.model import Fence, ForceStop, IncidentState, OutcomeStatus
from remediator.sim.cluster import SimCluster


@dataclass
class VmTimes:
    """When one VM of the lost host was requested, ran and was up again; epoch seconds."""

    stopped_at: float | None = None
    requested_at: float | None = None
    running_at: float | None = None
    up_at: float | None = None
    stage: str = "down"


@dataclass
class Story:
    """One fault and its answer. Times are epoch seconds on the cluster's clock."""

    node: str
    fault: str
    recovers: bool
    victims: tuple[str, ...]  # VMs that ran on the node, by their ledger name
    began_at: float = 0.0
    seq: int = 0  # last decision seen
    suspected_at: float | None = None
    convicted_at: float | None = None
    convicted_seq: int = 0
    proved_at: float | None = None
    resolved_at: float | None = None
    state: str = ""
    verdict: str = ""
    vms: dict[str, VmTimes] = field(default_factory=dict)
    fenced: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with every victim down."""
        self.vms = {vm: VmTimes() for vm in self.victims}

    def add(self, decision: Decision) -> None:
        """Take in one record of the journal."""
        self.seq = max(self.seq, decision.seq)
        if decision.subject.kind == "vm":
            self._add_vm(decision)
            return
        if decision.subject.kind != "node":
            return
        action, outcome = decision.action, decision.outcome
        done = outcome is not None and outcome.status is OutcomeStatus.SUCCEEDED
        if done and action is not None and isinstance(action.work, Fence):
            self.fenced.append(action.work.node)
        if decision.subject.name != self.node:
            return
        self.state = str(decision.state or self.state)
        self.verdict = str(decision.verdict or self.verdict)
        if decision.state is IncidentState.CONFIRMED and self.convicted_at is None:
            self.convicted_at, self.convicted_seq = decision.at, decision.seq
        if decision.kind is DecisionKind.OPENED:
            self.suspected_at = self.suspected_at or decision.at
        elif decision.state is IncidentState.FENCED and self.proved_at is None:
            self.proved_at = decision.at
        elif decision.kind is DecisionKind.RESOLVED:
            self.resolved_at = decision.at

    def watch(self, cluster: SimCluster) -> None:
        """Take in what the truth ledger shows."""
        for vm, times in self.vms.items():
            copies = [copy for copy in cluster.ledger.running_copies(vm) if copy.node != self.node]
            if copies and times.running_at is None:
                times.running_at = copies[-1].started_at
            if copies and times.up_at is None:
                times.up_at = copies[-1].up_at

    def is_over(self) -> bool:
        """Whether what the fault must lead to has come about."""
        if not self.recovers:
            return False  # nothing must happen: watched to the end
        return self.resolved_at is not None and all(
            times.up_at is not None for times in self.vms.values()
        )

    def since(self, at: float | None) -> float | None:
        """Return seconds since the fault."""
        return None if at is None else at - self.began_at

    def _add_vm(self, decision: Decision) -> None:
        times = self.vms.get(f"{decision.subject.namespace}/{decision.subject.name}")
        if times is None:
            return
        if decision.kind is DecisionKind.STARTED and decision.action is not None:
            if isinstance(decision.action.work, ForceStop):
                times.stopped_at = decision.at
                times.stage = Stage.STOPPING
        elif decision.kind is DecisionKind.PROGRESS:
            times.stage = decision.stage
            if decision.stage == Stage.REQUESTED:
                times.requested_at = times.requested_at or decision.at
