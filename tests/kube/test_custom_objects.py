"""Custom objects: valid by the real CRDs, and read as what they mean in every version."""

from __future__ import annotations

import jsonschema
import msgspec
import pytest

from remediator.kube.custom_resources import CUSTOM_RESOURCES
from remediator.kube.kubevirt import KubeVirt
from remediator.kube.machine_api import (
    BareMetalHost,
    LabelSelector,
    Machine,
    MachineHealthCheck,
)
from remediator.kube.metadata import CURRENT_CONFIG, DESIRED_CONFIG, ObjectMeta
from remediator.kube.remediations import (
    ClusterVersion,
    NodeHealthCheck,
    NodeMaintenance,
    Remediation,
)
from remediator.kube.storage_objects import CsiAddonsNode, LonghornEngine, StorageNode
from remediator.watchers.narrow import migration_limits
from tests.kube import custom_examples as examples
from tests.kube.custom_examples import condition
from tests.sim.test_crds import CRDS, schema_of


def decode(kind, body):
    return msgspec.json.decode(msgspec.json.encode(body), type=kind)


CAPI = examples.capi_machine(
    conditions=[condition("OwnerRemediated", "False", "WaitingForRemediation")]
)
VALID = {
    ("machines.machine.openshift.io", "v1beta1"): [
        examples.openshift_machine(conditions=[condition("InstanceExists")]),
        examples.openshift_machine(phase="Failed", uid="u"),
    ],
    ("machines.cluster.x-k8s.io", "v1beta2"): [CAPI],
    ("machines.cluster.x-k8s.io", "v1beta1"): [examples.as_capi_v1beta1(CAPI)],
    ("machinehealthchecks.machine.openshift.io", "v1beta1"): [
        examples.openshift_check(labels={"pool": "workers"})
    ],
    ("machinehealthchecks.cluster.x-k8s.io", "v1beta2"): [examples.capi_check()],
    ("machinehealthchecks.cluster.x-k8s.io", "v1beta1"): [
        examples.as_capi_v1beta1(examples.capi_check())
    ],
    ("baremetalhosts.metal3.io", "v1alpha1"): [
        examples.bare_metal_host(),
        examples.bare_metal_host(operational="error", error="power management error"),
    ],
    ("nodehealthchecks.remediation.medik8s.io", "v1alpha1"): [
        examples.node_health_check(examples.unhealthy_node()),
        examples.node_health_check(
            examples.unhealthy_node(timed_out=True, conditionsHealthyTimestamp=examples.AT),
            inFlightRemediations={"n1": examples.AT},
        ),
    ],
    ("selfnoderemediations.self-node-remediation.medik8s.io", "v1alpha1"): [
        examples.remediation(processing="True", succeeded="Unknown")
    ],
    ("fenceagentsremediations.fence-agents-remediation.medik8s.io", "v1alpha1"): [
        {**examples.remediation(processing="False", succeeded="True"), "spec": {"agent": "fence_x"}}
    ],
    ("nodemaintenances.nodemaintenance.medik8s.io", "v1beta1"): [examples.node_maintenance()],
    ("kubevirts.kubevirt.io", "v1"): [
        examples.kubevirt(),
        examples.kubevirt(
            parallelMigrationsPerCluster=10,
            parallelOutboundMigrationsPerNode=1,
            bandwidthPerMigration="64Mi",
            completionTimeoutPerGiB=800,
            progressTimeout=300,
            allowPostCopy=True,
        ),
    ],
}


@pytest.mark.skipif(not CRDS.is_dir(), reason="the real CRDs are not beside the project")
@pytest.mark.parametrize(("name", "version"), VALID, ids=str)
def test_the_examples_satisfy_the_real_schema(name, version):
    schema = schema_of(f"{name}.yaml", version)
    for key in ("apiVersion", "kind", "metadata"):
        schema["properties"][key] = {}
    validator = jsonschema.Draft7Validator(schema)
    for obj in VALID[name, version]:
        problems = [
            f"{'.'.join(map(str, error.absolute_path))}: {error.message[:200]}"
            for error in validator.iter_errors(obj)
        ]
        assert problems == []


def test_every_custom_resource_whose_crd_is_at_hand_has_a_valid_example():
    named = {f"{each.plural}.{each.group}" for each in CUSTOM_RESOURCES}
    at_hand = {path.name.removesuffix(".yaml") for path in CRDS.glob("*.yaml")}
    assert {name for name, _ in VALID} == (named & at_hand if at_hand else {n for n, _ in VALID})


@pytest.mark.parametrize(
    "resource", CUSTOM_RESOURCES, ids=lambda each: f"{each.plural}.{each.group}"
)
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"metadata": {}, "spec": {}, "status": {}},
        {"metadata": {"annotations": None}, "spec": None, "status": None, "new": [1]},
        {
            "spec": {"consumerRef": None, "selector": None, "driver": None},
            "status": {
                "conditions": None,
                "v1beta2": None,
                "deprecated": {"v1beta1": None},
                "nodeRef": None,
                "unhealthyNodes": None,
                "inFlightRemediations": None,
                "provisioning": None,
                "replicaModeMap": None,
                "diskStatus": {"d": None},
                "storage": None,
            },
        },
    ],
)
def test_missing_null_and_unknown_fields_are_tolerated_by_every_property(resource, body):
    obj = decode(resource.item, body)
    for name in dir(resource.item):
        if isinstance(getattr(resource.item, name), property):
            getattr(obj, name)


@pytest.mark.parametrize("convert", [lambda obj: obj, examples.as_capi_v1beta1], ids=["v2", "v1"])
def test_a_machine_of_cluster_api_reads_the_same_in_both_versions(convert):
    new = condition("OwnerRemediated", "False", "WaitingForRemediation")
    old = condition("DrainingSucceeded", "False", "Draining")
    body = examples.capi_machine(phase="Deleting", conditions=[new])
    body["status"]["deprecated"] = {"v1beta1": {"conditions": [condition("Ready"), old]}}
    machine = decode(Machine, convert(body))
    assert machine.phase == "Deleting"
    assert machine.node_ref.name == "n1"
    assert (machine.infrastructure.kind, machine.infrastructure.name) == (
        "Metal3Machine",
        "m1-metal3",
    )
    found = machine.condition("OwnerRemediated")
    assert (found.status, found.reason) == ("False", "WaitingForRemediation")
    assert machine.condition("DrainingSucceeded").status == "False"
    assert machine.condition("NotThere") is None


def test_the_newer_of_two_conditions_of_one_type_counts():
    body = examples.capi_machine(conditions=[condition("Ready", "True")])
    body["status"]["deprecated"] = {"v1beta1": {"conditions": [condition("Ready", "False")]}}
    assert decode(Machine, body).condition("Ready").status == "True"
    assert decode(Machine, examples.as_capi_v1beta1(body)).condition("Ready").status == "True"


DELETING = {"deletionTimestamp": examples.AT}


@pytest.mark.parametrize(
    ("body", "missing"),
    [
        (examples.openshift_machine(), ""),
        (
            examples.openshift_machine(
                phase="Failed", conditions=[condition("InstanceExists", "False", "InstanceMissing")]
            ),
            "InstanceExists=False InstanceMissing",
        ),
        (
            examples.openshift_machine(
                conditions=[condition("InstanceExists", "False", "InstanceNotCreated")]
            ),
            "",
        ),
        (
            examples.openshift_machine(
                conditions=[condition("InstanceExists", "Unknown", "ErrorCheckingProvider")]
            ),
            "",
        ),
        (
            examples.capi_machine(conditions=[condition("Deleting", "True", "DrainingNode")])
            | {"metadata": {"name": "m", **DELETING}},
            "",
        ),
        (
            examples.capi_machine(conditions=[condition("Deleting", "True", "DeletingNode")])
            | {"metadata": {"name": "m", **DELETING}},
            "Deleting=True DeletingNode",
        ),
        (examples.capi_machine(conditions=[condition("Deleting", "True", "DeletingNode")]), ""),
    ],
)
def test_an_instance_is_missing_only_where_its_provider_says_so(body, missing):
    assert decode(Machine, body).instance_missing == missing


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ({}, True),
        ({"matchLabels": {"a": "1"}}, True),
        ({"matchLabels": {"a": "2"}}, False),
        ({"matchLabels": {"b": ""}}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, True),
        ({"matchExpressions": [{"key": "b", "operator": "In", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["1"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, False),
        ({"matchExpressions": [{"key": "a", "operator": "Perhaps"}]}, False),
        (
            {
                "matchLabels": {"a": "1"},
                "matchExpressions": [{"key": "c", "operator": "Exists"}],
            },
            False,
        ),
    ],
)
def test_a_selector_matches_as_kubernetes_reads_it(selector, matches):
    assert decode(LabelSelector, selector).matches({"a": "1"}) is matches


def test_a_health_check_counts_and_of_cluster_api_names_its_targets():
    check = decode(MachineHealthCheck, examples.capi_check(targets=("m1", "m2"), healthy=1))
    assert (check.expected, check.healthy, check.targets) == (2, 1, ("m1", "m2"))
    fresh = decode(MachineHealthCheck, {"metadata": {"name": "new"}, "spec": {}, "status": {}})
    assert (fresh.expected, fresh.healthy, fresh.targets) == (0, None, ())


def test_a_bare_metal_host_tells_its_power_only_while_it_is_in_use():
    host = decode(
        BareMetalHost,
        examples.bare_metal_host(
            powered_on=False,
            annotations={
                "reboot.metal3.io": "",
                "reboot.metal3.io/capbm-requested-power-off": "{}",
                "reboot.metal3.iox": "",
                "x/y": "",
            },
        ),
    )
    assert (host.powered_on, host.in_use, host.operational_status) == (False, True, "OK")
    assert host.reboot_asked_by == (
        "reboot.metal3.io",
        "reboot.metal3.io/capbm-requested-power-off",
    )
    assert (host.consumer.kind, host.consumer.name) == ("Machine", "m1")
    assert not decode(BareMetalHost, examples.bare_metal_host(state="deprovisioning")).in_use


@pytest.mark.parametrize(
    ("body", "in_flight"),
    [
        (examples.remediation(), True),  # just made
        (examples.remediation(processing="True", succeeded="Unknown"), True),
        (examples.remediation(processing="True", succeeded="True"), True),
        (examples.remediation(processing="False", succeeded="Unknown"), True),
        (examples.remediation(processing="False", succeeded="True"), False),
        (examples.remediation(processing="False", succeeded="False"), False),
        (examples.remediation(processing="True", **DELETING), True),
        (examples.remediation(**DELETING), False),
        (
            examples.remediation(annotations={"remediation.medik8s.io/nhc-timed-out": examples.AT}),
            False,
        ),
        (
            examples.remediation(
                processing="True",
                annotations={"remediation.medik8s.io/nhc-timed-out": examples.AT},
            ),
            True,
        ),
        (examples.metal3_remediation(phase="Running"), True),
        (examples.metal3_remediation(phase="Waiting"), True),
        (examples.metal3_remediation(phase="Deleting machine"), True),
        (examples.metal3_remediation(phase="Failed"), False),
    ],
)
def test_a_remediation_is_in_flight_until_it_ends_one_way_or_the_other(body, in_flight):
    assert decode(Remediation, body).in_flight is in_flight


def test_a_node_health_check_names_its_unhealthy_nodes_old_operators_too():
    check = decode(
        NodeHealthCheck,
        examples.node_health_check(
            examples.unhealthy_node("n1"),
            examples.unhealthy_node("n2", conditionsHealthyTimestamp=examples.AT),
            examples.unhealthy_node("n3", healthyDelayed=True),
        ),
    )
    assert [(n.name, n.healthy_again) for n in check.unhealthy_nodes] == [
        ("n1", False),
        ("n2", True),
        ("n3", True),
    ]
    assert check.unhealthy_nodes[0].remediations[0].resource.kind == "SelfNodeRemediation"
    old = {"status": {"inFlightRemediations": {"n4": examples.AT}}}
    assert [n.name for n in decode(NodeHealthCheck, old).unhealthy_nodes] == ["n4"]
    assert decode(NodeHealthCheck, examples.node_health_check(phase="Disabled")).disabled


def test_maintenance_and_upgrades_say_what_they_are_about():
    maintenance = decode(NodeMaintenance, examples.node_maintenance())
    assert (maintenance.node_name, maintenance.reason) == ("n1", "new memory")
    upgrade = decode(ClusterVersion, examples.cluster_version())
    assert (upgrade.progressing, upgrade.desired) == (True, "4.20.1")
    assert not decode(ClusterVersion, examples.cluster_version("False")).progressing


def test_kubevirt_says_how_many_live_migrations_it_carries_out_at_once():
    said = decode(
        KubeVirt,
        examples.kubevirt(
            parallelMigrationsPerCluster=10,
            completionTimeoutPerGiB=800,
            bandwidthPerMigration="64Mi",
        ),
    )
    facts = migration_limits(said)
    assert (facts.at_once, facts.at_once_node, facts.bandwidth) == (10, 2, "64Mi")
    assert (facts.copy_s_per_gib, facts.progress_s) == (800.0, 150.0)


def test_kubevirt_that_says_nothing_has_its_own_defaults():
    facts = migration_limits(decode(KubeVirt, {"spec": {"configuration": None}}))
    assert (facts.at_once, facts.at_once_node, facts.bandwidth, facts.post_copy) == (
        5,
        2,
        "",
        False,
    )


def test_storage_objects_say_which_node_and_how_it_is():
    engine = decode(LonghornEngine, examples.longhorn_engine(modes={"r1": "RW", "r2": "ERR"}))
    assert (engine.node, engine.writer, engine.running) == ("n2", "n2", True)
    assert engine.modes == {"r1": "RW", "r2": "ERR"}
    portworx = decode(StorageNode, examples.storage_node(state="Offline"))
    assert (portworx.node_state.status, portworx.used_size) == ("Offline", "10Gi")
    lost = decode(StorageNode, examples.storage_node(state="Online", phase="Unknown"))
    assert lost.node_state.status == "Unknown"
    sidecar = decode(CsiAddonsNode, examples.csi_addons_node(state="Failed"))
    assert (sidecar.node, sidecar.driver, sidecar.state) == ("n1", "rbd.csi.ceph.com", "Failed")


def test_of_the_machine_config_operator_two_annotations_are_kept():
    meta = msgspec.convert(
        {
            "annotations": {
                CURRENT_CONFIG: "a",
                DESIRED_CONFIG: "b",
                "machineconfiguration.openshift.io/lastAppliedDrain": "c",
            }
        },
        ObjectMeta,
    )
    assert meta.annotations == {CURRENT_CONFIG: "a", DESIRED_CONFIG: "b"}
