"""The replica as a whole, on virtual time: what the parts' own tests cannot show."""

from __future__ import annotations

import msgspec
import pytest
from harness import Rehearsal

from remediator.engine.chain import DecisionKind
from remediator.policy.loader import load_directory, shipped_directory
from remediator.sim.cluster_spec import ClusterSpec
from remediator.sim.resources import NODES
from remediator.sim.virtual_time import run

SMALL = ClusterSpec(nodes=6, zones=3, vms=12, seed=3)


def label(rehearsal: Rehearsal, node: str, key: str, value: str) -> None:
    def change(obj: dict) -> None:
        obj["metadata"].setdefault("labels", {})[key] = value

    rehearsal.cluster.store.mutate(NODES, "", node, change)


@pytest.mark.parametrize(("pool", "recovered"), [("vms", True), ("other", False)])
def test_a_policy_acts_only_on_the_nodes_that_its_labels_select(pool, recovered):
    shipped = next(
        policy for policy in load_directory(shipped_directory()) if policy.name == "node-lost"
    )
    policy = msgspec.structs.replace(shipped, node_labels={"example.com/pool": "vms"})

    async def story() -> None:
        rehearsal = Rehearsal(SMALL, policies=[policy])
        await rehearsal.start()
        label(rehearsal, "n02", "example.com/pool", pool)
        await rehearsal.run(30)
        rehearsal.cluster.faults.power_loss("n02")
        await rehearsal.run(60)
        assert (rehearsal.down() == []) is recovered
        escalated = [d for d in rehearsal.decisions() if d.kind is DecisionKind.ESCALATED]
        assert bool(escalated) is not recovered
        await rehearsal.stop()

    run(story())


def test_observe_mode_writes_nothing_but_the_lease_of_the_election():
    async def story() -> None:
        rehearsal = Rehearsal(SMALL, enforce=False)
        await rehearsal.start()
        await rehearsal.run(30)
        rehearsal.cluster.faults.power_loss("n02")
        await rehearsal.run(120)
        leases = "/apis/coordination.k8s.io/v1/namespaces/remediator/leases"
        assert {path for _, path in rehearsal.writes} == {leases, f"{leases}/remediator"}
        refusals = [d for d in rehearsal.decisions() if d.kind is DecisionKind.REFUSED]
        assert any("observe mode: would" in refusal.why for refusal in refusals)
        await rehearsal.stop()

    run(story())


def test_a_deposed_leader_stops_before_it_acts_again():
    async def story() -> None:
        rehearsal = Rehearsal(SMALL)
        await rehearsal.start()
        await rehearsal.run(30)
        name = next(iter(rehearsal.replicas))
        rehearsal.journal.refuse = 1
        rehearsal.cluster.faults.power_loss("n02")
        task = rehearsal.replicas[name]
        await rehearsal.cluster.wait_until(task.done, timeout_s=60)
        assert type(task.exception()).__name__ == "AppendRefusedError"
        del rehearsal.replicas[name]
        assert not [path for _, path in rehearsal.writes if "/leases" not in path]
        await rehearsal.stop()

    run(story())


def test_while_the_journal_is_away_nothing_is_done_and_afterwards_all_is():
    async def story() -> None:
        rehearsal = Rehearsal(SMALL)
        await rehearsal.start()
        await rehearsal.run(30)
        rehearsal.journal.outage = True
        rehearsal.cluster.faults.power_loss("n02")
        await rehearsal.run(60)
        assert not [path for _, path in rehearsal.writes if "/leases" not in path]
        rehearsal.journal.outage = False
        await rehearsal.until(lambda: not rehearsal.down(), 60)
        rehearsal.verify()
        assert rehearsal.cluster.ledger.double_runs == ()
        await rehearsal.stop()

    run(story())


def test_a_follower_takes_over_from_a_leader_that_dies_and_finishes_its_plan():
    async def story() -> None:
        rehearsal = Rehearsal(SMALL)
        await rehearsal.start(replicas=2)
        await rehearsal.run(30)
        leader = next(n for n, r in rehearsal.alive.items() if r.elector.leader)
        rehearsal.cluster.faults.power_loss("n02")
        await rehearsal.until(
            lambda: any(d.kind is DecisionKind.STARTED for d in rehearsal.decisions()), 60
        )
        await rehearsal.kill(leader)
        took_s = await rehearsal.until(lambda: not rehearsal.down(), 60)
        assert took_s < 30
        assert {d.leader for d in rehearsal.decisions()} == {"remediator-1", "remediator-2"}
        rehearsal.verify()
        assert rehearsal.cluster.ledger.double_runs == ()
        await rehearsal.stop()

    run(story())
