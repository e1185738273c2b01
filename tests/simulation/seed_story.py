"""What one seed does, what was found, and how fast its daemon and cluster go."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from remediator.engine.chain import Decision
from remediator.engine.settings import (
    BudgetSettings,
    DetectionSettings,
    EngineSettings,
    PacingSettings,
    StepSettings,
)
from remediator.sim.cluster_spec import ClusterSpec
from remediator.sim.hosts.settings import HostSettings

ENGINE = EngineSettings(
    detection=DetectionSettings(handler_silent_after_s=25.0, node_watch_gap_s=20.0),
    budgets=BudgetSettings(fence_cooldown_s=100.0),
    pacing=PacingSettings(starts_at_once_cluster=4, starts_at_once_node=2, settle_s=10.0),
    steps=StepSettings(follow_up_s=30.0),
)


@dataclass
class Story:
    """What a seed does, and what was found."""

    seed: int
    acts: list[tuple[float, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)

    def blame(self, problem: str) -> None:
        if len(self.problems) < 20:
            self.problems.append(problem)

    def __str__(self) -> str:
        lines = [f"seed {self.seed}: {len(self.problems)} problems"]
        lines += [f"  ! {problem}" for problem in self.problems]
        lines += [f"  {at:7.2f} {what}" for at, what in self.acts]
        return "\n".join(lines)


def spec_of(rng: random.Random, seed: int) -> ClusterSpec:
    return ClusterSpec(
        nodes=rng.choice((4, 5, 6)),
        zones=rng.choice((1, 2, 3)),
        vms=rng.choice((5, 8, 10)),
        seed=seed,
        run_strategies={"Always": 0.6, "RerunOnFailure": 0.2, "Manual": 0.1, "Once": 0.1},
        rwx_share=0.5,
        diskless_share=0.2,
        agent_share=0.7,
        api_latency_s=rng.choice((0.0, 0.01, 0.1)),
        hosts=HostSettings(heartbeat_s=10.0, os_boot_s=rng.choice((10.0, 40.0))),
    )
