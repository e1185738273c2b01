"""What binds a scheduler, read from pods, nodes and volumes as the API server sends them."""

from __future__ import annotations

import msgspec
import pytest

from remediator.engine.pod_rules import (
    NodeTerm,
    PodNeeds,
    PodRules,
    PodTerm,
    Requirement,
    Spread,
    Toleration,
)
from remediator.kube.objects import Node, PersistentVolume, PersistentVolumeClaim, Pod
from remediator.kube.quantities import millis, whole

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def decode(kind, obj):
    return msgspec.json.decode(msgspec.json.encode(obj), type=kind)


def pod(spec=None, labels=None):
    meta = {"name": "p", "namespace": "a", "labels": {"kubevirt.io": "virt-launcher"}}
    meta["labels"].update(labels or {})
    return decode(Pod, {"metadata": meta, "spec": spec or {}})


def asks(**requests):
    return {"resources": {"requests": requests}}


@pytest.mark.parametrize(
    ("text", "in_units", "in_millis"),
    [
        ("500m", 1, 500),
        ("1.5", 2, 1500),
        (2, 2, 2000),
        ("4Gi", 4 * 2**30, 4 * 2**30 * 1000),
        ("1e3", 1000, 1_000_000),
        ("12E", 12 * 10**18, 12 * 10**21),
        ("100n", 1, 1),
        ("", 0, 0),
        ("much", 0, 0),
        ("1.2.3", 0, 0),
        ("9" * 60, 0, 0),
    ],
)
def test_quantities_are_whole_numbers_rounded_up(text, in_units, in_millis):
    if text == "9" * 60:  # cut off: no API server sends it; it must only not harm
        assert whole(text) >= 0
        return
    assert whole(text) == in_units
    assert millis(text) == in_millis


def test_containers_add_up_and_the_larger_of_init_containers_counts():
    spec = {
        "containers": [asks(cpu="100m", memory="1Gi"), asks(cpu="50m")],
        "initContainers": [
            {**asks(cpu="20m"), "restartPolicy": "Always"},
            asks(cpu="1", memory="10Mi"),
        ],
        "overhead": {"memory": "1Mi"},
    }
    needs = pod(spec).needs
    # 1 core and the sidecar that runs by then, against 100 + 50 + 20
    assert needs == PodNeeds(cpu_m=1020, memory=2**30 + 2**20)


def test_devices_that_every_node_has_plenty_of_are_left_out():
    requests = {"devices.kubevirt.io/kvm": "1", "hugepages-2Mi": "1Gi", "nvidia.com/gpu": "1"}
    needs = pod({"containers": [asks(**requests)]}).needs
    assert needs.extra == (("hugepages-2Mi", 2**30), ("nvidia.com/gpu", 1))


def test_every_hard_rule_is_read():
    term = {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": {"app": "db"}},
    }
    spec = {
        "nodeSelector": {"cpu-model.node.kubevirt.io/Skylake": "true"},
        "affinity": {
            "nodeAffinity": {
                REQUIRED: {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "gen", "operator": "Gt", "values": ["3"]}]}
                    ]
                },
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 1, "preference": {}}
                ],
            },
            "podAffinity": {REQUIRED: [{**term, "namespaces": ["x", "b"]}]},
            "podAntiAffinity": {REQUIRED: [term]},
        },
        "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute"}],
        "topologySpreadConstraints": [
            {
                "maxSkew": 2,
                "topologyKey": "zone",
                "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {
                    "matchExpressions": [{"key": "app", "operator": "In", "values": ["db"]}]
                },
            },
            {"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "ScheduleAnyway"},
        ],
    }
    db = (Requirement(key="app", values=("db",)),)
    host = "kubernetes.io/hostname"
    assert pod(spec).needs.rules == PodRules(
        node_selector=(("cpu-model.node.kubevirt.io/Skylake", "true"),),
        node_terms=(NodeTerm(labels=(Requirement(key="gen", operator="Gt", values=("3",)),)),),
        affinity=(PodTerm(topology_key=host, selector=db, namespaces=("b", "x")),),
        anti_affinity=(PodTerm(topology_key=host, selector=db),),
        tolerations=(Toleration(key="k", operator="Exists", effect="NoExecute"),),
        spread=(Spread(topology_key="zone", max_skew=2, selector=db),),
    )


def test_what_cannot_be_judged_is_named_and_forbids_nothing():
    term = {
        "topologyKey": "zone",
        "labelSelector": {},
        "namespaceSelector": {"matchLabels": {"team": "a"}},
    }
    rules = pod({"affinity": {"podAntiAffinity": {REQUIRED: [term]}}}).needs.rules
    assert rules == PodRules(unjudged=("namespaceSelector",))


def test_an_empty_namespace_selector_means_all_and_no_selector_means_none():
    everywhere = {"topologyKey": "zone", "labelSelector": {}, "namespaceSelector": {}}
    rules = pod({"affinity": {"podAffinity": {REQUIRED: [everywhere]}}}).needs.rules
    assert rules.affinity == (PodTerm(topology_key="zone", everywhere=True),)
    nothing = {"topologyKey": "zone"}
    rules = pod({"affinity": {"podAffinity": {REQUIRED: [nothing]}}}).needs.rules
    assert rules.affinity == (PodTerm(topology_key="zone", none=True),)


def test_rules_of_one_migration_are_not_the_vms():
    source = {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": {"kubevirt.io/created-by": "uid"}},
    }
    spec = {
        "nodeSelector": {"cpu-model-migration.node.kubevirt.io/Skylake": "true", "disk": "ssd"},
        "affinity": {"podAntiAffinity": {REQUIRED: [source]}},
    }
    assert pod(spec).needs.rules == PodRules(node_selector=(("disk", "ssd"),))


def test_malformed_rules_are_none_rather_than_an_end_of_the_watch():
    assert pod({"affinity": {"podAffinity": {REQUIRED: 7}}}).needs.rules == PodRules()


def test_equal_rules_are_kept_once():
    spec = {"nodeSelector": {"disk": "ssd"}, "containers": [asks(cpu="1")]}
    assert pod(spec).needs is pod(spec).needs


def test_labels_of_the_owner_are_kept_once_and_found_beside_kubevirts():
    one = pod(labels={"app": "db", "kubevirt.io/created-by": "u1"})
    other = pod(labels={"app": "db", "kubevirt.io/created-by": "u2"})
    assert one.app_labels is other.app_labels
    assert (one.label("app"), one.label("kubevirt.io/created-by")) == ("db", "u1")
    assert one.label("tier") is None
    assert one.group == "a/db"


def test_a_pool_is_an_application():
    assert pod(labels={"kubevirt.io/vmpool": "web", "app": "x"}).group == "a/web"


def test_a_node_tells_what_it_can_give():
    node = decode(Node, {"status": {"allocatable": {"cpu": "3920m", "memory": "16Gi"}}})
    assert node.allocatable == {"cpu": 3920, "memory": 16 * 2**30}
    assert decode(Node, {}).allocatable == {}


def test_a_volume_tells_where_it_may_be_used():
    affinity = {
        "required": {
            "nodeSelectorTerms": [
                {
                    "matchExpressions": [
                        {"key": "topology.ebs.csi.aws.com/zone", "operator": "In", "values": ["z"]}
                    ]
                }
            ]
        }
    }
    volume = decode(PersistentVolume, {"spec": {"nodeAffinity": affinity}})
    (term,) = volume.node_terms
    assert term.labels[0].key == "topology.ebs.csi.aws.com/zone"
    assert volume.pinned_to == ()
    assert decode(PersistentVolume, {"spec": {}}).node_terms is None


def test_sources_that_no_driver_serves_are_named():
    assert decode(PersistentVolume, {"spec": {"nfs": {"server": "x"}}}).source == "nfs"
    portworx = decode(PersistentVolume, {"spec": {"portworxVolume": {"volumeID": "7"}}})
    assert (portworx.source, portworx.volume_handle) == ("portworx_volume", "7")
    assert decode(PersistentVolume, {"spec": {"csi": {"driver": "d"}}}).source == ""


def test_a_claim_may_say_where_its_data_is():
    marks = {"remediator.io/replica-nodes": "n1, n2,,n1"}
    claim = decode(PersistentVolumeClaim, {"metadata": {"annotations": marks}})
    assert claim.replica_nodes == ("n1", "n2")
