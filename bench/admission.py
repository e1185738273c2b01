"""How soon the admission gate answers: mixed pods at a steady rate, over TLS on loopback.

The webhook runs in a process of its own, as each replica has it: listener, review, gatekeeper, a
leader's word every second that names 200 VMs that start and hints for 2,000. The API server's side
sends at fixed times whatever the answers do, on connections that stay open, and counts from the
time at which a request was due: a late answer makes those behind it late too.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import ssl
import sys
import time
from pathlib import Path

import msgspec
import trustme
from table import Row

from remediator import logs
from remediator.admission.certificate import Certificate
from remediator.admission.gatekeeper import Gatekeeper
from remediator.admission.review import Reviewer
from remediator.admission.server import PATH, serving
from remediator.admission.state import AdmissionState, Outlook, encode
from remediator.admission_settings import AdmissionSettings
from remediator.clock import Clock
from remediator.metrics import METRICS

PER_S = 1_000
AIM_P99_MS = 10.0
CONNECTIONS = 32
WARM_S = 1.0
VMS = 5_000  # as many different VMs ask
STARTING, HINTED = 200, 2_000
# Of the pods: launchers of ordinary size, launchers with much in them, targets of migrations, pods
# that are none of ours (where somebody has widened the selector).
MIX = (("launcher", 60), ("large", 15), ("target", 10), ("foreign", 15))
START_S = 20.0


async def measure(directory: Path, seconds: float, per_s: int = PER_S) -> list[Row]:
    """Return latencies at ``per_s``, and what one process answers at most."""
    authority = trustme.CA()
    made = authority.issue_cert("localhost")
    (directory / "tls.crt").write_bytes(b"".join(one.bytes() for one in made.cert_chain_pems))
    (directory / "tls.key").write_bytes(made.private_key_pem.bytes())
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        "--serve",
        str(directory),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert child.stdout is not None
        async with asyncio.timeout(START_S):
            port = int(await child.stdout.readline())
        calls = await Calls.open(port, tls)
        reviews = _reviews(random.Random(1))
        await calls.at_rate(reviews, per_s, WARM_S)
        took = await calls.at_rate(reviews, per_s, seconds)
        flood_s = max(1.0, seconds / 4)
        answered = await calls.flood(reviews, flood_s)
        calls.close()
    finally:
        child.terminate()
        await child.wait()
    return _rows(took, per_s, answered / flood_s, calls)


def _rows(took: list[float], per_s: int, flood: float, calls: Calls) -> list[Row]:
    group = f"admission, {per_s:,} pods/s"
    ordered = sorted(took)
    p99_ms = 1e3 * ordered[int(0.99 * len(ordered))]
    share = calls.gated / max(1, calls.launchers)
    return [
        Row(group, "answered, median", 1e3 * ordered[len(ordered) // 2], "ms"),
        Row(
            group,
            "answered, p99",
            p99_ms,
            "ms",
            aim=f"< {AIM_P99_MS:g} ms",
            met=p99_ms < AIM_P99_MS,
        ),
        Row(group, "answered, the slowest", 1e3 * ordered[-1], "ms"),
        Row(group, "launcher pods held back", 100.0 * share, "%"),
        Row(
            group,
            "as many as it can",
            flood,
            "/s",
            flood / per_s,
            "the rate asked for",
            aim=f">= {PER_S:,}/s",
            met=flood >= PER_S,
        ),
    ]


class Calls:
    """Requests on connections that stay open. Every answer is checked."""

    def __init__(self, pairs: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> None:
        self._pairs = pairs
        self._free: asyncio.LifoQueue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = (
            asyncio.LifoQueue()
        )
        for pair in pairs:
            self._free.put_nowait(pair)
        self.launchers = 0
        self.gated = 0

    @classmethod
    async def open(cls, port: int, tls: ssl.SSLContext) -> Calls:
        """Connect."""
        return cls(
            [
                await asyncio.open_connection(
                    "127.0.0.1", port, ssl=tls, server_hostname="localhost"
                )
                for _ in range(CONNECTIONS)
            ]
        )

    def close(self) -> None:
        """Break every connection."""
        for _, writer in self._pairs:
            writer.transport.abort()

    async def at_rate(
        self, reviews: list[tuple[str, bytes]], per_s: int, seconds: float
    ) -> list[float]:
        """Send at fixed times; return how long each took from the time at which it was due."""
        took: list[float] = []
        began_at = time.perf_counter()
        tasks = set()
        count = int(per_s * seconds)
        sent = 0
        while sent < count:
            due = int((time.perf_counter() - began_at) * per_s) + 1
            while sent < min(due, count):
                due_at = began_at + sent / per_s
                kind, request = reviews[sent % len(reviews)]
                task = asyncio.create_task(self._call(kind, request, due_at, took))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                sent += 1
            await asyncio.sleep(0.0005)
        async with asyncio.timeout(30):
            await asyncio.gather(*tasks)
        return took

    async def flood(self, reviews: list[tuple[str, bytes]], seconds: float) -> int:
        """Send as much as comes back; return how many were answered."""
        end_at = time.perf_counter() + seconds
        took: list[float] = []

        async def worker(offset: int) -> None:
            at = offset
            while time.perf_counter() < end_at:
                kind, request = reviews[at % len(reviews)]
                await self._call(kind, request, 0.0, took)
                at += CONNECTIONS

        await asyncio.gather(*(worker(number) for number in range(CONNECTIONS)))
        return len(took)

    async def _call(self, kind: str, request: bytes, due_at: float, took: list[float]) -> None:
        pair = await self._free.get()
        reader, writer = pair
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        took.append(time.perf_counter() - due_at)
        self._free.put_nowait(pair)
        patched = b'"patch"' in body
        assert b'"allowed":true' in body, body
        assert not (patched and kind in ("target", "foreign")), (kind, body)
        if kind in ("launcher", "large"):
            self.launchers += 1
            self.gated += patched and _gates(body)


def _gates(body: bytes) -> bool:
    patch = base64.b64decode(msgspec.json.decode(body)["response"]["patch"])
    return b"schedulingGates" in patch


def _reviews(rng: random.Random) -> list[tuple[str, bytes]]:
    kinds = rng.choices([kind for kind, _ in MIX], [share for _, share in MIX], k=VMS)
    return [(kind, _request(_review(kind, number))) for number, kind in enumerate(kinds)]


def _request(review: dict[str, object]) -> bytes:
    body = json.dumps(review).encode()
    head = (
        f"POST {PATH}?timeout=1s HTTP/1.1\r\nHost: remediator-webhook.remediator.svc\r\n"
        f"User-Agent: kube-apiserver-admission\r\nAccept: application/json, */*\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _review(kind: str, number: int) -> dict[str, object]:
    vm = f"vm-{number:05d}"
    labels = {"kubevirt.io": "virt-launcher", "kubevirt.io/created-by": f"uid-{number}"}
    if kind == "foreign":
        labels = {"app": "web"}
    if kind == "target":
        labels["kubevirt.io/migrationJobUID"] = f"job-{number}"
    disks = 40 if kind == "large" else 4
    owner = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "name": vm,
        "uid": f"uid-{number}",
        "controller": True,
        "blockOwnerDeletion": True,
    }
    containers = [
        {
            "name": name,
            "image": "quay.io/kubevirt/virt-launcher@sha256:" + "0" * 64,
            "command": ["/usr/bin/virt-launcher-monitor", "--qemu-timeout", "307s", "--name", vm],
            "env": [{"name": f"VARIABLE_{n}", "value": "x" * 30} for n in range(8)],
            "resources": {"requests": {"cpu": "100m", "memory": "2294Mi"}},
            "securityContext": {"capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]}},
            "volumeMounts": [
                {"name": f"disk-{n}", "mountPath": f"/disks/{n}"} for n in range(disks)
            ],
        }
        for name in ("compute", "guest-console-log")
    ]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"virt-launcher-{vm}-",
            "namespace": "shop",
            "labels": labels,
            "annotations": {"kubevirt.io/domain": vm, "kubevirt.io/storage-observed-api": "v1"},
            "ownerReferences": [owner],
        },
        "spec": {
            "containers": containers,
            "affinity": {"nodeAffinity": {}, "podAntiAffinity": {}},
            "nodeSelector": {"kubevirt.io/schedulable": "true"},
            "volumes": [
                {"name": f"disk-{n}", "persistentVolumeClaim": {"claimName": f"{vm}-{n}"}}
                for n in range(disks)
            ],
        },
    }
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": f"{number:08d}-0000-4000-8000-000000000000",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "shop",
            "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kubevirt:kubevirt-controller"},
            "object": pod,
            "oldObject": None,
            "dryRun": False,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    }


# --- the replica's side ---------------------------------------------------------------------------


async def serve(directory: Path) -> None:
    """Serve the webhook, with a leader that speaks every second, until terminated."""
    clock = Clock()
    outlook = Outlook(clock, fresh_s=4.0)
    reviewer = Reviewer(Gatekeeper(outlook, clock), counted=METRICS.admission)
    cert, key = str(directory / "tls.crt"), str(directory / "tls.key")
    settings = AdmissionSettings(cert_file=cert, key_file=key, host="127.0.0.1", port=0)
    async with serving(reviewer, Certificate(cert, key, clock), settings) as port:
        print(port, flush=True)
        number = 0
        while True:
            number += 1
            outlook.hear(encode(_word(number)))
            await asyncio.sleep(1.0)


def _word(number: int) -> AdmissionState:
    """Every tenth second is quiet, so that both answers are measured."""
    names = [f"shop/vm-{(number * STARTING + n) % VMS:05d}" for n in range(STARTING)]
    hints = {f"shop/vm-{n:05d}": (f"node-{n % 500}", f"node-{n % 499}") for n in range(HINTED)}
    return AdmissionState(
        by="bench",
        epoch=1,
        number=number,
        gating=True,
        storm=number % 10 != 0,
        places=10,
        starting=frozenset(names),
        hints=hints,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", type=Path, required=True)
    logs.configure(level="error", stream=sys.stderr)
    asyncio.run(serve(parser.parse_args().serve))
