"""One seed is one story: a cluster, random faults, random kills of the leader, and a judgement.

Virtual-handler heartbeats and cool-downs run six times as fast as in a real cluster, so that a
story takes minutes of virtual time rather than half an hour; nothing else is changed.
"""

from __future__ import annotations

import asyncio
import random

import msgspec
from harness import PROBES, Rehearsal, Seat
from seed_story import ENGINE, Story, spec_of
from seed_trouble import Trouble
from seed_watch import Judge, Watch

__all__ = ["ENGINE", "WARM_S", "Judge", "Story", "Trouble", "Watch", "play", "spec_of"]

WARM_S, TROUBLE_S, PEACE_S = 25.0, 160.0, 400.0


async def play(seed: int) -> Story:
    """Play one seed and judge it."""
    rng = random.Random(seed)
    story = Story(seed)
    rehearsal = Rehearsal(
        spec_of(rng, seed),
        engine=ENGINE,
        seed=seed,
        probes=msgspec.structs.replace(PROBES, enabled=rng.random() < 0.8),
    )
    watch = Watch(rehearsal, story)
    await rehearsal.start(replicas=rng.choice((1, 1, 2)))
    zones = rehearsal.cluster.reach.zones()
    for number in range(rng.choice((0, 0, 1, 2))):
        rehearsal.start_vantage(f"vantage-{number}", Seat(zones[-1 - number % len(zones)]))
    rehearsal.kill_after = set(rng.sample(range(2, 60), k=rng.choice((0, 0, 2, 5))))
    trouble = Trouble(rehearsal, rng, story)
    began_at = rehearsal.clock.now()
    looking = asyncio.create_task(watch.look(), name="watch")
    await rehearsal.run(WARM_S)
    for _ in range(rng.choice((1, 2, 4, 8))):
        trouble.act()
        await rehearsal.run(rng.expovariate(1 / 20.0))
    rest_s = TROUBLE_S - (rehearsal.clock.now() - began_at)
    await rehearsal.run(max(1.0, rest_s))
    story.acts.append((rehearsal.clock.now(), "all faults end"))
    trouble.end()
    rehearsal.kill_after = set()
    rehearsal.cluster.faults.end_all()
    try:
        await rehearsal.until(watch.at_peace, PEACE_S)
    except TimeoutError:
        for problem in watch.unrest():
            story.blame(f"{PEACE_S:g} s after the last fault: {problem}")
    looking.cancel()
    await rehearsal.stop()
    watch.judge()
    base = began_at
    story.acts = [(at - base, what) for at, what in story.acts]
    return story
