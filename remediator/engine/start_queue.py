"""Who boots next, and what everybody else waits for.

Pure and without an engine: ``choose`` takes all who want to start, all who boot, and the limits,
and says who starts now. Nobody blocks whoever is behind: who may not start yet is passed over.

Order: the tier, raised while one waits (ageing) and up to that of whoever depends on it; then who
waited longest; then the name. Besides:

* a *dependency* starts before its dependents, which wait until it is ready, or for their time
* a *tier gate* keeps all that is below it waiting until all that is at it or above it is ready, or
  its time is up
* *limits* hold for the cluster, each zone, storage class, node and namespace: at once, per minute
* ``fits`` says who has room on which node
* after a failure, a VM waits out its back-off
"""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import itemgetter

from remediator.engine.model import Record, Subject

MINUTE_S = 60.0
# Names of tiers, and the number that each stands for; whole numbers between them may be used, too.
TIERS: dict[str, int] = {"highest": 200, "high": 100, "medium": 0, "low": -100, "lowest": -200}
TIER_STEP = 100  # from one named tier to the next
_WHOLE_CLUSTER = "cluster:"


class Origin(enum.StrEnum):
    """How a start is carried out."""

    DELETION = "deletion"  # its old launcher pod is deleted: KubeVirt makes a new one
    GATE = "gate"  # its new launcher pod waits at our scheduling gate


class Candidate(Record, frozen=True, kw_only=True):
    """A VM that wants to start."""

    vm: Subject
    origin: Origin = Origin.DELETION
    incident: str = ""  # whose recovery it is part of; "" where somebody else restarts it
    pod: str = ""  # the launcher pod to delete, or to open the gate of
    pod_uid: str = ""
    tier: int = 0  # higher starts first; see TIERS
    after: tuple[Subject, ...] = ()  # must be ready before
    cpu_m: int = 0  # what it requests, in thousandths of a CPU
    memory_bytes: int = 0
    storage: tuple[str, ...] = ()  # storage classes of its disks
    zone: str = ""  # where it will run, if that is known
    since_at: float = 0.0  # when it began to wait
    not_before: float = 0.0  # end of its back-off
    attempts: int = 0


class Started(Record, frozen=True, kw_only=True):
    """A VM that was started lately: it boots, or is not ready, or counts for its minute."""

    vm: Subject
    started_at: float
    tier: int = 0
    booting: bool = True  # holds a place
    ready: bool = False  # whoever waits for it may start
    storage: tuple[str, ...] = ()
    zone: str = ""
    node: str = ""


class Bound(Record, frozen=True, kw_only=True):
    """How many starts one scope allows; ``None`` is no bound."""

    at_once: int | None = None
    per_minute: int | None = None


class Limits(Record, frozen=True, kw_only=True):
    """The bounds of all scopes. Those of zones and so on hold for each one of them."""

    cluster: Bound = Bound()
    zone: Bound = Bound()
    storage: Bound = Bound()
    node: Bound = Bound()
    namespace: Bound = Bound()
    # Exceptions by name: "storage:fast", "zone:a", "namespace:payments", "node:n1".
    named: dict[str, Bound] = {}


class Gate(Record, frozen=True, kw_only=True):
    """Nothing below ``tier`` starts before all at it or above it is ready, or its time is up."""

    tier: int
    timeout_s: float


class Rules(Record, frozen=True, kw_only=True):
    """How waiting is ordered and bounded, besides the limits. Durations in seconds."""

    gates: tuple[Gate, ...] = ()
    # Whoever waits so long counts as one tier higher, and so on.
    age_s: float = 600.0
    # A dependency that is not ready by then is waited for no longer.
    dependency_timeout_s: float = 600.0


class Fit(Record, frozen=True, kw_only=True):
    """Where a VM would go, or why it fits nowhere."""

    node: str = ""
    zone: str = ""
    why_not: str = ""


class Reason(enum.StrEnum):
    """What a VM waits for."""

    PLACES = "places"  # as many boot as the storage was found to serve, or the cluster may
    PER_MINUTE = "per-minute"
    ZONE = "zone"
    STORAGE = "storage"
    NODE = "node"
    NAMESPACE = "namespace"
    TIER = "tier"
    DEPENDENCY = "dependency"
    CAPACITY = "capacity"
    BACK_OFF = "back-off"


class Wait(Record, frozen=True, kw_only=True):
    """A VM that may not start now, and why."""

    candidate: Candidate
    reason: Reason
    why: str
    until: float | None = None  # when it ends by itself at the latest, where that is known


class Choice(Record, frozen=True, kw_only=True):
    """Who starts now, in order, and what the others wait for, in the order of the queue."""

    starts: tuple[Candidate, ...]
    waits: tuple[Wait, ...]
    look_at: float | None = None  # when to ask again, though nothing else happens


class _Scopes:
    """Places and starts per minute that are taken, by scope."""

    def __init__(
        self,
        limits: Limits,
        rate: int | None,
        booting: Iterable[Started],
        nodes: Collection[str] | None,
        now: float,
    ) -> None:
        self.limits = limits
        self.rate = rate
        self.now = now
        self.at_once: Counter[str] = Counter()
        self.minute: Counter[str] = Counter()
        self.oldest: dict[str, float] = {}  # scope -> its first start within the minute
        self.per_minute = any(
            bound.per_minute is not None for bound in (*_bounds(limits), *limits.named.values())
        )
        self._keys: dict[tuple[object, ...], tuple[tuple[str, Bound, Reason], ...]] = {}
        self.unplaced = 0
        for each in booting:
            self._count(each)
        self.room = math.inf  # places on nodes, for whoever has no node yet
        if nodes is not None and limits.node.at_once is not None:
            free = sum(max(0, self._node_bound(node) - self.at_once[f"node:{node}"])
                       for node in nodes)  # fmt: skip
            self.room = free - self.unplaced

    def _node_bound(self, node: str) -> int:
        bound = self.limits.named.get(f"node:{node}", self.limits.node)
        return bound.at_once if bound.at_once is not None else 1 << 30

    def _count(self, each: Started) -> None:
        recent = each.started_at > self.now - MINUTE_S
        scopes = _scope_names(each.vm.namespace, each.storage, each.zone, each.node)
        if each.booting:
            self.at_once.update(scopes)
            self.unplaced += not each.node
        if recent and self.per_minute:
            self.minute.update(scopes)
            for scope in scopes:
                self.oldest[scope] = min(self.oldest.get(scope, math.inf), each.started_at)

    def spent(self) -> bool:
        """Whether nobody can start, whoever it is."""
        bound = self.limits.cluster
        booting = self.at_once[_WHOLE_CLUSTER]
        minute = self.minute[_WHOLE_CLUSTER]
        return (
            (self.rate is not None and booting >= self.rate)
            or (bound.at_once is not None and booting >= bound.at_once)
            or (bound.per_minute is not None and minute >= bound.per_minute)
        )

    def _bounded(
        self, namespace: str, storage: tuple[str, ...], zone: str, node: str
    ) -> tuple[tuple[str, Bound, Reason], ...]:
        """Return the scopes of a start that have a bound, kept for the next of the same kind."""
        key = (namespace, storage, zone, node)
        found = self._keys.get(key)
        if found is None:
            kinds = {
                "cluster": (self.limits.cluster, Reason.PLACES),
                "zone": (self.limits.zone, Reason.ZONE),
                "storage": (self.limits.storage, Reason.STORAGE),
                "node": (self.limits.node, Reason.NODE),
                "namespace": (self.limits.namespace, Reason.NAMESPACE),
            }
            rows = []
            for scope in _scope_names(namespace, storage, zone, node):
                bound, reason = kinds[scope.partition(":")[0]]
                rows.append((scope, self.limits.named.get(scope, bound), reason))
            found = self._keys[key] = tuple(rows)
        return found

    def take(
        self, candidate: Candidate, zone: str, node: str
    ) -> tuple[Reason, str, float | None] | None:
        """Take a place for this VM, or say what it waits for."""
        at_once, rate = self.at_once, self.rate
        if rate is not None and at_once[_WHOLE_CLUSTER] >= rate:
            return Reason.PLACES, f"{rate} boot, as many as boot without delay", None
        if not node and self.room < 1:
            return Reason.NODE, "every node boots as many as it may", None
        rows = self._bounded(candidate.vm.namespace, candidate.storage, zone, node)
        for scope, bound, reason in rows:
            if bound.at_once is not None and at_once[scope] >= bound.at_once:
                return reason, f"{_spoken(scope)} boots {at_once[scope]}, as many as it may", None
            if bound.per_minute is not None and self.minute[scope] >= bound.per_minute:
                until = self.oldest.get(scope, self.now) + MINUTE_S
                why = f"{_spoken(scope)} has had its {bound.per_minute} starts a minute"
                return Reason.PER_MINUTE, why, until
        for scope, _, _ in rows:
            at_once[scope] += 1
            self.minute[scope] += 1
            self.oldest.setdefault(scope, self.now)
        if not node:
            self.room -= 1
        return None


def choose(
    candidates: Sequence[Candidate],
    booting: Iterable[Started],
    *,
    now: float,
    limits: Limits | None = None,
    rate: int | None = None,
    fits: Mapping[Subject, Fit] | None = None,
    rules: Rules | None = None,
    nodes: Collection[str] | None = None,
    opened: Mapping[int, float] | None = None,
    unready: Mapping[Subject, str] | None = None,
    reasons: bool = True,
) -> Choice:
    """Return who of ``candidates`` starts now, and what the others wait for.

    ``booting``: all that holds a place, is not ready, or was started within the last minute.
    ``rate``: how many may boot at once, as found by StartRate. ``fits``: whoever is not in it fits.
    ``nodes``: those that may take VMs, for the bound per node where a VM's node is not known yet.
    ``opened``: tier of a gate -> since when it has been the first that is shut; its time counts
    from then; where it is not given, from the first wait. ``unready``: VMs that neither wait nor
    boot and yet are not ready, with the reason, for those that depend on them. ``reasons=False``
    leaves out the waits when no more can start.
    """
    rules = rules or Rules()
    started = list(booting)
    scopes = _Scopes(limits or Limits(), rate, started, nodes, now)
    if not reasons and scopes.spent():
        return Choice(starts=(), waits=())
    blocked = _Blocks(candidates, started, rules, opened or {}, unready or {}, now)
    places = fits or {}
    starts: list[Candidate] = []
    waits: list[Wait] = []
    look_at = math.inf
    nowhere = Fit()
    for candidate in blocked.order:
        fit = places.get(candidate.vm, nowhere)
        zone = candidate.zone or fit.zone
        why = blocked.why(candidate)
        if why is None and fit.why_not:
            why = Reason.CAPACITY, fit.why_not, None
        if why is None:
            why = scopes.take(candidate, zone, fit.node)
        if why is None:
            starts.append(candidate)
            continue
        reason, text, until = why
        if until is not None:
            look_at = min(look_at, until)
        if reasons:
            waits.append(Wait(candidate=candidate, reason=reason, why=text, until=until))
        elif reason is Reason.PLACES:
            break
    return Choice(
        starts=tuple(starts),
        waits=tuple(waits),
        look_at=look_at if look_at < math.inf else None,
    )


class _Blocks:
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


def back_at(
    position: int, booting: int, rate: int, boot_s: float, now: float, not_before: float = 0.0
) -> float:
    """Estimate when the VM at ``position`` of the queue (from 0) is back.

    Those before it leave their places at a steady pace: ``rate`` of them each ``boot_s``.
    """
    free = max(0, rate - booting)
    turns = max(0, position + 1 - free) / max(1, rate)
    return max(not_before, now + turns * boot_s) + boot_s


def retry_delay_s(failures: int, first_s: float, cap_s: float) -> float:
    """Return how long a VM waits after its ``failures``-th failed start: doubled each time."""
    return min(cap_s, first_s * 2.0 ** min(32, max(0, failures - 1)))


def parse_tier(text: str) -> int | None:
    """Read a tier: one of the names of TIERS, or a whole number from -1000 to 1000; else None."""
    word = text.strip().lower()
    if word in TIERS:
        return TIERS[word]
    try:
        number = int(word)
    except ValueError:
        return None
    return number if -1000 <= number <= 1000 else None


def tier_of_priority(value: int) -> int:
    """Return the tier of a PriorityClass's value: between low and high, in the same order.

    Values reach 2e9 and more; 11 steps for each power of ten keep all that clusters tell apart.
    """
    steps = round(11 * math.log10(1 + abs(value)))
    return int(math.copysign(min(TIER_STEP, steps), value)) if value else 0


def tier_name(tier: int) -> str:
    """Return a tier as people write it."""
    return next((name for name, value in TIERS.items() if value == tier), str(tier))


def _bounds(limits: Limits) -> tuple[Bound, ...]:
    return limits.cluster, limits.zone, limits.storage, limits.node, limits.namespace


def _scope_names(namespace: str, storage: tuple[str, ...], zone: str, node: str) -> tuple[str, ...]:
    scopes = [_WHOLE_CLUSTER, f"namespace:{namespace}"]
    scopes += [f"storage:{each}" for each in dict.fromkeys(storage)]
    if zone:
        scopes.append(f"zone:{zone}")
    if node:
        scopes.append(f"node:{node}")
    return tuple(scopes)


def _spoken(scope: str) -> str:
    kind, _, name = scope.partition(":")
    return f"{kind} {name}" if name else f"the {kind}"
