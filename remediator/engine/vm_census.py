"""All VMs by verdict, and those that are not well; taken a slice at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from remediator.engine.context import Context
from remediator.engine.incidents import DONE_STAGES
from remediator.engine.inventory import Key
from remediator.engine.model import Verdict, vm_subject
from remediator.engine.views import STOPPED, VmLine
from remediator.engine.vm_health import VmHealth, vm_health
from remediator.engine.vm_view import vm_due, vm_standing
from remediator.engine.vm_watch import VmWatch


class VmCensus:
    """All VMs of a cluster, or those on the nodes of one zone, counted by verdict.

    ``doubtful`` are the nodes whose VMs nothing is concluded of.
    """

    def __init__(
        self, context: Context, watch: VmWatch, doubtful: set[str], zone: str, now: float
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.sick: list[VmLine] = []
        self._context = context
        self._watch = watch
        self._doubtful = doubtful
        self._zone = zone
        self._now = now
        # What a recovery has in its hands is judged by nobody, wherever it runs by now.
        self._verdicts: dict[Key, Verdict] = {
            (progress.plan.vm.namespace, progress.plan.vm.name): Verdict.UNKNOWN
            for incident in context.state.incidents.values()
            for progress in incident.vms.values()
            if progress.stage not in DONE_STAGES
        }

    def look_at(self, keys: Sequence[Key]) -> None:
        """Take in VMs that give cause to look at them; before any is counted."""
        for key in keys:
            found = vm_health(self._context, self._watch, vm_subject(*key))
            if found is None:
                continue
            verdict, row = vm_standing(self._context, found)
            self._verdicts[key] = verdict
            vmi = self._context.inventory.vmis.get(key)
            node = vmi.node if vmi is not None else ""
            if verdict not in (Verdict.HEALTHY, Verdict.UNKNOWN) and self._is_here(node):
                self.sick.append(self._line(found, verdict, row, node))

    def count(self, keys: Sequence[Key]) -> None:
        """Count VMIs; those of a host in doubt count as Unknown."""
        inventory = self._context.inventory
        for key in keys:
            vmi = inventory.vmis.get(key)
            if vmi is None or not self._is_here(vmi.node):
                continue
            verdict = self._verdicts.get(key, Verdict.HEALTHY)
            if vmi.node in self._doubtful or not inventory.synced:
                verdict = Verdict.UNKNOWN
            self.counts[verdict.value] += 1

    def count_without_vmi(self, keys: Sequence[Key]) -> None:
        """Count VMs, but for those whose VMI was counted."""
        inventory = self._context.inventory
        for key in keys:
            if key in inventory.vmis or not self._is_here(""):
                continue
            verdict = self._verdicts.get(key)
            if not inventory.synced:
                verdict = Verdict.UNKNOWN
            stopped = verdict in (None, Verdict.HEALTHY)
            self.counts[STOPPED if stopped or verdict is None else verdict.value] += 1

    def _is_here(self, node: str) -> bool:
        """Whether something on this node belongs to the zone; what is on no node is in none."""
        if not self._zone:
            return True
        facts = self._context.inventory.nodes.get(node)
        return facts is not None and facts.zone == self._zone

    def _line(self, found: VmHealth, verdict: Verdict, row: str, node: str) -> VmLine:
        incident = self._context.state.vm_incident_on(found.subject)
        since_s = None
        if incident is not None:
            since_s = round(max(0.0, self._now - incident.verdict_at), 3)
        return VmLine(
            namespace=found.subject.namespace,
            name=found.subject.name,
            verdict=verdict,
            row=row,
            node=node,
            since_s=since_s,
            incident=f"{incident.id} {incident.state}" if incident is not None else "",
            due=next(vm_due(self._context, self._watch, found), None),
        )
