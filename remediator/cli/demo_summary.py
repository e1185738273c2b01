"""The demo's end: how long everything took, what was decided and why, and whether it was right."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from remediator.cli.demo_story import Story
from remediator.journal.explain import explain
from remediator.journal.query import StoredDecision
from remediator.sim.cluster import SimCluster


def print_summary(story: Story, cluster: SimCluster, stored: Sequence[StoredDecision]) -> bool:
    """Print it; True when all ended as it should."""
    console = Console(highlight=False, soft_wrap=True)
    decisions = sorted((one.decision for one in stored), key=lambda one: one.seq)
    convicted = next((one for one in decisions if one.seq == story.convicted_seq), None)
    if convicted is not None:
        console.rule("Why")
        incident = [one for one in decisions if one.incident == convicted.incident]
        console.print(explain(convicted, incident), markup=False)
    console.rule("Times since the fault")
    console.print(_times(story, cluster))
    faults = _faults(story, cluster)
    for fault in faults:
        console.print(f"NOT AS IT SHOULD BE: {fault}", style="bold red", markup=False)
    if not faults:
        console.print(_verdict(story), style="bold green", markup=False)
    return not faults


def _times(story: Story, cluster: SimCluster) -> Table:
    ledger = cluster.ledger
    table = Table(show_header=False, box=None, padding=(0, 3))
    table.add_row("first suspicion", _s(story.since(story.suspected_at)))
    table.add_row("verdict", _s(story.since(story.convicted_at)), story.verdict)
    table.add_row("proof that the host is off", _s(story.since(story.proved_at)))
    for name, values in (
        ("VMs requested elsewhere", [times.requested_at for times in story.vms.values()]),
        ("VMs running", [times.running_at for times in story.vms.values()]),
        ("guests up", [times.up_at for times in story.vms.values()]),
    ):
        known = [value for value in values if value is not None]
        span = (
            f"{_s(story.since(min(known)))} to {_s(story.since(max(known)))}" if known else "never"
        )
        table.add_row(name, span, f"{len(known)} of {len(values)}")
    table.add_row("peak boots at once", str(ledger.peak_booting))
    table.add_row("double runs", str(len(ledger.double_runs)))
    return table


def _faults(story: Story, cluster: SimCluster) -> list[str]:
    faults = [str(run) for run in cluster.ledger.double_runs]
    wrong = sorted(set(story.fenced) - {story.node})
    if wrong:
        faults.append(f"fenced without cause: {', '.join(wrong)}")
    if not story.recovers:
        if story.fenced:
            faults.append(f"{story.node} was fenced although its VMs lived")
        return faults
    missing = [vm for vm in story.victims if not cluster.ledger.is_up(vm)]
    if missing:
        faults.append(f"not up again: {', '.join(missing)}")
    if story.resolved_at is None:
        faults.append("the incident is not resolved")
    return faults


def _verdict(story: Story) -> str:
    if not story.recovers:
        return "The VMs lived, and nothing was fenced."
    return f"All {len(story.victims)} VMs are up again, and none ran twice."


def _s(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} s"
