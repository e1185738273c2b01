"""Attacks on the one unforgivable thing: a second writer, or a living host powered off."""

from __future__ import annotations

import asyncio

import pytest
from attack import Attack, run
from stopping import Stoppable, StoppingLoop

from remediator.engine.model import OutcomeStatus
from remediator.http_client import HttpResponse
from remediator.kube.client import PatchKind
from remediator.kube.objects import MEDIK8S_LEASES, virtual_machine_action
from remediator.sim.bmc import BmcMode
from remediator.sim.resources import VIRTUAL_MACHINE_INSTANCES
from remediator.sim.timestamps import rfc3339_micro

SEATS = {"shop/db": "n02", "shop/web": "n03"}


def test_a_bmc_that_says_off_for_three_seconds_does_not_start_a_second_copy():
    """Some BMCs say Off while they restart. The host is cut off from the API and writes on."""

    async def story() -> None:
        attack = Attack(SEATS)
        await attack.begin()
        attack.cluster.faults.partition("n02")
        await attack.run(14)
        attack.cluster.faults.bmc("n02", BmcMode.ALWAYS_OFF)
        await attack.run(3)
        attack.cluster.faults.bmc("n02", BmcMode.OK)
        await attack.run(90)
        assert attack.kinds("opened")
        assert not attack.cluster.ledger.double_runs

    run(story())


@pytest.mark.parametrize("answer", [503, 400, 204])
def test_a_bmc_that_restarts_says_off_and_carries_nothing_out_starts_no_second_copy(answer):
    """As above for eight seconds, and the order goes nowhere; then it says On again."""

    async def story() -> None:
        attack = Attack(SEATS)
        bmc = attack.cluster.bmcs["n02"]
        bmc._reset = lambda _body: HttpResponse(status=answer, headers={}, body=b"{}")
        await attack.begin()
        attack.cluster.faults.partition("n02")
        await attack.run(14)
        attack.cluster.faults.bmc("n02", BmcMode.ALWAYS_OFF)
        await attack.run(8)
        attack.cluster.faults.bmc("n02", BmcMode.OK)
        await attack.run(60)
        assert attack.cluster.hosts["n02"].powered
        assert not attack.cluster.ledger.double_runs

    run(story())


def test_a_new_leader_fences_nobody_on_the_word_of_a_bmc_alone():
    """The host was cut off, is back and renews; only its BMC says off; the new leader is new."""

    async def story() -> None:
        attack = Attack(SEATS)
        await attack.begin()
        attack.cluster.faults.partition("n02")
        attack.cluster.faults.bmc("n02", BmcMode.TIMEOUT)
        await attack.comes(lambda: attack.started("fence"))
        await attack.run(1)
        await attack.kill(attack.leader())
        attack.cluster.faults.heal("n02")
        await attack.run(5)  # it has renewed its lease, and will again in ten seconds at most
        attack.cluster.faults.bmc("n02", BmcMode.ALWAYS_OFF)
        attack.start_replica()
        await attack.run(90)
        assert not attack.cluster.ledger.double_runs
        assert attack.started("force-stop") == []

    run(story())


@pytest.mark.parametrize("for_s", [6.0, 12.0, 25.0])
def test_a_leader_that_stood_still_repeats_no_power_off_when_another_leads_by_then(for_s):
    """Stopped in the pause after a BMC's 500; meanwhile the host is back and cleared."""

    async def story() -> None:
        attack = Stoppable(SEATS)
        orders: list[float] = []
        bmc = attack.cluster.bmcs["n02"]

        def acted(what: str, _target: str) -> None:
            if what == "reset":
                orders.append(attack.clock.now())
                bmc.mode = BmcMode.ERROR_500 if len(orders) == 1 else BmcMode.OK

        def answered(name: str, method: str, _path: str) -> None:
            if method == "POST" and orders and bmc.mode is BmcMode.ERROR_500:
                bmc.mode = BmcMode.OK
                asyncio.get_running_loop().call_later(0.2, stop, name)

        def stop(name: str) -> None:
            attack.stop_process(name)
            attack.cluster.faults.heal("n02")

        attack.on_act, attack.on_answer = acted, answered
        await attack.begin(replicas=2)
        first = attack.leader()
        attack.cluster.faults.partition("n02")
        await attack.comes(lambda: orders)
        await asyncio.sleep(for_s)
        attack.wake_process(first)
        await asyncio.sleep(30)
        await attack.leaves(first)
        assert attack.cluster.hosts["n02"].powered
        assert len(orders) == 1

    run(story(), StoppingLoop)


@pytest.mark.parametrize("how", ["annotation", "medik8s lease"])
def test_a_node_that_somebody_claims_between_two_tries_is_not_fenced(how):
    async def story() -> None:
        attack = Attack(SEATS)
        await attack.begin()
        attack.cluster.faults.partition("n02")
        attack.cluster.faults.bmc("n02", BmcMode.ERROR_500)
        await attack.comes(lambda: attack.started("fence"))
        await attack.run(1)
        if how == "annotation":
            attack.annotate("n02", "remediator.io/exclude", "mine")
        else:
            now = rfc3339_micro(attack.clock.now())
            spec = {"holderIdentity": "nmo", "leaseDurationSeconds": 3600, "renewTime": now}
            await attack.operator.patch(  # ours by then: somebody takes it all the same
                MEDIK8S_LEASES.object_path("node-n02"),
                {"spec": {**spec, "acquireTime": now}},
                kind=PatchKind.MERGE,
            )
        await attack.run(1)
        attack.cluster.faults.bmc("n02", BmcMode.OK)
        await attack.run(60)
        assert attack.cluster.hosts["n02"].powered

    run(story())


def test_a_fence_left_by_an_earlier_leader_waits_while_most_of_the_cluster_is_silent():
    async def story() -> None:
        attack = Attack(SEATS, nodes=9)
        await attack.begin()
        attack.cluster.faults.partition("n02")
        attack.cluster.faults.bmc("n02", BmcMode.TIMEOUT)
        await attack.comes(lambda: attack.started("fence"))
        await attack.run(1)
        await attack.kill(attack.leader())
        attack.cluster.faults.bmc("n02", BmcMode.OK)
        for node in ("n01", "n03", "n05", "n06", "n08"):
            attack.cluster.faults.partition(node)
        attack.start_replica()
        await attack.run(120)
        held = [d for d in attack.kinds("refused") if "cluster-share" in d.why]
        assert held  # the same guard withholds every other fence in this moment
        assert attack.cluster.hosts["n02"].powered

    run(story())


def test_a_renewal_seen_while_nobody_led_voids_an_inherited_proof(actions_room, tmp_path):
    """The follower's watch saw the node renew 9 s before it was elected, after the release."""

    async def story() -> None:
        room = actions_room
        password = tmp_path / "password"
        password.write_text("x")
        api, make = room.FakeApi(), room.Make
        api.put(
            room.NODE,
            room.node_object(
                annotations={
                    "remediator.io/out-of-service": "boot-1",
                    "remediator.io/lease-at-release": "t0",
                }
            ),
        )
        api.change(
            room.NODE, spec={"taints": [{"key": "remediator.io/fenced", "effect": "NoSchedule"}]}
        )
        api.put(room.LEASE, room.lease_object("t5"))
        api.put(room.POD, room.pod_object())
        device = room.RedfishDevice(
            name="lab", nodes=("n*",), endpoint="https://b", username="a",
            password_file=str(password),
        )  # fmt: skip
        hands = room.Hands(api, room.FakeBmc(), device)
        hands.beats["n1"] = ("t5", room.EPOCH - 9.0)
        outcome = await hands.do(make.force_stop(at=room.EPOCH - 30.0))
        await hands.runner.stop()
        assert outcome.status is OutcomeStatus.SPARED
        assert room.POD in api.objects

    run(story())


# --- what held ------------------------------------------------------------------------------------


def test_a_guest_whose_migration_ended_unseen_on_a_cut_off_target_gets_no_second_copy():
    """The source dies in the instant of the switch-over, the target cannot tell anybody."""

    async def story() -> None:
        attack = Attack({"shop/db": "n02"}, spec={"api_latency_s": 0.2})
        await attack.begin()
        await attack.operator.replace(
            virtual_machine_action("shop", "db", "migrate"),
            {"addedNodeSelector": {"kubernetes.io/hostname": "n03"}},
        )

        def state() -> dict:
            vmi = attack.cluster.store.find(VIRTUAL_MACHINE_INSTANCES, "shop", "db")
            return vmi.get("status", {}).get("migrationState") or {}

        await attack.comes(lambda: state().get("startTimestamp"))
        attack.cluster.faults.partition("n03")
        while not attack.cluster.vms_on("n03"):
            await asyncio.sleep(0.005)
        attack.cluster.faults.power_loss("n02")
        await attack.run(120)
        assert attack.started("force-stop")
        assert not attack.cluster.ledger.double_runs

    run(story())


@pytest.mark.parametrize("for_s", [2.0, 5.0, 10.0, 60.0])
@pytest.mark.parametrize("record", ["cordon", "fence", "release", "force-stop"])
def test_a_leader_that_stands_still_at_a_record_and_wakes_does_no_harm(record, for_s):
    """The host dies for good: whoever acts, the VM comes back once, and the chain holds."""

    async def story() -> None:
        attack = Stoppable(SEATS)
        await attack.begin(replicas=2)
        first = attack.leader()
        attack.cluster.faults.power_loss("n02")
        while not attack.started(record):
            await asyncio.sleep(0.001)
        attack.stop_process(first)
        await asyncio.sleep(for_s)
        attack.wake_process(first)
        await asyncio.sleep(120)
        await attack.leaves(first)
        assert attack.down() == []
        assert not attack.cluster.ledger.double_runs
        attack.verify()

    run(story(), StoppingLoop)
