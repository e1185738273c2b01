"""Metadata of Kubernetes objects, kept small, and the API's times.

50,000 VMIs, their VMs, pods and claims stay in memory. Most of what an object's metadata holds is
noise to us (managedFields, applied configurations), and much of the rest repeats. So unknown
fields are skipped while decoding, annotations of no interest dropped, repeated strings interned.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

# Text at least this long is mostly unique (a UID has 36 characters): interning it would cost a
# table entry for each and share nothing.
_UNIQUE_LENGTH = 32

# Annotations that somebody decides by. Domains, so that a new key of a known owner is not lost.
_ANNOTATION_DOMAINS = (
    "kubevirt.io",  # heartbeat, domain, pause-guest-agent-probes, migration timeouts
    "machine.openshift.io",  # the node's Machine
    "cluster.x-k8s.io",  # the node's Machine, Cluster API
    "metal3.io",
    "harvesterhci.io",
)
# Of the machine config operator's many only these: an update of the node is under way while they
# differ.
CURRENT_CONFIG = "machineconfiguration.openshift.io/currentConfig"
DESIRED_CONFIG = "machineconfiguration.openshift.io/desiredConfig"
_ANNOTATION_KEYS = frozenset({CURRENT_CONFIG, DESIRED_CONFIG})


class KubeStruct(msgspec.Struct, frozen=True, kw_only=True, gc=False, rename="camel"):
    """Base of everything decoded from the API: unknown fields are ignored, null means absent."""


def parse_time(text: str | None) -> float | None:
    """Return epoch seconds of an RFC 3339 time (Time or MicroTime); None when absent or malformed.

    A time without an offset is malformed: guessing a zone would move it by hours.
    """
    if not text:
        return None
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if parsed.tzinfo is None else parsed.timestamp()


def format_time(at: float) -> str:
    """Write epoch seconds as ``metav1.Time``: UTC, whole seconds, whatever TZ says."""
    return datetime.fromtimestamp(int(at), tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_micro_time(at: float) -> str:
    """Write epoch seconds as ``metav1.MicroTime``: UTC, six digits, whatever TZ says."""
    return datetime.fromtimestamp(at, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def shared(text: str) -> str:
    """Return the one shared copy of a text that is likely to repeat."""
    return sys.intern(text) if len(text) < _UNIQUE_LENGTH else text


def share_fields(struct: msgspec.Struct, *names: str) -> None:
    """Replace text fields of a frozen Struct with their shared copies; only for __post_init__."""
    for name in names:
        value = getattr(struct, name)
        if value:
            msgspec.structs.force_setattr(struct, name, shared(value))


@functools.lru_cache(maxsize=4096)
def is_kept_annotation(key: str) -> bool:
    """Say whether an annotation is kept: a known domain, or anybody's remediation."""
    domain = key.partition("/")[0]
    return (
        "remediat" in key
        or key in _ANNOTATION_KEYS
        or any(domain == known or domain.endswith(f".{known}") for known in _ANNOTATION_DOMAINS)
    )


@functools.lru_cache(maxsize=4096)
def is_kubevirt_label(key: str) -> bool:
    """Say whether KubeVirt itself owns this label."""
    domain = key.partition("/")[0]
    return domain == "kubevirt.io" or domain.endswith(".kubevirt.io")


class OwnerReference(KubeStruct, frozen=True):
    """Who owns an object."""

    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None

    def __post_init__(self) -> None:
        share_fields(self, "kind")


class ObjectMeta(KubeStruct, frozen=True):
    """``metav1.ObjectMeta``, narrowed. Read labels and annotations through the object instead."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: tuple[OwnerReference, ...] | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None

    def __post_init__(self) -> None:
        share_fields(self, "namespace")
        if self.labels:
            kept = {shared(key): shared(value) for key, value in self.labels.items()}
            msgspec.structs.force_setattr(self, "labels", kept)
        if self.annotations:
            noted = {
                shared(key): value
                for key, value in self.annotations.items()
                if is_kept_annotation(key)
            }
            msgspec.structs.force_setattr(self, "annotations", noted or None)


class KubeObject(KubeStruct, frozen=True):
    """Any object: its metadata, with plain answers for what may be absent."""

    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)

    @property
    def name(self) -> str:
        """The object's name."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """The object's namespace, "" for cluster-scoped kinds."""
        return self.metadata.namespace

    @property
    def uid(self) -> str:
        """The identity: an object made again under the same name has another."""
        return self.metadata.uid

    @property
    def resource_version(self) -> str:
        """The version, for preconditions."""
        return self.metadata.resource_version

    @property
    def labels(self) -> dict[str, str]:
        """Labels; do not change them."""
        return self.metadata.labels or {}

    @property
    def annotations(self) -> dict[str, str]:
        """Annotations that are kept (see ``is_kept_annotation``); do not change them."""
        return self.metadata.annotations or {}

    @property
    def deleting(self) -> bool:
        """Somebody asked for its deletion; it waits for a grace period or for finalizers."""
        return self.metadata.deletion_timestamp is not None

    @property
    def deletion_grace_s(self) -> float:
        """How long its deletion waits for an orderly end; 0.0 where nobody asked for one."""
        return float(self.metadata.deletion_grace_period_seconds or 0)

    def owner(self, kind: str) -> OwnerReference | None:
        """Return the owner of this kind, the controlling one first; None when there is none."""
        owners = [ref for ref in self.metadata.owner_references or () if ref.kind == kind]
        return next((ref for ref in owners if ref.controller), owners[0] if owners else None)


def keep_labels(meta: ObjectMeta, keep: Callable[[str], bool]) -> None:
    """Drop the labels that ``keep`` refuses; only for __post_init__ of an object just decoded."""
    if meta.labels:
        kept = {key: value for key, value in meta.labels.items() if keep(key)}
        msgspec.structs.force_setattr(meta, "labels", kept or None)


class Condition(KubeStruct, frozen=True):
    """One status condition: ``status`` is "True", "False" or "Unknown"."""

    type: str = ""
    status: str = ""
    reason: str | None = None

    def __post_init__(self) -> None:
        share_fields(self, "type", "status", "reason")


AnyCondition = TypeVar("AnyCondition", bound=Condition)


def condition_of(conditions: Iterable[AnyCondition], kind: str) -> AnyCondition | None:
    """Return the condition of this type, None when there is none."""
    return next((item for item in conditions if item.type == kind), None)


def status_of(conditions: Iterable[Condition], kind: str) -> str:
    """Return the status of the condition of this type, "" when there is none."""
    return next((item.status for item in conditions if item.type == kind), "")
