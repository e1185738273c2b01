"""The admission gate in the real process, over TLS; and release-gates, which needs no process."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import ssl
import sys
from pathlib import Path

import aiohttp
import pytest
import trustme
import yaml

from remediator.sim.mutating_webhooks import https_endpoint
from remediator.sim.resources import MUTATING_WEBHOOK_CONFIGURATIONS, NAMESPACES, PODS

_spec = importlib.util.spec_from_file_location("life", Path(__file__).with_name("test_life.py"))
_life = sys.modules.get("life") or importlib.util.module_from_spec(_spec)
if sys.modules.setdefault("life", _life) is _life and not hasattr(_life, "leads"):
    _spec.loader.exec_module(_life)
START_S, leads, seen, until = _life.START_S, _life.leads, _life.seen, _life.until

SERVICE = ("remediator", "remediator-webhook")
WEBHOOK = Path(__file__).parents[2] / "deploy" / "admission" / "webhook.yaml"
GATE = {"name": "remediator.io/pacing"}
LAUNCHERS = "kubevirt.io=virt-launcher"


def secret(directory: Path, authority: trustme.CA) -> dict[str, object]:
    """Issue a certificate; return the settings that name it."""
    made = authority.issue_cert("localhost")
    cert, key = directory / "tls.crt", directory / "tls.key"
    cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    key.write_bytes(made.private_key_pem.bytes())
    return {"cert_file": str(cert), "key_file": str(key), "host": "127.0.0.1", "port": 0}


def gated(cluster) -> list[str]:
    return [
        pod["metadata"]["name"]
        for pod in cluster.store.list(PODS, labels=LAUNCHERS)
        if GATE in (pod["spec"].get("schedulingGates") or [])
    ]


async def until_attended(daemon, url: str, authority: trustme.CA) -> None:
    """Ask for a pod of nobody until the answer rests on what a leader with its picture has told."""
    trust = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    pod = {
        "metadata": {
            "namespace": "nobody",
            "labels": {"kubevirt.io": "virt-launcher"},
            "ownerReferences": [
                {
                    "apiVersion": "kubevirt.io/v1",
                    "kind": "VirtualMachineInstance",
                    "name": "nobody",
                    "uid": "u",
                    "controller": True,
                }
            ],
        },
        "spec": {"containers": [{"name": "compute", "image": "x"}]},
    }
    resource = {"group": "", "version": "v1", "resource": "pods"}
    request = {
        "uid": "u",
        "resource": resource,
        "namespace": "nobody",
        "operation": "CREATE",
        "object": pod,
    }
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    port = seen(daemon, "http_listening")[-1]["port"]
    async with asyncio.timeout(START_S), aiohttp.ClientSession() as session:
        while True:
            async with session.post(url, json=review, ssl=trust) as answer:
                assert answer.status == 200, await answer.text()
            async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
                metrics = await answer.text()
            if re.search(r'remediator_admissions_total{outcome="(no-)?place"} [1-9]', metrics):
                return
            await asyncio.sleep(0.1)


async def release(lab, *arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "remediator", "release-gates"]
    process = await asyncio.create_subprocess_exec(
        *command,
        *("--kubeconfig", str(lab.faces.kubeconfig)),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_a_storm_is_paced_over_tls_whoever_began_it(lab, tmp_path):
    authority = trustme.CA()
    engine = {
        **_life._lab.FAST_ENGINE,
        "pacing": {**_life._lab.FAST_ENGINE["pacing"], "starts_at_once_cluster": 2},
    }
    lab.configure(admission=secret(tmp_path, authority), engine=engine)
    lab.daemon.start()
    await leads(lab.daemon)
    port = seen(lab.daemon, "webhook_listening")[-1]["port"]
    cluster = lab.cluster
    url = f"https://localhost:{port}/mutate-launcher-pods"
    endpoint = https_endpoint(url, authority.cert_pem.bytes(), timeout_s=5.0)
    cluster.webhooks.serve(SERVICE, "real", endpoint)
    cluster.store.create(MUTATING_WEBHOOK_CONFIGURATIONS, yaml.safe_load(WEBHOOK.read_text()))
    await until(lambda: lab.daemon.decided() >= 1, START_S, "a record")
    ever: set[str] = set()
    cluster.store.subscribe(
        PODS,
        lambda _kind, pod, _old: (
            ever.add(pod["metadata"]["uid"]) if pod["spec"].get("schedulingGates") else None
        ),
    )
    old = cluster.store.list(PODS, labels=LAUNCHERS)
    assert len(old) == 8
    await until_attended(lab.daemon, url, authority)
    for pod in old:
        meta = pod["metadata"]
        cluster.store.delete(PODS, meta["namespace"], meta["name"], grace_s=0)
    await until(lambda: ever, START_S, "a pod to be held back")
    await until(
        lambda: all(cluster.ledger.is_up(vm) for vm in cluster.vms), 60.0, "every VM to be up"
    )
    await until(lambda: gated(cluster) == [], START_S, "no gate to be left")
    assert cluster.webhooks.failed == {}
    assert cluster.webhooks.asked["pacing.remediator.io"] >= 8
    assert 1 <= len(ever) <= 7
    metrics = seen(lab.daemon, "webhook_certificate")
    assert metrics


@pytest.mark.parametrize("broken", ["cert_file", "key_file"])
async def test_a_certificate_that_cannot_be_used_is_named_and_nothing_starts(lab, tmp_path, broken):
    settings = secret(tmp_path, trustme.CA())
    Path(settings[broken]).write_text("garbage")
    lab.configure(admission=settings)
    lab.daemon.start()
    assert await lab.daemon.ended(START_S) == 2
    (last,) = seen(lab.daemon, "daemon_ends")
    assert settings[broken] in last["why"]


async def test_without_a_webhook_the_daemon_says_what_it_cannot_pace(lab):
    lab.daemon.start()
    await leads(lab.daemon)
    (said,) = seen(lab.daemon, "webhook_off")
    assert "only the restarts that this daemon makes are paced" in said["meaning"]


async def test_gates_are_released_without_a_daemon(lab):
    store = lab.cluster.store
    store.create(NAMESPACES, {"metadata": {"name": "held"}})
    for number in range(5):
        labels = {"kubevirt.io": "virt-launcher"}
        store.create(
            PODS,
            {
                "metadata": {"name": f"p{number}", "namespace": "held", "labels": labels},
                "spec": {
                    "containers": [{"name": "compute"}],
                    "schedulingGates": [GATE],
                    "nodeSelector": {"to": "nowhere"},  # no host starts them
                },
            },
        )
    code, out, _ = await release(lab, "--dry-run")
    assert (code, len(gated(lab.cluster))) == (1, 5)
    assert "5 launcher pods wait behind the gate" in out
    code, out, _ = await release(lab, "-o", "json")
    assert code == 0
    answer = json.loads(out)
    assert (answer["opened"], answer["shut"]) == (5, 0)
    assert {each["pod"] for each in answer["gates"]} == {f"p{n}" for n in range(5)}
    assert gated(lab.cluster) == []
    assert await release(lab) == (0, "0 of 0 gates opened\n", "")


async def test_release_gates_without_a_cluster_says_so(lab):
    lab.faces.kubeconfig.write_text(
        lab.faces.kubeconfig.read_text().replace(lab.faces.api_url, "http://127.0.0.1:1")
    )
    code, out, err = await release(lab)
    assert code == 3
    assert out == ""
    assert "127.0.0.1" in err
