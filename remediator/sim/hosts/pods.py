"""The life of one pod on its node: mount, start, run, end, report."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from remediator.kube.transport import TransportError
from remediator.sim.hosts.launcher import Launcher, is_launcher
from remediator.sim.hosts.pod_status import ended_status, running_status, waiting_status
from remediator.sim.hosts.probing import Probing
from remediator.sim.hosts.volumes import Volume, claims_of
from remediator.sim.hosts.wire import STRATEGIC_PATCH, Obj, RefusedError, decode_obj
from remediator.sim.timestamps import rfc3339

if TYPE_CHECKING:
    from remediator.sim.hosts.domain import Domain
    from remediator.sim.hosts.kubelet import Kubelet

_PLAIN_EXIT_S = 0.5  # a container that is no launcher ends so long after its SIGTERM
_IMAGE_RETRY_S = 5.0
_UNBOUND_CLAIM_S = 1.0  # before a claim that is not bound yet is read again


class PodWorker:
    """Does the kubelet's work for one pod; one task at a time."""

    def __init__(self, kubelet: Kubelet, pod: Obj) -> None:
        meta = pod["metadata"]
        self.pod = pod
        self.uid: str = meta["uid"]
        self.launcher: Launcher | None = None
        self._kubelet = kubelet
        self._path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        self._volumes: list[Volume] = []
        self._task: asyncio.Task[None] | None = None
        self._up = False
        self._ending = False
        self._vanished = False
        self._done = False
        self._kill_at: float | None = None
        self._deadline: asyncio.Timeout | None = None
        self._started_at = ""
        self._end_reason = ""
        self._ready = True
        self._was_unready = False
        self._probing = Probing(self, kubelet.host.pod_ip(self.uid))

    # What the kubelet asks for.

    def begin(self) -> None:
        """Start it: a new pod."""
        self._task = self._kubelet.spawn(self._start())

    def adopt(self) -> None:
        """Take it as running: it was running before this simulation began."""
        host = self._kubelet.host
        for claim in claims_of(self.pod):
            volume = host.fleet.volumes.known(self.pod["metadata"]["namespace"], claim)
            if volume is not None:
                self._use(volume)
        self._containers_up()
        if self.launcher is not None:
            host.handler.adopt(self.launcher)

    def lost(self) -> None:
        """Report it Failed: it ran before the host went down, its containers are gone."""
        self._ending = True
        self._end_reason = "NodeRebooted"
        self._task = self._kubelet.spawn(self._finish("Failed"))

    def confirm_deletion(self) -> None:
        """Remove the object of a pod that had ended before it was deleted."""
        self._ending = True
        self._task = self._kubelet.spawn(self._delete())

    def refresh(self, pod: Obj) -> None:
        """Keep the newest object, and correct a status that somebody else changed."""
        self.pod = pod
        idle = self._task is None or self._task.done()
        wrong = self._ready and _called_not_ready(pod)
        if self._up and not self._ending and idle and wrong:
            self._task = self._kubelet.spawn(self._report_running())

    def end(self, grace_s: float) -> None:
        """Stop it gracefully; of several calls the earliest deadline counts."""
        if self._done:
            return
        kill_at = asyncio.get_running_loop().time() + grace_s
        if self._kill_at is not None and self._kill_at <= kill_at:
            return
        self._kill_at = kill_at
        if not self._ending:
            self._ending = True
            self._replace_task(self._terminate())
        elif self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(kill_at)

    def vanished(self, grace_s: float) -> None:
        """Stop it: its object is gone, nothing is left to report to."""
        self._vanished = True
        if self._done:
            self._kubelet.forget(self.uid)
        else:
            self.end(grace_s)

    def container_exited(self) -> None:
        """Notice that its main process ended."""
        if self._kubelet.running and self._up and not self._ending:
            self._ending = True
            self._replace_task(self._after_exit())

    # What its probes ask for.

    def probe(self, domain: Domain) -> None:
        """Look at the probes of the guest in it."""
        if self._up and not self._ending:
            self._probing.look(domain)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Let the kubelet do something for this pod."""
        self._kubelet.spawn(work)

    async def sleep(self, seconds: float) -> None:
        """Sleep, and longer while the kubelet hangs."""
        await self._kubelet.sleep(seconds)

    def tell(self, reason: str, message: str) -> None:
        """Record a Warning about the pod's compute container."""
        self._kubelet.events.record(self.pod, "Pod", reason, message)

    async def set_ready(self, *, ready: bool) -> None:
        """Report what its readiness probe says."""
        self._ready = ready
        self._was_unready = True
        if not self._ending:
            await self._report_running()

    def fail_liveness(self) -> None:
        """Kill the container, whose liveness probe has failed too often."""
        if self.launcher is not None and not self._ending:
            self.launcher.kill("liveness probe failed")

    def _replace_task(self, work: Coroutine[Any, Any, None]) -> None:
        if self._task is not None:
            self._task.cancel()
        self._task = self._kubelet.spawn(work)

    # Start.

    async def _start(self) -> None:
        for claim in claims_of(self.pod):
            volume = await self._bound(claim)
            self._use(volume)
            if volume.unique_name:
                await self._kubelet.host.attached(volume.name)
        await self._pull_images()
        await self._kubelet.sleep(
            self._kubelet.rng.uniform(*self._kubelet.host.settings.pod_start_s)
        )
        self._containers_up()
        await self._report_running()

    async def _pull_images(self) -> None:
        """Wait until all images of the pod are there."""
        troubles = self._kubelet.host.fleet.troubles
        meta = self.pod["metadata"]
        vm = f"{meta['namespace']}/{(meta.get('labels') or {}).get('vm.kubevirt.io/name', '')}"
        if vm in troubles.no_image:
            await self._report(waiting_status(self.pod, "ImagePullBackOff"))
        while vm in troubles.no_image:
            await self._kubelet.sleep(_IMAGE_RETRY_S)

    async def _bound(self, claim: str) -> Volume:
        """Return the claim's volume, once it is bound."""
        kubelet = self._kubelet
        namespace = self.pod["metadata"]["namespace"]
        while True:
            try:
                volume = await kubelet.host.fleet.volumes.find(namespace, claim, kubelet.get)
                if volume is not None:
                    return volume
            except (TransportError, RefusedError):
                pass  # it is read again below, as often as it takes
            await kubelet.sleep(_UNBOUND_CLAIM_S)

    def _use(self, volume: Volume) -> None:
        self._volumes.append(volume)
        if volume.unique_name:
            self._kubelet.volume_used(volume.unique_name)

    def _containers_up(self) -> None:
        self._up = True
        self._started_at = rfc3339(self._kubelet.host.now())
        if is_launcher(self.pod):
            handler = self._kubelet.host.handler
            self.launcher = Launcher(
                self.pod, exited=self.container_exited, terminating=handler.launcher_terminating
            )
            self._kubelet.host.launchers[self.launcher.vmi_uid] = self.launcher

    async def _report_running(self) -> None:
        host = self._kubelet.host
        status = running_status(
            self.pod,
            now=host.now(),
            started_at=self._started_at,
            host_ip=host.spec.address,
            pod_ip=host.pod_ip(self.uid),
            ready=self._ready,
            was_unready=self._was_unready,
        )
        await self._report(status)
        if self.launcher is not None:
            self._kubelet.host.handler.launcher_up(self.launcher)

    # End.

    async def _terminate(self) -> None:
        launcher = self.launcher
        if launcher is not None:
            launcher.terminate()
            try:
                async with asyncio.timeout_at(self._kill_at) as self._deadline:
                    await launcher.exited.wait()
            except TimeoutError:
                await self._kubelet.gate.passed()
                launcher.kill("killed by the kubelet")
            self._deadline = None
        elif self._up:
            loop = asyncio.get_running_loop()
            left_s = _PLAIN_EXIT_S if self._kill_at is None else self._kill_at - loop.time()
            await self._kubelet.sleep(max(0.0, min(_PLAIN_EXIT_S, left_s)))
        await self._after_exit()

    async def _after_exit(self) -> None:
        await self._kubelet.sleep(self._kubelet.host.settings.container_exit_s)
        well = self.launcher is None or self.launcher.ended_well
        await self._finish("Succeeded" if well else "Failed")

    async def _finish(self, phase: str) -> None:
        """Unmount, report the end, and remove the object when its deletion waits for that."""
        if self.launcher is not None:
            self._kubelet.host.launcher_gone(self.launcher)
        for volume in self._volumes:
            if volume.unique_name:
                self._kubelet.volume_released(volume.unique_name)
        self._volumes = []
        if not self._vanished:
            status = ended_status(self.pod, phase, self._end_reason, self._kubelet.host.now())
            last = await self._report(status)
            if last is not None and "deletionTimestamp" in last["metadata"]:
                await self._delete()
        self._done = True
        if self._vanished:
            self._kubelet.forget(self.uid)

    # Talking to the API server.

    async def _report(self, status: Obj) -> Obj | None:
        """Write the status until it is taken; None when the pod no longer exists."""
        patch = {"metadata": {"uid": self.uid}, "status": status}
        while True:
            try:
                body = await self._kubelet.request(
                    "PATCH", f"{self._path}/status", patch, content_type=STRATEGIC_PATCH
                )
            except RefusedError as error:
                if error.status in (404, 409):  # gone, or its name belongs to another pod
                    return None
                if not error.transient:
                    raise
            except TransportError:
                pass  # written again below: a kubelet's status writes are never given up
            else:
                return decode_obj(body)
            await self._pause()

    async def _delete(self) -> None:
        """Remove the object for good, once its containers are gone."""
        body = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "gracePeriodSeconds": 0,
            "preconditions": {"uid": self.uid},
        }
        while True:
            try:
                await self._kubelet.request("DELETE", self._path, body)
            except RefusedError as error:
                if not error.transient:
                    break  # gone already (404), or another pod's name (409)
            except TransportError:
                pass  # asked again below
            else:
                break
            await self._pause()
        self._done = True

    async def _pause(self) -> None:
        await self._kubelet.sleep(self._kubelet.rng.uniform(*self._kubelet.host.settings.retry_s))


def _called_not_ready(pod: Obj) -> bool:
    """Tell whether somebody (the node lifecycle controller) says a running pod is not ready."""
    status = pod.get("status") or {}
    return status.get("phase") == "Running" and any(
        condition["type"] == "Ready" and condition["status"] == "False"
        for condition in status.get("conditions") or ()
    )
