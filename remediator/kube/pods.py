"""Pods; of interest are those of virt-launcher, in which a virtual machine runs."""

from __future__ import annotations

from remediator.kube.metadata import (
    KubeObject,
    KubeStruct,
    is_kubevirt_label,
    keep_labels,
    share_fields,
)


class PodSpec(KubeStruct, frozen=True):
    """``spec``, narrowed."""

    node_name: str | None = None

    def __post_init__(self) -> None:
        share_fields(self, "node_name")


class PodStatus(KubeStruct, frozen=True):
    """``status``, narrowed."""

    phase: str | None = None

    def __post_init__(self) -> None:
        share_fields(self, "phase")


class Pod(KubeObject, frozen=True):
    """A pod; the properties about VMIs make sense for virt-launcher pods only."""

    spec: PodSpec | None = None
    status: PodStatus | None = None

    def __post_init__(self) -> None:
        # A launcher carries every label of its VMI; the VMI and its VM have them too.
        if self.labels.get("kubevirt.io") == "virt-launcher":
            keep_labels(self.metadata, is_kubevirt_label)

    @property
    def node_name(self) -> str:
        """The node it is bound to."""
        return (self.spec.node_name if self.spec else None) or ""

    @property
    def phase(self) -> str:
        """Pending, Running, Succeeded, Failed or Unknown."""
        return (self.status.phase if self.status else None) or ""

    @property
    def vmi_name(self) -> str:
        """Its VMI. The owner reference is exact; labels may be cut off at 63 characters."""
        owner = self.owner("VirtualMachineInstance")
        if owner is not None:
            return owner.name
        return self.annotations.get("kubevirt.io/domain") or self.labels.get(
            "vm.kubevirt.io/name", ""
        )

    @property
    def vmi_uid(self) -> str:
        """UID of its VMI, from the label that virt-controller finds its pods by."""
        return self.labels.get("kubevirt.io/created-by", "")

    @property
    def migration_target(self) -> bool:
        """It was made to receive a live migration."""
        return "kubevirt.io/migrationJobUID" in self.labels
