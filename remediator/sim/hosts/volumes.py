"""What the kubelets of a fleet know about claims and their volumes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from remediator.sim.hosts.wire import Obj, decode_obj

CLAIMS_PATH = "/api/v1/persistentvolumeclaims"
VOLUMES_PATH = "/api/v1/persistentvolumes"
ATTACHMENTS_PATH = "/apis/storage.k8s.io/v1/volumeattachments"

Get = Callable[[str], Awaitable[bytes]]
"""Fetches one path; raises as ``HostProcess.request`` does."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A bound claim's volume.

    ``name``: the PersistentVolume's. ``unique_name``: as kubelets list it in volumesInUse; empty
    for volumes that are not attached (no CSI). ``shared``: a virtual machine on it can migrate.
    """

    name: str
    unique_name: str
    shared: bool


class _Items(msgspec.Struct):
    items: list[Obj]


class VolumeIndex:
    """Remembers bound claims: a binding never changes while the claim exists."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Volume] = {}

    async def load(self, get: Get) -> None:
        """Read all claims and volumes at once, instead of one by one."""
        decode = msgspec.json.Decoder(_Items).decode
        volumes = {v["metadata"]["name"]: v for v in decode(await get(VOLUMES_PATH)).items}
        for claim in decode(await get(CLAIMS_PATH)).items:
            volume = volumes.get(claim["spec"].get("volumeName", ""))
            if volume is not None:
                self._remember(claim, volume)

    def known(self, namespace: str, claim: str) -> Volume | None:
        """Return the claim's volume when it was read before."""
        return self._known.get((namespace, claim))

    async def find(self, namespace: str, claim: str, get: Get) -> Volume | None:
        """Return the claim's volume; None while the claim is not bound."""
        found = self._known.get((namespace, claim))
        if found is not None:
            return found
        path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim}"
        read = decode_obj(await get(path))
        name = read["spec"].get("volumeName")
        if not name:
            return None
        return self._remember(read, decode_obj(await get(f"{VOLUMES_PATH}/{name}")))

    def _remember(self, claim: Obj, volume: Obj) -> Volume:
        meta, spec = claim["metadata"], volume["spec"]
        csi = spec.get("csi")
        found = Volume(
            name=volume["metadata"]["name"],
            # k8s GetUniqueVolumeName of the CSI plugin.
            unique_name=f"kubernetes.io/csi/{csi['driver']}^{csi['volumeHandle']}" if csi else "",
            shared="ReadWriteMany" in (spec.get("accessModes") or ()),
        )
        self._known[(meta["namespace"], meta["name"])] = found
        return found


def claims_of(pod: Obj) -> list[str]:
    """Return the claims that a pod mounts."""
    return [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["spec"].get("volumes") or ()
        if "persistentVolumeClaim" in volume
    ]
