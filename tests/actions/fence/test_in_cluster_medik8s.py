"""The contract with medik8s remediators, the tests playing the remediator's side."""

from __future__ import annotations

import asyncio

import pytest
from cluster_lab import FAR, FAR_TEMPLATE, NAMESPACE, SNR, SNR_TEMPLATE, Cluster, satisfies_crd

from remediator.actions.fence.driver import Down, NotDown
from remediator.actions.fence.medik8s import TIMED_OUT, Medik8sDriver
from remediator.actions.world import SparedError
from remediator.fence_config.document import Medik8sFence, TemplateRef


@pytest.fixture
async def cluster():
    cluster = Cluster()
    cluster.create(
        SNR_TEMPLATE,
        "automatic",
        spec={"template": {"spec": {"remediationStrategy": "Automatic"}}},
    )
    yield cluster
    await cluster.close()


def driver(cluster: Cluster, template=SNR_TEMPLATE, name: str = "automatic") -> Medik8sDriver:
    ref = TemplateRef(
        api_version=template.api_version, kind=template.kind, name=name, namespace=NAMESPACE
    )
    return Medik8sDriver(Medik8sFence(name="snr", template=ref), cluster.objects)


def says(cluster: Cluster, tree, status: str, reason: str = "", *, processing: str = "True"):
    conditions = [
        {"type": "Processing", "status": processing, "reason": "", "message": "fencing"},
        {"type": "Succeeded", "status": status, "reason": reason, "message": ""},
    ]
    cluster.status(SNR, tree["metadata"]["name"], {"conditions": conditions})


async def test_the_object_is_made_from_its_template_as_medik8s_expects_it(cluster):
    cluster.plays(SNR, lambda tree: says(cluster, tree, "True", "Done"))
    down = await driver(cluster).take_down(cluster.target(control_plane=True), cluster.order())
    assert isinstance(down, Down), down
    (made,) = cluster.all(SNR)
    satisfies_crd(
        {key: made[key] for key in ("apiVersion", "kind", "metadata", "spec")},
        "selfnoderemediations.self-node-remediation.medik8s.io.yaml",
    )
    assert made["metadata"]["name"] == "n1"
    assert made["spec"] == {"remediationStrategy": "Automatic"}
    assert made["metadata"]["annotations"]["remediation.medik8s.io/node-name"] == "n1"
    assert made["metadata"]["annotations"]["remediation.medik8s.io/template-name"] == "automatic"
    assert made["metadata"]["labels"]["remediation.medik8s.io/isControlPlaneNode"] == ""


async def test_a_template_for_several_gets_a_generated_name_and_its_specification_verbatim(cluster):
    spec = {
        "agent": "fence_ipmilan",
        "sharedparameters": {"--lanplus": ""},
        "nodeparameters": {"--ip": {"n1": "10.0.0.5"}},
    }
    cluster.create(
        FAR_TEMPLATE,
        "ipmi",
        spec={"template": {"spec": spec}},
        metadata={"annotations": {"remediation.medik8s.io/multiple-templates-support": "true"}},
    )
    answer = await driver(cluster, FAR_TEMPLATE, "ipmi").take_down(
        cluster.target(), cluster.order(3.0)
    )
    assert isinstance(answer, NotDown)
    (made,) = cluster.all(FAR)
    assert made["metadata"]["name"].startswith("n1-")
    assert made["spec"] == spec
    satisfies_crd(
        {key: made[key] for key in ("apiVersion", "kind", "metadata", "spec")},
        "fenceagentsremediations.fence-agents-remediation.medik8s.io.yaml",
    )


async def test_a_failure_of_the_remediator_is_a_failure_in_its_words(cluster):
    cluster.plays(SNR, lambda tree: says(cluster, tree, "False", "AgentFailed"))
    answer = await driver(cluster).take_down(cluster.target(), cluster.order())
    assert isinstance(answer, NotDown)
    assert "AgentFailed" in answer.detail


async def test_a_remediator_that_hangs_is_asked_to_stop_at_the_deadline(cluster):
    cluster.plays(SNR, lambda tree: says(cluster, tree, "Unknown"))
    answer = await driver(cluster).take_down(cluster.target(), cluster.order(20.0))
    assert isinstance(answer, NotDown)
    assert "not succeeded in time" in answer.detail
    (made,) = cluster.all(SNR)
    assert TIMED_OUT in made["metadata"]["annotations"]


async def test_one_that_was_asked_to_stop_is_removed_before_another_is_made(cluster):
    await driver(cluster).take_down(cluster.target(), cluster.order(3.0))
    (first,) = cluster.all(SNR)
    cluster.plays(SNR, lambda tree: says(cluster, tree, "True"))
    down = await driver(cluster).take_down(cluster.target(), cluster.order())
    assert isinstance(down, Down)
    (second,) = cluster.all(SNR)
    assert second["metadata"]["uid"] != first["metadata"]["uid"]


async def test_a_repeat_after_a_crash_goes_on_with_the_same_object(cluster):
    work = driver(cluster).take_down(cluster.target(), cluster.order(100.0))
    first = asyncio.create_task(work)
    await asyncio.sleep(5.0)
    first.cancel()
    (made,) = cluster.all(SNR)
    cluster.plays(SNR, lambda tree: says(cluster, tree, "True"))
    down = await driver(cluster).take_down(cluster.target(), cluster.order())
    assert isinstance(down, Down)
    assert not down.ordered
    assert [one["metadata"]["uid"] for one in cluster.all(SNR)] == [made["metadata"]["uid"]]


async def test_a_success_for_an_earlier_boot_proves_nothing(cluster):
    cluster.plays(SNR, lambda tree: says(cluster, tree, "True"))
    await driver(cluster).take_down(cluster.target(boot_id="boot-0"), cluster.order())
    (old,) = cluster.all(SNR)
    down = await driver(cluster).take_down(cluster.target(), cluster.order())
    assert isinstance(down, Down)
    (new,) = cluster.all(SNR)
    assert new["metadata"]["uid"] != old["metadata"]["uid"]


async def test_an_earlier_one_held_by_its_finalizer_is_waited_for_not_overruled(cluster):
    def remediator(tree):
        if "finalizers" not in tree["metadata"] and "deletionTimestamp" not in tree["metadata"]:
            cluster.store.mutate(
                SNR, NAMESPACE, "n1", lambda each: each["metadata"].update(finalizers=["snr/x"])
            )

    cluster.plays(SNR, remediator)
    await driver(cluster).take_down(cluster.target(boot_id="boot-0"), cluster.order(5.0))
    answer = await driver(cluster).take_down(cluster.target(), cluster.order(5.0))
    assert isinstance(answer, NotDown)
    assert "held by snr/x" in answer.detail
    left = await driver(cluster).take_back(cluster.target())
    assert "held by snr/x" in left


async def test_somebody_elses_remediation_of_the_node_is_left_alone(cluster):
    cluster.create(SNR, "n1", spec={})
    answer = await driver(cluster).take_down(cluster.target(), cluster.order())
    assert isinstance(answer, NotDown)
    assert "somebody else" in answer.detail
    assert await driver(cluster).take_back(cluster.target()) == ""
    assert len(cluster.all(SNR)) == 1


async def test_one_that_is_deleted_under_our_hands_is_a_failure(cluster):
    def remediator(tree):
        if cluster.clock.now() > 1_700_000_003.0:
            cluster.store.delete(SNR, NAMESPACE, tree["metadata"]["name"])

    cluster.plays(SNR, remediator)
    answer = await driver(cluster).take_down(cluster.target(), cluster.order())
    assert isinstance(answer, NotDown)
    assert "deleted while it worked" in answer.detail


@pytest.mark.parametrize("loss", ["template", "kind"])
async def test_a_template_or_kind_that_is_gone_is_said_in_peace_and_in_need(cluster, loss):
    if loss == "template":
        cluster.store.delete(SNR_TEMPLATE, NAMESPACE, "automatic")
    else:
        cluster.kinds.remove(SNR)
    checked = await driver(cluster).check(cluster.target())
    answer = await driver(cluster).take_down(cluster.target(), cluster.order())
    assert isinstance(answer, NotDown)
    for said in (checked.fault, answer.detail):
        assert "automatic does not exist" in said or "has no SelfNodeRemediation" in said


async def test_nothing_is_made_when_the_last_look_spares(cluster):
    async def look() -> None:
        raise SparedError("it lives")

    with pytest.raises(SparedError):
        await driver(cluster).take_down(cluster.target(), cluster.order(look=look))
    assert cluster.all(SNR) == []


async def test_after_the_node_is_back_nothing_of_ours_is_left(cluster):
    cluster.plays(SNR, lambda tree: says(cluster, tree, "True"))
    await driver(cluster).take_down(cluster.target(), cluster.order())
    assert await driver(cluster).take_back(cluster.target()) == ""
    assert cluster.all(SNR) == []
