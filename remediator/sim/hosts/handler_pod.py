"""The pod of a host's virt-handler: its DaemonSet's and its kubelet's work in one.

The process lives on its own (``virt_handler``); here is what the API shows of it. It tolerates
every taint, so nobody evicts it from a host that is dead.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from remediator.kube.transport import TransportError
from remediator.sim.hosts.wire import STRATEGIC_PATCH, Obj, RefusedError
from remediator.sim.timestamps import rfc3339

if TYPE_CHECKING:
    from remediator.sim.hosts.host import Host

NAMESPACE = "kubevirt"
LABEL = {"kubevirt.io": "virt-handler"}
_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"

# kv virt-handler's readiness probe: every 20 s, Kubernetes' default of three failures.
_UNREADY_AFTER_S = 60.0
_RETRY_S = 2.0


def is_handler_pod(pod: Obj) -> bool:
    """Tell whether a pod is a virt-handler."""
    return (pod["metadata"].get("labels") or {}).get("kubevirt.io") == LABEL["kubevirt.io"]


def new_handler_pod(node: str, number: int) -> Obj:
    """Return the pod without status; ``number`` tells the pods apart that a node has had."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"virt-handler-{node}-{number}",
            "namespace": NAMESPACE,
            "labels": dict(LABEL),
        },
        "spec": {
            "nodeName": node,
            "tolerations": [{"operator": "Exists"}],
            "containers": [
                {"name": "virt-handler", "image": "quay.io/kubevirt/virt-handler:v1.8.0"}
            ],
        },
    }


def handler_pod_status(now: float, *, ready: bool) -> Obj:
    """Return the status that the kubelet reports."""
    why = {} if ready else {"reason": "ContainersNotReady"}
    return {
        "phase": "Running",
        "conditions": [
            {
                "type": type_,
                "status": "True" if ready else "False",
                "lastTransitionTime": rfc3339(now),
                **why,
            }
            for type_ in ("Ready", "ContainersReady")
        ],
    }


class HandlerPod:
    """Keeps one host's pod true to the process."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._pod: Obj | None = None
        self._made = 0
        self._ready = False
        self._away = False
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    # What others tell it.

    def start(self) -> None:
        """Begin with the kubelet, if this host has such a pod."""
        if self._host.fleet.handler_pods and not self._host.spec.control_plane:
            self._away = False
            self._wake.set()
            self._host.kubelet.spawn(self._keep())

    def seen(self, pod: Obj) -> None:
        """Take the newest object."""
        self._pod = pod
        self._wake.set()

    def gone(self, pod: Obj) -> None:
        """Take note that an object is gone."""
        if self._pod is not None and self._pod["metadata"]["uid"] == pod["metadata"]["uid"]:
            self._pod = None
            self._wake.set()

    def works(self, *, after_s: float = 0.0) -> None:
        """Take note that the process answers its readiness probe, ``after_s`` from now."""
        self._set_ready(ready=True, after_s=after_s)

    def fails(self, *, after_s: float = _UNREADY_AFTER_S) -> None:
        """Take note that the process answers no more; the kubelet sees so ``after_s`` from now."""
        self._set_ready(ready=False, after_s=after_s)

    def stop(self) -> None:
        """End with the host."""
        if self._timer is not None:
            self._timer.cancel()
        self._ready = False

    def _set_ready(self, *, ready: bool, after_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if after_s > 0.0:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(after_s, lambda: self._change(ready=ready))
        else:
            self._change(ready=ready)

    def _change(self, *, ready: bool) -> None:
        self._ready = ready
        self._wake.set()

    # Keeping it.

    async def _keep(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._mend()
            except RefusedError as error:
                if not error.transient and error.status not in (404, 409):
                    raise
                await self._again()
            except TransportError:
                await self._again()

    async def _again(self) -> None:
        await self._host.kubelet.sleep(_RETRY_S)
        self._wake.set()

    async def _mend(self) -> None:
        kubelet = self._host.kubelet
        pod = self._pod
        if pod is None:
            if not self._away:
                self._made += 1
                await kubelet.request("POST", _PODS, new_handler_pod(self._host.name, self._made))
            return
        meta = pod["metadata"]
        if "deletionTimestamp" in meta:
            await self._delete(meta["name"])
        elif _is_ready(pod) is not self._ready:
            status = handler_pod_status(self._host.now(), ready=self._ready)
            for condition in status["conditions"]:
                condition.setdefault("reason", None)  # a merge keeps what is not named
            await kubelet.request(
                "PATCH",
                f"{_PODS}/{meta['name']}/status",
                {"metadata": {"uid": meta["uid"]}, "status": status},
                content_type=STRATEGIC_PATCH,
            )

    async def _delete(self, name: str) -> None:
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}
        await self._host.kubelet.request("DELETE", f"{_PODS}/{name}", body)

    async def replace(self, away_s: float) -> None:
        """Replace pod and process, as a rollout does; the new one starts after ``away_s``.

        Cancelled, the new one starts at once: a rollout that stops leaves no host without.
        """
        self._away = True
        pod = self._pod
        try:
            await self._host.handler.end_in_order()
            self.fails(after_s=0.0)
            if pod is not None:
                # Gone already; or the host is cut off, and the API keeps the old one.
                with contextlib.suppress(RefusedError, TransportError):
                    await self._delete(pod["metadata"]["name"])
            await self._host.kubelet.sleep(away_s)
        finally:
            self._away = False
            self._wake.set()
            if self._host.kubelet.running:  # else the next boot starts it
                self._host.start_handler()

    @property
    def ready(self) -> bool:
        """Whether the API shows the pod that should be there, ready."""
        return not self._away and self._pod is not None and _is_ready(self._pod)


def _is_ready(pod: Obj) -> bool:
    return any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in (pod.get("status") or {}).get("conditions") or ()
    )
