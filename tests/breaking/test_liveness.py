"""Attacks on the second promise: it ends, or it says that it cannot."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from attack import Attack, run

from remediator.clock import Clock
from remediator.kube.objects import VIRTUAL_MACHINES, virtual_machine_action
from remediator.sim.bmc import BmcMode


def close(attack: Attack, *nodes: str) -> None:
    """No room for VMs there: a taint that none of them tolerates."""
    for node in nodes:
        attack.change_node(
            node,
            lambda obj: (
                obj["spec"]
                .setdefault("taints", [])
                .append({"key": "example.com/full", "effect": "NoSchedule"})
            ),
        )


async def without_room(attack: Attack) -> None:
    """n02 dies; its VM's pod is deleted, and the others have just filled up."""
    await attack.begin()
    attack.cluster.faults.power_loss("n02")
    await attack.comes(lambda: attack.started("force-stop"))
    close(attack, "n01", "n03", "n04")
    await attack.run(20)
    assert attack.down() == ["shop/db"]


def test_a_host_that_is_back_takes_its_vms_although_one_of_them_is_not_up_yet():
    async def story() -> None:
        attack = Attack({"shop/db": "n02"}, nodes=4)
        await without_room(attack)
        attack.cluster.faults.power_restore("n02")
        await attack.run(600)
        assert attack.taints("n02") == set()
        assert attack.down() == []

    run(story())


@pytest.mark.parametrize("owner", ["deletes", "stops"])
def test_a_stuck_vm_that_its_owner_gives_up_does_not_keep_the_incident_open(owner):
    async def story() -> None:
        attack = Attack({"shop/db": "n02"}, nodes=4)
        await without_room(attack)
        await attack.comes(lambda: [d for d in attack.decisions() if d.stage == "stuck"], 400)
        if owner == "deletes":
            await attack.operator.delete(VIRTUAL_MACHINES.object_path("db", "shop"))
        else:
            await attack.operator.replace(virtual_machine_action("shop", "db", "stop"), {})
        await attack.run(120)
        assert attack.incident("n02") is None

    run(story())


def test_pods_on_a_node_that_registered_anew_are_no_pods_of_the_dead_one():
    """Node deleted, the same machine back under the same name: a VM that moves there lives."""

    async def story() -> None:
        attack = Attack({"shop/db": "n02", "shop/big": "n03"}, nodes=4)
        await without_room(attack)
        attack.cluster.faults.delete_node("n02")
        await attack.run(5)
        attack.cluster.faults.power_restore("n02")
        await attack.run(40)
        assert attack.down() == []  # all of it is well by now
        await attack.operator.replace(
            virtual_machine_action("shop", "big", "migrate"),
            {"addedNodeSelector": {"kubernetes.io/hostname": "n02"}},
        )
        await attack.run(200)
        assert attack.cluster.vms_on("n02") != []
        assert [str(d.subject) for d in attack.started("force-stop")] == ["vm/shop/db"]
        assert attack.incident("n02") is None

    run(story())


@pytest.mark.parametrize("agent", [True, False])
def test_a_vm_that_was_stuck_and_runs_after_all_ends_the_incident(agent):
    """Found by mix.py, seed 815: room is made after six minutes, and the VM starts and runs."""

    async def story() -> None:
        attack = Attack({"shop/db": "n02"}, nodes=4)
        vm = dataclasses.replace(attack.cluster.vms["shop/db"], agent=agent)
        attack.cluster.vms["shop/db"] = vm
        attack.cluster._placement = lambda: [(vm, "n02")]
        await without_room(attack)
        await attack.comes(lambda: [d for d in attack.decisions() if d.stage == "stuck"], 400)
        attack.change_node("n04", lambda obj: obj["spec"].update(taints=[]))
        await attack.comes(lambda: attack.down() == [])
        attack.cluster.faults.power_restore("n02")
        await attack.run(300)
        assert attack.incident("n02") is None
        assert attack.taints("n02") == set()

    run(story())


def test_a_vm_that_its_owner_stops_while_its_host_is_dead_is_not_awaited_for_ever():
    """Found by mix.py, seed 191: the owner asks for a stop before the plan is carried out."""

    async def story() -> None:
        attack = Attack({"shop/db": "n02", "shop/web": "n02"}, strategy="RerunOnFailure")
        await attack.begin()
        attack.cluster.faults.power_loss("n02")
        await attack.run(1)
        await attack.operator.replace(virtual_machine_action("shop", "db", "stop"), {})
        await attack.comes(lambda: attack.started("force-stop"))
        await attack.run(20)
        attack.cluster.faults.power_restore("n02")
        await attack.run(600)
        assert attack.incident("n02") is None
        assert attack.taints("n02") == set()

    run(story())


class TwoClocks(Attack):
    """The first replica's clock is ``ahead_s`` ahead of all others'."""

    ahead_s = 3600.0

    def start_replica(self) -> str:
        ours = self.clock
        if self._started == 0:
            self.clock = Clock(epoch_at_start=ours.now() + self.ahead_s)
        try:
            return super().start_replica()
        finally:
            self.clock = ours


def test_a_retry_is_not_put_off_by_the_clock_of_the_leader_before():
    async def story() -> None:
        attack = TwoClocks({"shop/db": "n02"})
        await attack.begin()
        attack.cluster.faults.partition("n02")
        attack.cluster.faults.bmc("n02", BmcMode.ERROR_500)
        await attack.comes(
            lambda: [d for d in attack.kinds("finished") if "/fence/" in d.action.id]
        )
        await attack.kill(attack.leader())
        attack.cluster.faults.bmc("n02", BmcMode.OK)
        attack.start_replica()
        await attack.run(400)
        assert len(attack.started("fence")) > 1
        assert not attack.cluster.hosts["n02"].powered

    run(story())


def test_no_record_says_that_a_recovery_took_less_than_no_time():
    async def story() -> None:
        attack = TwoClocks({"shop/db": "n02"})
        await attack.begin()
        attack.cluster.faults.power_loss("n02")
        await attack.comes(lambda: attack.started("force-stop"))
        await attack.kill(attack.leader())
        attack.start_replica()
        await attack.comes(lambda: attack.kinds("resolved"))
        assert " -" not in attack.kinds("resolved")[-1].why

    run(story())


def test_a_slow_journal_at_the_election_does_not_end_the_daemon():
    async def story() -> None:
        attack = Attack({"shop/db": "n02"})
        await attack.begin()
        attack.cluster.faults.bmc("n02", BmcMode.TIMEOUT)
        attack.cluster.faults.power_loss("n02")
        await attack.comes(lambda: attack.started("fence"))
        await attack.run(1)
        await attack.kill(attack.leader())
        attack.cluster.faults.bmc("n02", BmcMode.OK)
        quick = attack.journal.last_seq

        async def slow() -> int:
            await asyncio.sleep(2.5)
            return await quick()

        attack.journal.last_seq = slow
        attack.start_replica()
        await attack.run(60)
        assert attack.down() == []

    run(story())


def test_a_deletion_that_nats_lost_with_its_memory_is_made_up_for():
    """Stored, then lost before it was delivered; the daemon offers everything again."""

    async def story() -> None:
        attack = Attack({"shop/db": "n02"})
        await attack.begin()
        attack.cluster.faults.power_loss("n05")
        stored, attack.bus._store = attack.bus._store, lambda *_: None
        attack.cluster.faults.delete_node("n05")
        await attack.run(1)
        attack.bus._store = stored
        for replica in attack.alive.values():
            replica.start_over()
        await attack.run(60)
        assert attack.facts("n05") is None
        assert attack.incident("n05") is None

    run(story())


def test_a_lease_watch_that_falls_behind_makes_nobody_silent(engine_room):
    """Every kubelet renews in time; the watch's lag grows by a third of a second per second."""
    cluster = engine_room.Cluster(nodes=20, zones=4)
    cluster.lead()
    room = engine_room
    names, began = list(cluster.nodes), cluster.now
    for step in range(1, 60):
        cluster.now = began + step
        lag = max(0.0, step - 20.0) * (1 - 1 / 1.35)  # none for a period or two, then it grows
        arriving, before = cluster.now - lag, cluster.now - lag - (1 / 1.35 if lag else 1.0)
        for number, name in enumerate(names):
            phase = number * 0.5
            if (arriving - phase) // 10.0 != (before - phase) // 10.0:
                cluster.beat(name)
        cluster.handle(room.WatchProgressed(watch="leases", at=arriving))
        cluster.handle(room.Tick())
        if step == 20:
            cluster.decisions.clear()
    assert cluster.kinds(room.DecisionKind.OPENED) == []
