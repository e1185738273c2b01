"""The manifests: they parse, they belong together, and their rights are those the code uses."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

from remediator.admission import server as webhook_server
from remediator.config import Settings, load
from remediator.kube import custom_resources, resources
from remediator.kube.pods import PACING_GATE
from remediator.kube.resources import Resource

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
FILES = sorted(DEPLOY.rglob("*.yaml"))

# Who uses what beyond watching: (group, resource, verb) -> the module that does.
OBSERVING = {
    ("", "nodes", "get"): "actions/live.py",
    ("", "pods", "get"): "actions/force_stop.py",
    ("kubevirt.io", "virtualmachines", "get"): "actions/start.py",
    ("kubevirt.io", "virtualmachineinstances", "get"): "actions/start.py",
    ("coordination.k8s.io", "leases", "get"): "kube/lease_record.py",
    ("coordination.k8s.io", "leases", "create"): "kube/lease_record.py",
    ("coordination.k8s.io", "leases", "update"): "kube/lease_record.py",
    ("coordination.k8s.io", "leases", "patch"): "watchers/canary.py",
    ("coordination.k8s.io", "leases", "delete"): "watchers/canary.py",
    ("remediator.io", "fenceconfigs/status", "patch"): "fence_reload.py",
    ("remediator.io", "remediationpolicies/status", "patch"): "policy_reload.py",
    ("", "secrets", "get"): "actions/fence/credentials.py",
}
# Our own kinds, watched apart from those of others.
OWN = {
    ("remediator.io", plural, verb)
    for plural in ("fenceconfigs", "remediationpolicies")
    for verb in ("list", "watch")
}
ACTING = {
    ("", "nodes", "patch"): "actions/live.py",
    ("", "pods", "delete"): "actions/force_stop.py",
    ("", "pods", "patch"): "kube/pacing_gates.py",
    ("subresources.kubevirt.io", "virtualmachines/start", "update"): "actions/start.py",
    **{
        ("subresources.kubevirt.io", what, "update"): "actions/instances.py"
        for what in (
            "virtualmachines/restart",
            "virtualmachineinstances/softreboot",
            "virtualmachineinstances/unpause",
        )
    },
    ("snapshot.kubevirt.io", "virtualmachinesnapshots", "get"): "actions/snapshot.py",
    ("snapshot.kubevirt.io", "virtualmachinesnapshots", "create"): "actions/snapshot.py",
    ("", "pods/eviction", "create"): "actions/migrate.py",
    ("kubevirt.io", "virtualmachineinstancemigrations", "get"): "actions/migrate.py",
    ("kubevirt.io", "virtualmachineinstancemigrations", "create"): "actions/migrate.py",
    ("kubevirt.io", "virtualmachineinstancemigrations", "delete"): "actions/cancel_migration.py",
    ("subresources.kubevirt.io", "virtualmachineinstances/evacuate/cancel", "update"): (
        "actions/cancel_migration.py"
    ),
}
REMEDIATIONS = {
    "self-node-remediation.medik8s.io": "selfnoderemediation",
    "fence-agents-remediation.medik8s.io": "fenceagentsremediation",
    "machine-deletion-remediation.medik8s.io": "machinedeletionremediation",
    "infrastructure.cluster.x-k8s.io": "metal3remediation",
}
# What fence methods do to others' objects: (group, resource, verb) -> the driver that does.
FENCING = {
    **{
        (group, f"{name}s", verb): "medik8s"
        for group, name in REMEDIATIONS.items()
        for verb in ("get", "list", "create", "patch", "delete")
    },
    **{(group, f"{name}templates", "get"): "medik8s" for group, name in REMEDIATIONS.items()},
    ("metal3.io", "baremetalhosts", "get"): "metal3",
    ("metal3.io", "baremetalhosts", "patch"): "metal3",
    **{
        (group, "machines", verb): "machine"
        for group in ("machine.openshift.io", "cluster.x-k8s.io")
        for verb in ("get", "delete")
    },
    **{
        ("csiaddons.openshift.io", "networkfences", verb): "network_fence"
        for verb in ("get", "create", "patch", "delete")
    },
    ("csiaddons.openshift.io", "csiaddonsnodes", "list"): "network_fence",
}
OBJECT_CALLS = {"get": "read", "list": "ours|all_of"}  # of ``actions.fence.objects``
CALLS = {"update": "replace"}  # the client's word for PUT


def documents(directory):
    return [
        document
        for path in sorted(directory.glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
    ]


def rights(directory):
    return {
        (group, resource, verb)
        for document in documents(directory)
        if document["kind"] in ("ClusterRole", "Role")
        for rule in document["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def watched():
    """Return what the inventory watches, read from its code."""
    files = [ROOT / f"remediator/watchers/{name}.py" for name in ("inventory", "guests")]
    names = {
        call.args[1].id
        for file in files
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "_watch"
    }
    found: list[Resource] = [getattr(resources, name) for name in names]
    assert len(found) >= 15
    groups = {one: re.match(r"/apis/([^/]+)/", one.api) for one in found}
    return {
        (match[1] if match else "", one.plural, verb)
        for one, match in groups.items()
        for verb in ("list", "watch")
    }


def watched_where_installed():
    """Return the custom resources that are watched; each of them must have a watch."""
    wired = (ROOT / "remediator/watchers/customs.py").read_text()
    names = re.findall(r"resources\.([A-Z0-9_]+)\b", wired)
    named = {name: getattr(custom_resources, name) for name in names if name != "CUSTOM_RESOURCES"}
    assert sorted(named.values(), key=str) == sorted(custom_resources.CUSTOM_RESOURCES, key=str)
    return {(one.group, one.plural, verb) for one in named.values() for verb in ("list", "watch")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_every_file_parses(path):
    for document in yaml.safe_load_all(path.read_text()):
        assert document["apiVersion"]
        assert document["kind"]


def test_observing_has_the_rights_that_the_code_uses_and_no_more():
    assert rights(DEPLOY / "base") == (watched() | watched_where_installed() | OWN | set(OBSERVING))


def test_acting_adds_the_rights_that_the_code_uses_and_no_more():
    assert rights(DEPLOY / "enforce") == set(ACTING) | set(FENCING)


@pytest.mark.parametrize(("right", "driver"), FENCING.items(), ids=str)
def test_the_fence_driver_that_needs_a_right_makes_such_a_call(right, driver):
    text = (ROOT / f"remediator/actions/fence/{driver}.py").read_text()
    verb = OBJECT_CALLS.get(right[2], right[2])
    assert re.search(rf"_objects\.({verb})\(", text), f"{driver} does not call {verb}"


def test_claims_on_nodes_have_the_rights_that_the_code_uses_and_no_more():
    wanted = {("coordination.k8s.io", "leases", verb) for verb in ("create", "update", "delete")}
    assert rights(DEPLOY / "medik8s") == wanted
    (role,) = [one for one in documents(DEPLOY / "medik8s") if one["kind"] == "Role"]
    assert role["metadata"]["namespace"] == resources.MEDIK8S_LEASES.namespace
    assert "_client.delete(" in (ROOT / "remediator/actions/claims.py").read_text()


def test_no_secret_can_be_read_but_by_its_name():
    rules = [
        rule
        for directory in ("base", "enforce")
        for document in documents(DEPLOY / directory)
        if document["kind"] in ("ClusterRole", "Role")
        for rule in document["rules"]
        if "secrets" in rule["resources"]
    ]
    assert rules
    assert all(rule["resourceNames"] and rule["verbs"] == ["get"] for rule in rules)


@pytest.mark.parametrize(("right", "module"), [*OBSERVING.items(), *ACTING.items()])
def test_the_module_that_needs_a_right_makes_such_a_call(right, module):
    verb = CALLS.get(right[2], right[2])
    text = (ROOT / "remediator" / module).read_text()
    assert re.search(rf"lient\.{verb}\(|\bread\(", text), f"{module} does not call {verb}"


@pytest.mark.parametrize("name", ["admission", "admission-policy", "base", "enforce", "medik8s"])
def test_a_kustomization_names_files_that_exist_and_forgets_none(name):
    directory = DEPLOY / name
    made = yaml.safe_load((directory / "kustomization.yaml").read_text())
    # It would move the canary's Role out of kube-node-lease; every file names its own namespace.
    assert "namespace" not in made
    named = {*made["resources"], *(patch["path"] for patch in made.get("patches", []))}
    for one in named:
        assert (directory / one).exists(), one
    here = {path.name for path in directory.glob("*.yaml")} - {"kustomization.yaml"}
    assert here == {one for one in named if not one.startswith("..")}


def deployment():
    return next(one for one in documents(DEPLOY / "base") if one["kind"] == "Deployment")


def test_the_deployment_observes_and_its_variables_are_settings():
    container = deployment()["spec"]["template"]["spec"]["containers"][0]
    env = {one["name"]: one.get("value", "from-the-pod") for one in container["env"]}
    settings = load(environ=env)
    assert settings.mode == "observe"
    assert settings.http.host == "0.0.0.0"
    assert settings.http.port == container["ports"][0]["containerPort"] == Settings().http.port
    assert settings.journal.path.startswith("/var/lib/remediator/")
    assert settings.probes.node == "from-the-pod"


def patched(base: object, patch: object) -> object:
    """Apply a strategic merge patch as far as the patches here go: lists of named things merge."""
    if isinstance(base, dict) and isinstance(patch, dict):
        return {**base, **{key: patched(base.get(key), patch[key]) for key in patch}}
    if isinstance(base, list) and isinstance(patch, list):
        found = {one["name"]: one for one in base}
        for one in patch:
            found[one["name"]] = patched(found.get(one["name"], {}), one)
        return list(found.values())
    return patch


def test_the_webhook_listens_where_the_api_server_is_told_to_ask():
    (service,) = [one for one in documents(DEPLOY / "admission") if one["kind"] == "Service"]
    (hooks,) = [one for one in documents(DEPLOY / "admission") if "webhooks" in one]
    (patch,) = [one for one in documents(DEPLOY / "admission") if one["kind"] == "Deployment"]
    pod = patched(deployment(), patch)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    env = {one["name"]: one.get("value", "from-the-pod") for one in container["env"]}
    admission = load(environ=env).admission
    assert admission.enabled
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert ports[service["spec"]["ports"][0]["targetPort"]] == admission.port
    (webhook,) = hooks["webhooks"]
    asked = webhook["clientConfig"]["service"]
    assert (asked["namespace"], asked["name"], asked["port"], asked["path"]) == (
        service["metadata"]["namespace"],
        service["metadata"]["name"],
        service["spec"]["ports"][0]["port"],
        webhook_server.PATH,
    )
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    assert str(Path(admission.cert_file).parent) == mounts["webhook"]
    secrets = {
        one["name"]: one["secret"]["secretName"] for one in pod["volumes"] if "secret" in one
    }
    (certificate,) = [
        one for one in documents(DEPLOY / "admission") if one["kind"] == "Certificate"
    ]
    assert certificate["spec"]["secretName"] == secrets["webhook"]
    host = f"{asked['name']}.{asked['namespace']}.svc"
    assert host in certificate["spec"]["dnsNames"]
    named = hooks["metadata"]["annotations"]["cert-manager.io/inject-ca-from"]
    assert named == f"{certificate['metadata']['namespace']}/{certificate['metadata']['name']}"


def test_the_webhook_fails_open_and_is_asked_about_launcher_pods_alone():
    (hooks,) = [one for one in documents(DEPLOY / "admission") if "webhooks" in one]
    (webhook,) = hooks["webhooks"]
    assert webhook["failurePolicy"] == "Ignore"
    assert webhook["timeoutSeconds"] <= 2
    assert webhook["sideEffects"] == "None"
    assert webhook["objectSelector"]["matchLabels"] == {"kubevirt.io": "virt-launcher"}
    (rule,) = webhook["rules"]
    assert (rule["operations"], rule["resources"]) == (["CREATE"], ["pods"])


def test_the_policy_gates_by_our_name_and_only_where_it_is_switched_on():
    policy, binding = [
        one for one in documents(DEPLOY / "admission-policy") if "Policy" in one["kind"]
    ]
    (switch,) = [one for one in documents(DEPLOY / "admission-policy") if "data" in one]
    (mutation,) = policy["spec"]["mutations"]
    assert f'"{PACING_GATE}"' in mutation["applyConfiguration"]["expression"]
    assert policy["spec"]["failurePolicy"] == "Ignore"
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]
    reference = binding["spec"]["paramRef"]
    assert reference["parameterNotFoundAction"] == "Allow"
    assert reference["name"] == switch["metadata"]["name"]
    assert switch["data"] == {"gating": "off"}


def test_the_pod_may_run_in_a_restricted_namespace():
    pod = deployment()["spec"]["template"]["spec"]
    container = pod["containers"][0]["securityContext"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 65532
    assert container == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["enableServiceLinks"] is False


def test_what_is_bound_and_mounted_exists():
    made = documents(DEPLOY / "base") + documents(DEPLOY / "enforce")
    names = {(one["kind"], one.get("metadata", {}).get("name")) for one in made}
    for one in made:
        if one["kind"].endswith("Binding"):
            assert (one["roleRef"]["kind"], one["roleRef"]["name"]) in names
            for subject in one["subjects"]:
                assert (subject["kind"], subject["name"]) in names
    pod = deployment()["spec"]["template"]["spec"]
    claims = [
        v["persistentVolumeClaim"]["claimName"]
        for v in pod["volumes"]
        if "persistentVolumeClaim" in v
    ]
    assert {("PersistentVolumeClaim", claim) for claim in claims} <= names
    assert ("ServiceAccount", pod["serviceAccountName"]) in names


def test_the_image_ends_on_sigterm_as_nobody_and_without_a_shell():
    text = (ROOT / "Dockerfile").read_text()
    assert 'ENTRYPOINT ["/app/.venv/bin/remediator"]' in text
    assert "USER 65532:65532" in text
    assert "STOPSIGNAL SIGTERM" in text
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for one in " ".join(copied).split():
        assert (ROOT / one).exists(), one
        assert f"!{one}" in ignored
