"""Who reaches whom: the networks of a simulated cluster, in virtual time.

Everything that sends or answers packets has labels: a host its name and its zone, a client (a
daemon, a prober) its own name, the host it runs on and its zone; the API server, the message bus
and the BMCs are ``API``, ``NATS`` and ``BMC``. A cut is between two labels, whichever bear them. A
host that is off, crashed or frozen, or whose network is cut, answers nothing: as a packet that
nobody takes, not as a refusal.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from remediator.sim.api_faults import ApiFaults, Passage

if TYPE_CHECKING:
    from remediator.sim.hosts.host import Host

API, NATS, BMC = "api", "nats", "bmc"
API_HOST, API_PORT = "192.0.2.1", 6443  # an address that is no host's (RFC 5737)
KUBELET_PORT = 10250
# What listens on a host besides its kubelet: sshd.
PORTS = frozenset({KUBELET_PORT, 22})

_TRIP_S = (0.0002, 0.001)  # one round trip within a site
# Linux sends a SYN again after 1, 3, 7 and 15 s (RFC 6298: the timer starts at 1 s and doubles).
_SENT_AT_S = (0.0, 1.0, 3.0, 7.0, 15.0)
_HTTP_TLS_PORT = 443


@dataclass(frozen=True, slots=True)
class Place:
    """Where a client stands. ``host`` is the node that it runs on; empty: on none of them."""

    name: str
    zone: str = ""
    host: str = ""


class Answer(Enum):
    """What comes back."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    SILENT = "silent"


class Reach:
    """The networks. Cuts last until they are mended. Raises KeyError for unknown nodes.

    ``loss`` is the share of packets that get lost anywhere; ``extra_s`` is added to every answer of
    a node. Both are plain attributes for faults to set.
    """

    def __init__(
        self, hosts: Mapping[str, Host], api: ApiFaults, *, rng: random.Random | None = None
    ) -> None:
        self.loss = 0.0
        self.extra_s: dict[str, float] = {}
        self._hosts = hosts
        self._api = api
        self._rng = rng or random.Random(0)
        self._by_address = {host.spec.address: name for name, host in hosts.items()}
        self._places: dict[str, Place] = {}
        self._cuts: set[frozenset[str]] = set()
        self._dropped: set[tuple[str, int]] = set()  # node and port; port 0 is ICMP
        self._closed: set[str] = set()  # nodes on which nothing listens
        self._borrowed: set[tuple[str, str]] = set()  # label and node whose address answers falsely
        self._cut_clients: set[str] = set()  # by us, of the API server
        self._listeners: list[Callable[[], None]] = []

    # --- where clients stand --------------------------------------------------------------------

    def stand(self, place: Place) -> None:
        """Let a client stand somewhere; its way to the API server shares the place's fate."""
        if place.host:
            _ = self._hosts[place.host]
        self._places[place.name] = place
        self.refresh()

    def leave(self, name: str) -> None:
        """Forget a client."""
        if self._places.pop(name, None) is not None and name in self._cut_clients:
            self._cut_clients.discard(name)
            self._api.heal(name)

    def alive(self, place: Place) -> bool:
        """Whether a process there runs at all."""
        return not place.host or self._hosts[place.host].works

    # --- cuts ----------------------------------------------------------------------------------

    def cut(self, one: str, other: str) -> None:
        """Let no packet pass between what bears one label and what bears the other."""
        self._cuts.add(frozenset((one, other)))
        self.refresh()

    def mend(self, one: str, other: str) -> None:
        """End that cut."""
        self._cuts.discard(frozenset((one, other)))
        self.refresh()

    def zones(self) -> list[str]:
        """Return every zone in which a host or a client stands."""
        found = {host.spec.zone for host in self._hosts.values()}
        return sorted(found | {place.zone for place in self._places.values()})

    def drop(self, node: str, port: int) -> None:
        """Let a firewall drop what goes to this port of a node; port 0 stands for ICMP."""
        _ = self._hosts[node]
        self._dropped.add((node, port))

    def admit(self, node: str) -> None:
        """End every ``drop`` on a node."""
        self._dropped = {entry for entry in self._dropped if entry[0] != node}

    def close_ports(self, node: str) -> None:
        """Let nothing listen on a node: its kernel refuses every connection."""
        _ = self._hosts[node]
        self._closed.add(node)

    def open_ports(self, node: str) -> None:
        """End ``close_ports``."""
        self._closed.discard(node)

    def borrow_address(self, node: str, label: str) -> None:
        """Let something else answer at a node's address, for clients that bear this label."""
        _ = self._hosts[node]
        self._borrowed.add((label, node))

    def mend_all(self) -> None:
        """End everything."""
        self.loss = 0.0
        for kept in (self._cuts, self._dropped, self._closed, self._borrowed):
            kept.clear()
        self.extra_s.clear()
        self.refresh()

    def listen(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` after every change of the cuts or of a host's own network."""
        self._listeners.append(changed)

    def refresh(self) -> None:
        """Bring hosts' and clients' ways to the API server to what the cuts say."""
        for name, host in self._hosts.items():
            host.set_api_route(whole=not self._is_cut((name, host.spec.zone), (API,)))
        for name, place in self._places.items():
            passes = self.passes(place, API)
            if not passes and name not in self._cut_clients:
                self._cut_clients.add(name)
                self._api.partition(name)
            elif passes and name in self._cut_clients:
                self._cut_clients.discard(name)
                self._api.heal(name)
        for changed in tuple(self._listeners):
            changed()

    def passes(self, place: Place, label: str) -> bool:
        """Whether packets of a client pass to what bears a label, be it there or not."""
        if place.host and not self._hosts[place.host].network:
            return False
        return not self._is_cut(_labels(place), (label,))

    def _is_cut(self, some: tuple[str, ...], others: tuple[str, ...]) -> bool:
        if not self._cuts:
            return False
        return any(frozenset((one, other)) in self._cuts for one in some for other in others)

    # --- answers --------------------------------------------------------------------------------

    def node_at(self, address: str) -> str | None:
        """Return the node whose address it is."""
        return self._by_address.get(address)

    def answer(self, place: Place, address: str, port: int) -> Answer:
        """Return what a packet sent now brings back; port 0 is an ICMP echo request."""
        if not self.alive(place):
            return Answer.SILENT
        if address == API_HOST:
            return self._api_answers(place)
        node = self._by_address.get(address)
        if node is None:
            return Answer.SILENT
        if any((label, node) in self._borrowed for label in _labels(place)):
            return Answer.ACCEPTED
        host = self._hosts[node]
        if not host.answers or not self.passes(place, node):
            return Answer.SILENT
        if self._is_cut(_labels(place), (host.spec.zone,)) or (node, port) in self._dropped:
            return Answer.SILENT
        if port and (port not in PORTS or node in self._closed):
            return Answer.REFUSED
        return Answer.ACCEPTED

    def _api_answers(self, place: Place) -> Answer:
        if not self.passes(place, API):
            return Answer.SILENT
        match self._api.passage(place.name):
            case Passage.OPEN:
                return Answer.ACCEPTED
            case Passage.BROKEN:
                return Answer.REFUSED
            case Passage.SILENT:
                return Answer.SILENT

    def serves(self, address: str) -> bool:
        """Whether a program answers behind the open port, or only the kernel's backlog."""
        node = self._by_address.get(address)
        return node is None or self._hosts[node].kubelet_serves

    def trip_s(self, address: str) -> float:
        """Draw one round trip."""
        node = self._by_address.get(address, "")
        return self._rng.uniform(*_TRIP_S) + self.extra_s.get(node, 0.0)

    def lost(self) -> bool:
        """Draw whether a packet, or its answer, gets lost."""
        return self.loss > 0.0 and self._rng.random() < self.loss

    def api_status(self) -> int:
        """Return the HTTP status of an API server that answers."""
        refusal = self._api.refusal()
        return 200 if refusal is None else refusal.status


class SimDial:
    """A ``probes.dial.Dial`` of one client in the simulated networks."""

    def __init__(self, reach: Reach, place: Place) -> None:
        self._reach = reach
        self._place = place

    async def tcp(self, address: str, port: int, timeout_s: float) -> None:
        """See ``Dial``."""
        await self._send(address, port, timeout_s, tries=_SENT_AT_S)

    async def icmp(self, address: str, timeout_s: float) -> None:
        """See ``Dial``."""
        await self._send(address, 0, timeout_s, tries=_SENT_AT_S[:1])

    async def https(self, url: str, timeout_s: float) -> int:
        """See ``Dial``. A kubelet asks for credentials, the API server answers its health."""
        parts = urlsplit(url)
        address, port = parts.hostname or "", parts.port or _HTTP_TLS_PORT
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        await self._send(address, port, timeout_s, tries=_SENT_AT_S)
        if not self._reach.serves(address):
            await asyncio.sleep(max(0.0, deadline - loop.time()))
            raise TimeoutError(f"{url}: connected, but no answer within {timeout_s:g} s")
        return self._reach.api_status() if address == API_HOST else 401

    async def _send(
        self, address: str, port: int, timeout_s: float, *, tries: tuple[float, ...]
    ) -> None:
        """Send, and send again as the kernel does, until an answer comes or the time is over."""
        reach, loop = self._reach, asyncio.get_running_loop()
        began = loop.time()
        for wait_s in _waits(tries, timeout_s):
            if wait_s > loop.time() - began:
                await asyncio.sleep(wait_s - (loop.time() - began))
            if reach.lost() or reach.answer(self._place, address, port) is Answer.SILENT:
                continue
            trip_s = reach.trip_s(address)
            if loop.time() - began + trip_s >= timeout_s:
                break
            await asyncio.sleep(trip_s)
            answer = reach.answer(self._place, address, port)  # the way back
            if answer is Answer.REFUSED:
                raise ConnectionRefusedError(f"{address}:{port}: connection refused")
            if answer is Answer.ACCEPTED:
                return
        await asyncio.sleep(max(0.0, began + timeout_s - loop.time()))
        raise TimeoutError(f"{address}:{port}: no answer within {timeout_s:g} s")


def _labels(place: Place) -> tuple[str, ...]:
    return (place.name, place.host, place.zone)


def _waits(tries: tuple[float, ...], timeout_s: float) -> Iterator[float]:
    return (at_s for at_s in tries if at_s < timeout_s)
