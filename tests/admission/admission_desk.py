"""A gatekeeper whose leader and clock the tests hold in their hands, and reviews to ask it."""

from __future__ import annotations

import base64
import json
from typing import Any

from remediator.admission.gatekeeper import Gatekeeper
from remediator.admission.review import Reviewer
from remediator.admission.state import AdmissionState, Outlook, encode
from remediator.sim.patching import json_patch

FRESH_S = 4.0


class HandClock:
    """A clock that stands until it is turned."""

    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at


class Desk:
    """One replica's webhook, its clock, and a leader that speaks when told to."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.outlook = Outlook(self.clock, fresh_s=FRESH_S)
        self.gatekeeper = Gatekeeper(self.outlook, self.clock)
        self.counted: list[str] = []
        self.reviewer = Reviewer(self.gatekeeper, counted=self.counted.append)
        self._number = 0

    def lead(self, **said: Any) -> None:
        """The leader speaks: by default it gates, all is quiet, and ten may start."""
        self._number += 1
        known = {"by": "me", "epoch": 1, "gating": True, "places": 10, "number": self._number}
        self.outlook.hear(encode(AdmissionState(**{**known, **said})))

    def ask(self, pod: Any, **request: Any) -> dict[str, Any]:
        """Review one pod; return the response part, its patch decoded."""
        answer = self.reviewer.review(json.dumps(review(pod, **request)).encode())
        assert answer.status == 200, answer.body
        body = json.loads(answer.body)
        assert body["apiVersion"] == "admission.k8s.io/v1"
        assert body["kind"] == "AdmissionReview"
        response = body["response"]
        assert response["allowed"] is True
        if "patch" in response:
            assert response["patchType"] == "JSONPatch"
            response["patch"] = json.loads(base64.b64decode(response["patch"], validate=True))
        return response

    def admit(self, pod: dict[str, Any], **request: Any) -> dict[str, Any]:
        """Review one pod; return it as it is stored."""
        patch = self.ask(pod, **request).get("patch", [])
        return json_patch(pod, patch)

    def gated(self, vm: str, **request: Any) -> bool:
        """Whether a new launcher pod of this VM is held back."""
        gates = self.admit(launcher(vm), **request)["spec"].get("schedulingGates", [])
        return {"name": "remediator.io/pacing"} in gates


def launcher(vm: str = "db", **spec: Any) -> dict[str, Any]:
    """A launcher pod as virt-controller makes it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"virt-launcher-{vm}-",
            "namespace": "shop",
            "labels": {"kubevirt.io": "virt-launcher", "kubevirt.io/created-by": "u1"},
            "annotations": {"kubevirt.io/domain": vm},
            "ownerReferences": [
                {
                    "apiVersion": "kubevirt.io/v1",
                    "kind": "VirtualMachineInstance",
                    "name": vm,
                    "uid": "u1",
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": {"containers": [{"name": "compute", "image": "x"}], **spec},
    }


def review(pod: Any, *, uid: str = "r1", **request: Any) -> dict[str, Any]:
    """An AdmissionReview as a kube-apiserver sends it."""
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": uid,
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "namespace": "shop",
            "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kubevirt:kubevirt-controller"},
            "object": pod,
            "oldObject": None,
            "dryRun": False,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
            **request,
        },
    }


class Make:
    """Builds what reviews are about."""

    launcher = staticmethod(launcher)
    review = staticmethod(review)
