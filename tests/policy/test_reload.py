"""Policies of a directory and of the cluster, as they change; over the simulated API server."""

from __future__ import annotations

import asyncio
import contextlib
import random

import jsonschema
import pytest
import yaml

from remediator import policy_reload
from remediator.clock import Clock
from remediator.health import policies_part as readiness_of
from remediator.kube.discovery import ApiDiscovery
from remediator.kube.reflector_settings import ReflectorSettings
from remediator.kube.remediation_policies import GROUP, PLURAL
from remediator.policy import load_directory
from remediator.policy.crd import definition
from remediator.policy.findings import Surroundings
from remediator.policy_reload import PolicyReload
from remediator.sim.apiserver import ApiServer
from remediator.sim.custom_kinds import CustomKinds
from remediator.sim.memory_transport import MemoryTransport
from remediator.sim.resources import Registry, ResourceType
from remediator.sim.store import Store

KIND = ResourceType(
    GROUP, "v1alpha1", PLURAL, "RemediationPolicy", namespaced=False, status_subresource=True
)
DEAD = {"verdicts": ["Dead"]}
BAD = {"verdicts": ["Dead"], "condition": "node.redy"}


def text(name, spec="verdicts: [Dead]"):
    return (
        "apiVersion: remediator.io/v1alpha1\nkind: RemediationPolicy\n"
        f"metadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )


class Lab:
    def __init__(self, directory=None, *, installed=True):
        self.clock = Clock(epoch_at_start=1_700_000_000.0)
        self.store = Store(now=self.clock.now, rng=random.Random(1))
        server = ApiServer(self.store, Registry())
        if installed:
            CustomKinds(server).install(KIND)
        transport = MemoryTransport(server, client_name="daemon")
        self.discovery = ApiDiscovery(transport, [(GROUP, PLURAL)], rng=random.Random(2))
        self.loads, self.leads, self.around, self.matched = 0, True, Surroundings(), {}
        self.directory = directory
        self.reload = PolicyReload(
            transport,
            self.discovery,
            self.clock,
            load_directory(directory) if directory is not None else [],
            directory=directory,
            identity="a",
            reflector=ReflectorSettings(),
            on_loaded=self._loaded,
            around=lambda: self.around,
            matched_at=self.matched.get,
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
        return [one.name for one in self.reload.policies]

    def create(self, name, spec):
        head = {"apiVersion": KIND.api_version, "kind": KIND.kind}
        self.store.create(KIND, {**head, "metadata": {"name": name}, "spec": spec})

    def change(self, name, spec):
        self.store.mutate(KIND, "", name, lambda tree: tree.update(spec=spec))

    def status(self, name):
        return self.store.find(KIND, "", name).get("status", {})

    def condition(self, name, kind="Accepted"):
        found = self.status(name).get("conditions", [])
        return next((one for one in found if one["type"] == kind), None)

    async def look(self):
        await self.reload.look_at(self.directory)


@pytest.fixture
async def make():
    labs = []

    def start(*args, **kwargs):
        labs.append(Lab(*args, **kwargs))
        return labs[-1]

    yield start
    for task in (task for lab in labs for task in lab.tasks):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(holds, *, timeout_s=20.0):
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.02)


# --- files ----------------------------------------------------------------------------------------


async def test_a_changed_file_is_in_force_at_the_next_look(make, tmp_path):
    (tmp_path / "a.yaml").write_text(text("a"))
    lab = make(tmp_path, installed=False)
    (tmp_path / "b.yaml").write_text(text("b"))
    await lab.look()
    assert (lab.names(), lab.loads) == (["a", "b"], 1)
    await lab.look()
    assert lab.loads == 1
    (tmp_path / "a.yaml").unlink()
    await lab.look()
    assert lab.names() == ["b"]


async def test_a_bad_file_keeps_its_last_good_policies_and_says_where_it_is_bad(make, tmp_path):
    (tmp_path / "a.yaml").write_text(text("a"))
    (tmp_path / "b.yaml").write_text(text("b"))
    lab = make(tmp_path, installed=False)
    (tmp_path / "a.yaml").write_text(text("a", "verdicts: [Ded]"))
    (tmp_path / "b.yaml").write_text(text("b", "verdicts: [Dead], for: 5s"))
    await lab.look()
    assert lab.names() == ["a", "b"]
    assert lab.reload.policies[1].for_s == 5.0
    (fault,) = lab.reload.faults
    assert fault.startswith(f"{tmp_path}/a.yaml:4:19: spec.verdicts[0]: 'Ded' is not one of")
    (tmp_path / "a.yaml").write_text(text("a", "verdicts: [Unreachable]"))
    await lab.look()
    assert lab.reload.faults == []
    assert lab.reload.policies[0].verdicts == ("Unreachable",)


async def test_a_directory_that_is_gone_or_empty_keeps_everything(make, tmp_path):
    directory = tmp_path / "policies"
    directory.mkdir()
    (directory / "a.yaml").write_text(text("a"))
    lab = make(directory, installed=False)
    (directory / "a.yaml").unlink()
    await lab.look()
    assert lab.names() == ["a"]
    assert lab.reload.faults == [f"{directory}: holds no policy (*.yaml)"]
    directory.rmdir()
    await lab.look()
    assert lab.names() == ["a"]
    assert lab.reload.faults == [f"{directory}: is not a directory"]


async def test_the_swap_of_a_mounted_config_map_is_seen(make, tmp_path):
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    for version, spec in (("..1", "verdicts: [Dead]"), ("..2", "verdicts: [Dead], for: 9s")):
        (mounted / version).mkdir()
        (mounted / version / "a.yaml").write_text(text("a", spec))
    (mounted / "..data").symlink_to("..1")
    (mounted / "a.yaml").symlink_to("..data/a.yaml")
    lab = make(mounted, installed=False)
    assert lab.reload.policies[0].for_s == 0.0
    (mounted / "..data_tmp").symlink_to("..2")
    (mounted / "..data_tmp").rename(mounted / "..data")
    await lab.look()
    assert lab.reload.policies[0].for_s == 9.0


async def test_a_policy_that_moves_to_another_file_while_its_own_is_bad_is_taken_there(
    make, tmp_path
):
    (tmp_path / "a.yaml").write_text(text("a"))
    lab = make(tmp_path, installed=False)
    (tmp_path / "a.yaml").write_text("spec: [")
    (tmp_path / "b.yaml").write_text(text("a", "verdicts: [Dead], for: 7s"))
    await lab.look()
    assert [(one.name, one.for_s) for one in lab.reload.policies] == [("a", 7.0)]


# --- objects --------------------------------------------------------------------------------------


async def test_an_object_is_in_force_within_moments_and_told_so(make):
    lab = make()
    lab.create("of-cluster", DEAD)
    await until(lambda: lab.condition("of-cluster") is not None)
    assert lab.names() == ["of-cluster"]
    assert lab.condition("of-cluster")["status"] == "True"
    assert lab.condition("of-cluster", "Sound")["status"] == "True"


async def test_a_bad_object_keeps_its_last_good_writing_and_shows_a_caret(make):
    lab = make()
    lab.create("of-cluster", DEAD)
    await until(lambda: lab.names() == ["of-cluster"])
    lab.change("of-cluster", BAD)
    await until(lambda: (lab.condition("of-cluster") or {}).get("status") == "False")
    told = lab.condition("of-cluster")
    assert told["reason"] == "KeptLastGood"
    assert "spec.condition: 'node.redy' is not known; did you mean 'node.ready'?" in told["message"]
    assert "\n    node.redy\n    ^" in told["message"]
    assert lab.names() == ["of-cluster"]
    assert lab.reload.policies[0].condition is None


async def test_an_object_that_never_was_good_is_not_in_force(make):
    lab = make()
    lab.create("bad", BAD)
    await until(lambda: lab.condition("bad") is not None)
    assert (lab.names(), lab.condition("bad")["reason"]) == ([], "Faults")
    assert lab.reload.faults[0].startswith("RemediationPolicy bad: spec.condition: 'node.redy'")


async def test_an_object_that_goes_takes_its_policy_with_it(make):
    lab = make()
    lab.create("a", DEAD)
    await until(lambda: lab.names() == ["a"])
    lab.store.delete(KIND, "", "a")
    await until(lambda: lab.names() == [])


async def test_no_object_replaces_a_policy_of_a_file(make, tmp_path):
    (tmp_path / "a.yaml").write_text(text("a"))
    lab = make(tmp_path)
    lab.create("a", {**DEAD, "for": "9s"})
    await until(lambda: lab.condition("a") is not None)
    assert "the daemon's own files" in lab.condition("a")["message"]
    assert lab.reload.policies[0].for_s == 0.0


async def test_what_can_come_to_nothing_here_is_told_in_the_status(make):
    lab = make()
    lab.around = Surroundings(node_labels=[{"pool": "a"}], fence_methods=())
    lab.create("gpu", {**DEAD, "nodeSelector": {"labels": {"gpu": "yes"}}})
    await until(lambda: lab.condition("gpu", "Sound") is not None)
    told = lab.condition("gpu", "Sound")
    assert told["status"] == "False"
    assert "no node has these labels now" in told["message"]
    assert "fence can never be allowed" in told["message"]


async def test_when_it_last_matched_is_told(make):
    lab = make()
    lab.matched["a"] = 1_700_000_001.0
    lab.create("a", DEAD)
    await until(lambda: "lastMatchedTime" in lab.status("a"))
    assert lab.status("a")["lastMatchedTime"].startswith("2023-11-14T22:13:21")


async def test_only_the_leader_writes(make):
    lab = make()
    lab.leads = False
    lab.create("a", DEAD)
    await until(lambda: lab.names() == ["a"])
    await asyncio.sleep(0)
    assert lab.condition("a") is None


async def test_an_error_of_our_own_ends_nothing(make, monkeypatch):
    lab = make()
    lab.create("a", DEAD)
    await until(lambda: lab.names() == ["a"])
    with monkeypatch.context() as broken:
        tried = []
        broken.setattr(policy_reload, "read_object", lambda *_: tried.append(1) or 1 / 0)
        lab.change("a", {**DEAD, "for": "5s"})
        await until(lambda: tried)
        assert lab.names() == ["a"]
    lab.change("a", {**DEAD, "for": "6s"})
    await until(lambda: lab.reload.policies[0].for_s == 6.0)


# --- the schema -----------------------------------------------------------------------------------


def test_the_shipped_policies_fit_the_schema_of_the_cluster():
    version = definition()["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    for path in policy_files():
        for document in yaml.safe_load_all(path.read_text()):
            jsonschema.validate(document, schema)


def policy_files():
    from remediator.policy import shipped_directory  # noqa: PLC0415 - of this test alone

    return sorted(shipped_directory().glob("*.yaml"))


# --- what people see ------------------------------------------------------------------------------


async def test_readiness_names_what_is_refused_and_stays_ready(make, tmp_path):
    (tmp_path / "a.yaml").write_text(text("a"))
    lab = make(tmp_path, installed=False)
    part = readiness_of(lab.reload)
    assert (part.ok, part.needed, part.detail) == (True, False, "1 in force")
    (tmp_path / "a.yaml").write_text(text("a", "verdicts: [Ded]"))
    await lab.look()
    part = readiness_of(lab.reload)
    assert (part.ok, part.needed) == (False, False)
    assert part.detail.startswith(f"1 in force; 1 refused: {tmp_path}/a.yaml:4:19: spec.verdicts")
