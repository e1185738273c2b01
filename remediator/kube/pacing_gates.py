"""Our scheduling gate on launcher pods: which pods wait behind it, and how it is taken off.

A gate holds nothing but the pod's own scheduling, so taking it off is always safe: what happens
then is what Kubernetes would have done without us. Gates can only be taken off, never put on an
existing pod; the webhook (``remediator.admission``) puts them on.
"""

from __future__ import annotations

from typing import Any, Final

from remediator.kube.client import KubeClient, PatchKind
from remediator.kube.metadata import KubeObject, KubeStruct
from remediator.kube.pods import PACING_GATE
from remediator.kube.resources import LAUNCHER_PODS, PODS, Resource

HOSTNAME: Final = "kubernetes.io/hostname"
PREFERRED: Final = "preferredDuringSchedulingIgnoredDuringExecution"
HINT_WEIGHT: Final = 100  # the largest that a preferred node affinity may have


class GatedSpec(KubeStruct, frozen=True):
    """``spec``, with everything that a change of gates or affinity must not lose."""

    node_name: str | None = None
    scheduling_gates: tuple[dict[str, Any], ...] | None = None
    affinity: dict[str, Any] | None = None


class GatedPod(KubeObject, frozen=True):
    """A pod as it is read before its gate is taken off."""

    spec: GatedSpec | None = None

    @property
    def gates(self) -> tuple[dict[str, Any], ...]:
        """All its scheduling gates."""
        return (self.spec.scheduling_gates if self.spec else None) or ()

    @property
    def gated(self) -> bool:
        """Ours is among them."""
        return any(gate.get("name") == PACING_GATE for gate in self.gates)

    @property
    def launcher(self) -> bool:
        """It is a launcher pod, whose gate is ours to take off."""
        return self.labels.get("kubevirt.io") == "virt-launcher"

    @property
    def vm(self) -> str:
        """``NAMESPACE/NAME`` of its VM."""
        owner = self.owner("VirtualMachineInstance")
        return f"{self.namespace}/{owner.name if owner is not None else self.name}"


# Gated pods have no node yet, and that narrows the list to what is not placed.
UNPLACED_LAUNCHERS: Final[Resource[GatedPod]] = Resource(
    api=LAUNCHER_PODS.api,
    plural=LAUNCHER_PODS.plural,
    item=GatedPod,
    namespaced=True,
    label_selector=LAUNCHER_PODS.label_selector,
    field_selector="spec.nodeName=",
)


def preference(node: str) -> dict[str, Any]:
    """Return the term of a preferred node affinity that asks for one node."""
    match = {"key": HOSTNAME, "operator": "In", "values": [node]}
    return {"weight": HINT_WEIGHT, "preference": {"matchExpressions": [match]}}


def opening(pod: GatedPod, prefer: str = "") -> dict[str, Any]:
    """Return the merge patch that takes our gate off exactly this version of the pod.

    The other gates stay. ``prefer`` names a node that the scheduler is asked to choose; what the
    pod already prefers stays too.
    """
    others = [gate for gate in pod.gates if gate.get("name") != PACING_GATE]
    spec: dict[str, Any] = {"schedulingGates": others or None}
    if prefer:
        affinity = (pod.spec.affinity if pod.spec else None) or {}
        held = (affinity.get("nodeAffinity") or {}).get(PREFERRED) or []
        terms = [*held, preference(prefer)]
        spec["affinity"] = {"nodeAffinity": {PREFERRED: terms}}
    return {
        "metadata": {"uid": pod.uid, "resourceVersion": pod.resource_version},
        "spec": spec,
    }


async def gated_pods(client: KubeClient, *, namespace: str = "") -> list[GatedPod]:
    """Return the launcher pods that wait behind our gate. Raises ApiError, TransportError."""
    found = await client.list_all(UNPLACED_LAUNCHERS, namespace=namespace)
    return [pod for pod in found if pod.gated and pod.launcher]


async def open_gate(
    client: KubeClient, pod: GatedPod, *, prefer: str = "", timeout_s: float = 5.0
) -> GatedPod:
    """Take our gate off; return the pod as it is then.

    Raises ConflictError where it has changed since it was read, NotFoundError where it is gone,
    other ApiErrors, TransportError.
    """
    return await client.patch(
        PODS.object_path(pod.name, pod.namespace),
        opening(pod, prefer),
        kind=PatchKind.MERGE,
        result=GatedPod,
        timeout_s=timeout_s,
    )
