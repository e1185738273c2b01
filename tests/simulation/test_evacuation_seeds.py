"""Stories of nodes that are emptied while they live, drawn from seeds and judged alike.

``EVACUATION_SEEDS=2000 pytest tests/simulation/test_evacuation_seeds.py`` plays more,
``EVACUATION_SEED=7`` one; ``python tests/simulation/evacuation_seeds.py 7`` prints its journal.
What is held in every story:

* no two copies of a VM with a persistent disk write at once, by the truth ledger
* never more migrations in flight than KubeVirt carries out: five, and two off one node
* one node at a time
* when all is well again and nobody wants a node empty: every VM runs, no migration is in flight, no
  VMI is told to leave its node, no node is marked, no incident is open
"""

from __future__ import annotations

import os

import pytest
from evacuation_seeds import play

from remediator.sim.virtual_time import run

PER_TEST = 10
ONE = os.environ.get("EVACUATION_SEED")
SEEDS = int(os.environ.get("EVACUATION_SEEDS", "20"))
CHUNKS = (
    [range(int(ONE), int(ONE) + 1)]
    if ONE
    else [range(first, min(first + PER_TEST, SEEDS)) for first in range(0, SEEDS, PER_TEST)]
)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seeds", CHUNKS, ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}")
def test_every_evacuation_ends_well(seeds):
    bad, moved, emptied = [], 0, 0
    for seed in seeds:
        story = run(play(seed))
        moved += story.moved
        emptied += story.emptied
        if story.problems:
            bad.append(story)
    assert not bad, "\n".join(
        [*map(str, bad), f"replay one: python tests/simulation/evacuation_seeds.py {bad[0].seed}"]
    )
    if len(seeds) == PER_TEST:  # or the stories would tell nothing
        assert moved > PER_TEST
        assert emptied > 0
