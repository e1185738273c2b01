"""The order of the queue of starts, and what holds a VM back whatever the bounds are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter

from remediator.engine.model import Subject
from remediator.engine.start_words import Candidate, Gate, Reason, Rules, Started
from remediator.engine.tiers import TIER_STEP, tier_name


class Order:
    """The order of the queue, and what blocks a VM whatever the limits are."""

    def __init__(
        self,
        candidates: Sequence[Candidate],
        started: Sequence[Started],
        rules: Rules,
        opened: Mapping[int, float],
        unready: Mapping[Subject, str],
        now: float,
    ) -> None:
        self.now = now
        self.rules = rules
        self.waiting = {each.vm for each in candidates}
        self.unready: dict[Subject, str] = dict(unready)
        self.unready.update((each.vm, "boots") for each in started if not each.ready)
        self.unready.update((vm, "waits itself") for vm in self.waiting)
        self.after = without_loops({each.vm: each.after for each in candidates if each.after})
        self.tiers = self._inherited(candidates)
        self.order = self._sorted(candidates)
        self.shut = self._first_shut(candidates, started, opened)

    def _inherited(self, candidates: Sequence[Candidate]) -> dict[Subject, int]:
        """Return the tiers of those that more important ones depend on, straight or not."""
        raised: dict[Subject, int] = {}
        if not self.after:
            return raised
        own = {each.vm: each.tier for each in candidates}
        for vm in sorted(self.after, key=lambda each: -own[each]):
            todo, tier = [vm], own[vm]
            while todo:
                for needed in self.after.get(todo.pop(), ()):
                    if needed in own and raised.get(needed, own[needed]) < tier:
                        raised[needed] = tier
                        todo.append(needed)
        return raised

    def _sorted(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        age_s, now, tiers = self.rules.age_s, self.now, self.tiers
        keyed = [
            (
                -tiers.get(each.vm, each.tier)
                - TIER_STEP * max(0, int((now - each.since_at) // age_s)),
                each.since_at,
                each.vm.namespace,
                each.vm.name,
                each,
            )
            for each in candidates
        ]
        keyed.sort(key=itemgetter(0, 1, 2, 3))
        return [row[4] for row in keyed]

    def _first_shut(
        self,
        candidates: Sequence[Candidate],
        started: Sequence[Started],
        opened: Mapping[int, float],
    ) -> tuple[int, str, float] | None:
        """Return the most important gate that is shut, what for, and when its time is up."""
        for gate in sorted(self.rules.gates, key=lambda each: -each.tier):
            waiting = [each for each in candidates if self._tier(each) >= gate.tier]
            booting = [each for each in started if not each.ready and each.tier >= gate.tier]
            if not waiting and not booting:
                continue
            since = [each.since_at for each in waiting] + [each.started_at for each in booting]
            until = opened.get(gate.tier, min(since)) + gate.timeout_s
            if self.now >= until:
                continue
            counts = f"{len(waiting)} wait, {len(booting)} boot or settle"
            return gate.tier, f"tier {tier_name(gate.tier)} is not ready: {counts}", until
        return None

    def _tier(self, candidate: Candidate) -> int:
        return self.tiers.get(candidate.vm, candidate.tier)

    def why(self, candidate: Candidate) -> tuple[Reason, str, float | None] | None:
        """Return what blocks this VM besides limits and room."""
        now = self.now
        if now < candidate.not_before:
            why = f"attempt {candidate.attempts} failed: waits out its back-off"
            return Reason.BACK_OFF, why, candidate.not_before
        if candidate.vm in self.after:
            until = candidate.since_at + self.rules.dependency_timeout_s
            for needed in self.after[candidate.vm]:
                state = self.unready.get(needed)
                if state is not None and now < until:
                    why = f"starts after {needed.namespace}/{needed.name}, which {state}"
                    return Reason.DEPENDENCY, why, until
        if self.shut is not None and self._tier(candidate) < self.shut[0]:
            return Reason.TIER, self.shut[1], self.shut[2]
        return None


def shut_gates(
    candidates: Iterable[Candidate], started: Iterable[Started], gates: Iterable[Gate]
) -> tuple[int, ...]:
    """Return the tiers of the gates that something waits or boots for, most important first."""
    tiers = [each.tier for each in candidates]
    tiers += [each.tier for each in started if not each.ready]
    highest = max(tiers, default=None)
    if highest is None:
        return ()
    found = (gate.tier for gate in gates if highest >= gate.tier)
    return tuple(sorted(found, reverse=True))


def without_loops(
    after: Mapping[Subject, tuple[Subject, ...]],
) -> dict[Subject, tuple[Subject, ...]]:
    """Return the dependencies without those of VMs that are part of a loop."""
    looped = {vm for path in loops(after) for vm in path}
    return {vm: needed for vm, needed in after.items() if vm not in looped}


def loops(after: Mapping[Subject, tuple[Subject, ...]]) -> list[tuple[Subject, ...]]:
    """Return the loops among dependencies, each as the path that leads back to its first VM.

    One per knot of loops: enough to name the fault; ``without_loops`` asks again until none is
    left only where knots have several.
    """
    found: list[tuple[Subject, ...]] = []
    done: set[Subject] = set()
    for first in sorted(after):
        if first in done:
            continue
        path: list[Subject] = [first]
        on_path = {first: 0}
        branches = [iter(sorted(after[first]))]
        while branches:
            needed = next(branches[-1], None)
            if needed is None:
                branches.pop()
                left = path.pop()
                del on_path[left]
                done.add(left)
            elif needed in on_path:
                found.append((*path[on_path[needed] :], needed))
            elif needed in after and needed not in done:
                on_path[needed] = len(path)
                path.append(needed)
                branches.append(iter(sorted(after[needed])))
    return found
