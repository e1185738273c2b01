"""Policies that change while the real daemon runs: of its directory, and of the cluster."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import aiohttp

from remediator.engine.chain import DecisionKind
from remediator.kube.remediation_policies import GROUP, PLURAL
from remediator.sim.custom_kinds import CustomKinds
from remediator.sim.resources import ResourceType

_spec = importlib.util.spec_from_file_location("lab", Path(__file__).with_name("conftest.py"))
_lab = sys.modules.get("lab") or importlib.util.module_from_spec(_spec)
if sys.modules.setdefault("lab", _lab) is _lab and not hasattr(_lab, "open_lab"):
    _spec.loader.exec_module(_lab)
open_lab, until = _lab.open_lab, _lab.until

START_S, CHANGE_S = 60.0, 60.0
KIND = ResourceType(
    GROUP, "v1alpha1", PLURAL, "RemediationPolicy", namespaced=False, status_subresource=True
)


def policy(name, spec="verdicts: [Dead]"):
    head = "apiVersion: remediator.io/v1alpha1\nkind: RemediationPolicy\n"
    return f"{head}metadata: {{name: {name}}}\nspec: {{{spec}}}\n"


async def test_policies_change_without_a_restart(tmp_path):
    async with open_lab(tmp_path, nodes=3, zones=1, vms=2, seed=3) as lab:
        store = lab.cluster.store
        CustomKinds(lab.cluster.server).install(KIND)
        directory = lab.directory / "policies"
        directory.mkdir()
        (directory / "a.yaml").write_text(policy("a"))
        lab.configure(policies=str(directory))
        daemon = lab.daemon
        daemon.start()
        await until(lambda: daemon.decided() >= 1, START_S, "the daemon to lead")

        def loaded():
            return [e["names"] for e in daemon.events() if e.get("event") == "policies_loaded"]

        (directory / "b.yaml").write_text(policy("b", "verdicts: [Unreachable], for: 5s"))
        await until(lambda: loaded() == [["a", "b"]], CHANGE_S, "the new file to be in force")

        (directory / "a.yaml").write_text(policy("a", "verdicts: [Ded]"))
        head = {"apiVersion": KIND.api_version, "kind": KIND.kind, "metadata": {"name": "c"}}
        store.create(KIND, {**head, "spec": {"verdicts": ["Dead"], "priority": 1}})
        # a stays as it was before
        await until(lambda: loaded()[-1] == ["c", "a", "b"], CHANGE_S, "the object to be in force")
        refused = f"{directory}/a.yaml:4:19: spec.verdicts[0]: 'Ded'"
        await until(
            lambda: any(
                refused in str(event.get("faults"))
                for event in daemon.events()
                if event.get("event") == "policies_refused"
            ),
            CHANGE_S,
            "the fault to be told",
        )
        conditions = lambda: store.find(KIND, "", "c").get("status", {}).get("conditions", [])  # noqa: E731 - read once more
        await until(conditions, CHANGE_S, "the object's status")
        (listening,) = [e for e in daemon.events() if e.get("event") == "http_listening"]
        base = f"http://127.0.0.1:{listening['port']}"
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{base}/readyz") as answer:
                part = (await answer.json(content_type=None))["parts"]["policies"]
            asked = f"{base}/api/v1/policies/nodes/n01"
            async with session.get(asked, params={"verdict": "Dead"}) as answer:
                view = await answer.json()
        assert part["ok"] is part["needed"] is False
        assert part["detail"].startswith(f"3 in force; 1 refused: {refused}")
        assert view["chosen"] == "c"
        assert [word["name"] for word in view["words"]] == ["c", "a", "b"]
        assert {one["type"]: one["status"] for one in conditions()}["Accepted"] == "True"
        kept = [each.why for each in daemon.journal() if each.kind is DecisionKind.POLICIES]
        assert kept == [
            "policies in force: a, b (new: b)",
            "policies in force: c, a, b (new: c)",
        ]
