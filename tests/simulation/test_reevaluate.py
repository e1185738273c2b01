"""Records of simulated runs, made again from themselves alone, are the same decisions.

Every story of test_seeds.py is held to that, too: hundreds of incidents. Here it is shown that the
check has something to check, and that it fails where an input is not as it was.
"""

from __future__ import annotations

import logging
from collections import Counter

import msgspec
import pytest
import structlog
import vm_seeds
from seeds import play

from remediator.engine import chain
from remediator.engine.chain import DecisionKind
from remediator.engine.reevaluate import differences, reevaluate
from remediator.policy.loader import load_directory, shipped_directory
from remediator.sim.virtual_time import run

SEEDS = range(8)

# Records that weigh nothing, or that stand on what an action did, hold no inputs.
WEIGHS = {DecisionKind.OPENED, DecisionKind.VERDICT, DecisionKind.PLANNED}


@pytest.fixture(scope="module")
def stories():
    logs = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(wrapper_class=logs)
    return {seed: run(play(seed)).decisions for seed in SEEDS}


@pytest.mark.timeout(600)
def test_every_record_made_again_from_its_own_inputs_is_the_same_decision(stories):
    policies = load_directory(shipped_directory())
    apart, without, untold, incidents = [], [], Counter(), set()
    for seed, decisions in stories.items():
        for stored in decisions:
            # Through its bytes, as somebody reads it who was not there.
            decision = chain.decode(chain.encode(stored), stored.seq)
            again = reevaluate(decision, policies)
            where = f"seed {seed}, record {decision.seq} ({decision.kind} {decision.subject})"
            apart += [f"{where}: {what}" for what in differences(decision, again)]
            untold.update(again.untold)
            if decision.kind in WEIGHS and decision.inputs is None:
                without.append(where)
            if decision.guards and any(row.guard != "mode" for row in decision.guards):
                assert decision.inputs is not None or decision.kind is DecisionKind.REFUSED, where
            if decision.incident:
                incidents.add((seed, decision.incident))
    assert not apart, "\n".join(apart[:20])
    assert not without, "\n".join(without[:20])
    assert not untold, f"guards that keep nothing of what they saw: {dict(untold)}"
    assert len(incidents) >= len(SEEDS)


@pytest.mark.timeout(600)
def test_what_was_decided_about_vms_is_the_same_again_too():
    policies = [*vm_seeds._of_nodes(), *vm_seeds.POLICIES]
    kinds, apart = Counter(), []
    for seed in range(4):
        for stored in run(vm_seeds.play(seed)).decisions:
            decision = chain.decode(chain.encode(stored), stored.seq)
            again = reevaluate(decision, policies)
            where = f"seed {seed}, record {decision.seq} ({decision.kind} {decision.subject})"
            apart += [f"{where}: {what}" for what in (*differences(decision, again), *again.untold)]
            if decision.subject.kind == "vm" and again.match is not None:
                kinds[decision.kind] += 1
    assert not apart, "\n".join(apart[:20])
    assert {DecisionKind.PLANNED, DecisionKind.STARTED} <= kinds.keys()


def test_a_record_whose_inputs_were_changed_is_told_from_the_decision_that_was_made(stories):
    """The test above can fail: any one input that is not as it was shows."""
    policies = load_directory(shipped_directory())
    decisions = [one for each in stories.values() for one in each]
    planned = next(one for one in decisions if one.kind is DecisionKind.PLANNED)
    opened = next(one for one in decisions if one.kind is DecisionKind.OPENED)

    def changed(decision, **fields):
        inputs = msgspec.structs.replace(decision.inputs, **fields)
        other = msgspec.structs.replace(decision, inputs=inputs)
        return differences(other, reevaluate(other, policies))

    seen = planned.inputs.match
    later = msgspec.structs.replace(seen, since_at=seen.at)
    assert changed(opened, planes=type(opened.inputs.planes)(lease="up"))
    assert changed(planned, match=msgspec.structs.replace(seen, verdict="Degraded"))
    assert changed(planned, ground=msgspec.structs.replace(planned.inputs.ground, levels=()))
    waiting = planned.clauses and any("for " in row.clause for row in planned.clauses)
    assert not waiting or changed(planned, match=later)
    assert not differences(planned, reevaluate(planned, policies))
    assert differences(planned, reevaluate(planned, policies[:0])) == (
        "policy node-lost, again none",
        *differences(planned, reevaluate(planned, policies[:0]))[1:],
    )
