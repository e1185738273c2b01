"""Plays a scenario under given policies: real replicas, a simulated cluster, virtual time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from remediator.engine.rules import Policy
from remediator.engine.settings import EngineSettings
from remediator.rehearsal.course import Course
from remediator.rehearsal.course_watch import CourseWatch
from remediator.rehearsal.rehearsal import Rehearsal
from remediator.rehearsal.scenario import QUIET_S, Happening, Scenario, happen

LOOK_EVERY_S = 1.0
SETTLED_S = 30.0  # all must be well for so long before the play ends


async def play(
    scenario: Scenario,
    policies: Sequence[Policy],
    *,
    seed: int,
    enforce: bool = True,
    engine: EngineSettings | None = None,
    webhook: Mapping[str, Any] | None = None,
    tell: Callable[[float], None] = lambda _at_s: None,
) -> Course:
    """Play it to its end. ``tell`` is called once a virtual second, with the time.

    ``webhook`` is the configuration of the admission gate, where it is to be installed.

    To be run by ``sim.virtual_time.run``. Raises ScenarioError, and what a replica fails with.
    """
    rehearsal = Rehearsal(
        scenario.cluster.spec(seed),
        enforce=enforce,
        policies=policies,
        engine=engine,
        seed=seed,
        webhook=webhook,
    )
    watch = CourseWatch(rehearsal, scenario.until_s)
    await rehearsal.start(replicas=scenario.replicas)
    await rehearsal.run(QUIET_S)
    watch.begin()
    waiting = [*scenario.happenings]
    for one in waiting:
        rehearsal.later(one.at_s, partial(_happen, rehearsal, watch, one))
    last_s = max((one.at_s for one in waiting), default=0.0)
    calm_s = 0.0
    while watch.now_s < scenario.until_s and calm_s < SETTLED_S:
        await rehearsal.run(LOOK_EVERY_S)
        watch.look()
        tell(watch.now_s)
        over = watch.now_s > last_s and watch.is_calm()
        calm_s = calm_s + LOOK_EVERY_S if over else 0.0
    course = watch.course(scenario.about, policies, seed, mode="enforce" if enforce else "observe")
    await rehearsal.stop()
    rehearsal.verify()
    return course


def _happen(rehearsal: Rehearsal, watch: CourseWatch, happening: Happening) -> None:
    watch.note(str(happening))
    happen(rehearsal, happening)
