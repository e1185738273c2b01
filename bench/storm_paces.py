"""The paces that are compared: none, and what others do. Ours is in ``storm.py``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from storm_world import Vm, ordered


class InOrder:
    """VMs in the order that they would come in, and who boots."""

    limit = 0.0

    def __init__(self, vms: Sequence[Vm]) -> None:
        self._waiting = list(ordered(vms))
        self._booting: set[str] = set()

    def up(self, vm: Vm, now: float) -> None:
        """Note an end."""
        del now
        self._booting.discard(vm.name)

    def reads(self, vm: Vm, now: float) -> None:
        """Do nothing: these paces learn nothing."""

    def idle(self, now: float) -> None:
        """Do nothing, either."""

    def _start(self, count: int) -> list[Vm]:
        count = max(0, count)
        chosen, self._waiting = self._waiting[:count], self._waiting[count:]
        self._booting.update(vm.name for vm in chosen)
        return chosen


class Unpaced(InOrder):
    """All at once: Kubernetes' pod garbage collection takes all pods of a dead node."""

    def choose(self, now: float) -> Sequence[Vm]:
        """Start everything."""
        del now
        return self._start(len(self._waiting))


class PerNode(InOrder):
    """A fixed number at once on each node: Proxmox' max_workers."""

    def __init__(self, vms: Sequence[Vm], at_once: int = 4) -> None:
        super().__init__(vms)
        self._at_once = at_once
        self._on: Counter[str] = Counter()

    def choose(self, now: float) -> Sequence[Vm]:
        """Start whoever finds a place on the node that it goes to."""
        del now
        chosen: list[Vm] = []
        for vm in self._waiting:
            if self._on[vm.node] < self._at_once:
                self._on[vm.node] += 1
                chosen.append(vm)
        taken = {vm.name for vm in chosen}
        self._waiting = [vm for vm in self._waiting if vm.name not in taken]
        return chosen

    def up(self, vm: Vm, now: float) -> None:
        """Free the place."""
        super().up(vm, now)
        self._on[vm.node] -= 1


class Batches(InOrder):
    """So many, and when all of them are up, as many again: vSphere's placement list of 32."""

    def __init__(self, vms: Sequence[Vm], size: int = 32) -> None:
        super().__init__(vms)
        self._size = size

    def choose(self, now: float) -> Sequence[Vm]:
        """Start the next batch, once the last is up."""
        del now
        return [] if self._booting else self._start(self._size)


class PerMinute(InOrder):
    """A fixed rate, whatever becomes of it: STORK deletes 50 pods a minute at most."""

    def __init__(self, vms: Sequence[Vm], per_minute: int = 50) -> None:
        super().__init__(vms)
        self._per_s = per_minute / 60.0
        self._started = 0

    def choose(self, now: float) -> Sequence[Vm]:
        """Start as many as the time that has passed allows."""
        due = 1 + int(now * self._per_s) - self._started
        chosen = self._start(max(0, due))
        self._started += len(chosen)
        return chosen
