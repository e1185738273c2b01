"""The CSI external-attacher, emulated: carries VolumeAttachments out on the emulated storage."""

from __future__ import annotations

import asyncio
import random

from remediator.kube.transport import Transport, TransportError
from remediator.sim.controllers.settings import ControlPlaneSettings
from remediator.sim.hosts.volumes import ATTACHMENTS_PATH
from remediator.sim.hosts.watch import SharedWatch
from remediator.sim.hosts.wire import JSON, MERGE_PATCH, Obj, RefusedError, decode_obj, encode

_TIMEOUT_S = 10.0
_RETRY_S = 0.5


class ExternalAttacher:
    """Publishes and unpublishes volumes; each call takes ``attach_s`` or ``detach_s``."""

    def __init__(self, transport: Transport, *, seed: int, settings: ControlPlaneSettings) -> None:
        self._transport = transport
        self._settings = settings
        self._rng = random.Random(f"attacher/{seed}")
        self._watch = SharedWatch(
            transport, ATTACHMENTS_PATH, seen=self._seen, gone=self._gone, rng=self._rng
        )
        self._group: asyncio.TaskGroup | None = None
        self._busy: set[str] = set()

    async def run(self) -> None:
        """Serve for ever."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            await self._watch.run()

    def _gone(self, attachment: Obj, missed: bool) -> None:  # noqa: ARG002, FBT001 - a callback
        self._busy.discard(attachment["metadata"]["uid"])

    def _seen(self, attachment: Obj) -> None:
        uid = attachment["metadata"]["uid"]
        deleting = "deletionTimestamp" in attachment["metadata"]
        attached = (attachment.get("status") or {}).get("attached", False)
        if uid not in self._busy and (deleting or not attached):
            assert self._group is not None
            self._busy.add(uid)
            self._group.create_task(self._serve(attachment["metadata"]["name"], uid))

    async def _serve(self, name: str, uid: str) -> None:
        path = f"{ATTACHMENTS_PATH}/{name}"
        try:
            while True:
                try:
                    if await self._step(path, uid):
                        return
                except (RefusedError, TransportError, TimeoutError):
                    await asyncio.sleep(_RETRY_S)  # conflict, or no answer: look again
        finally:
            self._busy.discard(uid)

    async def _step(self, path: str, uid: str) -> bool:
        """Bring one attachment a step on; True when nothing is left to do."""
        try:
            attachment = await self._ask("GET", path)
        except RefusedError as error:
            if error.status == 404:
                return True
            raise
        meta = attachment["metadata"]
        if meta["uid"] != uid:
            return True
        finalizer = f"external-attacher/{attachment['spec']['attacher']}".replace(".", "-")
        held = meta.get("finalizers") or []
        if "deletionTimestamp" in meta:
            if finalizer not in held:
                return True
            await asyncio.sleep(self._rng.uniform(*self._settings.detach_s))
            attachment = await self._ask("GET", path)
            left = [
                one for one in attachment["metadata"].get("finalizers") or [] if one != finalizer
            ]
            attachment["metadata"]["finalizers"] = left
            await self._ask("PUT", path, attachment)
            return True
        if finalizer not in held:
            meta["finalizers"] = [*held, finalizer]
            await self._ask("PUT", path, attachment)
            return False
        if (attachment.get("status") or {}).get("attached"):
            return True
        await asyncio.sleep(self._rng.uniform(*self._settings.attach_s))
        await self._ask("PATCH", f"{path}/status", {"status": {"attached": True}})
        return False  # it may have been deleted meanwhile

    async def _ask(self, method: str, path: str, body: Obj | None = None) -> Obj:
        kind = MERGE_PATCH if method == "PATCH" else JSON
        response = await self._transport.request(
            method,
            path,
            body=None if body is None else encode(body),
            content_type=None if body is None else kind,
            timeout_s=_TIMEOUT_S,
        )
        if response.status >= 400:
            raise RefusedError(method, path, response)
        return decode_obj(response.body)
