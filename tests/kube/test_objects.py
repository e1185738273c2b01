from __future__ import annotations

import time

import msgspec
import pytest

from remediator.kube.objects import (
    LAUNCHER_PODS,
    MEDIK8S_LEASES,
    NODE_LEASES,
    NODES,
    VIRTUAL_MACHINES,
    Lease,
    Node,
    ObjectMeta,
    PersistentVolume,
    PersistentVolumeClaim,
    Pod,
    Taint,
    VirtualMachine,
    VirtualMachineInstance,
    VolumeAttachment,
    format_micro_time,
    format_time,
    parse_time,
    virtual_machine_action,
)


def decode(kind, body):
    return msgspec.json.decode(msgspec.json.encode(body), type=kind)


EVERY_KIND = [
    Lease,
    Node,
    PersistentVolume,
    PersistentVolumeClaim,
    Pod,
    VirtualMachine,
    VirtualMachineInstance,
    VolumeAttachment,
]


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"metadata": {}, "spec": {}, "status": {}},
        {
            "metadata": {
                "name": "x",
                "labels": None,
                "annotations": None,
                "ownerReferences": None,
                "creationTimestamp": None,
                "managedFields": [{"manager": "kubectl"}],
            },
            "spec": None,
            "status": None,
            "somethingNew": [1],
        },
    ],
)
def test_missing_null_and_unknown_fields_are_tolerated_by_every_property(kind, body):
    obj = decode(kind, body)
    for name in dir(kind):
        if isinstance(getattr(kind, name), property):
            getattr(obj, name)
    assert obj.labels == {}
    assert obj.annotations == {}
    assert not obj.deleting


NODE = {
    "metadata": {
        "name": "n1",
        "uid": "u1",
        "resourceVersion": "7",
        "labels": {"topology.kubernetes.io/zone": "z1"},
        "annotations": {
            "kubevirt.io/heartbeat": "2026-11-20T08:00:00Z",
            "machine.openshift.io/machine": "ns/m1",
            "remediation.medik8s.io/manually-confirmed-healthy": "",
            "csi.volume.kubernetes.io/nodeid": "{}",
        },
    },
    "spec": {
        "unschedulable": True,
        "taints": [
            {
                "key": "node.kubernetes.io/out-of-service",
                "value": "nodeshutdown",
                "effect": "NoExecute",
            },
            {"key": "k", "effect": "NoSchedule", "timeAdded": "2026-11-20T08:00:00Z"},
        ],
    },
    "status": {
        "conditions": [
            {"type": "MemoryPressure", "status": "False"},
            {"type": "Ready", "status": "Unknown", "lastTransitionTime": "1970-01-01T00:01:00Z"},
        ],
        "nodeInfo": {"bootID": "b1", "systemUUID": "s1", "kernelVersion": "6"},
        "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
        "volumesInUse": ["kubernetes.io/csi/d^h"],
        "volumesAttached": [{"name": "kubernetes.io/csi/d^h", "devicePath": ""}],
    },
}


def test_a_node_keeps_what_decisions_read():
    node = decode(Node, NODE)
    assert (node.name, node.uid, node.resource_version) == ("n1", "u1", "7")
    assert (node.boot_id, node.system_uuid) == ("b1", "s1")
    assert node.unschedulable
    assert node.ready is None
    assert node.conditions[1].last_transition_at == 60.0
    assert [str(taint) for taint in node.taints] == [
        "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute",
        "k:NoSchedule",
    ]
    assert node.addresses[0].address == "10.0.0.1"
    assert node.volumes_in_use == ("kubernetes.io/csi/d^h",)
    assert node.volumes_attached[0].name == "kubernetes.io/csi/d^h"


@pytest.mark.parametrize(("status", "ready"), [("True", True), ("False", False), ("Unknown", None)])
def test_ready_has_three_values(status, ready):
    node = decode(Node, {"status": {"conditions": [{"type": "Ready", "status": status}]}})
    assert node.ready is ready


def test_annotations_that_nobody_decides_by_are_dropped():
    assert set(decode(Node, NODE).annotations) == {
        "kubevirt.io/heartbeat",
        "machine.openshift.io/machine",
        "remediation.medik8s.io/manually-confirmed-healthy",
    }


def test_repeated_text_is_kept_once():
    first, second = decode(Node, NODE), decode(Node, NODE)
    assert first.conditions[1].type is second.conditions[1].type
    assert next(iter(first.labels.values())) is next(iter(second.labels.values()))


def test_a_lease_is_read_with_its_micro_times():
    lease = decode(
        Lease,
        {
            "spec": {
                "holderIdentity": "n1",
                "leaseDurationSeconds": 40,
                "renewTime": "1970-01-01T00:01:00.250000Z",
                "acquireTime": None,
                "leaseTransitions": 3,
            }
        },
    )
    assert (lease.holder, lease.duration_s, lease.transitions) == ("n1", 40.0, 3)
    assert lease.renewed_at == 60.25
    assert lease.acquired_at is None


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("1970-01-01T00:00:10Z", 10.0),
        ("1970-01-01T00:00:10.123456Z", 10.123456),
        ("1970-01-01T00:00:10.123456789Z", 10.123456),
        ("1970-01-01T02:00:10+02:00", 10.0),
        ("1970-01-01T00:00:10", None),
        ("yesterday", None),
        ("", None),
        (None, None),
    ],
)
def test_times_are_parsed_with_their_zone_or_not_at_all(text, at):
    assert parse_time(text) == at


@pytest.mark.parametrize("zone", ["UTC", "America/Los_Angeles", "Asia/Kolkata"])
def test_times_are_written_in_utc_whatever_the_zone(monkeypatch, zone):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert format_micro_time(1_000_000_000.5) == "2001-09-09T01:46:40.500000Z"
        assert format_time(1_000_000_000.9) == "2001-09-09T01:46:40Z"
        assert parse_time(format_micro_time(1_700_000_000.125)) == 1_700_000_000.125
    finally:
        monkeypatch.undo()
        time.tzset()


def launcher(**metadata):
    return decode(
        Pod, {"metadata": metadata, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}}
    )


def test_a_launcher_pod_knows_its_vmi_by_owner_then_annotation_then_label():
    labels = {"kubevirt.io": "virt-launcher", "vm.kubevirt.io/name": "by-label"}
    annotations = {"kubevirt.io/domain": "by-annotation"}
    owner = {"kind": "VirtualMachineInstance", "name": "by-owner", "uid": "u", "controller": True}
    assert launcher(labels=labels).vmi_name == "by-label"
    assert launcher(labels=labels, annotations=annotations).vmi_name == "by-annotation"
    pod = launcher(labels=labels, annotations=annotations, ownerReferences=[owner])
    assert pod.vmi_name == "by-owner"
    assert (pod.node_name, pod.phase) == ("n1", "Running")


def test_a_launcher_pod_keeps_only_kubevirts_labels():
    pod = launcher(
        labels={
            "kubevirt.io": "virt-launcher",
            "kubevirt.io/created-by": "vmi-uid",
            "kubevirt.io/migrationJobUID": "m",
            "app": "payments",
        }
    )
    assert "app" not in pod.labels
    assert pod.vmi_uid == "vmi-uid"
    assert pod.migration_target


def test_other_pods_keep_their_labels():
    assert launcher(labels={"app": "web"}).labels == {"app": "web"}


@pytest.mark.parametrize(
    ("spec", "strategy"),
    [
        ({"runStrategy": "RerunOnFailure"}, "RerunOnFailure"),
        ({"running": True}, "Always"),
        ({"running": False}, "Halted"),
        ({}, "Halted"),
        (None, "Halted"),
    ],
)
def test_the_deprecated_running_field_is_read_as_kubevirt_reads_it(spec, strategy):
    assert decode(VirtualMachine, {"spec": spec}).run_strategy == strategy


def test_a_vmis_claims_are_of_every_kind_of_volume_that_is_written():
    vmi = decode(
        VirtualMachineInstance,
        {
            "spec": {
                "volumes": [
                    {"name": "root", "dataVolume": {"name": "dv1"}},
                    {
                        "name": "data",
                        "persistentVolumeClaim": {"claimName": "pvc1", "hotpluggable": True},
                    },
                    {"name": "again", "persistentVolumeClaim": {"claimName": "dv1"}},
                    {"name": "init", "cloudInitNoCloud": {"userData": "secret"}},
                ]
            }
        },
    )
    assert vmi.claims == ("dv1", "pvc1")
    assert not vmi.ephemeral
    assert [volume.hotplugged for volume in vmi.volumes] == [False, True, False, False]


def test_a_disk_on_the_host_is_not_ephemeral():
    volumes = [{"name": "d", "hostDisk": {"path": "/var/disk.img", "type": "Disk"}}]
    assert not decode(VirtualMachineInstance, {"spec": {"volumes": volumes}}).ephemeral


def test_a_vmi_of_container_disks_is_ephemeral():
    volumes = [{"name": "d", "containerDisk": {"image": "fedora"}}]
    assert decode(VirtualMachineInstance, {"spec": {"volumes": volumes}}).ephemeral


@pytest.mark.parametrize(
    ("state", "target"),
    [
        ({"targetNode": "n2"}, "n2"),
        ({"targetNode": "n2", "completed": True}, ""),
        ({"targetNode": "n2", "failed": True}, ""),
        ({}, ""),
        (None, ""),
    ],
)
def test_a_migration_counts_while_it_is_in_flight(state, target):
    vmi = decode(VirtualMachineInstance, {"status": {"migrationState": state}})
    assert vmi.migrating_to == target


def test_a_vmis_status_is_read():
    vmi = decode(
        VirtualMachineInstance,
        {
            "metadata": {
                "deletionTimestamp": "2026-11-20T08:00:00Z",
                "ownerReferences": [{"kind": "VirtualMachine", "name": "db", "uid": "u"}],
            },
            "status": {
                "phase": "Running",
                "nodeName": "n1",
                "evacuationNodeName": "n1",
                "conditions": [
                    {"type": "Ready", "status": "True", "lastProbeTime": None},
                    {"type": "AgentConnected", "status": "True"},
                ],
            },
        },
    )
    assert (vmi.phase, vmi.node_name, vmi.vm_name) == ("Running", "n1", "db")
    assert vmi.ready
    assert vmi.agent_connected
    assert vmi.deleting
    assert vmi.evacuating_from == "n1"


def volume_of(*terms):
    affinity = {"required": {"nodeSelectorTerms": list(terms)}}
    return decode(
        PersistentVolume,
        {"spec": {"csi": {"driver": "d", "volumeHandle": "h"}, "nodeAffinity": affinity}},
    )


def on(key, *values, operator="In"):
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("terms", "pinned"),
    [
        ([on("kubernetes.io/hostname", "n1")], ("n1",)),
        ([on("kubernetes.io/hostname", "n2"), on("topology.topolvm.io/node", "n1")], ("n1", "n2")),
        ([on("kubernetes.io/hostname", "n1"), on("topology.kubernetes.io/zone", "z")], ()),
        ([on("kubernetes.io/hostname", "n1", operator="NotIn")], ()),
        ([], ()),
    ],
)
def test_a_volume_is_pinned_only_if_every_alternative_names_hosts(terms, pinned):
    volume = volume_of(*terms)
    assert volume.pinned_to == pinned
    assert (volume.driver, volume.volume_handle) == ("d", "h")


def test_claims_and_attachments_are_read():
    claim = decode(
        PersistentVolumeClaim,
        {
            "spec": {
                "volumeName": "pv1",
                "accessModes": ["ReadWriteMany"],
                "storageClassName": "s",
            },
            "status": {"phase": "Bound"},
        },
    )
    assert (claim.volume_name, claim.access_modes) == ("pv1", ("ReadWriteMany",))
    assert (claim.storage_class, claim.phase) == ("s", "Bound")
    attachment = decode(
        VolumeAttachment,
        {
            "spec": {"nodeName": "n1", "attacher": "d", "source": {"persistentVolumeName": "pv1"}},
            "status": {"attached": True},
        },
    )
    assert (attachment.node_name, attachment.volume_name, attachment.attached) == (
        "n1",
        "pv1",
        True,
    )


def test_resources_know_their_paths():
    assert NODES.path == "/api/v1/nodes"
    assert NODES.object_path("n.1") == "/api/v1/nodes/n.1"
    assert NODES.object_path("n1", subresource="status") == "/api/v1/nodes/n1/status"
    leases = "/apis/coordination.k8s.io/v1/namespaces"
    assert NODE_LEASES.path == f"{leases}/kube-node-lease/leases"
    assert MEDIK8S_LEASES.object_path("node-n1") == f"{leases}/medik8s-leases/leases/node-n1"
    assert LAUNCHER_PODS.path == "/api/v1/pods"
    assert list(LAUNCHER_PODS.query) == [("labelSelector", "kubevirt.io=virt-launcher")]
    assert VIRTUAL_MACHINES.object_path("db", "pay").endswith("/namespaces/pay/virtualmachines/db")
    assert virtual_machine_action("pay", "db", "start") == (
        "/apis/subresources.kubevirt.io/v1/namespaces/pay/virtualmachines/db/start"
    )


def test_a_name_cannot_climb_out_of_its_path():
    assert NODES.object_path("../pods") == "/api/v1/nodes/..%2Fpods"


def test_a_namespaced_object_needs_a_namespace_and_every_object_a_name():
    with pytest.raises(ValueError, match="namespace is needed"):
        VIRTUAL_MACHINES.object_path("db")
    with pytest.raises(ValueError, match="name is needed"):
        NODES.object_path("")


def test_objects_can_be_made_by_hand():
    assert Node(metadata=ObjectMeta(name="n1")).name == "n1"
    assert str(Taint(key="k", effect="NoSchedule")) == "k:NoSchedule"
