"""KubeVirt's snapshots of virtual machines."""

from __future__ import annotations

from remediator.kube.metadata import KubeObject, KubeStruct
from remediator.kube.resources import Resource


class SnapshotSource(KubeStruct, frozen=True):
    """``spec.source``: the VM that is kept."""

    kind: str = ""
    name: str = ""


class SnapshotSpec(KubeStruct, frozen=True):
    """``spec``, narrowed."""

    source: SnapshotSource | None = None


class SnapshotError(KubeStruct, frozen=True):
    """``status.error``: the last thing that went wrong."""

    message: str | None = None


class SnapshotStatus(KubeStruct, frozen=True):
    """``status``, narrowed."""

    phase: str | None = None
    ready_to_use: bool | None = None
    error: SnapshotError | None = None


class VirtualMachineSnapshot(KubeObject, frozen=True):
    """A VirtualMachineSnapshot (snapshot.kubevirt.io)."""

    spec: SnapshotSpec | None = None
    status: SnapshotStatus | None = None

    @property
    def source(self) -> str:
        """Name of the VM that is kept; "" where it is of anything else."""
        source = self.spec.source if self.spec is not None else None
        return source.name if source is not None and source.kind == "VirtualMachine" else ""

    @property
    def phase(self) -> str:
        """InProgress, Succeeded, Failed, Unknown; "" when just made."""
        return (self.status.phase if self.status is not None else None) or ""

    @property
    def ready(self) -> bool:
        """All of it is there, and a VM can be restored from it."""
        return bool(self.status is not None and self.status.ready_to_use)

    @property
    def error(self) -> str:
        """What went wrong last, "" where nothing did."""
        error = self.status.error if self.status is not None else None
        return (error.message if error is not None else None) or ""


SNAPSHOTS = Resource(
    api="/apis/snapshot.kubevirt.io/v1beta1",
    plural="virtualmachinesnapshots",
    item=VirtualMachineSnapshot,
    namespaced=True,
)
