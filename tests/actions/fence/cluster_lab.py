"""A simulated API server with the custom kinds that fence methods work through."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from remediator.actions.fence.driver import Order, Target
from remediator.actions.fence.objects import Objects
from remediator.clock import Clock
from remediator.kube.client import KubeClient
from remediator.sim.apiserver import ApiServer
from remediator.sim.custom_kinds import CustomKinds
from remediator.sim.memory_transport import MemoryTransport
from remediator.sim.resources import NAMESPACES, Registry, ResourceType
from remediator.sim.store import Store

EPOCH = 1_700_000_000.0
CRDS = Path(__file__).parents[4] / "shared" / "crds"
NAMESPACE = "openshift-machine-api"


def custom(group: str, version: str, plural: str, kind: str, *, namespaced: bool = True):
    return ResourceType(group, version, plural, kind, namespaced, status_subresource=True)


SNR = custom(
    "self-node-remediation.medik8s.io",
    "v1alpha1",
    "selfnoderemediations",
    "SelfNodeRemediation",
)
SNR_TEMPLATE = custom(
    "self-node-remediation.medik8s.io",
    "v1alpha1",
    "selfnoderemediationtemplates",
    "SelfNodeRemediationTemplate",
)
FAR = custom(
    "fence-agents-remediation.medik8s.io",
    "v1alpha1",
    "fenceagentsremediations",
    "FenceAgentsRemediation",
)
FAR_TEMPLATE = custom(
    "fence-agents-remediation.medik8s.io",
    "v1alpha1",
    "fenceagentsremediationtemplates",
    "FenceAgentsRemediationTemplate",
)
HOST = custom("metal3.io", "v1alpha1", "baremetalhosts", "BareMetalHost")
MACHINE = custom("machine.openshift.io", "v1beta1", "machines", "Machine")
NETWORK_FENCE = custom(
    "csiaddons.openshift.io", "v1alpha1", "networkfences", "NetworkFence", namespaced=False
)
CSI_NODE = custom("csiaddons.openshift.io", "v1alpha1", "csiaddonsnodes", "CSIAddonsNode")
KINDS = (
    SNR,
    SNR_TEMPLATE,
    FAR,
    FAR_TEMPLATE,
    HOST,
    MACHINE,
    NETWORK_FENCE,
    CSI_NODE,
)


class Cluster:
    """The server, its objects, and the programs that play the other side of each contract."""

    def __init__(self) -> None:
        self.clock = Clock(epoch_at_start=EPOCH)
        self.store = Store(now=self.clock.now, rng=random.Random(1))
        self.server = ApiServer(self.store, Registry())
        self.kinds = CustomKinds(self.server)
        for kind in KINDS:
            self.kinds.install(kind)
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        self.store.create(NAMESPACES, namespace)
        self.objects = Objects(
            KubeClient(MemoryTransport(self.server, client_name="daemon")), self.clock
        )
        self.tasks: list[asyncio.Task[None]] = []

    def target(self, **changes: Any) -> Target:
        known = {
            "node": "n1",
            "uid": "u1",
            "boot_id": "boot-1",
            "addresses": ("10.0.0.1",),
            "machine": f"{NAMESPACE}/n1-machine",
            "machine_group": "machine.openshift.io",
        }
        return Target(**{**known, **changes})

    def order(self, within_s: float = 60.0, look: Callable[[], Any] | None = None) -> Order:
        async def nothing() -> None:
            pass

        return Order(
            action_id="inc-1/fence/1",
            deadline_at=self.clock.now() + within_s,
            last_look=look or nothing,
        )

    def create(self, res: ResourceType, name: str, **parts: Any) -> dict[str, Any]:
        metadata = {"name": name, **parts.pop("metadata", {})}
        if res.namespaced:
            metadata["namespace"] = NAMESPACE
        status = parts.pop("status", None)
        tree = {"apiVersion": res.api_version, "kind": res.kind, "metadata": metadata, **parts}
        made = self.store.create(res, tree)
        if status is not None:
            self.status(res, name, status)
        return made

    def status(self, res: ResourceType, name: str, status: dict[str, Any]) -> None:
        def change(tree: dict[str, Any]) -> None:
            tree.setdefault("status", {}).update(status)

        self.store.mutate(res, self.where(res), name, change, subresource="status")

    def all(self, res: ResourceType) -> list[dict[str, Any]]:
        return list(self.store.list(res))

    def find(self, res: ResourceType, name: str) -> dict[str, Any] | None:
        return self.store.find(res, self.where(res), name)

    def where(self, res: ResourceType) -> str:
        return NAMESPACE if res.namespaced else ""

    def plays(self, res: ResourceType, reconcile: Callable[[dict[str, Any]], None]) -> None:
        """Have a controller look at each object of a kind, every half second."""

        async def look() -> None:
            while True:
                for tree in self.all(res):
                    reconcile(tree)
                await asyncio.sleep(0.5)

        self.tasks.append(asyncio.create_task(look()))

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def satisfies_crd(tree: dict[str, Any], file: str) -> None:
    """Hold an object to the real CRD, where those are beside the project."""
    if not CRDS.is_dir():
        return
    crd = yaml.safe_load((CRDS / file).read_text())
    version = tree["apiVersion"].partition("/")[2]
    (served,) = [each for each in crd["spec"]["versions"] if each["name"] == version]
    jsonschema.validate(tree, _strict(served["schema"]["openAPIV3Schema"]))
    assert tree["kind"] == crd["spec"]["names"]["kind"]


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    made = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if "properties" in schema:
        made["properties"] = {key: _strict(value) for key, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made["additionalProperties"] = False
    if isinstance(schema.get("items"), dict):
        made["items"] = _strict(schema["items"])
    return made
