"""Random small clusters as Kubernetes objects: nodes, pods and volumes with every hard rule.

The labels and values are few, so that rules meet, hold and fail in every mixture.
"""

from __future__ import annotations

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
HOST = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"
MODEL = "cpu-model.node.kubevirt.io/Skylake"
NAMESPACES = ("a", "b")
APPS = ("db", "web", "cache")
GPU = "nvidia.com/gpu"


def chance(rng, share):
    return rng.random() < share


def labels(rng, name, number):
    found = {HOST: name, "kubevirt.io/schedulable": "true", "kubernetes.io/arch": "amd64"}
    if chance(rng, 0.8):
        found[ZONE] = f"z{number % 3}"
    if chance(rng, 0.5):
        found[MODEL] = "true"
    if chance(rng, 0.5):
        found["disk"] = rng.choice(("ssd", "hdd"))
    if chance(rng, 0.4):
        found["generation"] = str(rng.randint(1, 4))
    return found


def node(rng, number):
    name = f"n{number}"
    taints = [
        {
            "key": rng.choice(("dedicated", "sick")),
            "value": rng.choice(("", "gpu")),
            "effect": rng.choice(("NoSchedule", "NoExecute", "PreferNoSchedule")),
        }
        for _ in range(rng.choice((0, 0, 0, 1, 2)))
    ]
    allocatable = {
        "cpu": rng.choice(("1", "2", "1500m")),
        "memory": rng.choice(("2Gi", "4Gi", "3000M")),
        "pods": rng.choice(("2", "4", "110")),
    }
    if chance(rng, 0.3):
        allocatable[GPU] = "1"
    return {
        "metadata": {"name": name, "uid": f"u-{name}", "labels": labels(rng, name, number)},
        "spec": {"taints": taints, "unschedulable": chance(rng, 0.1)},
        "status": {"allocatable": allocatable},
    }


def selector(rng):
    kind = rng.randrange(6)
    app = rng.choice(APPS)
    if kind == 0:
        return {}
    if kind == 1:
        operator = rng.choice(("In", "NotIn"))
        values = [app, rng.choice(APPS)]
        return {"matchExpressions": [{"key": "app", "operator": operator, "values": values}]}
    if kind == 2:
        return {
            "matchExpressions": [
                {"key": "tier", "operator": rng.choice(("Exists", "DoesNotExist"))}
            ]
        }
    return {"matchLabels": {"app": app}}


def pod_term(rng):
    term = {"topologyKey": rng.choice((HOST, HOST, ZONE, "disk")), "labelSelector": selector(rng)}
    which = rng.randrange(6)
    if which == 0:
        term["namespaces"] = [rng.choice(NAMESPACES)]
    elif which == 1:
        term["namespaceSelector"] = {}
    elif which == 2:
        del term["labelSelector"]
    return term


def node_term(rng):
    expressions = rng.choice(
        (
            [{"key": "disk", "operator": "In", "values": ["ssd"]}],
            [{"key": "disk", "operator": "NotIn", "values": ["ssd"]}],
            [{"key": ZONE, "operator": "Exists"}],
            [{"key": "generation", "operator": "Gt", "values": ["2"]}],
            [{"key": "generation", "operator": "Lt", "values": ["x"]}],
            [],
        )
    )
    term = {"matchExpressions": expressions}
    if chance(rng, 0.2):
        names = [f"n{rng.randrange(5)}", f"n{rng.randrange(5)}"]
        term["matchFields"] = [{"key": "metadata.name", "operator": "In", "values": names}]
    return term


def affinity(rng):
    found = {}
    if chance(rng, 0.3):
        terms = [node_term(rng) for _ in range(rng.choice((1, 1, 2)))]
        found["nodeAffinity"] = {REQUIRED: {"nodeSelectorTerms": terms}}
    if chance(rng, 0.2):
        found["podAffinity"] = {REQUIRED: [pod_term(rng) for _ in range(rng.choice((1, 1, 2)))]}
    if chance(rng, 0.4):
        found["podAntiAffinity"] = {REQUIRED: [pod_term(rng) for _ in range(rng.choice((1, 2)))]}
    return found


def spread(rng):
    return {
        "topologyKey": rng.choice((HOST, ZONE)),
        "maxSkew": rng.choice((1, 2)),
        "whenUnsatisfiable": rng.choice(("DoNotSchedule", "DoNotSchedule", "ScheduleAnyway")),
        "labelSelector": selector(rng),
        **({"minDomains": rng.choice((2, 4))} if chance(rng, 0.2) else {}),
    }


def pod(rng, number, node_name=""):
    requests = {
        "cpu": rng.choice(("100m", "500m", "1")),
        "memory": rng.choice(("256Mi", "1Gi", "500M")),
    }
    if chance(rng, 0.1):
        requests[GPU] = "1"
    spec = {
        "containers": [{"name": "compute", "resources": {"requests": requests}}],
        "nodeSelector": {"kubevirt.io/schedulable": "true"},
        "volumes": [],
    }
    if chance(rng, 0.2):
        spec["nodeSelector"][MODEL] = "true"
    if chance(rng, 0.1):
        spec["nodeSelector"]["kubernetes.io/arch"] = rng.choice(("amd64", "arm64"))
    if chance(rng, 0.2):
        spec["initContainers"] = [
            {
                "resources": {"requests": {"cpu": "300m"}},
                **({"restartPolicy": "Always"} if chance(rng, 0.5) else {}),
            }
        ]
    if chance(rng, 0.2):
        spec["overhead"] = {"memory": "100Mi"}
    found = affinity(rng)
    if found:
        spec["affinity"] = found
    if chance(rng, 0.5):
        spec["tolerations"] = [
            {"key": "dedicated", "operator": rng.choice(("Exists", "Equal")), "value": "gpu"},
            *([{"operator": "Exists", "effect": "NoExecute"}] if chance(rng, 0.3) else []),
        ]
    if chance(rng, 0.2):
        spec["topologySpreadConstraints"] = [spread(rng)]
    if node_name:
        spec["nodeName"] = node_name
    namespace = rng.choice(NAMESPACES)
    marks = {"kubevirt.io": "virt-launcher", "vm.kubevirt.io/name": f"vm{number}"}
    if chance(rng, 0.8):
        marks["app"] = rng.choice(APPS)
    if chance(rng, 0.3):
        marks["tier"] = "1"
    return {
        "metadata": {
            "name": f"virt-launcher-vm{number}",
            "namespace": namespace,
            "uid": f"p{number}",
            "labels": marks,
        },
        "spec": spec,
        "status": {"phase": "Running" if node_name else "Pending"},
    }


def volume(rng, number):
    spec = {"csi": {"driver": "csi.sim", "volumeHandle": f"h{number}"}}
    kind = rng.randrange(3)
    if kind == 0:
        value = f"z{rng.randrange(3)}"
        terms = [{"matchExpressions": [{"key": ZONE, "operator": "In", "values": [value]}]}]
        spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": terms}}
    elif kind == 1:
        value = f"n{rng.randrange(4)}"
        terms = [{"matchExpressions": [{"key": HOST, "operator": "In", "values": [value]}]}]
        spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": terms}}
    return {"metadata": {"name": f"pv{number}", "uid": f"pv{number}"}, "spec": spec}


def town(rng):
    """Return nodes, bound pods, waiting pods, and each waiting pod's volumes."""
    nodes = [node(rng, number) for number in range(rng.randint(1, 5))]
    names = [each["metadata"]["name"] for each in nodes]
    bound = [pod(rng, number, rng.choice(names)) for number in range(rng.randint(0, 6))]
    waiting = [pod(rng, 100 + number) for number in range(rng.randint(1, 4))]
    volumes = {
        each["metadata"]["uid"]: [volume(rng, number)] if chance(rng, 0.3) else []
        for number, each in enumerate(waiting)
    }
    return nodes, bound, waiting, volumes
