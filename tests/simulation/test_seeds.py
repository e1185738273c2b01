"""Thousands of stories drawn from seeds, each judged by the same invariants.

``SEEDS=20000 pytest tests/simulation`` plays more (``make soak SEEDS=20000``); ``SEED=123`` plays
one. What is held in every story, at every step:

* no two copies of a VM with a persistent disk at once, by the truth ledger
* no write to the world without an acknowledged record before it
* no more fences at once, and no more boots at once, than the budgets allow; cool-down kept
* at most one action per subject
* nothing fenced on a single plane; nothing released or deleted without proof
* no incident of a VM while its host is in one
* every record, made again from what it holds itself, is the same decision
* the hash chain verifies, over every crash and take-over
* when the faults stop, every VM that should run runs, and nothing of ours is left on a node
"""

from __future__ import annotations

import os

import pytest
from seeds import play

from remediator.sim.virtual_time import run

PER_TEST = 25
ONE = os.environ.get("SEED")
SEEDS = int(os.environ.get("SEEDS", "200"))
CHUNKS = (
    [range(int(ONE), int(ONE) + 1)]
    if ONE
    else [range(first, min(first + PER_TEST, SEEDS)) for first in range(0, SEEDS, PER_TEST)]
)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seeds", CHUNKS, ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}")
def test_every_story_ends_well(seeds):
    bad = []
    for seed in seeds:
        story = run(play(seed))
        if story.problems:
            bad.append(story)
    assert not bad, "\n".join(
        [*map(str, bad), f"replay one with: SEED={bad[0].seed} pytest tests/simulation"]
    )
