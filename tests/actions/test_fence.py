"""Fence: a node is powered off only while it looks dead, and only "Off" read back is a proof."""

from __future__ import annotations

import msgspec
import pytest

from remediator.engine.model import OutcomeStatus, ProofKind

SPARED, SUCCEEDED, FAILED = OutcomeStatus.SPARED, OutcomeStatus.SUCCEEDED, OutcomeStatus.FAILED


async def test_a_dead_node_is_powered_off_and_proven_off(hands, bmc, make):
    outcome = await hands.do(make.fence, deadline_s=30)
    assert (outcome.status, outcome.changed) == (SUCCEEDED, True)
    assert outcome.proof.kind is ProofKind.POWER_OFF_VERIFIED
    assert (outcome.proof.node, outcome.proof.boot_id) == ("n1", "boot-1")
    assert outcome.proof.source == "redfish https://bmc.example/redfish/v1/Systems/n1"
    assert outcome.started_at < outcome.proof.at <= outcome.finished_at
    assert bmc.calls[-1][0] == "GET"
    assert hands.api.writes == []


async def test_a_node_that_is_off_already_is_ordered_off_all_the_same(hands, bmc, make):
    bmc.state = "Off"
    outcome = await hands.do(make.fence, deadline_s=30)
    assert (outcome.status, outcome.changed) == (SUCCEEDED, False)
    assert outcome.proof.kind is ProofKind.POWER_OFF_VERIFIED
    assert bmc.posts == 1


async def test_a_repeat_after_a_crash_finds_it_off(hands, bmc, make):
    await hands.do(make.fence, deadline_s=30)
    outcome = await hands.do(make.fence, deadline_s=30)
    assert (outcome.status, outcome.changed, bmc.posts) == (SUCCEEDED, False, 2)


async def test_a_node_that_renewed_its_lease_just_now_is_spared(hands, bmc, make):
    hands.beats["n1"] = ("t0", make.EPOCH - 5)
    outcome = await hands.do(make.fence, deadline_s=30)
    assert outcome.status is SPARED
    assert bmc.calls == []


async def test_a_renewal_from_before_its_device_said_off_spares_nobody(hands, bmc, make):
    hands.beats["n1"] = ("t0", make.EPOCH - 5)
    bmc.state = "Off"
    work = msgspec.structs.replace(make.fence, off_since=make.EPOCH - 4)
    assert (await hands.do(work, deadline_s=30)).status is SUCCEEDED


async def test_a_renewal_from_after_its_device_said_off_spares(hands, bmc, make):
    hands.beats["n1"] = ("t0", make.EPOCH - 4)
    bmc.state = "Off"
    work = msgspec.structs.replace(make.fence, off_since=make.EPOCH - 5)
    assert (await hands.do(work, deadline_s=30)).status is SPARED
    assert bmc.posts == 0


async def test_a_host_against_which_only_its_device_spoke_is_spared_where_that_says_on(
    hands, bmc, make
):
    """It restarted, perhaps, and said off meanwhile; the lease is younger than a period."""
    hands.beats["n1"] = ("t0", make.EPOCH - 5)
    work = msgspec.structs.replace(make.fence, off_since=make.EPOCH - 4)
    outcome = await hands.do(work, deadline_s=30)
    assert outcome.status is SPARED
    assert "on after all" in outcome.detail
    assert bmc.posts == 0


async def test_a_lease_ahead_of_the_watch_spares(hands, bmc, make):
    hands.api.put(make.LEASE, make.lease_object("t1"))
    assert (await hands.do(make.fence, deadline_s=30)).status is SPARED
    assert bmc.calls == []


async def test_a_node_that_comes_back_while_its_bmc_answers_is_spared(hands, bmc, make):
    def comes_back(_method):
        hands.api.put(make.LEASE, make.lease_object("t1"))
        hands.beats.pop("n1")  # even where the watch knows nothing

    bmc.on_request = comes_back
    outcome = await hands.do(make.fence, deadline_s=30)
    assert outcome.status is SPARED
    assert bmc.posts == 0


async def test_a_node_that_reboots_by_itself_is_spared_and_that_is_proof(hands, bmc, make):
    def reboots(_method):
        hands.api.change(make.NODE, status={"nodeInfo": {"bootID": "boot-2"}})

    bmc.on_request = reboots
    outcome = await hands.do(make.fence, deadline_s=30)
    assert outcome.status is SPARED
    assert (outcome.proof.kind, outcome.proof.boot_id) == (ProofKind.REBOOTED, "boot-1")
    assert bmc.posts == 0


@pytest.mark.parametrize("case", ["gone", "registered anew", "excluded", "no boot id"])
async def test_a_node_that_is_not_ours_to_fence_is_spared(hands, bmc, make, case):
    if case == "gone":
        del hands.api.objects[make.NODE]
    elif case == "registered anew":
        hands.api.change(make.NODE, metadata={"uid": "another"})
    elif case == "excluded":
        label = {"remediation.medik8s.io/exclude-from-remediation": "true"}
        hands.api.change(make.NODE, metadata={"labels": label})
    else:
        hands.api.change(make.NODE, status={"nodeInfo": {"bootID": ""}})
    outcome = await hands.do(make.fence, deadline_s=30)
    assert (outcome.status, outcome.proof) == (SPARED, None)
    assert bmc.calls == []


async def test_an_excluded_label_that_appears_meanwhile_spares(hands, bmc, make):
    label = {"remediation.medik8s.io/exclude-from-remediation": "true"}
    bmc.on_request = lambda _method: hands.api.change(make.NODE, metadata={"labels": label})
    assert (await hands.do(make.fence, deadline_s=30)).status is SPARED
    assert bmc.posts == 0


async def test_a_bmc_that_accepts_and_does_nothing_is_a_failure_without_proof(hands, bmc, make):
    bmc.obeys = False
    outcome = await hands.do(make.fence, deadline_s=10)
    assert (outcome.status, outcome.proof) == (FAILED, None)
    assert "PowerState is On" in outcome.detail


async def test_another_machines_bmc_is_sent_nothing(hands, bmc, make):
    bmc.uuid = "11111111-2222-3333-4444-555555555555"
    outcome = await hands.do(make.fence, deadline_s=30)
    assert (outcome.status, outcome.proof) == (FAILED, None)
    assert "WrongMachine" in outcome.detail
    assert bmc.posts == 0


async def test_an_api_server_that_does_not_answer_fences_nobody(hands, bmc, make):
    hands.api.faults["GET"] = ["hang"] * 20
    outcome = await hands.do(make.fence, deadline_s=10)
    assert (outcome.status, outcome.proof) == (FAILED, None)
    assert bmc.calls == []


async def test_an_api_server_lost_before_the_order_fences_nobody(hands, bmc, make):
    def api_goes(_method):
        hands.api.faults["GET"] = ["hang"] * 20

    bmc.on_request = api_goes
    outcome = await hands.do(make.fence, deadline_s=20)
    assert (outcome.status, outcome.proof) == (FAILED, None)
    assert bmc.posts == 0


async def test_a_node_without_a_device_is_a_failure(hands, device, bmc, make):
    elsewhere = msgspec.structs.replace(device, nodes=("x*",))
    hands.devices = make.asked([elsewhere], bmc).devices
    hands.runner._devices = hands.devices
    outcome = await hands.do(make.fence)
    assert outcome.status is FAILED
    assert "no fence device" in outcome.detail


async def test_a_device_that_changed_since_the_decision_is_a_failure(hands, bmc, make):
    outcome = await hands.do(msgspec.structs.replace(make.fence, method="old"))
    assert outcome.status is FAILED
    assert bmc.calls == []


async def test_a_hanging_bmc_ends_before_the_actions_deadline(hands, bmc, make):
    bmc.faults["GET"] = ["hang"] * 20
    outcome = await hands.do(make.fence, deadline_s=30)
    assert (outcome.status, outcome.proof) == (FAILED, None)
    assert "no answer within 5 s" in outcome.detail
