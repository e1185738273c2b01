"""What can go wrong between the hosts of a simulated cluster, one verb each, and the timeline."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from remediator.clock import Clock
from remediator.sim.api_faults import ApiFaults
from remediator.sim.bmc import Bmc
from remediator.sim.hosts.fleet import Fleet
from remediator.sim.hosts.host import Host
from remediator.sim.reach import API, BMC, KUBELET_PORT, NATS, Reach

log = structlog.get_logger(__name__)

_TIMELINE_ENTRIES_MAX = 100_000


@dataclass(frozen=True, slots=True)
class FaultEntry:
    """What was done to the cluster: ``at`` epoch seconds, ``target`` a node, client or ``api``."""

    at: float
    verb: str
    target: str
    detail: str = ""


class NetworkFaults:
    """Cuts and mends networks. Raises KeyError for a node that does not exist."""

    def __init__(
        self,
        fleet: Fleet,
        bmcs: Mapping[str, Bmc],
        api: ApiFaults,
        reach: Reach,
        clock: Clock,
    ) -> None:
        self._fleet = fleet
        self._bmcs = bmcs
        self._api = api
        self._reach = reach
        self._clock = clock
        self._entries: deque[FaultEntry] = deque(maxlen=_TIMELINE_ENTRIES_MAX)

    @property
    def timeline(self) -> tuple[FaultEntry, ...]:
        """All that was done, in order."""
        return tuple(self._entries)

    def partition(
        self, node: str, *, api: bool = True, bmc: bool = False, storage: bool = False
    ) -> FaultEntry:
        """Cut a host off the API server, its BMC off everybody, and/or the host off the storage.

        VMs of a host that is cut off the API server alone go on writing.
        """
        host = self._host(node)
        if api:
            host.cut_network()
            self._reach.refresh()
        if bmc:
            self._bmcs[node].reachable = False
        if storage:
            host.cut_storage()
        cut = [n for n, on in (("api", api), ("bmc", bmc), ("storage", storage)) if on]
        return self._note("partition", node, ",".join(cut))

    def heal(self, node: str) -> FaultEntry:
        """End all partitions of a host and of its BMC."""
        host = self._host(node)
        self._bmcs[node].reachable = True
        host.heal_storage()
        host.heal_network()
        self._reach.refresh()
        return self._note("heal", node)

    def client_partition(self, client: str) -> FaultEntry:
        """Cut one client of the API server off (the daemon, for one)."""
        self._api.partition(client)
        return self._note("client-partition", client)

    def client_heal(self, client: str) -> FaultEntry:
        """Connect the client again."""
        self._api.heal(client)
        return self._note("client-heal", client)

    def cut(self, one: str, other: str) -> FaultEntry:
        """Let no packet pass between two labels: nodes, zones, clients, api, nats, bmc."""
        self._reach.cut(one, other)
        return self._note("cut", one, f"from {other}")

    def mend(self, one: str, other: str) -> FaultEntry:
        """End that cut."""
        self._reach.mend(one, other)
        return self._note("mend", one, f"to {other}")

    def cut_zone(self, zone: str, *, bmcs: bool = False) -> FaultEntry:
        """Cut a zone off all others, the API server and NATS, and its clients off the BMCs.

        Within it all goes on. With ``bmcs`` nobody reaches the BMCs of its hosts either. Whether
        its VMs reach the storage is ``partition``'s: not cut here.
        """
        for other in self._beyond(zone):
            self._reach.cut(zone, other)
        if bmcs:
            for node in self._in_zone(zone):
                self._bmcs[node].reachable = False
        return self._note("cut-zone", zone, "with its BMCs" if bmcs else "")

    def mend_zone(self, zone: str) -> FaultEntry:
        """End ``cut_zone``."""
        for other in self._beyond(zone):
            self._reach.mend(zone, other)
        for node in self._in_zone(zone):
            self._bmcs[node].reachable = True
        return self._note("mend-zone", zone)

    def cut_probes(self, zone: str) -> FaultEntry:
        """Cut what stands in a zone off the hosts of the others; API and NATS are reached."""
        for other in self._reach.zones():
            if other != zone:
                self._reach.cut(zone, other)
        return self._note("cut-probes", zone)

    def firewall(self, node: str, *, port: int = KUBELET_PORT) -> FaultEntry:
        """Drop what goes to a port of a host; 0 is ICMP. It and its VMs go on."""
        self._reach.drop(node, port)
        return self._note("firewall", node, f"port {port}" if port else "ICMP")

    def firewall_end(self, node: str) -> FaultEntry:
        """End every ``firewall`` of a host."""
        self._reach.admit(node)
        return self._note("firewall-end", node)

    def borrow_address(self, node: str, client: str) -> FaultEntry:
        """Let something else answer this client at a host's address, whatever the host does."""
        self._reach.borrow_address(node, client)
        return self._note("borrow-address", node, f"answers {client}")

    def api_latency(self, seconds: float) -> FaultEntry:
        """Add this to every answer of the API server, until changed or ``api`` ends all."""
        self._api.latency_s = seconds
        return self._note("api-latency", "api", f"{seconds:g} s")

    def packet_loss(self, share: float) -> FaultEntry:
        """Lose this share of the probes' packets."""
        self._reach.loss = share
        return self._note("packet-loss", "cluster", f"{share:.0%}")

    def _beyond(self, zone: str) -> list[str]:
        return [other for other in self._reach.zones() if other != zone] + [API, NATS, BMC]

    def _in_zone(self, zone: str) -> list[str]:
        return [name for name, host in self._fleet.hosts.items() if host.spec.zone == zone]

    def _host(self, node: str) -> Host:
        return self._fleet.hosts[node]

    def _note(self, verb: str, target: str, detail: str = "") -> FaultEntry:
        entry = FaultEntry(self._clock.now(), verb, target, detail)
        self._entries.append(entry)
        log.debug("fault", verb=verb, target=target, detail=detail)
        return entry
