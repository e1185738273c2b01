"""Custom objects as their CRDs want them; ``test_custom_objects`` holds them to the real ones."""

from __future__ import annotations

from remediator.kube.custom_resources import CUSTOM_RESOURCES
from remediator.sim.resources import ResourceType

AT = "2026-11-20T08:00:00Z"
NS = "openshift-machine-api"
MEDIK8S = "openshift-workload-availability"
KINDS = {
    "machines": "Machine",
    "machinehealthchecks": "MachineHealthCheck",
    "baremetalhosts": "BareMetalHost",
    "nodehealthchecks": "NodeHealthCheck",
    "selfnoderemediations": "SelfNodeRemediation",
    "fenceagentsremediations": "FenceAgentsRemediation",
    "machinedeletionremediations": "MachineDeletionRemediation",
    "metal3remediations": "Metal3Remediation",
    "nodemaintenances": "NodeMaintenance",
    "clusterversions": "ClusterVersion",
    "nodes": "Node",
    "replicas": "Replica",
    "engines": "Engine",
    "storagenodes": "StorageNode",
    "csiaddonsnodes": "CSIAddonsNode",
    "kubevirts": "KubeVirt",
    "resources": "Resources",
}


def stored(custom, version=""):
    """Return how the simulated server keeps a custom resource (whole objects, no subresource)."""
    version = version or custom.known[0]
    kind = KINDS[custom.plural]
    return ResourceType(custom.group, version, custom.plural, kind, namespaced=custom.namespaced)


STORED = {(each.group, each.plural): stored(each) for each in CUSTOM_RESOURCES}


def condition(kind, status="True", reason="Because"):
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": "",
        "lastTransitionTime": AT,
    }


def named(name, namespace=None, **metadata):
    where = {} if namespace is None else {"namespace": namespace}
    return {"metadata": {"name": name, **where, **metadata}}


# --- machines -------------------------------------------------------------------------------------


def openshift_machine(name="m1", node="n1", phase="Running", conditions=(), uid="", **metadata):
    status = {"phase": phase, "conditions": list(conditions)}
    if node:
        status["nodeRef"] = {"kind": "Node", "name": node, **({"uid": uid} if uid else {})}
    return {**named(name, NS, **metadata), "spec": {}, "status": status}


def capi_machine(
    name="m1", node="n1", phase="Running", conditions=(), namespace="capi", infra="", **metadata
):
    """Return a Machine of Cluster API v1beta2."""
    return {
        **named(name, namespace, **metadata),
        "spec": {
            "clusterName": "c",
            "bootstrap": {"dataSecretName": "s"},
            "infrastructureRef": {
                "apiGroup": "infrastructure.cluster.x-k8s.io",
                "kind": "Metal3Machine",
                "name": infra or f"{name}-metal3",
            },
        },
        "status": {
            "phase": phase,
            "nodeRef": {"name": node},
            "conditions": list(conditions),
        },
    }


def as_capi_v1beta1(obj):
    """Convert a v1beta2 Machine or MachineHealthCheck as Cluster API's webhook does."""
    made = {**obj, "apiVersion": "cluster.x-k8s.io/v1beta1"}
    status = dict(obj.get("status") or {})
    conditions = status.pop("conditions", None)
    deprecated = (status.pop("deprecated", None) or {}).get("v1beta1") or {}
    if conditions is not None:
        status["v1beta2"] = {"conditions": conditions}
    if "conditions" in deprecated:
        status["conditions"] = deprecated["conditions"]
    if "nodeRef" in status:
        status["nodeRef"] = {"kind": "Node", "apiVersion": "v1", **status["nodeRef"]}
    made["status"] = status
    spec = dict(obj.get("spec") or {})
    if "infrastructureRef" in spec:
        spec["infrastructureRef"] = {
            "apiVersion": "infrastructure.cluster.x-k8s.io/v1beta1",
            "kind": spec["infrastructureRef"]["kind"],
            "name": spec["infrastructureRef"]["name"],
            "namespace": obj["metadata"]["namespace"],
        }
    made["spec"] = spec
    return made


def openshift_check(name="workers", expected=1, healthy=0, labels=None):
    return {
        **named(name, NS),
        "spec": {"selector": {"matchLabels": labels or {}}, "maxUnhealthy": "40%"},
        "status": {"expectedMachines": expected, "currentHealthy": healthy},
    }


def capi_check(name="workers", targets=("m1",), healthy=0, namespace="capi"):
    return {
        **named(name, namespace),
        "spec": {"clusterName": "c", "selector": {"matchLabels": {"pool": "workers"}}},
        "status": {
            "expectedMachines": len(targets),
            "currentHealthy": healthy,
            "targets": list(targets),
        },
    }


def bare_metal_host(
    name="h1",
    consumer=("Machine", "m1", NS),
    *,
    powered_on=True,
    operational="OK",
    state="provisioned",
    error="",
    **metadata,
):
    kind, machine, namespace = consumer
    status = {
        "operationalStatus": operational,
        "poweredOn": powered_on,
        "errorCount": 0,
        "errorMessage": "",
        "provisioningFailCount": 0,
        "provisioning": {"ID": "i", "state": state},
    }
    if error:
        status["errorType"] = error
    return {
        **named(name, namespace, **metadata),
        "spec": {
            "online": True,
            "consumerRef": {"kind": kind, "name": machine, "namespace": namespace},
        },
        "status": status,
    }


# --- remediations ---------------------------------------------------------------------------------


def remediation(name="n1", processing=None, succeeded=None, node="n1", namespace=MEDIK8S, **more):
    """Return a medik8s remediation; None for a condition that is not there yet."""
    conditions = [
        condition(kind, status)
        for kind, status in (("Processing", processing), ("Succeeded", succeeded))
        if status is not None
    ]
    annotations = {"remediation.medik8s.io/node-name": node} if node else {}
    annotations.update(more.pop("annotations", {}))
    return {
        **named(name, namespace, annotations=annotations, **more),
        "spec": {},
        "status": {"conditions": conditions},
    }


def metal3_remediation(name="m1", phase="Running", machine="m1", namespace=NS, **metadata):
    owner = {"apiVersion": "machine.openshift.io/v1beta1", "kind": "Machine", "name": machine}
    return {
        **named(name, namespace, ownerReferences=[{**owner, "uid": "u"}], **metadata),
        "spec": {"strategy": {"type": "Reboot", "retryLimit": 1, "timeoutSeconds": 600}},
        "status": {"phase": phase},
    }


def node_health_check(*unhealthy, name="workers", phase="Remediating", **status):
    return {
        **named(name),
        "spec": {"selector": {}, "remediationTemplate": {}},
        "status": {"phase": phase, "unhealthyNodes": list(unhealthy), **status},
    }


def unhealthy_node(name="n1", kind="SelfNodeRemediation", *, timed_out=False, **more):
    tracked = {"resource": {"kind": kind, "name": name, "namespace": MEDIK8S}, "started": AT}
    if timed_out:
        tracked["timedOut"] = AT
    return {"name": name, "remediations": [tracked], **more}


def node_maintenance(name="nm-n1", node="n1", reason="new memory", **metadata):
    return {**named(name, **metadata), "spec": {"nodeName": node, "reason": reason}}


def cluster_version(progressing="True", desired="4.20.1"):
    return {
        **named("version"),
        "spec": {"clusterID": "c"},
        "status": {
            "desired": {"version": desired, "image": "i"},
            "conditions": [condition("Progressing", progressing), condition("Available")],
        },
    }


def kubevirt(**migrations):
    """Return the KubeVirt object; ``migrations`` is what it says about live migrations."""
    configuration = {"migrations": migrations} if migrations else {}
    spec = {"configuration": configuration}
    return {**named("kubevirt", "kubevirt"), "spec": spec, "status": {"phase": "Deployed"}}


# --- storage --------------------------------------------------------------------------------------

LONGHORN = "longhorn-system"


def longhorn_node(name="n1", available=100, checked_at=AT, ready="True"):
    return {
        **named(name, LONGHORN),
        "spec": {"name": name, "allowScheduling": True},
        "status": {
            "conditions": [condition("Ready", ready)],
            "diskStatus": {"disk-1": {"storageAvailable": available, "storageMaximum": 1000}},
            "snapshotCheckStatus": {"lastPeriodicCheckedAt": checked_at},
        },
    }


def longhorn_replica(name="v1-r-1", node="n1"):
    return {
        **named(name, LONGHORN),
        "spec": {"nodeID": node, "engineName": "v1-e-0", "volumeName": "v1"},
        "status": {"ownerID": node, "currentState": "running", "started": True},
    }


def longhorn_engine(name="v1-e-0", node="n2", modes=None, state="running", owner=None):
    return {
        **named(name, LONGHORN),
        "spec": {"nodeID": node, "volumeName": "v1"},
        "status": {
            "ownerID": node if owner is None else owner,
            "currentState": state,
            "replicaModeMap": modes,
        },
    }


def storage_node(state="Online", at=AT, name="n1", used="10Gi", phase=None):
    return {
        **named(name, "portworx"),
        "spec": {"version": "3.2"},
        "status": {
            "phase": state if phase is None else phase,
            "conditions": [
                {"type": "NodeInit", "status": "Succeeded", "lastTransitionTime": AT},
                {"type": "NodeState", "status": state, "lastTransitionTime": at},
            ],
            "storage": {"totalSize": "100Gi", "usedSize": used},
        },
    }


def csi_addons_node(name="n1-rbd", node="n1", state="Connected", driver="rbd.csi.ceph.com"):
    return {
        **named(name, "rook-ceph"),
        "spec": {"driver": {"name": driver, "endpoint": "pod://x.rook-ceph:9070", "nodeID": node}},
        "status": {"state": state, "message": f"{state}, it says"},
    }
