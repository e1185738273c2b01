"""Our pace as the daemon runs it: queue, adaptive limit, default settings; and one that is told.

The daemon does not know the knee; it sees starts, ends, and what still waits.
"""

from __future__ import annotations

from collections.abc import Sequence

from storm_paces import InOrder
from storm_world import TIERS, Case, Vm

from remediator.engine.model import vm_subject
from remediator.engine.settings import PacingSettings
from remediator.engine.start_queue import (
    TIERS as TIER_NUMBERS,
)
from remediator.engine.start_queue import (
    Bound,
    Candidate,
    Fit,
    Limits,
    Started,
    choose,
)
from remediator.engine.start_rate import StartRate


class Ours:
    """Tiers in order, as many at once as the storage was found to serve."""

    def __init__(self, case: Case, vms: Sequence[Vm]) -> None:
        del case  # nobody tells us
        settings = PacingSettings()
        self._rate = StartRate()
        self._limits = Limits(node=Bound(at_once=settings.starts_at_once_node))
        self._vms = {vm_subject("storm", vm.name): vm for vm in vms}
        self._fits = {
            subject: Fit(node=vm.node, zone="zone-a") for subject, vm in self._vms.items()
        }
        self._waiting = {
            subject: Candidate(vm=subject, tier=TIER_NUMBERS[TIERS[vm.tier]])
            for subject, vm in self._vms.items()
        }
        self._booting: dict[str, Started] = {}

    @property
    def limit(self) -> int:
        """The adaptive limit now."""
        return self._rate.limit

    def choose(self, now: float) -> Sequence[Vm]:
        """Ask the queue."""
        if len(self._booting) >= self._rate.limit:
            return []
        choice = choose(
            list(self._waiting.values()),
            list(self._booting.values()),
            now=now,
            limits=self._limits,
            rate=self._rate.limit,
            fits=self._fits,
            reasons=False,
        )
        chosen = [self._vms[one.vm] for one in choice.starts]
        for vm in chosen:
            subject = vm_subject("storm", vm.name)
            self._rate.started(vm.name, now)
            self._booting[vm.name] = Started(
                vm=subject, started_at=now, tier=self._waiting.pop(subject).tier, node=vm.node
            )
        self._rate.waits(len(self._waiting))
        return chosen

    def reads(self, vm: Vm, now: float) -> None:
        """Tell the rate: the daemon sees a VMI come to run."""
        self._rate.reads(vm.name, now)

    def up(self, vm: Vm, now: float) -> None:
        """Tell the rate."""
        del self._booting[vm.name]
        self._rate.up(vm.name, now)

    def idle(self, now: float) -> None:
        """Nothing: the daemon's tick only asks again."""


class Told(InOrder):
    """As many at once as the knee serves, launches and reports included; by name, as they come."""

    def __init__(self, case: Case, vms: Sequence[Vm]) -> None:
        super().__init__(vms)
        boot_s = case.storage.boot_ios / case.storage.guest_iops_max
        beside_s = sum(vm.launch_s + vm.seen_s for vm in vms) / len(vms)
        self.limit = case.storage.knee * (boot_s + beside_s) / boot_s

    def choose(self, now: float) -> Sequence[Vm]:
        """Fill the places."""
        del now
        return self._start(int(self.limit) - len(self._booting))
