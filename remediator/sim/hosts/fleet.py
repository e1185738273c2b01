"""All emulated hosts of one cluster and what they share: watches, volumes, storage, ledger."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping

import structlog

from remediator.clock import Clock
from remediator.kube.transport import Transport
from remediator.sim.hosts.handler_pod import is_handler_pod
from remediator.sim.hosts.host import Host
from remediator.sim.hosts.settings import HostSettings, HostSpec
from remediator.sim.hosts.vmi_status import nodes_of
from remediator.sim.hosts.volumes import ATTACHMENTS_PATH, VolumeIndex
from remediator.sim.hosts.watch import SharedWatch
from remediator.sim.hosts.wire import Obj, RefusedError
from remediator.sim.ledger import Ledger
from remediator.sim.storage import SharedStorage
from remediator.sim.troubles import Troubles

log = structlog.get_logger(__name__)

PODS_PATH = "/api/v1/pods"
VMIS_PATH = "/apis/kubevirt.io/v1/virtualmachineinstances"
_SYNC_TIMEOUT_S = 60.0
_READ_TIMEOUT_S = 30.0


class Fleet:
    """Emulated hosts against one API server.

    ``transport_for(client)`` gives the way to the API server under a client's name: each host's
    own for what it writes, ``fleet`` for the three shared watches. With ``handler_pods`` each host
    that runs VMs keeps the pod of its virt-handler, as kubelet and DaemonSet controller would.
    """

    def __init__(
        self,
        specs: Iterable[HostSpec],
        *,
        transport_for: Callable[[str], Transport],
        clock: Clock,
        ledger: Ledger,
        storage: SharedStorage,
        seed: int,
        settings: HostSettings | None = None,
        troubles: Troubles | None = None,
        handler_pods: bool = False,
    ) -> None:
        self.clock = clock
        self.troubles = troubles or Troubles()
        self.handler_pods = handler_pods
        self.ledger = ledger
        self.storage = storage
        self.settings = settings or HostSettings()
        self.volumes = VolumeIndex()
        self.defect: BaseException | None = None
        self._transport = transport_for("fleet")
        self._transports = [self._transport]
        self._pods: dict[str, dict[str, Obj]] = {}
        self._vmis: dict[str, dict[str, Obj]] = {}
        self._vmi_nodes: dict[str, set[str]] = {}
        self._attached: set[tuple[str, str]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        rng = random.Random(f"fleet/{seed}")
        self._pod_watch = SharedWatch(
            self._transport, PODS_PATH, seen=self._pod_seen, gone=self._pod_gone, rng=rng
        )
        self._vmi_watch = SharedWatch(
            self._transport, VMIS_PATH, seen=self._vmi_seen, gone=self._vmi_gone, rng=rng
        )
        self._attachment_watch = SharedWatch(
            self._transport,
            ATTACHMENTS_PATH,
            seen=self._attachment_seen,
            gone=self._attachment_gone,
            rng=rng,
        )
        self.hosts: dict[str, Host] = {}
        for spec in specs:
            transport = transport_for(spec.name)
            self._transports.append(transport)
            self.hosts[spec.name] = Host(
                spec,
                self,
                transport,
                rng=random.Random(f"host/{seed}/{spec.name}"),
                settings=self.settings,
            )

    async def start(self, *, warm: bool) -> None:
        """Power all hosts on.

        ``warm``: they have run for long; pods and VMIs that the API calls Running run, guests
        booted. Raises TimeoutError when the API server cannot be read within 60 s.
        """
        watches = (self._vmi_watch, self._pod_watch, self._attachment_watch)
        for watch in watches:
            task = asyncio.get_running_loop().create_task(watch.run())
            task.add_done_callback(self._watch_ended)
            self._tasks.append(task)
        async with asyncio.timeout(_SYNC_TIMEOUT_S):
            for watch in watches:
                await watch.synced.wait()
            if warm:
                await self.volumes.load(self._get)
        for host in self.hosts.values():
            if warm:
                host.start_warm()
            else:
                host.power_on()

    async def stop(self) -> None:
        """End all hosts. Raises the first defect that a host's task died of, if any."""
        for host in self.hosts.values():
            host.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        for transport in self._transports:
            await transport.close()
        if self.defect is not None:
            raise self.defect

    def failed(self, error: BaseException) -> None:
        """Note a defect in a host's task; ``stop`` raises the first."""
        log.error("emulated_host_defect", error=repr(error))
        self.defect = self.defect or error

    def pods_on(self, node: str) -> Mapping[str, Obj]:
        """Return the pods bound to a node, by UID."""
        return self._pods.get(node, {})

    def vmis_on(self, node: str) -> Mapping[str, Obj]:
        """Return the VMIs that name a node, by UID."""
        return self._vmis.get(node, {})

    def is_attached(self, volume: str, node: str) -> bool:
        """Tell whether the API says that a PersistentVolume is attached to a node."""
        return (volume, node) in self._attached

    async def _get(self, path: str) -> bytes:
        response = await self._transport.request("GET", path, timeout_s=_READ_TIMEOUT_S)
        if response.status != 200:
            raise RefusedError("GET", path, response)
        return response.body

    def _watch_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failed(error)

    # From the shared watches to the hosts that listen.

    def _pod_seen(self, pod: Obj) -> None:
        node = pod["spec"].get("nodeName")
        if is_handler_pod(pod):
            if node in self.hosts:
                self.hosts[node].handler_pod.seen(pod)
        elif node:
            self._pods.setdefault(node, {})[pod["metadata"]["uid"]] = pod
            host = self.hosts.get(node)
            if host is not None and host.kubelet.listening:
                host.kubelet.pod_seen(pod)

    def _pod_gone(self, pod: Obj, missed: bool) -> None:  # noqa: FBT001 - SharedWatch's callback
        node = pod["spec"].get("nodeName")
        if is_handler_pod(pod):
            if node in self.hosts:
                self.hosts[node].handler_pod.gone(pod)
        elif node:
            self._pods.get(node, {}).pop(pod["metadata"]["uid"], None)
            host = self.hosts.get(node)
            if host is not None and host.kubelet.listening:
                host.kubelet.pod_gone(pod, missed=missed)

    def _vmi_seen(self, vmi: Obj) -> None:
        uid = vmi["metadata"]["uid"]
        nodes = nodes_of(vmi)
        for node in sorted(self._vmi_nodes.get(uid, set()) - nodes):
            self._vmi_left(node, uid)
        self._vmi_nodes[uid] = nodes
        for node in sorted(nodes):
            self._vmis.setdefault(node, {})[uid] = vmi
            host = self.hosts.get(node)
            if host is not None and host.handler.listening:
                host.handler.vmi_seen(vmi)

    def _vmi_gone(self, vmi: Obj, missed: bool) -> None:  # noqa: ARG002, FBT001 - SharedWatch's callback
        uid = vmi["metadata"]["uid"]
        for node in sorted(self._vmi_nodes.pop(uid, set())):
            self._vmi_left(node, uid)

    def _vmi_left(self, node: str, uid: str) -> None:
        self._vmis.get(node, {}).pop(uid, None)
        host = self.hosts.get(node)
        if host is not None and host.handler.listening:
            host.handler.vmi_gone(uid)

    def _attachment_seen(self, attachment: Obj) -> None:
        spec = attachment["spec"]
        key = (spec["source"].get("persistentVolumeName", ""), spec["nodeName"])
        if (attachment.get("status") or {}).get("attached") and (
            "deletionTimestamp" not in attachment["metadata"]
        ):
            self._attached.add(key)
        else:
            self._attached.discard(key)
        host = self.hosts.get(key[1])
        if host is not None and host.connected:
            host.attachments_changed()

    def _attachment_gone(self, attachment: Obj, missed: bool) -> None:  # noqa: ARG002, FBT001 - SharedWatch's callback
        spec = attachment["spec"]
        self._attached.discard((spec["source"].get("persistentVolumeName", ""), spec["nodeName"]))
