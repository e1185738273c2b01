"""What a PersistentVolume allows, and how attachments of it are named."""

from __future__ import annotations

import hashlib

from remediator.sim.controllers.metadata import Obj

_SHARED_MODES = frozenset({"ReadWriteMany", "ReadOnlyMany"})


def csi_driver(volume: Obj) -> str:
    """Return the CSI driver of a PersistentVolume; empty when it is not a CSI volume."""
    csi: Obj = volume["spec"].get("csi") or {}
    driver: str = csi.get("driver", "")
    return driver


def unique_volume_name(volume: Obj) -> str:
    """Return the name under which kubelets list a volume in ``status.volumesInUse``."""
    csi: Obj = volume["spec"].get("csi") or {}
    return f"kubernetes.io/csi/{csi.get('driver', '')}^{csi.get('volumeHandle', '')}"


def is_shared(volume: Obj) -> bool:
    """Return True when the volume may be attached to several nodes at once.

    k8s IsMultiAttachAllowed: any of RWX, ROX among the access modes, or none stated.
    """
    modes = volume["spec"].get("accessModes") or ()
    return not modes or any(mode in _SHARED_MODES for mode in modes)


def attachment_name(volume: Obj, node: str) -> str:
    """Return the name of the VolumeAttachment of this volume and node (k8s csi_attacher)."""
    csi: Obj = volume["spec"].get("csi") or {}
    text = f"{csi.get('volumeHandle', '')}{csi.get('driver', '')}{node}"
    return f"csi-{hashlib.sha256(text.encode()).hexdigest()}"
