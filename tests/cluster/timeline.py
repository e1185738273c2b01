"""What happened in a scenario, second by second: from the journal, the API and the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from remediator.engine.chain import Decision, DecisionKind
from remediator.engine.model import IncidentState
from tests.cluster.real_cluster import RealCluster


@dataclass(slots=True)
class VmTimes:
    """One victim's way back; seconds after the fault, None where it did not come to that."""

    vm: str
    strategy: str
    disk: str
    requested_s: float | None = None  # a new VMI exists
    running_s: float | None = None  # the new VMI says Running
    up_s: float | None = None  # the new guest has booted
    node: str = ""


@dataclass(slots=True)
class TimeLine:
    """One fault and what followed."""

    title: str
    node: str
    marks: list[tuple[float, str]] = field(default_factory=list)
    vms: list[VmTimes] = field(default_factory=list)
    verdict_s: float | None = None
    proof_s: float | None = None
    resolved_s: float | None = None

    @classmethod
    def read(
        cls,
        title: str,
        cluster: RealCluster,
        node: str,
        victims: Sequence[str],
        fault_at: float,
        decisions: Iterable[Decision] = (),
    ) -> TimeLine:
        """Collect it all."""
        line = cls(title, node)
        for decision in decisions:
            if decision.at >= fault_at:
                line._add(decision, decision.at - fault_at)
        for vm in victims:
            line.vms.append(_times(cluster, vm, fault_at))
        return line

    def _add(self, decision: Decision, at_s: float) -> None:
        if decision.subject.kind != "node" or decision.subject.name != self.node:
            return
        what = [str(decision.kind)]
        if decision.verdict:
            what.append(f"verdict {decision.verdict}")
        if decision.state:
            what.append(f"({decision.state})")
        if decision.action is not None:
            what.append(f"action {type(decision.action.work).__name__}")
        if decision.outcome is not None:
            what.append(str(decision.outcome.status))
        if decision.proof is not None:
            what.append(f"proof {decision.proof.kind}")
        self.marks.append((at_s, f"{' '.join(what)}: {decision.why}"))
        confirmed = decision.state is IncidentState.CONFIRMED
        if decision.kind is DecisionKind.VERDICT and confirmed and self.verdict_s is None:
            self.verdict_s = at_s
        if decision.state is IncidentState.FENCED and self.proof_s is None:
            self.proof_s = at_s
        if decision.kind is DecisionKind.RESOLVED:
            self.resolved_s = at_s

    def first(self, what: str) -> float | None:
        """Return the first of all victims; None when none came to it."""
        times = [time for vm in self.vms if (time := getattr(vm, what)) is not None]
        return min(times, default=None)

    def slowest(self, what: str) -> float | None:
        """Return the last of all victims; None when one never came to it."""
        times = [getattr(vm, what) for vm in self.vms]
        return None if not times or None in times else max(times)

    def __str__(self) -> str:
        lines = [f"== {self.title}: {self.node}, {len(self.vms)} VMs"]
        lines += [f"{at_s:8.2f} s  {what}" for at_s, what in self.marks]
        lines.append(f"{'VM':<20}{'strategy':<16}{'disk':<15}{'new VMI':>9}{'Running':>9}{'up':>9}")
        lines += [
            f"{vm.vm:<20}{vm.strategy:<16}{vm.disk or '-':<15}"
            f"{_s(vm.requested_s)}{_s(vm.running_s)}{_s(vm.up_s)}  {vm.node}"
            for vm in self.vms
        ]
        for name, key in (("new VMI", "requested_s"), ("Running", "running_s"), ("up", "up_s")):
            known = [each for vm in self.vms if (each := getattr(vm, key)) is not None]
            if known:
                lines.append(
                    f"{name}: {len(known)} of {len(self.vms)}, first {min(known):.1f} s, "
                    f"median {median(known):.1f} s, last {max(known):.1f} s"
                )
            else:
                lines.append(f"{name}: none of {len(self.vms)}")
        return "\n".join(lines)


def _times(cluster: RealCluster, vm: str, fault_at: float) -> VmTimes:
    spec = cluster.vms[vm]
    times = VmTimes(vm, spec.run_strategy, spec.access_mode)
    newest = cluster.instances.newest(vm)
    if newest is not None and newest.made_at >= fault_at:
        times.requested_s = newest.made_at - fault_at
        times.node = newest.node
        if newest.running_at is not None:
            times.running_s = newest.running_at - fault_at
    up_at = cluster.ledger.up_at(vm)
    if up_at is not None and up_at >= fault_at:
        times.up_s = up_at - fault_at
    return times


def _s(value: float | None) -> str:
    return f"{'never':>9}" if value is None else f"{value:9.2f}"
