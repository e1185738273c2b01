"""The contract of admission webhooks, and that nothing but launcher pods is ever changed."""

from __future__ import annotations

import copy
import json

import pytest
from admission_desk import Desk, launcher, review
from hypothesis import given, settings
from hypothesis import strategies as st

from remediator.kube.pacing_gates import PREFERRED

GATE = {"name": "remediator.io/pacing"}


def test_the_uid_is_echoed_and_the_patch_is_a_json_patch(desk, make):
    desk.lead(storm=True)
    response = desk.ask(make.launcher(), uid="705ab4f5-6393-11e8-b7cc-42010a800002")
    assert response["uid"] == "705ab4f5-6393-11e8-b7cc-42010a800002"
    assert response["patch"] == [{"op": "add", "path": "/spec/schedulingGates", "value": [GATE]}]


def test_other_gates_stay_before_ours(desk, make):
    desk.lead(storm=True)
    theirs = {"name": "quota.example.com/wait"}
    assert desk.admit(make.launcher(schedulingGates=[theirs]))["spec"]["schedulingGates"] == [
        theirs,
        GATE,
    ]
    assert desk.admit(make.launcher(schedulingGates=[]))["spec"]["schedulingGates"] == [GATE]
    assert desk.admit(make.launcher(schedulingGates=None))["spec"]["schedulingGates"] == [GATE]


def test_asked_again_it_adds_nothing(desk, make):
    desk.lead(storm=True, hints={})
    once = desk.admit(make.launcher())
    assert desk.admit(once) == once


@pytest.mark.parametrize(
    "affinity",
    [
        None,
        {},
        {"podAntiAffinity": {"x": []}},
        {"nodeAffinity": None},
        {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"t": []}}},
        {"nodeAffinity": {PREFERRED: []}},
        {"nodeAffinity": {PREFERRED: [{"weight": 1, "preference": {"matchFields": []}}]}},
    ],
    ids=str,
)
def test_the_hint_joins_whatever_affinity_there_is(desk, make, affinity):
    desk.lead(hints={"shop/db": ("n7", "n3")})
    pod = make.launcher(affinity=affinity)
    stored = desk.admit(copy.deepcopy(pod))
    terms = stored["spec"]["affinity"]["nodeAffinity"][PREFERRED]
    assert [term["weight"] for term in terms[-2:]] == [100, 99]
    named = [term["preference"]["matchExpressions"][0] for term in terms[-2:]]
    assert named == [
        {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
        for node in ("n7", "n3")
    ]
    assert "schedulingGates" not in stored["spec"]  # a hint alone holds nothing back
    node_affinity = stored["spec"]["affinity"]["nodeAffinity"]
    before = (affinity or {}).get("nodeAffinity") or {}
    assert terms[:-2] == before.get(PREFERRED, [])
    assert {key: value for key, value in node_affinity.items() if key != PREFERRED} == {
        key: value for key, value in before.items() if key != PREFERRED
    }


def test_a_pod_that_is_held_back_gets_no_hint_yet(desk, make):
    desk.lead(storm=True, hints={"shop/db": ("n7",)})
    stored = desk.admit(make.launcher())
    assert stored["spec"]["schedulingGates"] == [GATE]
    assert "affinity" not in stored["spec"]


def _without_owner(pod):
    del pod["metadata"]["ownerReferences"]


def _owned_by_a_pod(pod):
    pod["metadata"]["ownerReferences"][0].update(apiVersion="v1", kind="Pod")


def _owned_by_another_group(pod):
    pod["metadata"]["ownerReferences"][0]["apiVersion"] = "kubevirt.io.example.com/v1"


def _not_controlled(pod):
    pod["metadata"]["ownerReferences"][0]["controller"] = False


def _other_label(pod):
    pod["metadata"]["labels"]["kubevirt.io"] = "virt-handler"


def _migration_label(pod):
    pod["metadata"]["labels"]["kubevirt.io/migrationJobUID"] = "u9"


def _migration_annotation(pod):
    pod["metadata"]["annotations"]["kubevirt.io/migrationJobName"] = "m1"


def _scheduled(pod):
    pod["spec"]["nodeName"] = "n1"


@pytest.mark.parametrize(
    "odd",
    [
        _without_owner,
        _owned_by_a_pod,
        _owned_by_another_group,
        _not_controlled,
        _other_label,
        _migration_label,
        _migration_annotation,
        _scheduled,
    ],
)
def test_what_is_no_launcher_pod_in_need_of_a_place_is_left_alone(desk, make, odd):
    desk.lead(storm=True, hints={"shop/db": ("n7",)})
    pod = make.launcher()
    odd(pod)
    assert "patch" not in desk.ask(pod)


@pytest.mark.parametrize(
    "request_",
    [
        {"operation": "UPDATE"},
        {"operation": "DELETE", "object": None},
        {"operation": "CONNECT"},
        {"subResource": "status"},
        {"subResource": "binding"},
        {"dryRun": True},
        {"resource": {"group": "apps", "version": "v1", "resource": "deployments"}},
        {"resource": {"group": "", "version": "v1", "resource": "configmaps"}},
        {"namespace": ""},
    ],
    ids=str,
)
def test_other_requests_are_allowed_and_left_alone(desk, make, request_):
    desk.lead(storm=True)
    pod = make.launcher()
    assert "patch" not in desk.ask(pod, **request_)
    assert desk.gatekeeper.created_lately == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"<html>",
        b"\xff\xfe\x00",
        b"[" * 200_000,
        b'{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}',
        b'{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {}}',
        b'{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": 7}}',
        b'{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": ""}}',
        b'{"apiVersion": "admission.k8s.io/v2", "kind": "AdmissionReview", "request":{"uid": "a"}}',
        b'{"apiVersion": "v1", "kind": "Pod", "request": {"uid": "a"}}',
    ],
    ids=lambda body: str(body[:90]),
)
def test_what_is_no_review_gets_400_and_one_line(desk, body):
    answer = desk.reviewer.review(body)
    assert answer.status == 400
    assert answer.body
    assert len(answer.body) < 400
    assert b"\n" not in answer.body


def test_an_old_api_server_is_answered_in_its_version(desk, make):
    desk.lead(storm=True)
    asked = {**make.review(make.launcher()), "apiVersion": "admission.k8s.io/v1beta1"}
    body = json.loads(desk.reviewer.review(json.dumps(asked).encode()).body)
    assert body["apiVersion"] == "admission.k8s.io/v1beta1"
    assert body["response"]["allowed"] is True
    assert body["response"]["uid"] == "r1"


def test_what_became_of_each_is_counted(desk, make):
    desk.ask(make.launcher())
    desk.lead(storm=True)
    desk.ask(make.launcher())
    desk.ask({"metadata": {}, "spec": {}})
    desk.reviewer.review(b"{")
    assert desk.counted == ["no-leader", "storm", "foreign", "unreadable"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
# Objects that are nearly launcher pods: the right keys with right and wrong things behind them.
LABELS = st.dictionaries(
    st.sampled_from(["kubevirt.io", "app", "kubevirt.io/migrationJobUID"]),
    st.sampled_from(["virt-launcher", "virt-handler", ""]),
)
OWNERS = st.lists(
    st.fixed_dictionaries(
        {
            "apiVersion": st.sampled_from(["kubevirt.io/v1", "v1", "kubevirt.io"]),
            "kind": st.sampled_from(["VirtualMachineInstance", "ReplicaSet"]),
            "name": st.sampled_from(["db", ""]),
        },
        optional={"controller": st.sampled_from([True, False, None])},
    ),
    max_size=2,
)
PODS = st.fixed_dictionaries(
    {
        "metadata": JSON
        | st.fixed_dictionaries(
            {},
            optional={"labels": LABELS | JSON, "ownerReferences": OWNERS | JSON, "name": JSON},
        ),
        "spec": JSON
        | st.fixed_dictionaries(
            {},
            optional={
                "nodeName": st.sampled_from(["", "n1", None]) | JSON,
                "schedulingGates": JSON | st.just([{"name": "other"}]),
                "affinity": JSON | st.just({"nodeAffinity": {PREFERRED: []}}),
            },
        ),
    }
)


def certainly_a_launcher_pod(pod) -> bool:
    """Told apart by other means than the webhook's."""
    try:
        meta = pod["metadata"]
        owners = [
            one
            for one in meta["ownerReferences"]
            if one["kind"] == "VirtualMachineInstance" and one.get("controller") is True
        ]
        return (
            meta["labels"]["kubevirt.io"] == "virt-launcher"
            and "kubevirt.io/migrationJobUID" not in meta["labels"]
            and any(one["apiVersion"].split("/")[0] == "kubevirt.io" for one in owners)
            and not pod["spec"].get("nodeName")
        )
    except (KeyError, TypeError, AttributeError):
        return False


LAUNCHER_SPECS = st.fixed_dictionaries(
    {"containers": st.just([{"name": "compute"}])},
    optional={
        "schedulingGates": st.none() | st.lists(st.just({"name": "other"}), max_size=2),
        "affinity": st.none() | st.dictionaries(st.sampled_from(["podAffinity"]), JSON),
        "nodeName": st.sampled_from([None, ""]),
        "volumes": JSON,
        "priority": JSON,
    },
)


@settings(max_examples=200, deadline=None)
@given(spec=LAUNCHER_SPECS, labels=st.dictionaries(st.text(max_size=5), st.text(max_size=5)))
def test_every_launcher_pod_is_held_back_in_a_storm_and_nothing_else_of_it_changes(spec, labels):
    desk = Desk()
    desk.lead(storm=True)
    pod = launcher()
    pod["metadata"]["labels"] |= {key: value for key, value in labels.items() if "/" not in key}
    pod["metadata"]["labels"]["kubevirt.io"] = "virt-launcher"
    pod["spec"] = spec
    stored = desk.admit(copy.deepcopy(pod))
    assert stored["spec"].pop("schedulingGates") == [*(spec.get("schedulingGates") or []), GATE]
    pod["spec"].pop("schedulingGates", None)
    assert stored == pod


@settings(max_examples=400, deadline=None)
@given(pod=JSON | PODS)
def test_nothing_but_a_launcher_pod_is_ever_changed(pod):
    desk = Desk()  # a new one for each example
    desk.lead(storm=True, hints={"shop/db": ("n7",)})
    response = desk.ask(pod)
    assert response["uid"] == "r1"
    if "patch" in response:
        assert certainly_a_launcher_pod(pod)
        assert all(
            step["op"] == "add"
            and step["path"].startswith(("/spec/schedulingGates", "/spec/affin"))
            for step in response["patch"]
        )


@settings(max_examples=300, deadline=None)
@given(body=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_body_gets_an_answer(body):
    answer = Desk().reviewer.review(body)
    assert answer.status in (200, 400)


@settings(max_examples=200, deadline=None)
@given(
    request=st.dictionaries(
        st.sampled_from(
            ["uid", "operation", "subResource", "namespace", "object", "resource", "dryRun"]
        ),
        JSON,
    )
)
def test_any_request_gets_its_uid_back_or_400(request):
    asked = review(launcher())
    asked["request"].update(request)
    answer = Desk().reviewer.review(json.dumps(asked).encode())
    if answer.status == 200:
        response = json.loads(answer.body)["response"]
        assert response == {"uid": asked["request"]["uid"], "allowed": True}
