"""Watches a simulated cluster and its journal, and keeps what a person wants to know of it.

What the daemon believes is read from its journal; what is true, from the ledger of the hosts.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

from remediator.engine import chain
from remediator.engine.chain import Decision, DecisionKind
from remediator.engine.incidents import Stage
from remediator.engine.model import IncidentState, OutcomeStatus, Release
from remediator.engine.rules import Policy
from remediator.rehearsal.course import Course, HostCourse, Line, Moment, Recovery
from remediator.rehearsal.rehearsal import Rehearsal
from remediator.sim.ledger import Entry

_RESTARTED = frozenset({"Always", "RerunOnFailure"})
# Nothing goes on in these by itself: a play may end in them.
_AT_REST = frozenset({IncidentState.RESOLVED, IncidentState.HELD, IncidentState.ESCALATED})
_WITHHELD = frozenset({DecisionKind.REFUSED, DecisionKind.ESCALATED})


class _Host:
    """What the journal says of one host."""

    def __init__(self, vms: int) -> None:
        self.vms = vms
        self.verdict = ""
        self.state: IncidentState | None = None
        self.convicted_s: float | None = None
        self.proven_s: float | None = None
        self.proof = ""
        self.released_s: float | None = None
        self.resolved_s: float | None = None
        self.withheld: Counter[str] = Counter()


class CourseWatch:
    """Looks on once a second, and whenever a guest starts or ends."""

    def __init__(self, rehearsal: Rehearsal, until_s: float) -> None:
        self._r = rehearsal
        self._until_s = until_s
        self._zero_at = 0.0
        self._read = 0  # records
        self._hosts: dict[str, _Host] = {}
        self._before: dict[str, int] = {}  # host -> VMs that ran there when it began
        self._strategies = {key: vm.run_strategy for key, vm in rehearsal.cluster.vms.items()}
        self._lost: dict[str, float] = {}  # VM -> when its guest was gone
        self._up: dict[str, float] = {}  # VM that was lost -> when it was up again
        self._requested: set[str] = set()
        self._moments: list[Moment] = []
        self._lines: list[Line] = []
        self._kinds: Counter[str] = Counter()
        self._answered: dict[str, set[str]] = {}  # policy -> incidents

    @property
    def now_s(self) -> float:
        """Seconds since the first event."""
        return self._r.clock.now() - self._zero_at

    def begin(self) -> None:
        """Start the watch: the first event comes now."""
        self._zero_at = self._r.clock.now()
        cluster = self._r.cluster
        self._before = {name: len(cluster.vms_on(name)) for name in cluster.hosts}
        self._read = len(self._r.journal.records)
        cluster.ledger.subscribe(self._changed)
        self.look()

    def note(self, what: str) -> None:
        """Note an event of the scenario."""
        self._lines.append(Line(at_s=_tenths(self.now_s), subject="---", what="event", why=what))

    def look(self) -> None:
        """Take in what was recorded since, and keep how it stands if that has changed."""
        records = self._r.journal.records
        for record in records[self._read :]:
            self._take(chain.decode(record.payload, record.seq))
        self._read = len(records)
        states = Counter(
            host.state.value
            for host in self._hosts.values()
            if host.state is not None and host.state is not IncidentState.RESOLVED
        )
        moment = Moment(
            at_s=_tenths(self.now_s),
            hosts=dict(sorted(states.items())),
            proven=sum(host.proven_s is not None for host in self._hosts.values()),
            released=sum(host.released_s is not None for host in self._hosts.values()),
            down=len(self._lost) - len(self._up),
            requested=len(self._requested),
            booting=self._r.cluster.ledger.booting,
            up=len(self._up),
        )
        if not self._moments or _stands(moment) != _stands(self._moments[-1]):
            self._moments.append(moment)

    def is_calm(self) -> bool:
        """Whether every VM that was lost is up again and no host is worked on."""
        at_rest = all(host.state in _AT_REST for host in self._hosts.values())
        return at_rest and len(self._lost) == len(self._up) and not self._r.cluster.ledger.booting

    # --- what the hosts report --------------------------------------------------------------------

    def _changed(self, entry: Entry) -> None:
        if self._strategies.get(entry.vm) not in _RESTARTED:
            return
        if entry.what == "ended" and not entry.detail.startswith("moved"):
            self._lost.setdefault(entry.vm, self.now_s)
            self._up.pop(entry.vm, None)
        elif entry.what == "up" and entry.vm in self._lost:
            self._up[entry.vm] = self.now_s

    # --- what the journal says --------------------------------------------------------------------

    def _take(self, decision: Decision) -> None:
        self._kinds[decision.kind.value] += 1
        if decision.kind is DecisionKind.PLANNED and decision.plan is not None:
            self._answered.setdefault(decision.plan.policy, set()).add(decision.incident)
        at_s = _tenths(decision.at - self._zero_at)
        if decision.subject.kind == "vm":
            if decision.stage == Stage.REQUESTED:
                key = f"{decision.subject.namespace}/{decision.subject.name}"
                self._requested.add(key)
            if decision.kind not in _WITHHELD:
                return
        elif decision.subject.kind == "node":
            self._take_node(decision, at_s)
        self._lines.append(
            Line(
                at_s=at_s,
                subject=str(decision.subject),
                what=_what(decision),
                verdict=str(decision.verdict or ""),
                why=decision.why,
            )
        )

    def _take_node(self, decision: Decision, at_s: float) -> None:
        name = decision.subject.name
        host = self._hosts.setdefault(name, _Host(self._before.get(name, 0)))
        if decision.incident and decision.state is not None:
            host.state = decision.state
        if decision.verdict is not None and decision.kind is not DecisionKind.RESOLVED:
            host.verdict = decision.verdict.value
        if decision.state is IncidentState.CONFIRMED and host.convicted_s is None:
            host.convicted_s = at_s
        proof = decision.outcome.proof if decision.outcome is not None else decision.proof
        if proof is not None and host.proven_s is None:
            host.proven_s, host.proof = at_s, proof.kind.value
        work = decision.action.work if decision.action is not None else None
        done = decision.outcome is not None and decision.outcome.status is OutcomeStatus.SUCCEEDED
        if isinstance(work, Release) and done:
            host.released_s = at_s
        if decision.kind is DecisionKind.RESOLVED:
            host.resolved_s = at_s
        if decision.kind in _WITHHELD:
            host.withheld.update(row.guard for row in decision.guards if row.answer != "grant")

    # --- what came of it --------------------------------------------------------------------------

    def course(self, about: str, policies: Sequence[Policy], seed: int, *, mode: str) -> Course:
        """Return the whole course."""
        spec = self._r.cluster.spec
        return Course(
            about=about,
            seed=seed,
            mode=mode,
            nodes=spec.nodes,
            zones=spec.zones,
            vms=spec.vms,
            policies={policy.name: policy.content_hash[:12] for policy in policies},
            answered={name: len(found) for name, found in sorted(self._answered.items())},
            ended_s=_tenths(self.now_s),
            calm=self.is_calm(),
            recovery=self._recovery(),
            hosts=tuple(self._host(name) for name in sorted(self._hosts)),
            moments=tuple(self._moments),
            lines=tuple(self._lines),
            records=self._kinds.total(),
            kinds=dict(sorted(self._kinds.items())),
        )

    def _host(self, name: str) -> HostCourse:
        host = self._hosts[name]
        return HostCourse(
            host=name,
            verdict=host.verdict,
            convicted_s=host.convicted_s,
            proven_s=host.proven_s,
            proof=host.proof,
            released_s=host.released_s,
            resolved_s=host.resolved_s,
            state=host.state.value if host.state is not None else "",
            vms=host.vms,
            withheld=dict(sorted(host.withheld.items())),
        )

    def _recovery(self) -> Recovery:
        ledger = self._r.cluster.ledger
        took = sorted(self._up[vm] - self._lost[vm] for vm in self._up)
        at = ledger.peak_booting_at
        return Recovery(
            lost=len(self._lost),
            up=len(self._up),
            left=tuple(sorted(self._lost.keys() - self._up.keys())),
            median_s=_tenths(statistics.median(took)) if took else None,
            p95_s=_tenths(took[min(len(took) - 1, int(len(took) * 0.95))]) if took else None,
            last_s=_tenths(max(self._up.values())) if took else None,
            peak_boots=ledger.peak_booting,
            peak_boots_s=_tenths(at - self._zero_at) if at is not None else None,
            peak_boots_host=max(ledger.peak_booting_on.values(), default=0),
            double_runs=len(ledger.double_runs),
        )


def _what(decision: Decision) -> str:
    """Return the kind of a record, and of its action where it has one."""
    if decision.action is None:
        return decision.kind.value
    tag = type(decision.action.work).__struct_config__.tag
    ended = decision.outcome
    failed = (
        f" ({ended.status.value})" if ended and ended.status is not OutcomeStatus.SUCCEEDED else ""
    )
    return f"{decision.kind.value} {tag}{failed}"


def _stands(moment: Moment) -> tuple[object, ...]:
    return tuple(getattr(moment, name) for name in Moment.__struct_fields__ if name != "at_s")


def _tenths(seconds: float) -> float:
    return round(seconds, 1) + 0.0
