"""A FenceConfig that is applied while the real daemon runs: taken, told, used for a fence."""

from __future__ import annotations

import base64
import importlib.util
import sys
from pathlib import Path

import aiohttp

from remediator.kube.fence_configs import GROUP, PLURAL
from remediator.sim.custom_kinds import CustomKinds
from remediator.sim.resources import SECRETS, ResourceType

_spec = importlib.util.spec_from_file_location("lab", Path(__file__).with_name("conftest.py"))
_lab = sys.modules.get("lab") or importlib.util.module_from_spec(_spec)
if sys.modules.setdefault("lab", _lab) is _lab and not hasattr(_lab, "open_lab"):
    _spec.loader.exec_module(_lab)
open_lab, until = _lab.open_lab, _lab.until

START_S, RECOVERY_S = 40.0, 90.0
KIND = ResourceType(
    GROUP, "v1alpha1", PLURAL, "FenceConfig", namespaced=False, status_subresource=True
)
CANARY = "canary-7e21-of-the-secret"


def spec(url: str, system: str = "/redfish/v1/Systems/{node}"):
    device = {
        "name": "bmc",
        "method": "redfish",
        "endpoint": url,
        "system": system,
        "alreadyOffFor": "500ms",
        "credentials": {"secret": {"name": "fence-credentials"}},
    }
    return {
        "checkPeriod": "2s",
        "devices": [device],
        "levels": [{"devices": ["bmc"], "attempts": 3}],
    }


def encoded(**data: str) -> dict[str, str]:
    return {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}


async def test_a_configuration_of_the_cluster_is_taken_told_and_fences(tmp_path):
    async with open_lab(tmp_path, nodes=5, zones=1, vms=4, seed=3) as lab:
        store = lab.cluster.store
        CustomKinds(lab.cluster.server).install(KIND)
        lab.configure(fence={})
        daemon = lab.daemon
        daemon.start()
        await until(lambda: daemon.decided() >= 1, START_S, "the daemon to lead")

        def condition(kind: str) -> dict:
            status = store.find(KIND, "", "racks").get("status", {})
            found = [one for one in status.get("conditions", []) if one["type"] == kind]
            return found[0] if found else {"status": ""}

        head = {"apiVersion": KIND.api_version, "kind": KIND.kind, "metadata": {"name": "racks"}}
        broken = spec(lab.faces.bmc_url, system="no-path")
        store.create(KIND, {**head, "spec": broken})
        await until(lambda: condition("Accepted")["status"] == "False", 20.0, "its faults")
        assert "spec.devices[0].system: is a path" in condition("Accepted")["message"]

        # Sound, but its Secret is not there: known before anything dies.
        store.mutate(KIND, "", "racks", lambda tree: tree.update(spec=spec(lab.faces.bmc_url)))
        await until(lambda: condition("Accepted")["status"] == "True", 20.0, "its acceptance")
        await until(
            lambda: condition("DevicesHealthy")["status"] == "False", 60.0, "the missing Secret"
        )
        message = condition("DevicesHealthy")["message"]
        assert "Secret remediator/fence-credentials" in message

        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "fence-credentials", "namespace": "remediator"},
            "data": encoded(
                username=lab.cluster.spec.bmc_user,
                password=lab.cluster.spec.bmc_password,
                other=CANARY,
            ),
        }
        store.create(SECRETS, secret)
        await until(
            lambda: condition("DevicesHealthy")["status"] == "True", 60.0, "healthy devices"
        )

        victim = next(name for name in sorted(lab.cluster.hosts) if lab.cluster.vms_on(name))
        lab.cluster.faults.power_loss(victim)
        await until(
            lambda: any(
                event.get("event") == "decision"
                and event["kind"] == "finished"
                and "power-off-verified" in str(event)
                for event in daemon.events()
            ),
            RECOVERY_S,
            "the fence",
        )
        kinds = [decision.kind.value for decision in daemon.journal()]
        assert "fence-methods" in kinds
        (port,) = [one["port"] for one in daemon.events() if one.get("event") == "http_listening"]
        url = f"http://127.0.0.1:{port}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            metrics = await answer.text()
        await daemon.end()
        said = (daemon.log.read_text(), metrics, str(daemon.journal()), str(store.list(KIND)))
        for word in (CANARY, lab.cluster.spec.bmc_password):
            assert all(word not in text for text in said)
