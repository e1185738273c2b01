"""Mutating admission webhooks, as kube-apiserver calls them: who is asked, what if all are silent.

Webhooks are configured by MutatingWebhookConfiguration objects in the store. Behind a Service stand
endpoints: functions in memory (``serve``), or real HTTPS (``https_endpoint``). The store is
synchronous and on virtual time, so a call takes no time here: an endpoint says how long it would
have taken, and a webhook that is slower than its timeout has failed, as in a real server. What is
not modelled: ``matchConditions``, ``reinvocationPolicy: IfNeeded``, the wait itself.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import ssl
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec

from remediator.sim.controllers.node_affinity import selector_matches
from remediator.sim.object_meta import new_uid
from remediator.sim.patching import json_patch
from remediator.sim.problems import Problem
from remediator.sim.resources import MUTATING_WEBHOOK_CONFIGURATIONS, NAMESPACES, ResourceType
from remediator.sim.store import AdmissionRequest, Store

Object = dict[str, Any]
Service = tuple[str, str]  # namespace, name

_DEFAULT_TIMEOUT_S = 10  # admissionregistration/v1 defaults
_ASKED = ("CREATE", "UPDATE", "DELETE")
# Answers (HTTP status, body) to a request body. Raises EndpointError where there is no answer.
Call = Callable[[bytes], tuple[int, bytes]]


class EndpointError(Exception):
    """Nothing came back; the text says why, as the API server would."""


class Endpoint:
    """One replica behind a Service. ``takes_s``: how long it takes to answer."""

    def __init__(self, call: Call, *, takes_s: float = 0.0) -> None:
        self.call = call
        self.takes_s = takes_s


class MutatingWebhooks:
    """Asks the webhooks of one store. ``asked`` and ``failed`` count calls by webhook name.

    ``down``: Services whose endpoints refuse connections. ``expired``: Services whose certificate
    is not accepted. ``slow_s``: Services that take so long, whoever answers.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._endpoints: dict[Service, dict[str, Endpoint]] = {}
        self._turn = 0
        self.down: set[Service] = set()
        self.expired: set[Service] = set()
        self.slow_s: dict[Service, float] = {}
        self.asked: dict[str, int] = {}
        self.failed: dict[str, int] = {}

    def start(self) -> None:
        """Ask from now on."""
        self._store.add_admission(self.admit)

    def serve(self, service: Service, name: str, endpoint: Endpoint) -> None:
        """Put an endpoint behind a Service; ``leave`` takes it away."""
        self._endpoints.setdefault(service, {})[name] = endpoint

    def leave(self, service: Service, name: str) -> None:
        """Take an endpoint away."""
        self._endpoints.get(service, {}).pop(name, None)

    def admit(self, request: AdmissionRequest) -> None:
        """Let every webhook that is concerned change the object. Raises Problem 400, 500."""
        if request.operation not in _ASKED or request.res is MUTATING_WEBHOOK_CONFIGURATIONS:
            return
        for config in self._store.stored_list(MUTATING_WEBHOOK_CONFIGURATIONS):
            for webhook in config.obj.get("webhooks") or ():
                if self._concerned(webhook, request):
                    self._ask(webhook, request)

    # --- who is asked ---

    def _concerned(self, webhook: Object, request: AdmissionRequest) -> bool:
        if not any(_covers(rule, request) for rule in webhook.get("rules") or ()):
            return False
        objects = [one for one in (request.obj, request.old) if one is not None]
        selector = webhook.get("objectSelector") or {}
        if not any(
            selector_matches(selector, one["metadata"].get("labels") or {}) for one in objects
        ):
            return False
        selector = webhook.get("namespaceSelector") or {}
        if not selector or not request.res.namespaced:
            return True
        name = request.obj["metadata"].get("namespace", "")
        namespace = self._store.find(NAMESPACES, "", name)
        labels = namespace["metadata"].get("labels") if namespace is not None else {}
        return selector_matches(selector, labels or {})

    # --- asking ---

    def _ask(self, webhook: Object, request: AdmissionRequest) -> None:
        name = webhook["name"]
        self.asked[name] = self.asked.get(name, 0) + 1
        try:
            response = self._response(webhook, request)
        except EndpointError as error:
            self.failed[name] = self.failed.get(name, 0) + 1
            if webhook.get("failurePolicy", "Fail") == "Ignore":
                return
            text = f'Internal error occurred: failed calling webhook "{name}": {error}'
            raise Problem(500, "InternalError", text) from error
        if not response.get("allowed"):
            why = (response.get("status") or {}).get("message") or "without explanation"
            text = f'admission webhook "{name}" denied the request: {why}'
            raise Problem(400, "BadRequest", text)
        changed = response.get("object")
        if changed is not None and request.operation != "DELETE":
            request.obj.clear()
            request.obj.update(changed)

    def _response(self, webhook: Object, request: AdmissionRequest) -> Object:
        """Return the response of a webhook, the patched object in it. Raises EndpointError."""
        uid = new_uid(self._store.rng)
        body = msgspec.json.encode(_review(request, uid))
        status, answer = self._call(webhook, body)
        if status != 200:
            raise EndpointError(f"an error on the server ({status}) has prevented the request")
        try:
            review = msgspec.json.decode(answer)
            response: Object = review["response"]
        except (msgspec.DecodeError, KeyError, TypeError) as error:
            raise EndpointError(f"received invalid webhook response: {error!r}") from error
        wanted = ("admission.k8s.io/v1", "AdmissionReview", uid)
        got = (review.get("apiVersion"), review.get("kind"), response.get("uid"))
        if got != wanted:
            raise EndpointError(f"received invalid webhook response: expected {wanted}, got {got}")
        if "patch" in response:
            if response.get("patchType") != "JSONPatch":
                raise EndpointError("received invalid webhook response: patchType is not JSONPatch")
            try:
                patch = msgspec.json.decode(base64.b64decode(response["patch"], validate=True))
                response["object"] = json_patch(request.obj, patch)
            except (binascii.Error, msgspec.DecodeError, Problem) as error:
                raise EndpointError(f"the patch does not apply: {error}") from error
        return response

    def _call(self, webhook: Object, body: bytes) -> tuple[int, bytes]:
        service = _service(webhook)
        timeout_s = float(webhook.get("timeoutSeconds") or _DEFAULT_TIMEOUT_S)
        where = f"Post https://{service[1]}.{service[0]}.svc"
        if service in self.expired:
            raise EndpointError(f"{where}: x509: certificate has expired or is not yet valid")
        endpoints = list(self._endpoints.get(service, {}).values())
        if not endpoints:
            raise EndpointError(f'{where}: no endpoints available for service "{service[1]}"')
        if service in self.down:
            raise EndpointError(f"{where}: dial tcp: connect: connection refused")
        self._turn += 1
        endpoint = endpoints[self._turn % len(endpoints)]
        if max(endpoint.takes_s, self.slow_s.get(service, 0.0)) >= timeout_s:
            raise EndpointError(f"{where}: context deadline exceeded")
        return endpoint.call(body)


def https_endpoint(url: str, ca_bundle: bytes, *, timeout_s: float) -> Endpoint:
    """Return an endpoint behind real HTTPS; each call opens a connection and waits for it.

    For an API server over sockets: the caller's event loop stands still meanwhile, so whatever
    serves ``url`` must run in another process or thread. ``ca_bundle`` is PEM.
    """
    parts = urlsplit(url)
    context = ssl.create_default_context(cadata=ca_bundle.decode())

    def call(body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, context=context, timeout=timeout_s
        )
        try:
            connection.request(
                "POST", parts.path, body=body, headers={"content-type": "application/json"}
            )
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise EndpointError(f"Post {url}: {error}") from error
        finally:
            connection.close()

    return Endpoint(call)


def _service(webhook: Object) -> Service:
    client = webhook.get("clientConfig") or {}
    service = client.get("service")
    if service:
        return service["namespace"], service["name"]
    return "", client.get("url", "")


def _covers(rule: Object, request: AdmissionRequest) -> bool:
    res = request.res
    plural = f"{res.plural}/{request.subresource}" if request.subresource else res.plural
    scope = rule.get("scope") or "*"
    return (
        _among(request.operation, rule.get("operations"))
        and _among(res.group, rule.get("apiGroups"))
        and _among(res.version, rule.get("apiVersions"))
        and _among(plural, rule.get("resources"), any_word="*" if not request.subresource else "")
        and scope in ("*", "Namespaced" if res.namespaced else "Cluster")
    )


def _among(value: str, named: list[str] | None, *, any_word: str = "*") -> bool:
    return any(one == value or (any_word and one == any_word) for one in named or ())


def _review(request: AdmissionRequest, uid: str) -> Object:
    res: ResourceType = request.res
    kind = {"group": res.group, "version": res.version, "kind": res.kind}
    resource = {"group": res.group, "version": res.version, "resource": res.plural}
    metadata = request.obj["metadata"]
    gone = request.operation == "DELETE"
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": uid,
            "kind": kind,
            "resource": resource,
            **({"subResource": request.subresource} if request.subresource else {}),
            "requestKind": kind,
            "requestResource": resource,
            "name": metadata.get("name", ""),
            "namespace": metadata.get("namespace", ""),
            "operation": request.operation,
            "userInfo": {"username": request.user or "system:kube-controller-manager"},
            "object": None if gone else request.obj,
            "oldObject": request.old,
            "dryRun": False,
            "options": {"kind": f"{request.operation.title()}Options"},
        },
    }
