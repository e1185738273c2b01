"""The real watchers over the simulated API server, on virtual time; what they publish is kept."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re

import pytest

from remediator.bus import subjects
from remediator.clock import Clock
from remediator.engine.events import (
    InventorySynced,
    ObjectGone,
    ObjectSeen,
    WatchProgressed,
    wire_decoder,
)
from remediator.engine.model import Signal
from remediator.signals import wire
from remediator.sim.apiserver import ApiServer
from remediator.sim.memory_transport import MemoryTransport
from remediator.sim.problems import forbidden
from remediator.sim.resources import LEASES, NODES, Registry
from remediator.sim.store import Store
from remediator.sim.timestamps import rfc3339_micro
from remediator.sim.virtual_time import VirtualTimeLoop
from remediator.watchers.inventory import InventoryWatchers, WatcherSettings

EPOCH = 1_800_000_000.0
_PROCESS = re.compile(r"\.[0-9a-f]{12}$")
LEASE_NS = "kube-node-lease"


def pytest_asyncio_loop_factories(config, item):
    del config, item
    return {"virtual": VirtualTimeLoop}


class Published:
    """An EventPublisher that remembers, and what a test asks of it."""

    pending = 0  # a test sets it to make the way to NATS look full

    def __init__(self) -> None:
        self.offers: list[tuple[str, object, str]] = []

    def offer(self, subject, payload, *, message_id=None):
        if subjects.is_signal(subject):
            event = wire.decode(payload)
        else:
            event = wire_decoder.decode(payload)
        # Beats and marks end in the name of their process: here, all are of one.
        self.offers.append((_PROCESS.sub("", subject), event, message_id))

    def clear(self) -> None:
        self.offers.clear()

    @property
    def subjects(self):
        return [subject for subject, _, _ in self.offers]

    @property
    def ids(self):
        return [message_id for _, _, message_id in self.offers]

    def events(self, kind):
        return [event for _, event, _ in self.offers if isinstance(event, kind)]

    def signals(self, plane=None, node=None):
        found = self.events(Signal)
        return [
            signal
            for signal in found
            if (plane is None or signal.plane == plane)
            and (node is None or signal.subject.name == node)
        ]

    def facts(self, kind):
        return [e.facts for e in self.events(ObjectSeen) if isinstance(e.facts, kind)]

    def gone(self):
        return self.events(ObjectGone)

    def synced(self):
        return [event.kind for event in self.events(InventorySynced)]

    def progress(self, watch):
        return [event.at for event in self.events(WatchProgressed) if event.watch == watch]


class Cluster:
    """A few nodes that renew their leases when a test says so, and one daemon's watchers."""

    def __init__(self) -> None:
        self.clock = Clock(epoch_at_start=EPOCH)
        self.store = Store(now=self.clock.now, rng=random.Random(1))
        self.server = ApiServer(self.store, Registry())
        self.published = Published()
        self.tasks: list[asyncio.Task] = []
        self.canary_refused = False
        self.store.add_admission(self._admit)
        self.watchers = self.daemon("pod-a")

    def _admit(self, request) -> None:
        name = request.obj["metadata"].get("name", "")
        if self.canary_refused and request.res is LEASES and name.startswith("remediator-canary"):
            raise forbidden(LEASES, name, "RBAC says no")

    def daemon(self, identity: str, **settings) -> InventoryWatchers:
        return InventoryWatchers(
            MemoryTransport(self.server, client_name=identity),
            self.published,
            self.clock,
            rng=random.Random(identity),
            identity=identity,
            settings=WatcherSettings(**settings),
        )

    async def start(self, watchers=None, *, lead: bool = True, settle_s: float = 3.0):
        watchers = watchers or self.watchers
        task = asyncio.create_task(watchers.run())
        self.tasks.append(task)
        if lead:
            watchers.lead()
        await asyncio.sleep(settle_s)
        return task

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self.server.close()

    def add_node(self, name: str, **annotations) -> None:
        labels = {
            "topology.kubernetes.io/zone": "z1",
            "kubevirt.io/schedulable": "true",
            "beta.kubernetes.io/arch": "amd64",
            "node-role.kubernetes.io/worker": "",
        }
        self.store.create(
            NODES,
            {
                "metadata": {"name": name, "labels": labels, "annotations": annotations},
                "spec": {},
                "status": {
                    "nodeInfo": {"bootID": f"boot-{name}", "systemUUID": f"uuid-{name}"},
                    "conditions": [
                        {"type": "Ready", "status": "True", "reason": "KubeletReady"},
                    ],
                },
            },
        )
        self.store.create(
            LEASES,
            {
                "metadata": {"name": name, "namespace": LEASE_NS},
                "spec": {"holderIdentity": name, "renewTime": rfc3339_micro(self.clock.now())},
            },
        )

    def renew(self, name: str, *, skew_s: float = 0.0) -> None:
        def change(lease):
            lease["spec"]["renewTime"] = rfc3339_micro(self.clock.now() + skew_s)

        self.store.mutate(LEASES, LEASE_NS, name, change)

    def change_node(self, name: str, change, *, status: bool = False) -> None:
        subresource = "status" if status else ""
        self.store.mutate(NODES, "", name, change, subresource=subresource)

    async def until(self, condition) -> None:
        """Give others their turns, without any time passing, until the condition holds."""
        for _ in range(10_000):
            if condition():
                return
            await asyncio.sleep(0)
        raise AssertionError("the condition did not come to hold")

    def canaries(self):
        leases = self.store.list(LEASES, LEASE_NS)
        names = [lease["metadata"]["name"] for lease in leases]
        return [name for name in names if name.startswith("remediator-canary-")]


@pytest.fixture
async def cluster():
    cluster = Cluster()
    for name in ("n1", "n2.example.com"):
        cluster.add_node(name, **{"kubevirt.io/heartbeat": "2026-11-20T08:00:00Z"})
    yield cluster
    await cluster.stop()
