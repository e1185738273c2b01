"""Mutating webhooks of the simulated API server: who is asked, what is taken over, what fails."""

from __future__ import annotations

import base64
import json
import random

import pytest

from remediator.sim.mutating_webhooks import Endpoint, EndpointError, MutatingWebhooks
from remediator.sim.problems import Problem
from remediator.sim.resources import (
    MUTATING_WEBHOOK_CONFIGURATIONS,
    NAMESPACES,
    NODES,
    PODS,
)
from remediator.sim.store import Store

SERVICE = ("hooks", "labeller")


class Labeller:
    """A webhook that adds a label, or answers whatever a test says."""

    def __init__(self) -> None:
        self.reviews: list[dict] = []
        self.says: object = None

    def __call__(self, body: bytes) -> tuple[int, bytes]:
        review = json.loads(body)
        self.reviews.append(review)
        if isinstance(self.says, Exception):
            raise self.says
        if isinstance(self.says, tuple):
            return self.says
        uid = review["request"]["uid"]
        patch = [{"op": "add", "path": "/metadata/annotations", "value": {"seen": "yes"}}]
        response = {
            "uid": uid,
            "allowed": True,
            "patchType": "JSONPatch",
            "patch": base64.b64encode(json.dumps(patch).encode()).decode(),
            **(self.says or {}),
        }
        body = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
        return 200, json.dumps({**body, "response": response}).encode()


class Lab:
    def __init__(self) -> None:
        self.store = Store(now=lambda: 1000.0, rng=random.Random(1))
        for name, labels in (("shop", {"tier": "gold"}), ("kube-system", {})):
            self.store.create(NAMESPACES, {"metadata": {"name": name, "labels": labels}})
        self.webhooks = MutatingWebhooks(self.store)
        self.webhooks.start()
        self.labeller = Labeller()
        self.webhooks.serve(SERVICE, "one", Endpoint(self.labeller))

    def configure(self, **webhook) -> None:
        rule = {
            "apiGroups": [""],
            "apiVersions": ["v1"],
            "operations": ["CREATE"],
            "resources": ["pods"],
        }
        known = {
            "name": "label.example.com",
            "clientConfig": {"service": {"namespace": SERVICE[0], "name": SERVICE[1]}},
            "rules": [{**rule, **webhook.pop("rule", {})}],
        }
        self.store.create(
            MUTATING_WEBHOOK_CONFIGURATIONS,
            {"metadata": {"name": "hooks"}, "webhooks": [{**known, **webhook}]},
        )

    def pod(self, namespace: str = "shop", **labels: str) -> dict:
        metadata = {"name": "p", "namespace": namespace, "labels": labels}
        spec = {"containers": [{"name": "c"}]}
        return self.store.create(PODS, {"metadata": metadata, "spec": spec}, user="somebody")

    @property
    def seen(self) -> bool:
        pod = self.store.get(PODS, "shop", "p")
        return pod["metadata"].get("annotations") == {"seen": "yes"}


@pytest.fixture
def lab() -> Lab:
    return Lab()


def test_without_a_configuration_nobody_is_asked(lab):
    lab.pod()
    assert lab.labeller.reviews == []


def test_a_webhooks_patch_is_stored(lab):
    lab.configure()
    lab.pod()
    assert lab.seen
    (review,) = lab.labeller.reviews
    request = review["request"]
    assert (review["apiVersion"], review["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    assert (request["operation"], request["namespace"]) == ("CREATE", "shop")
    assert request["resource"] == {"group": "", "version": "v1", "resource": "pods"}
    assert request["userInfo"] == {"username": "somebody"}
    assert request["object"]["metadata"]["name"] == "p"
    assert request["oldObject"] is None


@pytest.mark.parametrize(
    "webhook",
    [
        {"rule": {"operations": ["UPDATE"]}},
        {"rule": {"resources": ["nodes"]}},
        {"rule": {"resources": ["pods/status"]}},
        {"rule": {"apiGroups": ["apps"]}},
        {"rule": {"scope": "Cluster"}},
        {"objectSelector": {"matchLabels": {"app": "db"}}},
        {"objectSelector": {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}},
        {"namespaceSelector": {"matchLabels": {"tier": "silver"}}},
        {
            "namespaceSelector": {
                "matchExpressions": [
                    {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["shop"]}
                ]
            }
        },
    ],
    ids=str,
)
def test_what_does_not_concern_a_webhook_is_not_sent_to_it(lab, webhook):
    lab.configure(**webhook)
    lab.pod(app="web")
    assert lab.labeller.reviews == []


@pytest.mark.parametrize(
    "webhook",
    [
        {"rule": {"operations": ["*"], "resources": ["*"], "apiGroups": ["*"]}},
        {"rule": {"scope": "Namespaced"}},
        {"objectSelector": {"matchLabels": {"app": "web"}}},
        {"namespaceSelector": {"matchLabels": {"tier": "gold"}}},
    ],
    ids=str,
)
def test_what_concerns_a_webhook_is_sent_to_it(lab, webhook):
    lab.configure(**webhook)
    lab.pod(app="web")
    assert lab.seen


def test_updates_and_deletions_are_reviews_of_old_and_new(lab):
    lab.configure(rule={"operations": ["UPDATE", "DELETE"]})
    lab.pod()
    lab.store.mutate(PODS, "shop", "p", lambda pod: pod["metadata"].update(labels={"a": "b"}))
    lab.store.delete(PODS, "shop", "p", grace_s=0)
    update, delete = lab.labeller.reviews
    assert update["request"]["object"]["metadata"]["labels"] == {"a": "b"}
    assert update["request"]["oldObject"]["metadata"].get("labels", {}) == {}
    assert delete["request"]["object"] is None
    assert delete["request"]["oldObject"]["metadata"]["name"] == "p"


def test_objects_without_a_namespace_are_sent_whatever_the_namespace_selector(lab):
    lab.configure(rule={"resources": ["nodes"]}, namespaceSelector={"matchLabels": {"x": "y"}})
    lab.store.create(NODES, {"metadata": {"name": "n1"}})
    assert len(lab.labeller.reviews) == 1


def _down(lab):
    lab.webhooks.down.add(SERVICE)


def _slow(lab):
    lab.webhooks.slow_s[SERVICE] = 2.0


def _expired(lab):
    lab.webhooks.expired.add(SERVICE)


def _nobody(lab):
    lab.webhooks.leave(SERVICE, "one")


def _resets(lab):
    lab.labeller.says = EndpointError("connection reset by peer")


def _error(lab):
    lab.labeller.says = (500, b"oops")


def _garbage(lab):
    lab.labeller.says = (200, b"<html>")


def _another_uid(lab):
    lab.labeller.says = {"uid": "another"}


def _bad_patch(lab):
    lab.labeller.says = {"patch": "!!!"}


def _patch_that_does_not_apply(lab):
    patch = [{"op": "remove", "path": "/spec/nothing/there"}]
    lab.labeller.says = {"patch": base64.b64encode(json.dumps(patch).encode()).decode()}


FAULTS = [
    _down,
    _slow,
    _expired,
    _nobody,
    _resets,
    _error,
    _garbage,
    _another_uid,
    _bad_patch,
    _patch_that_does_not_apply,
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_webhook_that_fails_is_ignored_where_its_policy_says_so(lab, fault):
    lab.configure(failurePolicy="Ignore", timeoutSeconds=1)
    fault(lab)
    lab.pod()
    assert not lab.seen
    assert lab.webhooks.failed == {"label.example.com": 1}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_webhook_that_fails_refuses_the_request_where_its_policy_says_so(lab, fault):
    lab.configure(failurePolicy="Fail", timeoutSeconds=1)
    fault(lab)
    with pytest.raises(Problem) as refused:
        lab.pod()
    assert refused.value.status == 500
    assert 'failed calling webhook "label.example.com"' in str(refused.value)
    assert lab.store.find(PODS, "shop", "p") is None


def test_without_a_policy_a_failure_refuses(lab):
    lab.configure()
    _down(lab)
    with pytest.raises(Problem):
        lab.pod()


def test_a_webhook_within_its_timeout_is_waited_for(lab):
    lab.configure(timeoutSeconds=3)
    _slow(lab)
    lab.pod()
    assert lab.seen


def test_a_webhook_may_deny(lab):
    lab.configure(failurePolicy="Ignore")
    lab.labeller.says = {"allowed": False, "status": {"message": "not today"}}
    with pytest.raises(Problem) as refused:
        lab.pod()
    assert refused.value.status == 400
    assert "denied the request: not today" in str(refused.value)


def test_replicas_take_turns(lab):
    other = Labeller()
    lab.webhooks.serve(SERVICE, "two", Endpoint(other))
    lab.configure()
    for number in range(4):
        lab.store.create(
            PODS,
            {
                "metadata": {"name": f"p{number}", "namespace": "shop"},
                "spec": {"containers": [{"name": "c"}]},
            },
        )
    assert (len(lab.labeller.reviews), len(other.reviews)) == (2, 2)
