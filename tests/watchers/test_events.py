"""Events about VMs become signals: each new one and each repeat, of the VM, never a flood."""

from __future__ import annotations

import asyncio
import random

import pytest
from structlog.testing import capture_logs

from remediator.engine.model import Plane, Reading, vm_subject
from remediator.sim.memory_transport import MemoryTransport
from remediator.sim.resources import EVENTS, NAMESPACES, PODS
from remediator.watchers.events import PERIOD_S
from remediator.watchers.inventory import InventoryWatchers

NS = "payments"
LAUNCHER = "virt-launcher-db-x7k2p"
EVENT_WATCHES = ("probe-failures", "attach-failures", "mount-failures", "guest-warnings")
READINESS = "Readiness probe failed: HTTP probe failed with statuscode: 503"
LIVENESS = "Liveness probe failed: dial tcp 10.1.2.3:22: connect: connection refused"


def launcher(name=LAUNCHER, vmi="db"):
    owner = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": vmi}
    return {
        "metadata": {
            "name": name,
            "namespace": NS,
            "labels": {"kubevirt.io": "virt-launcher", "kubevirt.io/created-by": f"uid-{vmi}"},
            "ownerReferences": [{**owner, "uid": f"uid-{vmi}", "controller": True}],
        },
        "spec": {"nodeName": "n1", "containers": [{"name": "compute", "image": "x"}]},
        "status": {"phase": "Running"},
    }


class Said:
    """Writes events as components do, and tells what the watchers made of them."""

    def __init__(self, cluster) -> None:
        self.cluster = cluster

    def new(self, reason, message, *, pod=LAUNCHER, kind="Pod", name="e1", path="compute", **more):
        about = {"kind": kind, "namespace": NS, "name": pod, "uid": "u"}
        if path:
            about["fieldPath"] = f"spec.containers{{{path}}}"
        event = {
            "metadata": {"name": name, "namespace": NS},
            "involvedObject": about,
            "reason": reason,
            "message": message,
            "type": "Warning",
            "count": 1,
            **more,
        }
        self.cluster.store.create(EVENTS, event)

    def repeat(self, name="e1", **change):
        def count(event):
            event.update(change or {"count": event["count"] + 1})

        self.cluster.store.mutate(EVENTS, NS, name, count)

    def guest(self):
        return self.cluster.published.signals(Plane.GUEST)

    def aspects(self):
        return [(signal.aspect, signal.first) for signal in self.guest()]


@pytest.fixture
async def said(cluster):
    cluster.store.create(NAMESPACES, {"metadata": {"name": NS}})
    cluster.store.create(PODS, launcher())
    await cluster.start()
    cluster.published.clear()
    return Said(cluster)


@pytest.mark.parametrize(
    ("message", "aspect"), [(READINESS, "readiness-probe"), (LIVENESS, "liveness-probe")]
)
async def test_a_failing_probe_of_a_launcher_is_told_of_its_vm(said, message, aspect):
    said.new("Unhealthy", message)
    await asyncio.sleep(1)
    (signal,) = said.guest()
    assert signal.subject == vm_subject(NS, "db")
    assert (signal.reading, signal.aspect, signal.first) == (Reading.DOWN, aspect, False)
    assert signal.detail == message
    assert f"remediator.signal.guest.vm.{NS}/db.kubernetes-events.{aspect}" in (
        said.cluster.published.subjects
    )


async def test_each_repeat_is_told_again(said):
    said.new("Unhealthy", READINESS)
    for _ in range(3):
        await asyncio.sleep(20)
        said.repeat()
    await asyncio.sleep(1)
    assert said.aspects() == [("readiness-probe", False)] * 4
    assert said.guest()[-1].detail == f"{READINESS} (4 times)"
    times = [signal.at for signal in said.guest()]
    assert times == sorted(set(times))


async def test_a_repeat_is_seen_in_the_newer_way_of_counting_too(said):
    said.new("Unhealthy", READINESS, count=None, series={"count": 2})
    await asyncio.sleep(20)
    said.repeat(series={"count": 5})
    await asyncio.sleep(1)
    assert len(said.guest()) == 2


async def test_a_change_that_is_no_repeat_is_not_told(said):
    said.new("Unhealthy", READINESS)
    await asyncio.sleep(20)
    said.repeat(reportingInstance="n1")
    await asyncio.sleep(1)
    assert len(said.guest()) == 1


async def test_texts_that_client_go_has_combined_are_understood(said):
    said.new("Unhealthy", f"(combined from similar events): {READINESS}")
    await asyncio.sleep(1)
    (signal,) = said.guest()
    assert (signal.aspect, signal.detail) == ("readiness-probe", READINESS)


@pytest.mark.parametrize(
    "event",
    [
        {"reason": "Unhealthy", "message": "Readiness probe errored: rpc error: timeout"},
        {"reason": "Unhealthy", "message": "Startup probe failed: x"},
        {"reason": "Unhealthy", "message": READINESS, "path": "istio-proxy"},
        {"reason": "Unhealthy", "message": READINESS, "pod": "virt-launcher-unknown-abcde"},
        {"reason": "Unhealthy", "message": READINESS, "pod": "web-1"},
        {"reason": "Unhealthy", "message": ""},
        {"reason": "BackOff", "message": "Back-off restarting failed container"},
        {"reason": "SyncFailed", "message": "x", "kind": "VirtualMachineInstance", "pod": "db"},
        {"reason": "GuestPanicked", "message": "x", "kind": "VirtualMachineInstance", "pod": ""},
    ],
    ids=[
        "could-not-be-tried",
        "startup",
        "sidecar",
        "unknown-pod",
        "no-launcher",
        "no-text",
        "other-reason",
        "sync-failed",
        "no-name",
    ],
)
async def test_what_says_nothing_of_a_guest_is_not_told(said, event):
    said.new(**event)
    await asyncio.sleep(1)
    assert said.cluster.published.offers == [
        offer for offer in said.cluster.published.offers if "progress" in offer[0]
    ]


async def test_the_probes_of_a_launcher_that_ends_are_no_news(said):
    said.cluster.store.delete(PODS, NS, LAUNCHER, grace_s=60)
    await asyncio.sleep(1)
    said.new("Unhealthy", LIVENESS)
    await asyncio.sleep(1)
    assert said.guest() == []


@pytest.mark.parametrize(
    ("reason", "aspect"), [("GuestPanicked", "panic"), ("WatchdogFired", "watchdog")]
)
async def test_a_panic_and_a_watchdog_are_told_of_the_vmi_they_name(said, reason, aspect):
    said.new(
        reason, "GuestPanicked: type=pvpanic", kind="VirtualMachineInstance", pod="db", path=""
    )
    await asyncio.sleep(1)
    (signal,) = said.guest()
    assert (signal.subject, signal.aspect) == (vm_subject(NS, "db"), aspect)


@pytest.mark.parametrize("reason", ["FailedAttachVolume", "FailedMount"])
async def test_a_volume_that_does_not_attach_is_told_on_the_storage_plane(said, reason):
    said.new(reason, 'Multi-Attach error for volume "pv1"', path="")
    await asyncio.sleep(1)
    (signal,) = said.cluster.published.signals(Plane.STORAGE)
    assert (signal.subject, signal.aspect, signal.reading) == (
        vm_subject(NS, "db"),
        "attach",
        Reading.DOWN,
    )
    assert "Multi-Attach" in signal.detail


async def test_what_the_first_list_finds_is_told_as_found(cluster):
    cluster.store.create(NAMESPACES, {"metadata": {"name": NS}})
    cluster.store.create(PODS, launcher())
    said = Said(cluster)
    said.new("Unhealthy", READINESS, count=7)
    await cluster.start(lead=False)
    assert cluster.published.offers == []
    cluster.watchers.lead()
    await asyncio.sleep(1)
    assert said.aspects() == [("readiness-probe", True)]
    said.repeat()
    await asyncio.sleep(1)
    assert said.aspects()[1:] == [("readiness-probe", False)]


async def test_a_storm_is_bounded_for_each_vm_and_aspect(said):
    for number in range(50):
        said.new("Unhealthy", READINESS, name=f"r{number}")
        said.new("Unhealthy", LIVENESS, name=f"l{number}")
    for _ in range(20):
        for number in range(50):
            said.repeat(f"r{number}")
        await asyncio.sleep(PERIOD_S / 10)
    told = [signal.aspect for signal in said.guest()]
    assert told.count("liveness-probe") == 1
    assert 2 <= told.count("readiness-probe") <= 3  # in two periods


async def test_a_storm_about_one_vm_silences_no_other(said):
    said.cluster.store.create(PODS, launcher("virt-launcher-web-abcde", "web"))
    for number in range(50):
        said.new("Unhealthy", READINESS, name=f"r{number}")
    said.new("Unhealthy", READINESS, pod="virt-launcher-web-abcde", name="other")
    await asyncio.sleep(1)
    assert {signal.subject.name for signal in said.guest()} == {"db", "web"}


class CountedTransport(MemoryTransport):
    """Remembers the lists of events that were asked for: whole ones, not just their version."""

    lists = 0

    async def request(self, method, path, *, query=(), **more):
        if path == "/api/v1/events" and dict(query).get("limit") != "1":
            self.lists += 1
        return await super().request(method, path, query=query, **more)


async def test_a_storm_about_all_vms_is_bounded_and_those_told_go_on_being_told(said, monkeypatch):
    monkeypatch.setattr("remediator.watchers.events.PERIOD_MAX", 3)
    for number in range(10):
        pod = f"virt-launcher-vm{number}-abcde"
        said.cluster.store.create(PODS, launcher(pod, f"vm{number}"))
        said.new("Unhealthy", READINESS, pod=pod, name=f"e{number}")
    with capture_logs() as logs:
        await asyncio.sleep(1)
    assert len(said.guest()) == 3
    assert [entry["event"] for entry in logs].count("events_held_back") == 1
    await asyncio.sleep(PERIOD_S)
    for number in reversed(range(10)):  # who was not told may be now
        said.repeat(f"e{number}")
    await asyncio.sleep(1)
    assert len(said.guest()) == 6
    assert len({signal.subject.name for signal in said.guest()}) == 6


async def test_quiet_event_watches_never_look_stale_nor_list_again(cluster):
    transport = CountedTransport(cluster.server, client_name="pod-a")
    watchers = InventoryWatchers(
        transport, cluster.published, cluster.clock, rng=random.Random(3), identity="pod-a"
    )
    await cluster.start(watchers)
    for _ in range(20):
        await asyncio.sleep(60)
        health = watchers.health()
        # Own health calls a watch stale after 180 s without progress.
        ages = [cluster.clock.now() - health[name].last_progress_at for name in EVENT_WATCHES]
        assert max(ages) < 150
    assert transport.lists == len(EVENT_WATCHES)


async def test_a_follower_hears_and_says_nothing(said):
    said.cluster.watchers.follow()
    said.cluster.published.clear()
    said.new("Unhealthy", READINESS)
    await asyncio.sleep(1)
    assert said.cluster.published.offers == []
