"""Kubernetes Events: what components say of an object, once, with a count of its repeats.

Narrowed at once: a cluster in trouble has tens of thousands of them.
"""

from __future__ import annotations

from typing import Final

import msgspec

from remediator.kube.metadata import KubeObject, KubeStruct, share_fields

_TEXT_LIMIT: Final = 200


class ObjectReference(KubeStruct, frozen=True):
    """What an Event is about."""

    kind: str = ""
    namespace: str = ""
    name: str = ""
    field_path: str | None = None  # "spec.containers{compute}"

    def __post_init__(self) -> None:
        share_fields(self, "kind", "namespace", "field_path")


class EventSeries(KubeStruct, frozen=True):
    """Repeats, as components with the newer API (events.k8s.io) count them."""

    count: int = 0


class ClusterEvent(KubeObject, frozen=True):
    """An Event of the core API, by whichever API it was written."""

    involved_object: ObjectReference = msgspec.field(default_factory=ObjectReference)
    reason: str | None = None
    message: str | None = None
    count: int | None = None
    series: EventSeries | None = None

    def __post_init__(self) -> None:
        share_fields(self, "reason")
        text = " ".join((self.message or "").split())[:_TEXT_LIMIT]
        msgspec.structs.force_setattr(self, "message", text)

    @property
    def said(self) -> str:
        """What it says, on one line."""
        return self.message or ""

    @property
    def times(self) -> int:
        """How often it has happened."""
        return max(self.count or 0, self.series.count if self.series is not None else 0, 1)


def is_of_launcher(event: ClusterEvent) -> bool:
    """Say whether it is about a launcher pod, by the name that virt-controller gives them."""
    return event.involved_object.name.startswith("virt-launcher-")


def is_of_guest(event: ClusterEvent) -> bool:
    """Say whether it tells of something in the guest: a panic, a watchdog."""
    reason = (event.reason or "").lower()
    return "panic" in reason or "watchdog" in reason
