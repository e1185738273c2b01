"""A whole simulated cluster, put together from its parts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from remediator.clock import Clock
from remediator.kube.transport import Transport
from remediator.sim.api_faults import ApiFaults
from remediator.sim.apiserver import ApiServer
from remediator.sim.bmc import Bmc, BmcService, MemoryHttpClient
from remediator.sim.bmc_server import BmcServer
from remediator.sim.cluster_objects import ObjectBuilder
from remediator.sim.cluster_spec import ClusterSpec, VmSpec
from remediator.sim.controllers import guest_orders
from remediator.sim.controllers.control_plane import ControlPlane
from remediator.sim.faults import Faults
from remediator.sim.hosts.fleet import Fleet
from remediator.sim.hosts.guest_door import GuestDoor
from remediator.sim.hosts.host import Host
from remediator.sim.http_server import Closer, serve, write_kubeconfig
from remediator.sim.http_transport import HttpTransport
from remediator.sim.ledger import Ledger
from remediator.sim.memory_transport import MemoryTransport
from remediator.sim.mutating_webhooks import MutatingWebhooks
from remediator.sim.reach import BMC, Place, Reach, SimDial
from remediator.sim.resources import NODES, Registry
from remediator.sim.storage import SharedStorage
from remediator.sim.store import Store
from remediator.sim.troubles import Troubles

# Run strategies whose VM runs when the cluster starts; Halted ones are off.
_RUNNING_STRATEGIES = frozenset({"Always", "RerunOnFailure", "Manual", "Once"})


class HttpFaces(NamedTuple):
    """Where a cluster's sockets are: base URLs, and a kubeconfig for the API."""

    api_url: str
    bmc_url: str
    kubeconfig: Path


class SimCluster:
    """One simulated cluster on the running event loop (virtual or real).

    ``store``, ``server``: the API. ``fleet``: the hosts. ``bmcs`` by node. ``ledger``: the truth.
    ``faults``: what can go wrong. ``reach``: the networks.
    ``webhooks``: who answers admission webhooks. ``vms``: the VMs by their ledger name.

    With ``hosts_over_http`` the hosts reach the API server over sockets as real ones do (``http``
    must then be called before ``start``); else, and on virtual time, in memory.
    """

    def __init__(
        self, spec: ClusterSpec | None = None, *, clock: Clock, hosts_over_http: bool = False
    ) -> None:
        self.spec = spec or ClusterSpec()
        self.clock = clock
        seed = self.spec.seed
        self.api_faults = ApiFaults()
        self.registry = Registry()
        self.store = Store(now=clock.now, rng=random.Random(f"store/{seed}"))
        self.server = ApiServer(self.store, self.registry, faults=self.api_faults)
        self.troubles = Troubles()
        self.control_plane = ControlPlane(
            self.store,
            clock=clock,
            rng=random.Random(f"control-plane/{seed}"),
            faults=self.api_faults,
            settings=self.spec.controllers,
            troubles=self.troubles,
        )
        self.control_plane.serve(self.server)
        self.webhooks = MutatingWebhooks(self.store)
        self.ledger = Ledger(clock.now)
        self.storage = SharedStorage(self.spec.storage)
        self._faces: HttpFaces | None = None
        self._hosts_over_http = hosts_over_http
        self.fleet = Fleet(
            self.spec.host_specs(),
            transport_for=self._http_transport if hosts_over_http else self.memory_transport,
            clock=clock,
            ledger=self.ledger,
            storage=self.storage,
            seed=seed,
            settings=self.spec.hosts,
            troubles=self.troubles,
            handler_pods=True,
        )
        guest_orders.serve(self.server, GuestDoor(self.fleet))
        self.bmcs = {
            name: Bmc(host, user=self.spec.bmc_user, password=self.spec.bmc_password)
            for name, host in self.fleet.hosts.items()
        }
        self.bmc_service = BmcService(self.bmcs)
        self.reach = Reach(self.fleet.hosts, self.api_faults, rng=random.Random(f"network/{seed}"))
        self.faults = Faults(
            self.fleet,
            self.bmcs,
            self.api_faults,
            clock=clock,
            delete_node=self._delete_node,
            reach=self.reach,
        )
        self.vms: dict[str, VmSpec] = {vm.key: vm for vm in self.spec.vm_specs()}
        self._latency_rng = random.Random(f"latency/{seed}")
        self._close_api: Closer | None = None
        self._bmc_server: BmcServer | None = None

    @property
    def hosts(self) -> dict[str, Host]:
        """All hosts by node name."""
        return self.fleet.hosts

    async def start(self, *, warm: bool = True) -> None:
        """Begin.

        ``warm``: everything has been up for long: nodes are Ready, VMs run and are booted, dealt
        evenly over the workers. Else hosts power on, kubelets register and all VMs boot.
        Raises TimeoutError when the hosts cannot read the API within 60 s.
        """
        builder = ObjectBuilder(self.store, self.spec, self.clock.now())
        builder.namespaces()
        builder.storage_class()
        if warm:
            for host in self.fleet.hosts.values():
                builder.node(host.spec, host.boot_id)
        for vm in self.vms.values():
            builder.virtual_machine(vm)
        if warm:
            for vm, node in self._placement():
                builder.run(vm, node)
        self.control_plane.start()
        self.webhooks.start()
        await self.fleet.start(warm=warm)

    def _placement(self) -> list[tuple[VmSpec, str]]:
        """Deal the VMs that run out over the workers, as evenly as possible."""
        rng = random.Random(f"placement/{self.spec.seed}")
        workers = [h.name for h in self.fleet.hosts.values() if not h.spec.control_plane]
        running = [vm for vm in self.vms.values() if vm.run_strategy in _RUNNING_STRATEGIES]
        seats = [workers[i % len(workers)] for i in range(len(running))]
        rng.shuffle(seats)
        return list(zip(running, seats, strict=True))

    async def stop(self) -> None:
        """End everything. Raises the first defect in an emulated host, if there was one."""
        self.faults.stop()
        try:
            await self.fleet.stop()
        finally:
            self.control_plane.stop()
            self.server.close()
            if self._close_api is not None:
                await self._close_api()
            if self._bmc_server is not None:
                await self._bmc_server.stop()

    def memory_transport(self, client_name: str) -> Transport:
        """Return a way to the API server without sockets, under a client's name."""
        latency: Callable[[], float] | None = None
        if self.spec.api_latency_s > 0:
            latency = self._draw_latency
        return MemoryTransport(self.server, latency=latency, client_name=client_name)

    def memory_http(self, place: Place | None = None) -> MemoryHttpClient:
        """Return a way to the BMCs without sockets, which ends where the place's network does."""
        if place is None:
            return MemoryHttpClient(self.bmc_service)
        return MemoryHttpClient(self.bmc_service, connected=lambda: self.reach.passes(place, BMC))

    def dial(self, place: Place) -> SimDial:
        """Return how a client that stands there opens connections to hosts."""
        return SimDial(self.reach, place)

    async def http(self, kubeconfig: Path, *, token: str | None = None) -> HttpFaces:
        """Serve the API and the BMCs on loopback sockets and write a kubeconfig; once.

        With a ``token`` clients must bear it; hosts over HTTP have none.
        Raises OSError.
        """
        assert self._close_api is None, "the cluster is served already"
        assert not (token and self._hosts_over_http), "hosts over HTTP bear no token"
        api_url, self._close_api = await serve(self.server, token=token)
        write_kubeconfig(kubeconfig, api_url, token)
        self._bmc_server = BmcServer(self.bmc_service)
        self._faces = HttpFaces(api_url, await self._bmc_server.start(), kubeconfig)
        return self._faces

    def _http_transport(self, client_name: str) -> Transport:
        return HttpTransport(self._api_url, client_name)

    def _api_url(self) -> str:
        assert self._faces is not None, "hosts over HTTP need http() before start()"
        return self._faces.api_url

    def bmc_url(self, node: str, base: str = "http://bmc.sim") -> str:
        """Return the URL of a node's ComputerSystem; ``base`` is a BmcServer's URL over sockets."""
        return f"{base}{self.bmcs[node].path}"

    def vms_on(self, node: str) -> list[str]:
        """Return the VMs that truly run on a node, by their ledger name."""
        return [copy.vm for copy in self.ledger.running_on(node)]

    async def wait_until(
        self, condition: Callable[[], bool], *, timeout_s: float, step_s: float = 0.1
    ) -> float:
        """Return the seconds it took until ``condition`` held; looks every ``step_s``.

        Raises TimeoutError.
        """
        began = self.clock.now()
        while not condition():
            if self.clock.now() - began >= timeout_s:
                raise TimeoutError(f"not within {timeout_s:g} s")
            await asyncio.sleep(step_s)
        return self.clock.now() - began

    def _delete_node(self, node: str) -> None:
        self.store.delete(NODES, "", node)

    def _draw_latency(self) -> float:
        """Draw one round trip: the mean of the spec, half fixed, half exponential."""
        mean_s = self.spec.api_latency_s
        return mean_s / 2 + self._latency_rng.expovariate(2 / mean_s)
