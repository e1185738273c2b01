"""FenceConfigs in the cluster, over the simulated API server on virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import random

import jsonschema
import pytest

from remediator import fence_reload
from remediator.actions.fence.agent_catalog import AgentCatalog
from remediator.actions.fence.check_rows import CheckRow, FaultKind
from remediator.actions.fence.devices import FenceDevices
from remediator.actions.fence.drivers import DriverFactory
from remediator.clock import Clock
from remediator.fence_config.crd import definition
from remediator.fence_config.loader import load_text
from remediator.fence_reload import FenceReload
from remediator.kube.client import KubeClient
from remediator.kube.discovery import ApiDiscovery
from remediator.kube.fence_configs import GROUP, PLURAL
from remediator.kube.reflector_settings import ReflectorSettings
from remediator.sim.apiserver import ApiServer
from remediator.sim.custom_kinds import CustomKinds
from remediator.sim.memory_transport import MemoryTransport
from remediator.sim.resources import Registry, ResourceType
from remediator.sim.store import Store

KIND = ResourceType(
    GROUP, "v1alpha1", PLURAL, "FenceConfig", namespaced=False, status_subresource=True
)
HAND = {"devices": [{"name": "hand", "method": "operator"}], "levels": [{"devices": ["hand"]}]}
BROKEN = {**HAND, "levels": [{"devices": ["feet"]}]}
FILE = """apiVersion: remediator.io/v1alpha1
kind: FenceConfig
metadata: {name: of-files}
spec: {devices: [{name: hand, method: operator}], levels: [{devices: [hand]}]}
"""


def redfish(endpoint="https://bmc-{node}"):
    device = {
        "name": "bmc",
        "method": "redfish",
        "endpoint": endpoint,
        "credentials": {"secret": {"name": "bmc", "namespace": "remediator"}},
    }
    return {"devices": [device], "levels": [{"devices": ["bmc"]}]}


class Lab:
    def __init__(self, *, installed=True):
        self.clock = Clock(epoch_at_start=1_700_000_000.0)
        self.store = Store(now=self.clock.now, rng=random.Random(1))
        self.server = ApiServer(self.store, Registry())
        self.kinds = CustomKinds(self.server)
        if installed:
            self.kinds.install(KIND)
        transport = MemoryTransport(self.server, client_name="daemon")
        factory = DriverFactory(self.clock, client=KubeClient(transport), namespace="remediator")
        self.devices = FenceDevices(load_text(FILE, file="f.yaml"), self.clock, factory)
        self.discovery = ApiDiscovery(transport, [(GROUP, PLURAL)], rng=random.Random(2))
        self.loads, self.rows, self.leads = 0, [], True
        self.reload = FenceReload(
            transport,
            self.discovery,
            self.devices,
            AgentCatalog(),
            self.clock,
            identity="a",
            reflector=ReflectorSettings(),
            on_loaded=self._loaded,
            rows=lambda: self.rows,
        )
        self.tasks = [
            asyncio.create_task(work)
            for work in (
                self.discovery.run(),
                self.reload.run(),
                self.reload.tell(lambda: self.leads),
            )
        ]

    def _loaded(self):
        self.loads += 1

    def names(self):
        return [one.name for one in self.devices.configs]

    def create(self, name, spec):
        head = {"apiVersion": KIND.api_version, "kind": KIND.kind}
        self.store.create(KIND, {**head, "metadata": {"name": name}, "spec": spec})

    def change(self, name, spec):
        self.store.mutate(KIND, "", name, lambda tree: tree.update(spec=spec))

    def condition(self, name, kind):
        status = self.store.find(KIND, "", name).get("status", {})
        return next((one for one in status.get("conditions", []) if one["type"] == kind), None)

    def versions(self, name):
        return self.store.find(KIND, "", name)["metadata"]["resourceVersion"]


@pytest.fixture
async def make():
    labs = []

    def build(**given):
        labs.append(Lab(**given))
        return labs[-1]

    yield build
    for lab in labs:
        for task in lab.tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await lab.devices.close()


async def test_objects_are_in_force_soon_after_they_are_applied_and_until_they_are_deleted(make):
    lab = make()
    await lab.reload.first(5.0)
    assert lab.names() == ["of-files"]
    lab.create("b", {**HAND, "priority": 2})
    lab.create("a", {**HAND, "priority": 1})
    await asyncio.sleep(2.0)
    assert lab.names() == ["of-files", "a", "b"]
    assert lab.loads == 1  # together
    lab.change("b", {**HAND, "priority": 0})
    await asyncio.sleep(2.0)
    assert lab.names() == ["of-files", "b", "a"]
    lab.store.delete(KIND, "", "b")
    await asyncio.sleep(2.0)
    assert lab.names() == ["of-files", "a"]


async def test_what_was_there_before_the_daemon_is_in_force_before_it_leads(make):
    lab = make()
    lab.create("a", HAND)
    await lab.reload.first(5.0)
    assert lab.names() == ["of-files", "a"]


async def test_where_the_crd_is_not_installed_nobody_waits(make):
    lab = make(installed=False)
    await lab.reload.first(5.0)
    assert lab.reload.loaded.is_set()
    lab.kinds.install(KIND)
    lab.create("a", HAND)
    await asyncio.sleep(60.0)
    assert lab.names() == ["of-files", "a"]


async def test_a_bad_object_leaves_the_last_good_one_in_force_and_says_all_its_faults(make):
    lab = make()
    lab.create("a", HAND)
    await asyncio.sleep(2.0)
    good = lab.devices.config("a")
    accepted = lab.condition("a", "Accepted")
    assert (accepted["status"], accepted["reason"]) == ("True", "InForce")
    lab.change("a", {**BROKEN, "checkPeriod": "soon"})
    await asyncio.sleep(2.0)
    assert lab.devices.config("a") is good
    accepted = lab.condition("a", "Accepted")
    assert accepted["status"] == "False"
    assert "spec.checkPeriod:" in accepted["message"]
    lab.change("a", BROKEN)
    await asyncio.sleep(2.0)
    accepted = lab.condition("a", "Accepted")
    assert accepted["message"] == (
        "spec.levels[0].devices[0]: no device is called 'feet'\n"
        "spec.devices[0].name: 'hand' is in no level"
    )
    assert accepted["observedGeneration"] == 3
    lab.change("a", HAND)
    await asyncio.sleep(2.0)
    assert lab.condition("a", "Accepted")["status"] == "True"
    assert lab.devices.config("a") is good


@pytest.mark.parametrize(
    ("name", "spec", "words"),
    [
        ("of-files", HAND, "the daemon's own files has this name"),
        ("a.b", HAND, "must be lower-case letters"),
        (
            "a",
            {
                "devices": [
                    {
                        "name": "bmc",
                        "method": "redfish",
                        "endpoint": "https://mine.example",
                        "credentials": {
                            "username": "x",
                            "passwordFile": "/var/run/secrets/kubernetes.io/serviceaccount/token",
                        },
                    }
                ],
                "levels": [{"devices": ["bmc"]}],
            },
            "names a file of the daemon: in the cluster a login comes from a Secret",
        ),
        (
            "a",
            {
                "devices": [{"name": "x", "method": "agent", "program": "fence_of_mine"}],
                "levels": [{"devices": ["x"]}],
            },
            "fence_of_mine is not installed",
        ),
    ],
)
async def test_what_must_not_be_used_is_refused_in_the_status(make, name, spec, words):
    lab = make()
    lab.create(name, spec)
    await asyncio.sleep(2.0)
    assert lab.names() == ["of-files"]
    accepted = lab.condition(name, "Accepted")
    assert accepted["status"] == "False"
    assert words in accepted["message"]


async def test_a_changed_device_gets_a_new_driver_and_an_unchanged_one_keeps_its_own(make):
    lab = make()
    lab.create("a", redfish())
    lab.create("b", redfish("https://other-{node}"))
    await asyncio.sleep(2.0)
    before = {one.name: lab.devices.drivers(one) for one in lab.devices.configs}
    lab.change("a", {**redfish("https://new-{node}")})
    lab.change("b", {**redfish("https://other-{node}"), "checkPeriod": "1m"})
    await asyncio.sleep(2.0)
    after = {one.name: lab.devices.drivers(one) for one in lab.devices.configs}
    assert after["a"] != before["a"]
    assert after["b"] == before["b"]


async def test_a_ca_file_that_is_not_there_is_a_fault_and_not_the_daemons_end(make):
    lab = make()
    spec = redfish()
    spec["devices"][0]["caFile"] = "/none/ca.crt"
    lab.create("a", spec)
    lab.create("b", HAND)
    await asyncio.sleep(2.0)
    assert not any(task.done() for task in lab.tasks)
    assert lab.names() == ["of-files", "b"]
    accepted = lab.condition("a", "Accepted")
    assert accepted["status"] == "False"
    assert "spec.devices[0].caFile: /none/ca.crt: " in accepted["message"]


async def test_an_object_that_breaks_our_own_reading_leaves_what_is_in_force(make, monkeypatch):
    lab = make()
    lab.create("a", HAND)
    await asyncio.sleep(2.0)
    with monkeypatch.context() as broken:
        broken.setattr(fence_reload, "read_object", lambda *_: 1 / 0)
        lab.create("b", HAND)
        await asyncio.sleep(2.0)
    assert lab.names() == ["of-files", "a"]
    assert not any(task.done() for task in lab.tasks)
    lab.create("c", HAND)
    await asyncio.sleep(2.0)
    assert lab.names() == ["of-files", "a", "b", "c"]


def row(node, fault="", *, asked_at=5.0):
    kind = FaultKind.NO_ANSWER if fault else FaultKind.NONE
    return CheckRow(
        node=node, config="a", device="bmc", method="redfish", level=1,
        asked_at=asked_at, kind=kind, fault=fault,
    )  # fmt: skip


async def test_the_status_says_how_the_devices_are(make):
    lab = make()
    lab.create("a", HAND)

    async def healthy():
        await asyncio.sleep(35.0)
        found = lab.condition("a", "DevicesHealthy")
        return found["status"], found["reason"], found["message"]

    assert await healthy() == ("Unknown", "NoNode", "no node is fenced by it")
    lab.rows = [row("n1"), row("n2", asked_at=0.0)]
    assert (await healthy())[:2] == ("Unknown", "NotAllAskedYet")
    lab.rows = [row("n1"), row("n2")]
    assert await healthy() == (
        "True", "AllAnswer", "the devices of all 2 nodes answer as they should"
    )  # fmt: skip
    since = lab.condition("a", "DevicesHealthy")["lastTransitionTime"]
    version = lab.versions("a")
    await asyncio.sleep(100.0)
    assert lab.versions("a") == version  # nothing new, nothing written
    lab.rows = [row("n0"), *(row(f"n{number}", "refused") for number in range(1, 8))]
    status, reason, message = await healthy()
    assert (status, reason) == ("False", "DevicesFaulty")
    assert message.startswith("7 of 8 nodes have a faulty device: n1: bmc: refused; n2: ")
    assert message.endswith("; and 2 more")
    assert lab.condition("a", "DevicesHealthy")["lastTransitionTime"] > since
    schema = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    jsonschema.validate(lab.store.find(KIND, "", "a"), schema)


async def test_only_the_leader_writes(make):
    lab = make()
    lab.leads = False
    lab.create("a", HAND)
    await asyncio.sleep(40.0)
    assert lab.condition("a", "Accepted") is None
    assert lab.names() == ["of-files", "a"]
    lab.leads = True
    await asyncio.sleep(40.0)
    assert lab.condition("a", "Accepted")["status"] == "True"


async def test_a_kind_that_is_removed_takes_its_configurations_with_it(make):
    lab = make()
    lab.create("a", HAND)
    await asyncio.sleep(2.0)
    lab.kinds.remove(KIND)
    await asyncio.sleep(60.0)
    assert lab.names() == ["of-files"]
