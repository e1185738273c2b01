"""Hundreds of stories of fencing drawn from seeds, each judged by the same invariants.

``FENCE_SEEDS=5000 pytest tests/simulation/test_fence_seeds.py`` plays more, ``FENCE_SEED=123`` one;
``python tests/simulation/fence_seeds.py 123`` prints one's journal. What is held in every story:

* no two copies of a VM with a persistent disk write at once, by the truth ledger
* every incident ends resolved, held or escalated, the latter two with a reason
* a power strip that takes one at a time is never asked for more at once
* when the faults stop, every VM runs, and nothing of ours is left: no taint, no remediation, no
  annotation, no NetworkFence, no node lease
"""

from __future__ import annotations

import os

import pytest
from fence_seeds import play

from remediator.sim.virtual_time import run

PER_TEST = 25
ONE = os.environ.get("FENCE_SEED")
SEEDS = int(os.environ.get("FENCE_SEEDS", "50"))
CHUNKS = (
    [range(int(ONE), int(ONE) + 1)]
    if ONE
    else [range(first, min(first + PER_TEST, SEEDS)) for first in range(0, SEEDS, PER_TEST)]
)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seeds", CHUNKS, ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}")
def test_every_fence_ends_well(seeds):
    bad = []
    for seed in seeds:
        story = run(play(seed))
        if story.problems:
            bad.append(story)
    assert not bad, "\n".join(
        [*map(str, bad), f"replay one: python tests/simulation/fence_seeds.py {bad[0].seed}"]
    )
