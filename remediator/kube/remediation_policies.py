"""RemediationPolicy, our own custom resource, as the API server has it."""

from __future__ import annotations

from typing import Any

import msgspec

from remediator.kube.custom_watch import CustomResource
from remediator.kube.fence_configs import FenceConfigMeta, StatusCondition
from remediator.kube.metadata import KubeObject, KubeStruct

GROUP = "remediator.io"
VERSION = "v1alpha1"
PLURAL = "remediationpolicies"


class PolicyStatus(KubeStruct, frozen=True):
    """``status``; written by the leader alone."""

    conditions: tuple[StatusCondition, ...] | None = None
    observed_generation: int = 0
    last_matched_time: str = ""


class PolicyObject(KubeObject, frozen=True):
    """One object. ``spec`` is kept as it is written: our own reader says what is wrong with it."""

    metadata: FenceConfigMeta = msgspec.field(default_factory=FenceConfigMeta)
    spec: dict[str, Any] | None = None
    status: PolicyStatus | None = None

    @property
    def generation(self) -> int:
        """Which writing of the spec this is."""
        return self.metadata.generation

    @property
    def conditions(self) -> tuple[StatusCondition, ...]:
        """What was written into the status before."""
        return (self.status.conditions or ()) if self.status is not None else ()


POLICIES = CustomResource(
    group=GROUP, plural=PLURAL, item=PolicyObject, namespaced=False, known=(VERSION,)
)


def status_path(name: str) -> str:
    """Return the path of an object's status."""
    return f"/apis/{GROUP}/{VERSION}/{PLURAL}/{name}/status"
