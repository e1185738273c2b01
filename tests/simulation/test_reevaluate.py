"""Every record of long simulated runs, made again from itself alone, is the same decision.

``AGAIN_SEEDS=200 pytest tests/simulation/test_reevaluate.py`` plays more stories.
"""

from __future__ import annotations

import os
from collections import Counter

import msgspec
import pytest
from seeds import play

from remediator.engine import chain
from remediator.engine.chain import DecisionKind
from remediator.engine.reevaluate import differences, reevaluate
from remediator.policy.loader import load_directory, shipped_directory
from remediator.sim.virtual_time import run

SEEDS = int(os.environ.get("AGAIN_SEEDS", "40"))
PER_TEST = 20

# Records that weigh nothing, or that stand on what an action did, hold no inputs.
WEIGHS = {DecisionKind.OPENED, DecisionKind.VERDICT, DecisionKind.PLANNED}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, SEEDS, PER_TEST))
def test_every_record_made_again_from_its_own_inputs_is_the_same_decision(first):
    policies = load_directory(shipped_directory())
    apart, without, untold, incidents = [], [], Counter(), set()
    for seed in range(first, min(first + PER_TEST, SEEDS)):
        for stored in run(play(seed)).decisions:
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
    assert len(incidents) >= PER_TEST


def test_a_record_whose_inputs_were_changed_is_told_from_the_decision_that_was_made():
    """The test above can fail: any one input that is not as it was shows."""
    policies = load_directory(shipped_directory())
    decisions = [one for seed in range(6) for one in run(play(seed)).decisions]
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
