"""Stories of sick guests drawn from seeds, each judged by the same invariants.

``VM_SEEDS=2000 pytest tests/simulation/test_vm_seeds.py`` plays more, ``VM_SEED=123`` one;
``python tests/simulation/vm_seeds.py 123`` prints one's journal. What is held in every story:

* no two copies of a VM with a persistent disk at once, by the truth ledger
* no VM stays frozen, paused or down for ever that its policy could have brought back, though nobody
  mends a guest, leaders are killed at any record, and hosts are lost meanwhile
* nothing is done to a VM on a suspicion, or while its host is in an incident; at most one action at
  a time; no pod of a living host goes without grace
* every write has its acknowledged record before it, and every record, made again from what it
  keeps, comes to the same end
* the hash chain verifies, over every crash and take-over
"""

from __future__ import annotations

import os

import pytest
from vm_seeds import play

from remediator.sim.virtual_time import run

PER_TEST = 4
ONE = os.environ.get("VM_SEED")
SEEDS = int(os.environ.get("VM_SEEDS", "12"))
CHUNKS = (
    [range(int(ONE), int(ONE) + 1)]
    if ONE
    else [range(first, min(first + PER_TEST, SEEDS)) for first in range(0, SEEDS, PER_TEST)]
)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seeds", CHUNKS, ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}")
def test_every_sick_guest_is_helped(seeds):
    bad = []
    for seed in seeds:
        story = run(play(seed))
        if story.problems:
            bad.append(story)
    assert not bad, "\n".join(
        [*map(str, bad), f"replay one: python tests/simulation/vm_seeds.py {bad[0].seed}"]
    )
