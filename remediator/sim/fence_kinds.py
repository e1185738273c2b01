"""The custom kinds that fence methods work through, as a simulated API server serves them.

Groups, versions and scopes are those of the real CustomResourceDefinitions.
"""

from __future__ import annotations

from typing import Final

from remediator.sim.apiserver import ApiServer
from remediator.sim.custom_kinds import CustomKinds
from remediator.sim.resources import ResourceType


def _custom(group: str, version: str, plural: str, kind: str, *, namespaced: bool) -> ResourceType:
    return ResourceType(group, version, plural, kind, namespaced, status_subresource=True)


_SNR_GROUP: Final = "self-node-remediation.medik8s.io"
SNR: Final = _custom(
    _SNR_GROUP, "v1alpha1", "selfnoderemediations", "SelfNodeRemediation", namespaced=True
)
SNR_TEMPLATE: Final = _custom(
    _SNR_GROUP,
    "v1alpha1",
    "selfnoderemediationtemplates",
    "SelfNodeRemediationTemplate",
    namespaced=True,
)
METAL3_HOST: Final = _custom(
    "metal3.io", "v1alpha1", "baremetalhosts", "BareMetalHost", namespaced=True
)
OPENSHIFT_MACHINE: Final = _custom(
    "machine.openshift.io", "v1beta1", "machines", "Machine", namespaced=True
)
NETWORK_FENCE: Final = _custom(
    "csiaddons.openshift.io", "v1alpha1", "networkfences", "NetworkFence", namespaced=False
)
FENCE_KINDS: Final = (SNR, SNR_TEMPLATE, METAL3_HOST, OPENSHIFT_MACHINE, NETWORK_FENCE)


def install(server: ApiServer) -> None:
    """Serve all of them."""
    kinds = CustomKinds(server)
    for kind in FENCE_KINDS:
        kinds.install(kind)
