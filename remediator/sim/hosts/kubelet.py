"""The kubelet: keeps the node's Lease and status fresh and runs the pods bound to its node."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from remediator.kube.transport import TransportError
from remediator.sim.hosts.host_events import HostEvents
from remediator.sim.hosts.node_object import (
    LEASES_PATH,
    NODES_PATH,
    new_lease,
    new_node,
    node_status,
)
from remediator.sim.hosts.pods import PodWorker
from remediator.sim.hosts.wire import (
    STRATEGIC_PATCH,
    HostProcess,
    Obj,
    RefusedError,
    decode_obj,
)
from remediator.sim.timestamps import rfc3339_micro

if TYPE_CHECKING:
    from remediator.sim.hosts.domain import Domain
    from remediator.sim.hosts.host import Host

_TERMINAL = ("Succeeded", "Failed")


class Kubelet(HostProcess):
    """One node's kubelet. ``host`` gives hardware, volumes and launchers."""

    def __init__(self, host: Host) -> None:
        super().__init__(
            host,
            host.transport,
            host.rng,
            request_timeout_s=host.settings.request_timeout_s,
            failed=host.fleet.failed,
        )
        self.host = host
        self.workers: dict[str, PodWorker] = {}
        self.events = HostEvents(self, "kubelet", host)
        self._lease: Obj | None = None
        self._volumes: dict[str, int] = {}  # attachable volumes in use, by how many pods
        self._report = asyncio.Event()
        self._reported_at = 0.0
        self._lease_missed = False
        self._registered = False
        self._caught_up = False

    @property
    def listening(self) -> bool:
        """Whether news of pods reaches it now: not before it has read the list once."""
        return self._caught_up and super().listening

    def start(self, *, warm: bool) -> None:
        """Begin. ``warm``: it has run for long, its node is registered and its pods run."""
        self.running = True
        self.events.clear()
        self.workers = {}
        self._volumes = {}
        self._lease = None
        self._registered = False
        self._caught_up = False
        self._report.clear()
        if warm:
            self._reported_at = asyncio.get_running_loop().time()
            self._begin(warm=True)
        else:
            self.spawn(self._register())

    def _begin(self, *, warm: bool) -> None:
        """Run the pods and keep lease and status fresh; the node is registered."""
        self._registered = True
        self.host.kubelet_ready(warm=warm)
        self.host.handler_pod.start()
        self.spawn(self._keep_status())
        self.spawn(self._keep_lease(self.host.settings.lease_period_s if warm else 0.0))

    def kill(self) -> None:
        """End it with its host."""
        super().kill()
        self.workers = {}

    # The node's lease.

    async def _keep_lease(self, first_within_s: float) -> None:
        settings = self.host.settings
        await self.sleep(self.rng.uniform(0.0, first_within_s))
        while True:
            lost = settings.lease_lost_share > 0 and self.rng.random() < settings.lease_lost_share
            if not lost:
                await self._renew()
            # JitterUntil: period to period * (1 + factor).
            jitter = 1.0 + settings.lease_jitter * self.rng.random()
            await self.sleep(settings.lease_period_s * jitter)

    async def _renew(self) -> None:
        for _ in range(self.host.settings.lease_tries):
            try:
                await self._renew_once()
            except RefusedError as error:
                self._lease = None  # changed or deleted under us, or refused: read it again
                if error.status != 409:
                    await self.sleep(self.rng.uniform(*self.host.settings.retry_s))
            except TransportError:
                self._lease_missed = True
                await self.sleep(0.1)  # a refused connection answers at once: do not spin
            else:
                if self._lease_missed:  # the node may have been called Unknown meanwhile
                    self._lease_missed = False
                    self._report.set()
                return

    async def _renew_once(self) -> None:
        if self._lease is None:
            self._lease = await self._ensure_lease()
            if self._lease is None:
                return
        self._lease["spec"]["renewTime"] = rfc3339_micro(self.host.now())
        path = f"{LEASES_PATH}/{self.host.name}"
        self._lease = decode_obj(await self.request("PUT", path, self._lease))

    async def _ensure_lease(self) -> Obj | None:
        """Return the present lease; create it when absent; None when there is no Node to own it."""
        try:
            return decode_obj(await self.request("GET", f"{LEASES_PATH}/{self.host.name}"))
        except RefusedError as error:
            if error.status != 404:
                raise
        try:
            node = decode_obj(await self.request("GET", f"{NODES_PATH}/{self.host.name}"))
        except RefusedError as error:
            if error.status == 404:
                return None
            raise
        lease = new_lease(
            self.host.spec,
            self.host.settings,
            node_uid=node["metadata"]["uid"],
            now=self.host.now(),
        )
        return decode_obj(await self.request("POST", LEASES_PATH, lease))

    # The node's status.

    def report_soon(self) -> None:
        """Report the node's status: something in it changed."""
        self._report.set()

    async def _register(self) -> None:
        """Create the Node, or find it, and report its status; try until it is done; then begin."""
        while True:
            try:
                try:
                    await self.request("POST", NODES_PATH, new_node(self.host.spec))
                except RefusedError as error:
                    if error.status != 409:  # it exists: a reboot
                        raise
                await self._report_status()
            except (TransportError, RefusedError):
                await self.sleep(self.rng.uniform(*self.host.settings.retry_s))
            else:
                self._begin(warm=False)
                return

    async def _keep_status(self) -> None:
        settings = self.host.settings
        loop = asyncio.get_running_loop()
        while True:
            due_s = self._reported_at + settings.status_report_s - loop.time()
            try:
                async with asyncio.timeout(max(0.0, due_s)):
                    await self._report.wait()
            except TimeoutError:
                pass  # nothing changed for five minutes: report all the same
            else:
                await self.sleep(self.rng.uniform(0.0, min(1.0, settings.status_check_s)))
            await self.gate.passed()
            self._report.clear()
            try:
                await self._report_status()
            except TransportError:
                self._report.set()
            except RefusedError as error:
                if error.status != 404:  # deleted: a kubelet registers only when it starts
                    self._report.set()
                await self.sleep(settings.status_check_s)

    async def _report_status(self) -> None:
        host = self.host
        path = f"{NODES_PATH}/{host.name}"
        node = decode_obj(await self.request("GET", path))
        status = node_status(
            host.spec,
            boot_id=host.boot_id,
            volumes_in_use=sorted(self._volumes),
            now=host.now(),
            ready_since=_ready_since(node),
            pressures=host.problems.pressures,
        )
        await self.request(
            "PATCH", f"{path}/status", {"status": status}, content_type=STRATEGIC_PATCH
        )
        self._reported_at = asyncio.get_running_loop().time()

    def volume_used(self, name: str) -> None:
        """Count a pod that is about to mount this volume."""
        self._volumes[name] = self._volumes.get(name, 0) + 1
        self._report.set()

    def volume_released(self, name: str) -> None:
        """Count a pod that has unmounted this volume."""
        left = self._volumes.get(name, 0) - 1
        if left > 0:
            self._volumes[name] = left
        else:
            self._volumes.pop(name, None)
        self._report.set()

    # Its pods.

    def catch_up(self, pods: Mapping[str, Obj], *, warm: bool = False) -> None:
        """Take the newest list of this node's pods, after its start or a time without news."""
        if not self._registered:
            return  # registration ends with a list of its own
        first = not self._caught_up
        self._caught_up = True
        for uid in [uid for uid in self.workers if uid not in pods]:
            self.pod_gone(self.workers[uid].pod, missed=True)
        for pod in list(pods.values()):
            self.pod_seen(pod, first=first, warm=warm)
        if not first:
            self._report.set()  # the node may have been called Unknown meanwhile

    def pod_seen(self, pod: Obj, *, first: bool = False, warm: bool = False) -> None:
        """Take note of a pod bound to this node.

        ``first``: known from the list at the kubelet's start, so a pod that ran before has lost
        its containers; with ``warm`` they run on.
        """
        meta = pod["metadata"]
        worker = self.workers.get(meta["uid"])
        phase = (pod.get("status") or {}).get("phase", "Pending")
        if worker is not None:
            worker.refresh(pod)
        elif phase in _TERMINAL and "deletionTimestamp" not in meta:
            return
        else:
            worker = self.workers[meta["uid"]] = PodWorker(self, pod)
            if phase in _TERMINAL:
                worker.confirm_deletion()
            elif phase != "Running" or not first:
                worker.begin()
            elif warm:
                worker.adopt()
            else:
                worker.lost()
        if "deletionTimestamp" in meta:
            grace_s = float(meta.get("deletionGracePeriodSeconds") or 0)
            worker.end(max(self.host.settings.grace_min_s, grace_s))

    def probe(self, pod_uid: str, domain: Domain) -> None:
        """Look at the probes of a pod with a guest in it."""
        if self.running and (worker := self.workers.get(pod_uid)) is not None:
            worker.probe(domain)

    def pod_gone(self, pod: Obj, *, missed: bool) -> None:
        """Kill the containers of a pod whose object vanished.

        Seen live, a deletion without grace kills after the least grace; found missing later, the
        kubelet knows no deletion grace and takes the pod's own (k8s calculateEffectiveGracePeriod,
        lab section 2).
        """
        worker = self.workers.get(pod["metadata"]["uid"])
        if worker is not None:
            grace_s = self.host.settings.grace_min_s
            if missed:
                grace_s = float(pod["spec"].get("terminationGracePeriodSeconds", 30))
            worker.vanished(grace_s)

    def forget(self, uid: str) -> None:
        """Drop the worker of a pod whose object and containers are both gone."""
        self.workers.pop(uid, None)


def _ready_since(node: Obj) -> str | None:
    """Return since when the API calls this node Ready; None when it does not."""
    for condition in (node.get("status") or {}).get("conditions") or ():
        if condition["type"] == "Ready" and condition["status"] == "True":
            since: str = condition["lastTransitionTime"]
            return since
    return None
