"""Guests that go wrong, and what the API shows of them: as KubeVirt and the kubelet write it."""

from __future__ import annotations

import asyncio

import pytest

from remediator.sim.resources import (
    EVENTS,
    NODES,
    PODS,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
)
from remediator.sim.timestamps import parse_rfc3339

ALL = {"agent_share": 1.0, "run_strategies": {"Always": 1.0}, "diskless_share": 0.0}


def vmi(cluster, vm):
    return cluster.store.find(VIRTUAL_MACHINE_INSTANCES, *vm.split("/"))


def conditions(cluster, vm):
    found = (vmi(cluster, vm) or {}).get("status", {}).get("conditions", ())
    return {each["type"]: (each["status"], each.get("reason") or "") for each in found}


def printed(cluster, vm):
    return cluster.store.get(VIRTUAL_MACHINES, *vm.split("/"))["status"]["printableStatus"]


def launchers(cluster, vm):
    namespace, name = vm.split("/")
    return cluster.store.list(PODS, namespace, f"vm.kubevirt.io/name={name}")


def events(cluster, reason, about=""):
    return [
        event
        for event in cluster.store.list(EVENTS)
        if event["reason"] == reason and about in event["involvedObject"]["name"]
    ]


def first_vm(cluster):
    return min(cluster.vms)


def test_a_lost_agent_takes_its_condition_with_it_and_brings_it_back(in_cluster):
    async def story(cluster):
        vm = first_vm(cluster)
        assert conditions(cluster, vm)["AgentConnected"] == ("True", "")
        cluster.faults.agent_lost(vm)
        await asyncio.sleep(2)
        assert "AgentConnected" not in conditions(cluster, vm)
        assert vmi(cluster, vm)["status"]["phase"] == "Running"
        cluster.faults.agent_back(vm)
        await asyncio.sleep(2)
        assert conditions(cluster, vm)["AgentConnected"] == ("True", "")

    in_cluster(story, **ALL)


def test_a_failing_readiness_probe_is_told_every_ten_seconds_and_unreadies_after_three(in_cluster):
    async def story(cluster):
        vm = first_vm(cluster)
        cluster.faults.probes(vm, readiness=False)
        await asyncio.sleep(18)
        assert conditions(cluster, vm)["Ready"][0] == "True"
        await asyncio.sleep(12)
        assert conditions(cluster, vm)["Ready"] == ("False", "ContainersNotReady")
        (event,) = events(cluster, "Unhealthy")
        assert event["count"] == 3
        assert event["message"].startswith("Readiness probe failed: ")
        assert event["involvedObject"]["name"] == launchers(cluster, vm)[0]["metadata"]["name"]
        assert event["involvedObject"]["fieldPath"] == "spec.containers{compute}"
        cluster.faults.probes(vm, readiness=True)
        await asyncio.sleep(15)
        assert conditions(cluster, vm)["Ready"] == ("True", "")
        assert vmi(cluster, vm)["status"]["phase"] == "Running"

    in_cluster(story, **ALL)


def test_a_probe_that_fails_for_long_is_told_25_times_and_then_every_five_minutes(in_cluster):
    """client-go's spam filter: silence does not mean that the probe passes."""

    async def story(cluster):
        cluster.faults.probes(first_vm(cluster), readiness=False)
        counts = []
        for _ in range(4):
            await asyncio.sleep(300)
            counts.append(events(cluster, "Unhealthy")[0]["count"])
        assert counts == [25, 26, 27, 28]

    in_cluster(story, **ALL)


def test_a_guest_that_hangs_is_killed_by_its_liveness_probe_and_runs_anew(in_cluster):
    async def story(cluster):
        vm = first_vm(cluster)
        before = vmi(cluster, vm)["metadata"]["uid"]
        cluster.faults.guest_hang(vm)
        await asyncio.sleep(20)
        assert conditions(cluster, vm)["AgentConnected"] == ("True", "")  # its channel is open
        await asyncio.sleep(40)
        assert {e["message"].split()[0] for e in events(cluster, "Unhealthy")} == {
            "Readiness",
            "Liveness",
        }
        assert vmi(cluster, vm)["metadata"]["uid"] != before
        assert cluster.ledger.is_up(vm)
        assert conditions(cluster, vm)["AgentConnected"] == ("True", "")

    in_cluster(story, **ALL)


def test_a_panic_is_told_and_fails_the_vmi_or_reboots_the_guest(in_cluster):
    async def story(cluster):
        dies, reboots = sorted(cluster.vms)[:2]
        uids = {vm: vmi(cluster, vm)["metadata"]["uid"] for vm in (dies, reboots)}
        cluster.faults.guest_panic(dies)
        cluster.faults.guest_panic(reboots, reboots=True)
        await asyncio.sleep(2)
        for vm in (dies, reboots):
            (event,) = events(cluster, "GuestPanicked", vm.split("/")[1])
            assert event["involvedObject"]["kind"] == "VirtualMachineInstance"
            assert event["type"] == "Warning"
        assert "AgentConnected" not in conditions(cluster, reboots)
        await asyncio.sleep(40)
        assert len(events(cluster, "Stopped", dies.split("/")[1])) == 1
        assert vmi(cluster, dies)["metadata"]["uid"] != uids[dies]
        assert vmi(cluster, reboots)["metadata"]["uid"] == uids[reboots]
        assert all(cluster.ledger.is_up(vm) for vm in (dies, reboots))

    in_cluster(story, **ALL)


def test_a_watchdog_resets_without_a_word_or_looks_like_a_crash(in_cluster):
    async def story(cluster):
        resets, ends = sorted(cluster.vms)[:2]
        uid = vmi(cluster, resets)["metadata"]["uid"]
        cluster.faults.guest_watchdog(resets)
        cluster.faults.guest_watchdog(ends, action="poweroff")
        await asyncio.sleep(40)
        told = {event["involvedObject"]["name"] for event in cluster.store.list(EVENTS)}
        assert told == {ends.split("/")[1]}
        assert vmi(cluster, resets)["metadata"]["uid"] == uid
        with pytest.raises(ValueError, match="does not 'pause'"):
            cluster.faults.guest_watchdog(resets, action="pause")

    in_cluster(story, **ALL)


def test_a_guest_paused_by_an_io_error_stands_still_until_its_disk_works(in_cluster):
    async def story(cluster):
        vm = first_vm(cluster)
        cluster.faults.io_error(vm)
        await asyncio.sleep(2)
        assert conditions(cluster, vm)["Paused"] == ("True", "PausedIOError")
        assert printed(cluster, vm) == "Paused"
        assert cluster.ledger.running_copies(vm)[0].paused
        (event,) = events(cluster, "IOerror")
        assert "IO error at the volume: disk" in event["message"]
        cluster.faults.io_heals(vm)
        await asyncio.sleep(2)
        assert "Paused" not in conditions(cluster, vm)
        assert not cluster.ledger.running_copies(vm)[0].paused

    in_cluster(story, **ALL)


def test_a_paused_guest_outlasts_a_hang_of_its_host(in_cluster):
    async def story(cluster):
        vm = first_vm(cluster)
        (copy,) = cluster.ledger.running_copies(vm)
        cluster.faults.pause_guest(vm)
        cluster.faults.host_hang(copy.node)
        await asyncio.sleep(5)
        cluster.faults.resume(copy.node)
        await asyncio.sleep(15)
        assert copy.paused
        assert conditions(cluster, vm)["Paused"] == ("True", "PausedByUser")
        cluster.faults.unpause_guest(vm)
        await asyncio.sleep(2)
        assert not copy.paused

    in_cluster(story, **ALL)


def test_a_vm_whose_qemu_never_starts_backs_off_until_it_does(in_cluster):
    async def story(cluster):
        vm = first_vm(cluster)
        cluster.faults.crash_loop(vm)
        await asyncio.sleep(200)
        assert printed(cluster, vm) == "CrashLoopBackOff"
        assert not cluster.ledger.running_copies(vm)
        cluster.faults.boots_again(vm)
        await cluster.wait_until(lambda: cluster.ledger.is_up(vm), timeout_s=500)
        assert printed(cluster, vm) == "Running"

    in_cluster(story, **ALL)


def test_an_image_that_is_missing_holds_the_next_launcher_up(in_cluster):
    async def story(cluster):
        vm = first_vm(cluster)
        cluster.faults.image_missing(vm)
        cluster.faults.guest_watchdog(vm, action="poweroff")
        await asyncio.sleep(30)
        assert printed(cluster, vm) == "ImagePullBackOff"
        (pod,) = [pod for pod in launchers(cluster, vm) if pod["status"]["phase"] == "Pending"]
        (compute,) = pod["status"]["containerStatuses"]
        assert compute["state"]["waiting"]["reason"] == "ImagePullBackOff"
        cluster.faults.boots_again(vm)
        await cluster.wait_until(lambda: cluster.ledger.is_up(vm), timeout_s=60)

    in_cluster(story, **ALL)


def test_a_volume_that_cannot_be_attached_is_told_ever_more_rarely(in_cluster):
    async def story(cluster):
        vm = first_vm(cluster)
        (copy,) = cluster.ledger.running_copies(vm)

        def cordon(node):
            node["spec"]["unschedulable"] = True

        cluster.store.mutate(NODES, "", copy.node, cordon)
        volume = "pv-" + vm.replace("/", "-")
        cluster.faults.attach_fails(volume)
        cluster.faults.guest_watchdog(vm, action="poweroff")
        await asyncio.sleep(40)
        (event,) = events(cluster, "FailedAttachVolume")
        assert 5 <= event["count"] <= 7  # after 0.5, 1, 2, 4, 8, 16 s
        assert event["message"].startswith(f'AttachVolume.Attach failed for volume "{volume}"')
        assert not cluster.ledger.running_copies(vm)
        cluster.faults.attach_works(volume)
        await cluster.wait_until(lambda: cluster.ledger.is_up(vm), timeout_s=150)

    in_cluster(story, rwx_share=1.0, **ALL)


def test_who_does_not_run_cannot_go_wrong(in_cluster):
    async def story(cluster):
        with pytest.raises(LookupError, match="team-z/nobody does not run"):
            cluster.faults.guest_hang("team-z/nobody")
        with pytest.raises(KeyError):
            cluster.faults.node_condition("n99", "KernelDeadlock", "True")

    in_cluster(story)


def test_ending_all_mends_every_guest(in_cluster):
    async def story(cluster):
        vms = sorted(cluster.vms)
        cluster.faults.io_error(vms[0])
        cluster.faults.probes(vms[1], readiness=False)
        cluster.faults.agent_lost(vms[2])
        cluster.faults.crash_loop(vms[3])
        await asyncio.sleep(60)
        cluster.faults.end_all()
        await asyncio.sleep(400)
        for vm in vms:
            assert conditions(cluster, vm)["Ready"] == ("True", "")
            assert conditions(cluster, vm)["AgentConnected"] == ("True", "")
            assert "Paused" not in conditions(cluster, vm)
            assert cluster.ledger.is_up(vm)

    in_cluster(story, **ALL)


def test_events_carry_the_time_of_their_last_repeat(in_cluster):
    async def story(cluster):
        cluster.faults.probes(first_vm(cluster), readiness=False)
        await asyncio.sleep(60)
        (event,) = events(cluster, "Unhealthy")
        first, last = (parse_rfc3339(event[k]) for k in ("firstTimestamp", "lastTimestamp"))
        assert last - first == pytest.approx(10 * (event["count"] - 1), abs=1)

    in_cluster(story, **ALL)
