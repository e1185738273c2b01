"""A simulated API server with launcher pods behind gates."""

from __future__ import annotations

import random

from remediator.kube.client import KubeClient
from remediator.sim.api_faults import ApiFaults
from remediator.sim.apiserver import ApiServer
from remediator.sim.memory_transport import MemoryTransport
from remediator.sim.resources import NAMESPACES, PODS, Registry
from remediator.sim.store import AdmissionRequest, Problem, Store

OURS, THEIRS = {"name": "remediator.io/pacing"}, {"name": "quota.example.com/wait"}


class GatedCluster:
    """Pods in a store, and a client that reaches them."""

    def __init__(self) -> None:
        self.store = Store(now=lambda: 1000.0, rng=random.Random(1))
        self.faults = ApiFaults()
        server = ApiServer(self.store, Registry(), faults=self.faults)
        self.client = KubeClient(MemoryTransport(server, client_name="somebody"))
        self.refused: set[str] = set()  # pods that may not be changed
        self.store.add_admission(self._admit)
        for name in ("shop", "team"):
            self.store.create(NAMESPACES, {"metadata": {"name": name}})

    def pod(self, vm: str, *gates: dict[str, str], launcher: bool = True, node: str = "") -> None:
        namespace, name = vm.split("/")
        labels = {"kubevirt.io": "virt-launcher"} if launcher else {"app": "web"}
        owner = {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "name": name,
            "uid": f"vmi-{name}",
            "controller": True,
        }
        spec = {"containers": [{"name": "compute"}], "schedulingGates": list(gates)}
        if node:
            spec["nodeName"] = node
        self.store.create(
            PODS,
            {
                "metadata": {
                    "name": f"virt-launcher-{name}",
                    "namespace": namespace,
                    "labels": labels,
                    "ownerReferences": [owner],
                },
                "spec": spec,
            },
        )

    def gates(self, vm: str) -> list[dict[str, str]]:
        namespace, name = vm.split("/")
        pod = self.store.get(PODS, namespace, f"virt-launcher-{name}")
        return pod["spec"].get("schedulingGates") or []

    def _admit(self, request: AdmissionRequest) -> None:
        if request.operation == "UPDATE" and request.obj["metadata"]["name"] in self.refused:
            raise Problem(403, "Forbidden", "may not be changed")
