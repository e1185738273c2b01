"""AdmissionReview in, AdmissionReview out: the webhook's contract, without sockets.

Whatever is asked, the answer is "allowed": this webhook forbids nothing. A pod is changed only when
it is certainly a launcher pod that is being made; of anything that looks odd in any way, hands off.
A request that is no AdmissionReview at all cannot be answered by the contract, and gets 400.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, Final

import msgspec

from remediator.admission.gatekeeper import Gatekeeper, Ruling
from remediator.kube.pacing_gates import PREFERRED, preference
from remediator.kube.pods import PACING_GATE

_API_VERSIONS: Final = ("admission.k8s.io/v1", "admission.k8s.io/v1beta1")
_MIGRATION_MARKS: Final = ("kubevirt.io/migrationJobUID", "kubevirt.io/migrationJobName")
_HINTED_NODES_MAX: Final = 3  # more would only make the pod longer

Counted = Callable[[str], None]


class Answer(msgspec.Struct, frozen=True, gc=False):
    """An HTTP answer. ``body`` is JSON for 200, else one line of text."""

    status: int
    body: bytes


class _Kind(msgspec.Struct, frozen=True, gc=False):
    group: str = ""
    version: str = ""
    resource: str = ""


class _Request(msgspec.Struct, frozen=True, rename="camel", gc=False):
    uid: str
    resource: _Kind = _Kind()
    sub_resource: str = ""
    operation: str = ""
    namespace: str = ""
    dry_run: bool | None = None
    object: msgspec.Raw = msgspec.Raw(b"null")


class _Review(msgspec.Struct, frozen=True, rename="camel", gc=False):
    api_version: str
    kind: str
    request: _Request


class _Owner(msgspec.Struct, frozen=True, rename="camel", gc=False):
    api_version: str = ""
    kind: str = ""
    name: str = ""
    controller: bool | None = None


class _Meta(msgspec.Struct, frozen=True, rename="camel", gc=False):
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: tuple[_Owner, ...] | None = None
    deletion_timestamp: str | None = None


class _Gate(msgspec.Struct, frozen=True, gc=False):
    name: str


class _NodeAffinity(msgspec.Struct, frozen=True, gc=False):
    preferred: tuple[msgspec.Raw, ...] | None = msgspec.field(name=PREFERRED, default=None)


class _Affinity(msgspec.Struct, frozen=True, rename="camel", gc=False):
    node_affinity: _NodeAffinity | None = None


class _Spec(msgspec.Struct, frozen=True, rename="camel", gc=False):
    node_name: str | None = None
    scheduling_gates: tuple[_Gate, ...] | None = None
    affinity: _Affinity | None = None


class _Pod(msgspec.Struct, frozen=True, rename="camel", gc=False):
    metadata: _Meta
    spec: _Spec

    @property
    def vmi(self) -> str:
        """The name of its VMI; empty where it is no launcher pod.

        virt-controller gives each of them this label and itself as the controller: a label alone
        may be anybody's.
        """
        if (self.metadata.labels or {}).get("kubevirt.io") != "virt-launcher":
            return ""
        for owner in self.metadata.owner_references or ():
            ours = owner.kind == "VirtualMachineInstance" and owner.controller
            if ours and owner.api_version.partition("/")[0] == "kubevirt.io":
                return owner.name
        return ""

    @property
    def migration_target(self) -> bool:
        """It is made to receive a live migration."""
        meta = self.metadata
        return any(
            mark in (meta.labels or {}) or mark in (meta.annotations or {})
            for mark in _MIGRATION_MARKS
        )


_reviews = msgspec.json.Decoder(_Review)
_pods = msgspec.json.Decoder(_Pod)
_encoder = msgspec.json.Encoder()
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Reviewer:
    """Answers reviews. ``counted`` is told what became of each, in a few fixed words."""

    def __init__(self, gatekeeper: Gatekeeper, *, counted: Counted = lambda _outcome: None) -> None:
        self._gatekeeper = gatekeeper
        self._counted = counted

    def review(self, body: bytes) -> Answer:
        """Answer one request's body. Never raises for what is in it."""
        try:
            review = _reviews.decode(body)
        except _UNREADABLE as error:
            return self._refuse(f"no AdmissionReview: {error}")
        if review.kind != "AdmissionReview" or review.api_version not in _API_VERSIONS:
            return self._refuse(f"not served: {review.api_version!r}, kind {review.kind!r}")
        if not review.request.uid:
            return self._refuse("the request has no uid")
        patch = self._patch(review.request)
        response: dict[str, Any] = {"uid": review.request.uid, "allowed": True}
        if patch:
            response["patchType"] = "JSONPatch"
            response["patch"] = base64.b64encode(_encoder.encode(patch)).decode()
        answer = {
            "apiVersion": review.api_version,
            "kind": "AdmissionReview",
            "response": response,
        }
        return Answer(200, _encoder.encode(answer))

    def _refuse(self, why: str) -> Answer:
        self._counted("unreadable")
        line = " ".join(why.split())[:300]
        return Answer(400, line.encode("utf-8", errors="replace"))

    def _patch(self, request: _Request) -> list[dict[str, Any]]:
        """Return what is changed about the object; empty in quiet times, and for all but pods."""
        if not _makes_a_pod(request):
            self._counted("foreign")
            return []
        try:
            pod = _pods.decode(request.object)
        except _UNREADABLE:
            self._counted("foreign")
            return []
        vmi, meta = pod.vmi, pod.metadata
        if not vmi or not request.namespace:
            self._counted("foreign")
            return []
        if pod.migration_target or pod.spec.node_name or meta.deletion_timestamp:
            self._counted("exempt")
            return []
        if request.dry_run:
            self._counted("exempt")  # nobody starts, so nobody is counted
            return []
        ruling = self._gatekeeper.rule(f"{request.namespace}/{vmi}")
        self._counted(ruling.why)
        return changes(pod, ruling)


def _makes_a_pod(request: _Request) -> bool:
    resource = request.resource
    return (
        request.operation == "CREATE"
        and not request.sub_resource
        and (resource.group, resource.version, resource.resource) == ("", "v1", "pods")
    )


def changes(pod: _Pod, ruling: Ruling) -> list[dict[str, Any]]:
    """Return the JSON patch that carries a ruling out; what the pod has already stays.

    A pod that is held back gets its hint when its gate is opened, by what fits then.
    """
    operations: list[dict[str, Any]] = []
    gates = pod.spec.scheduling_gates
    if ruling.gate and all(gate.name != PACING_GATE for gate in gates or ()):
        gate = {"name": PACING_GATE}
        if gates is None:
            operations.append(_add("/spec/schedulingGates", [gate]))
        else:
            operations.append(_add("/spec/schedulingGates/-", gate))
    if ruling.gate:
        return operations
    terms = [
        {**preference(node), "weight": preference(node)["weight"] - at}
        for at, node in enumerate(ruling.prefer[:_HINTED_NODES_MAX])
    ]
    if terms:
        operations += _preferring(pod.spec.affinity, terms)
    return operations


def _preferring(affinity: _Affinity | None, terms: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if affinity is None:
        return [_add("/spec/affinity", {"nodeAffinity": {PREFERRED: terms}})]
    if affinity.node_affinity is None:
        return [_add("/spec/affinity/nodeAffinity", {PREFERRED: terms})]
    path = f"/spec/affinity/nodeAffinity/{PREFERRED}"
    if affinity.node_affinity.preferred is None:
        return [_add(path, terms)]
    return [_add(f"{path}/-", term) for term in terms]


def _add(path: str, value: object) -> dict[str, Any]:
    return {"op": "add", "path": path, "value": value}
