"""FenceConfig, our own custom resource, as the API server has it."""

from __future__ import annotations

from typing import Any

import msgspec

from remediator.kube.custom_watch import CustomResource
from remediator.kube.metadata import Condition, KubeObject, KubeStruct, ObjectMeta

GROUP = "remediator.io"
VERSION = "v1alpha1"
PLURAL = "fenceconfigs"


class FenceConfigMeta(ObjectMeta, frozen=True):
    """Metadata with the generation, which the status speaks of."""

    generation: int = 0


class StatusCondition(Condition, frozen=True):
    """``metav1.Condition``, whole, as we write it ourselves."""

    message: str = ""
    last_transition_time: str = ""
    observed_generation: int = 0


class FenceConfigStatus(KubeStruct, frozen=True):
    """``status``; written by the leader alone."""

    conditions: tuple[StatusCondition, ...] | None = None
    observed_generation: int = 0


class FenceConfigObject(KubeObject, frozen=True):
    """One object. ``spec`` is kept as it is written: our own reader says what is wrong with it."""

    metadata: FenceConfigMeta = msgspec.field(default_factory=FenceConfigMeta)
    spec: dict[str, Any] | None = None
    status: FenceConfigStatus | None = None

    @property
    def generation(self) -> int:
        """Which writing of the spec this is."""
        return self.metadata.generation

    @property
    def conditions(self) -> tuple[StatusCondition, ...]:
        """What was written into the status before."""
        return (self.status.conditions or ()) if self.status is not None else ()


FENCE_CONFIGS = CustomResource(
    group=GROUP, plural=PLURAL, item=FenceConfigObject, namespaced=False, known=(VERSION,)
)


def status_path(name: str) -> str:
    """Return the path of an object's status."""
    return f"/apis/{GROUP}/{VERSION}/{PLURAL}/{name}/status"
