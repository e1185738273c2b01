"""Claims, volumes and attachments."""

from __future__ import annotations

import msgspec

from remediator.engine.pod_rules import NodeTerm, Requirement
from remediator.kube.metadata import KubeObject, KubeStruct, share_fields, shared

REPLICA_NODES = "remediator.io/replica-nodes"  # names, separated by commas

_OTHER_SOURCES = (
    "portworx_volume",
    "nfs",
    "cephfs",
    "rbd",
    "iscsi",
    "fc",
    "local",
    "host_path",
)


class ClaimSpec(KubeStruct, frozen=True):
    """``spec``, narrowed."""

    volume_name: str | None = None
    access_modes: tuple[str, ...] | None = None
    storage_class_name: str | None = None
    volume_mode: str | None = None

    def __post_init__(self) -> None:
        share_fields(self, "storage_class_name", "volume_mode")
        _share_access_modes(self)


class ClaimStatus(KubeStruct, frozen=True):
    """``status``, narrowed."""

    phase: str | None = None

    def __post_init__(self) -> None:
        share_fields(self, "phase")


class PersistentVolumeClaim(KubeObject, frozen=True):
    """A claim on a volume."""

    spec: ClaimSpec | None = None
    status: ClaimStatus | None = None

    @property
    def volume_name(self) -> str:
        """The PersistentVolume it is bound to."""
        return (self.spec.volume_name if self.spec else None) or ""

    @property
    def access_modes(self) -> tuple[str, ...]:
        """ReadWriteOnce, ReadWriteMany, …."""
        return (self.spec.access_modes if self.spec else None) or ()

    @property
    def storage_class(self) -> str:
        """Name of the storage class."""
        return (self.spec.storage_class_name if self.spec else None) or ""

    @property
    def replica_nodes(self) -> tuple[str, ...]:
        """Where its data is, as an annotation says, for storage that tells nobody."""
        names = self.annotations.get(REPLICA_NODES, "").split(",")
        return tuple(dict.fromkeys(name.strip() for name in names if name.strip()))

    @property
    def phase(self) -> str:
        """Pending, Bound or Lost."""
        return (self.status.phase if self.status else None) or ""


class CsiSource(KubeStruct, frozen=True):
    """``spec.csi``, narrowed."""

    driver: str = ""
    volume_handle: str = ""

    def __post_init__(self) -> None:
        share_fields(self, "driver")


class NodeSelectorRequirement(KubeStruct, frozen=True):
    """One expression over node labels (or fields)."""

    key: str = ""
    operator: str = ""
    values: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        share_fields(self, "key", "operator")
        if self.values:
            values = tuple(shared(value) for value in self.values)
            msgspec.structs.force_setattr(self, "values", values)

    def made(self) -> Requirement:
        """Return it as placement reads it."""
        return Requirement(key=self.key, operator=self.operator, values=self.values or ())

    def hostnames(self) -> tuple[str, ...]:
        """Return the nodes that it names; () when it is about something else.

        Besides ``kubernetes.io/hostname``, drivers of local storage use a key of their own whose
        last part says node (topolvm: ``topology.topolvm.io/node``).
        """
        if self.operator != "In":
            return ()
        last = self.key.rpartition("/")[2].lower()
        named = last in {"hostname", "node", "nodename"} or self.key == "metadata.name"
        return (self.values or ()) if named else ()


class NodeSelectorTerm(KubeStruct, frozen=True):
    """Expressions that must all hold."""

    match_expressions: tuple[NodeSelectorRequirement, ...] | None = None
    match_fields: tuple[NodeSelectorRequirement, ...] | None = None

    def made(self) -> NodeTerm:
        """Return it as placement reads it."""
        return NodeTerm(
            labels=tuple(each.made() for each in self.match_expressions or ()),
            fields=tuple(each.made() for each in self.match_fields or ()),
        )

    def hostnames(self) -> tuple[str, ...]:
        """Return the nodes that this term allows by name; () when it names none."""
        for requirement in (*(self.match_expressions or ()), *(self.match_fields or ())):
            names = requirement.hostnames()
            if names:
                return names
        return ()


class NodeSelector(KubeStruct, frozen=True):
    """Terms of which one must hold."""

    node_selector_terms: tuple[NodeSelectorTerm, ...] | None = None


class VolumeNodeAffinity(KubeStruct, frozen=True):
    """``spec.nodeAffinity``."""

    required: NodeSelector | None = None


class OtherSource(KubeStruct, frozen=True):
    """A source that no CSI driver serves; only that it is there counts."""


class PortworxSource(KubeStruct, frozen=True):
    """``spec.portworxVolume``: Portworx as it was built into Kubernetes."""

    volume_id: str = msgspec.field(default="", name="volumeID")


class PersistentVolumeSpec(KubeStruct, frozen=True):
    """``spec``, narrowed."""

    csi: CsiSource | None = None
    access_modes: tuple[str, ...] | None = None
    storage_class_name: str | None = None
    node_affinity: VolumeNodeAffinity | None = None
    portworx_volume: PortworxSource | None = None
    nfs: OtherSource | None = None
    cephfs: OtherSource | None = None
    rbd: OtherSource | None = None
    iscsi: OtherSource | None = None
    fc: OtherSource | None = None
    local: OtherSource | None = None
    host_path: OtherSource | None = None

    def __post_init__(self) -> None:
        share_fields(self, "storage_class_name")
        _share_access_modes(self)


class PersistentVolume(KubeObject, frozen=True):
    """A volume."""

    spec: PersistentVolumeSpec | None = None

    @property
    def driver(self) -> str:
        """The CSI driver, "" for other kinds of volumes."""
        return self.spec.csi.driver if self.spec and self.spec.csi else ""

    @property
    def volume_handle(self) -> str:
        """The driver's own name of the volume."""
        if self.spec is not None and self.spec.portworx_volume is not None:
            return self.spec.portworx_volume.volume_id
        return self.spec.csi.volume_handle if self.spec and self.spec.csi else ""

    @property
    def source(self) -> str:
        """Which source it has where no CSI driver serves it: nfs, local, …; else ""."""
        if self.spec is None:
            return ""
        named = (name for name in _OTHER_SOURCES if getattr(self.spec, name) is not None)
        return next(named, "")

    @property
    def node_terms(self) -> tuple[NodeTerm, ...] | None:
        """Its required node affinity, of which one term must hold; None where it has none."""
        affinity = self.spec.node_affinity if self.spec else None
        if affinity is None or affinity.required is None:
            return None
        return tuple(term.made() for term in affinity.required.node_selector_terms or ())

    @property
    def access_modes(self) -> tuple[str, ...]:
        """ReadWriteOnce, ReadWriteMany, …."""
        return (self.spec.access_modes if self.spec else None) or ()

    @property
    def pinned_to(self) -> tuple[str, ...]:
        """Hosts that it can be used on; () when it is not bound to hosts by name.

        Terms are alternatives: one term that names no host leaves the volume unpinned.
        """
        affinity = self.spec.node_affinity if self.spec else None
        required = affinity.required if affinity else None
        terms = (
            [term.hostnames() for term in (required.node_selector_terms or ())] if required else []
        )
        if not terms or not all(terms):
            return ()
        return tuple(sorted({name for names in terms for name in names}))


class AttachmentSource(KubeStruct, frozen=True):
    """``spec.source``, narrowed."""

    persistent_volume_name: str | None = None


class AttachmentSpec(KubeStruct, frozen=True):
    """``spec``, narrowed."""

    attacher: str = ""
    node_name: str = ""
    source: AttachmentSource | None = None

    def __post_init__(self) -> None:
        share_fields(self, "attacher", "node_name")


class AttachmentStatus(KubeStruct, frozen=True):
    """``status``, narrowed."""

    attached: bool | None = None


class VolumeAttachment(KubeObject, frozen=True):
    """The wish, and the fact, that a volume is attached to a node."""

    spec: AttachmentSpec | None = None
    status: AttachmentStatus | None = None

    @property
    def node_name(self) -> str:
        """The node."""
        return self.spec.node_name if self.spec else ""

    @property
    def volume_name(self) -> str:
        """The PersistentVolume."""
        source = self.spec.source if self.spec else None
        return (source.persistent_volume_name if source else None) or ""

    @property
    def attached(self) -> bool:
        """The driver reported that it is attached."""
        return bool(self.status and self.status.attached)


def _share_access_modes(spec: ClaimSpec | PersistentVolumeSpec) -> None:
    if spec.access_modes:
        modes = tuple(shared(mode) for mode in spec.access_modes)
        msgspec.structs.force_setattr(spec, "access_modes", modes)
