"""The simulated cluster's KubeVirt objects satisfy the real CRDs, where those are at hand."""

from __future__ import annotations

import asyncio
from pathlib import Path

import jsonschema
import msgspec
import pytest
import yaml

from remediator.actions import snapshot
from remediator.clock import Clock
from remediator.engine.model import Snapshot
from remediator.sim.cluster import SimCluster
from remediator.sim.cluster_spec import ClusterSpec
from remediator.sim.resources import (
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINE_SNAPSHOTS,
    VIRTUAL_MACHINES,
)
from remediator.sim.virtual_time import run

CRDS = Path(__file__).parents[3] / "shared" / "crds"

pytestmark = pytest.mark.skipif(
    not CRDS.is_dir(), reason="the real CRDs are not beside the project"
)


def schema_of(name: str, version: str) -> dict:
    crd = yaml.safe_load((CRDS / name).read_text())
    (served,) = [each for each in crd["spec"]["versions"] if each["name"] == version]
    return strict(served["schema"]["openAPIV3Schema"])


def strict(schema: dict) -> dict:
    """Turn a structural schema into JSON Schema that refuses fields the CRD would prune."""
    made = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
        made["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if made.pop("nullable", False):
        made["type"] = [made.get("type", "object"), "null"]
    if "properties" in schema:
        made["properties"] = {key: strict(value) for key, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made["additionalProperties"] = False
    if isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = strict(schema["additionalProperties"])
    if isinstance(schema.get("items"), dict):
        made["items"] = strict(schema["items"])
    return made


def objects_of_a_busy_cluster(resource) -> list[dict]:
    """Objects in rest, just after a host died, and while VMs boot."""

    async def story() -> list[dict]:
        spec = ClusterSpec(nodes=4, vms=12, seed=7, run_strategies={"Always": 1, "Manual": 1})
        cluster = SimCluster(spec, clock=Clock())
        await cluster.start()
        await asyncio.sleep(30)
        found = list(cluster.store.list(resource))
        cluster.faults.power_loss("n02")
        await asyncio.sleep(2)
        cluster.faults.power_restore("n02", boot_s=5)
        for _ in range(20):
            await asyncio.sleep(2)
            found += cluster.store.list(resource)
        await cluster.stop()
        return found

    return run(story())


@pytest.mark.parametrize(
    ("resource", "file"),
    [
        (VIRTUAL_MACHINES, "virtualmachines.kubevirt.io.yaml"),
        (VIRTUAL_MACHINE_INSTANCES, "virtualmachineinstances.kubevirt.io.yaml"),
    ],
    ids=["vm", "vmi"],
)
def test_every_object_satisfies_the_real_schema(resource, file):
    schema = schema_of(file, "v1")
    for key in ("apiVersion", "kind", "metadata"):
        schema["properties"][key] = {}
    validator = jsonschema.Draft7Validator(schema)
    found = objects_of_a_busy_cluster(resource)
    assert len(found) > 100
    problems = {
        f"{'.'.join(map(str, error.absolute_path))}: {error.message[:200]}"
        for obj in found
        for error in validator.iter_errors(obj)
    }
    assert problems == set()


def test_the_check_can_fail():
    schema = schema_of("virtualmachines.kubevirt.io.yaml", "v1")
    validator = jsonschema.Draft7Validator(schema)
    assert not validator.is_valid({"spec": {"running": "yes", "template": {"spec": {}}}})
    assert not validator.is_valid({"spec": {"runStrateggy": "Always"}})


def test_every_snapshot_satisfies_the_real_schema_from_our_request_to_its_end():
    work = Snapshot(namespace="team-a", vm="vm-001", vm_uid="u", name="remediator-1")

    async def story() -> list[dict]:
        cluster = SimCluster(ClusterSpec(nodes=3, vms=3, seed=7, diskless_share=0), clock=Clock())
        await cluster.start()
        found = []
        for name, fails in (("remediator-1", False), ("remediator-2", True)):
            if fails:
                cluster.faults.snapshots_fail("team-a/vm-001")
            body = snapshot._body(msgspec.structs.replace(work, name=name), 30.0)
            cluster.store.create(VIRTUAL_MACHINE_SNAPSHOTS, body)
            for _ in range(20):
                found += cluster.store.list(VIRTUAL_MACHINE_SNAPSHOTS)
                await asyncio.sleep(2)
        await cluster.stop()
        return found

    objects = run(story())
    assert {each.get("status", {}).get("phase") for each in objects} >= {
        *("InProgress", "Succeeded", "Failed"),
    }
    schema = schema_of("virtualmachinesnapshots.snapshot.kubevirt.io.yaml", "v1beta1")
    schema["properties"]["metadata"] = {"type": "object"}
    for each in objects:
        jsonschema.validate(each, schema)
