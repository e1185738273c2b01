"""Everything that can go wrong in a simulated cluster, one verb each, all on one timeline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from enum import StrEnum

from remediator.clock import Clock
from remediator.sim.api_faults import ApiFaults
from remediator.sim.bmc import Bmc, BmcMode
from remediator.sim.guest_faults import GuestFaults
from remediator.sim.hosts.fleet import Fleet
from remediator.sim.network_faults import FaultEntry
from remediator.sim.reach import Reach

__all__ = ["ApiMode", "FaultEntry", "Faults"]


class ApiMode(StrEnum):
    """How the API server behaves; see ``ApiFaults``."""

    OK = "ok"  # ends the fault that is on
    HANG = "hang"
    HANG_AFTER_COMMIT = "hang-after-commit"
    RESET = "reset"
    DROP_CONNECTIONS = "drop-connections"
    HALF_LINE = "half-line"
    TOO_MANY = "too-many"
    UNAVAILABLE_HTML = "unavailable-html"
    GONE = "gone"


class Faults(GuestFaults):
    """Breaks and mends one simulated cluster. Raises KeyError for a node that does not exist.

    ``delete_node`` removes a Node object as an administrator would. Without a ``reach`` the faults
    of networks between zones and probes act on one of their own, which nobody dials through.
    """

    def __init__(
        self,
        fleet: Fleet,
        bmcs: Mapping[str, Bmc],
        api: ApiFaults,
        *,
        clock: Clock,
        delete_node: Callable[[str], None],
        reach: Reach | None = None,
    ) -> None:
        super().__init__(fleet, bmcs, api, reach or Reach(fleet.hosts, api), clock)
        self._delete_node = delete_node
        self._timers: set[asyncio.TimerHandle] = set()

    # Power.

    def power_loss(self, node: str) -> FaultEntry:
        """Take the mains power away: VMs and host are gone in this instant.

        The BMC lives on standby power of its own, unless its mode is ``dead-with-host``.
        """
        host = self._host(node)
        host.mains = False
        host.power_off("power loss")
        return self._note("power-loss", node)

    def power_restore(self, node: str, *, boot_s: float | None = None) -> FaultEntry:
        """Give the mains power back; the host boots with a new boot id within ``boot_s``."""
        host = self._host(node)
        host.mains = True
        host.power_on(boot_s=boot_s)
        return self._note("power-restore", node)

    def kernel_panic(self, node: str) -> FaultEntry:
        """Crash the host's kernel: its VMs are gone, it stays on and dead until it is reset."""
        self._host(node).panic("kernel panic")
        return self._note("kernel-panic", node)

    # Hangs.

    def host_hang(self, node: str) -> FaultEntry:
        """Freeze the host: no lease, guests stand still but may go on (and write) any moment."""
        self._host(node).freeze("host hangs")
        return self._note("host-hang", node)

    def kubelet_hang(self, node: str, *, refuses: bool = False) -> FaultEntry:
        """Freeze the kubelet; VMs and virt-handler go on.

        ``refuses``: it has ended rather than frozen, so its port is closed.
        """
        self._host(node).hang_kubelet()
        if refuses:
            self._reach.close_ports(node)
        return self._note("kubelet-hang", node, "its port is closed" if refuses else "")

    def handler_hang(self, node: str) -> FaultEntry:
        """Freeze virt-handler; VMs and kubelet go on."""
        self._host(node).hang_handler()
        return self._note("handler-hang", node)

    def resume(self, node: str) -> FaultEntry:
        """End all hangs of a host."""
        self._host(node).resume()
        self._reach.open_ports(node)
        return self._note("resume", node)

    def flap(self, node: str, *, period_s: float, times: int) -> FaultEntry:
        """Cut the host off the API server for the first half of each of ``times`` periods."""
        self._host(node)
        for turn in range(times):
            self._later(turn * period_s, lambda: self.partition(node))
            self._later((turn + 0.5) * period_s, lambda: self.heal(node))
        return self._note("flap", node, f"{times} times, period {period_s:g} s")

    # The rest.

    def bmc(self, node: str, mode: BmcMode) -> FaultEntry:
        """Let a BMC behave so from now on; ``BmcMode.OK`` mends it."""
        self._bmcs[node].mode = mode
        return self._note("bmc", node, mode)

    def swap_bmcs(self, one: str, other: str) -> FaultEntry:
        """Swap the machines behind two BMCs: somebody mixed up the cables or the inventory."""
        first, second = self._bmcs[one], self._bmcs[other]
        first.machine, second.machine = second.machine, first.machine
        return self._note("swap-bmcs", one, other)

    def api(self, mode: ApiMode, *, retry_after_s: int = 1) -> FaultEntry:
        """Let the API server behave so from now on (until ``ApiMode.OK``)."""
        act: dict[ApiMode, Callable[[], None]] = {
            ApiMode.OK: self._api.clear,
            ApiMode.HANG: self._api.hang,
            ApiMode.HANG_AFTER_COMMIT: lambda: self._api.hang(after_commit=True),
            ApiMode.RESET: self._api.reset,
            ApiMode.DROP_CONNECTIONS: self._api.drop_connections,
            ApiMode.HALF_LINE: self._api.cut_half_line,
            ApiMode.TOO_MANY: lambda: self._api.too_many(retry_after_s),
            ApiMode.UNAVAILABLE_HTML: self._api.unavailable_html,
            ApiMode.GONE: self._api.gone,
        }
        act[mode]()
        return self._note("api", "api", mode)

    def clock_skew(self, node: str, seconds: float) -> FaultEntry:
        """Let a host's own clock run ``seconds`` ahead (behind when negative).

        Its lease's renewTime and virt-handler's heartbeat are written by that clock.
        """
        self._host(node).clock_skew_s = seconds
        return self._note("clock-skew", node, f"{seconds:+g} s")

    def delete_node(self, node: str) -> FaultEntry:
        """Delete the Node object; the host itself goes on."""
        self._delete_node(node)
        return self._note("delete-node", node)

    def end_all(self) -> FaultEntry:
        """Mend everything: power on, networks whole, hangs over, BMCs and API server in order.

        Flapping that was still to come does not come. A host that crashed is reset. Swapped BMCs,
        skewed clocks and deleted Nodes stay.
        """
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._api.clear()
        for node, host in self._fleet.hosts.items():
            self._bmcs[node].mode = BmcMode.OK
            self._bmcs[node].reachable = True
            host.mains = True
            host.resume()
            host.heal_storage()
            host.heal_network()
            if host.crashed:
                host.power_off("reset after a crash")
            host.power_on()
        self.mend_guests()
        self._reach.mend_all()
        return self._note("end-all", "cluster")

    def stop(self) -> None:
        """Cancel what was still to come."""
        for rollout in self._rollouts:
            rollout.cancel()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _later(self, delay_s: float, act: Callable[[], object]) -> None:
        def run() -> None:
            self._timers.discard(timer)
            act()

        timer = asyncio.get_running_loop().call_later(delay_s, run)
        self._timers.add(timer)
