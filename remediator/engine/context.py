"""What every part of the engine works with during one call: the pictures, the time, the record."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from remediator.engine import chain
from remediator.engine.chain import (
    ClauseRow,
    Decision,
    DecisionKind,
    EvidenceRow,
    GuardRow,
    Order,
    Plan,
    VmPlan,
)
from remediator.engine.effects import Effect, RaiseNotice, RecordDecision, StartAction, WakeAt
from remediator.engine.evidence import Evidence
from remediator.engine.flights import Flights
from remediator.engine.incidents import (
    Incident,
    InvariantError,
    Trigger,
    VmIncident,
    next_state,
)
from remediator.engine.inputs import Inputs
from remediator.engine.inventory import Inventory, Key
from remediator.engine.model import Action, Outcome, Proof, Subject, Ungate, Verdict
from remediator.engine.pace import Pace
from remediator.engine.rules import Policy, PolicySet
from remediator.engine.settings import EngineSettings, FenceMethod
from remediator.engine.start_rate import Learned
from remediator.engine.state import EngineState, apply


class Boot(msgspec.Struct):
    """A VM on its way up."""

    vmi_uid: str
    since_at: float = 0.0  # since when a pod of it starts; 0: it waits for a gate or a node
    running_at: float = 0.0  # since when its VMI runs
    late: bool = False  # it has had its time: it holds no place any more


class Context:
    """The engine's memory and the effects collected during the current call of ``handle``."""

    def __init__(
        self,
        settings: EngineSettings,
        policies: Sequence[Policy],
        fence_methods: Sequence[FenceMethod],
        *,
        enforce: bool,
        home: str = "",
    ) -> None:
        self.settings = settings
        self.policies = PolicySet(policies)
        self.fence_methods = tuple(fence_methods)
        self.enforce = enforce
        self.home = home  # the node that this daemon runs on, "" where that is not known
        self.inventory = Inventory()
        self.evidence = Evidence(settings.detection, settings.own_health)
        self.state = EngineState()
        self.identity = ""
        self.epoch = 0
        self.leading_since = 0.0
        self.inherited: frozenset[tuple[str, str]] = frozenset()  # (node, boot) proven before
        self.now = 0.0
        self.effects: list[Effect] = []
        self.down_now: frozenset[str] | None = None  # safeguards.unhealthy, computed once per call
        self.apps: tuple[float, dict[str, set[Key]]] = (0.0, {})  # see replicas.py
        self.crowded_at: dict[str, float] = {}  # zone or cluster -> when it was last past its share
        self.power_asked: dict[str, float] = {}  # node -> when its power was last asked for
        self.probes_asked: dict[str, float] = {}  # node -> when probes of it were last asked for
        self.gates_seen: dict[str, float] = {}  # uid of a gated pod -> when we saw its gate first
        self.boots: dict[Key, Boot] = {}  # (namespace, name) -> a VM on its way up; see boots.py
        self.gates_opened: dict[str, float] = {}  # uid -> when we opened it; until that is seen
        self.flights = Flights()  # migrations in flight, and since when each is in its phase
        self.pace = Pace()  # what boots now, as this leader has seen it
        self.suspension_told = False  # it stands in the journal that nothing is convicted now

    def record(
        self,
        kind: DecisionKind,
        subject: Subject,
        why: str,
        *,
        incident: Incident | VmIncident | None = None,
        incident_id: str = "",
        trigger: Trigger | None = None,
        verdict: Verdict | None = None,
        row: str = "",
        evidence: tuple[EvidenceRow, ...] = (),
        clauses: tuple[ClauseRow, ...] = (),
        guards: tuple[GuardRow, ...] = (),
        plan: Plan | None = None,
        action: Action | None = None,
        outcome: Outcome | None = None,
        proof: Proof | None = None,
        boot_id: str = "",
        uid: str = "",
        vm: VmPlan | None = None,
        stage: str = "",
        retry_at: float | None = None,
        order: Order | None = None,
        inputs: Inputs | None = None,
        learned: Learned | None = None,
    ) -> Decision:
        """Add one record: link it, apply it to the state, and ask for its append."""
        state = incident.state if incident is not None else None
        if trigger is not None:
            if incident is None:
                raise InvariantError(f"{kind}: nothing to move by {trigger}")
            state = next_state(incident.state, trigger)
        head = self.state.head
        decision = Decision(
            seq=head.seq + 1,
            prev=head.digest,
            at=round(self.now, 6),
            leader=self.identity,
            epoch=self.epoch,
            kind=kind,
            subject=subject,
            why=why,
            mode="enforce" if self.enforce else "observe",
            incident=incident_id or (incident.id if incident is not None else ""),
            state=state,
            verdict=verdict,
            row=row,
            evidence=evidence,
            clauses=clauses,
            guards=guards,
            plan=plan,
            action=action,
            outcome=outcome,
            proof=proof,
            boot_id=boot_id,
            uid=uid,
            vm=vm,
            stage=stage,
            retry_at=retry_at,
            order=order,
            inputs=inputs,
            learned=learned,
        )
        return self.commit(decision)

    def commit(self, decision: Decision) -> Decision:
        """Seal a finished record: apply it and ask for its append."""
        decision, payload = chain.seal(decision)
        self.effects.append(RecordDecision(decision=decision, payload=payload))
        apply(self.state, decision, chain.advance(payload, decision.seq))
        return decision

    def start(
        self,
        action: Action,
        why: str,
        *,
        trigger: Trigger | None = None,
        guards: tuple[GuardRow, ...] = (),
        inputs: Inputs | None = None,
    ) -> None:
        """Record that an action is about to be started, and ask for it."""
        incident = self.state.incidents.get(action.incident)
        # A gate is ours to take back: who only observes must not keep a VM from starting.
        if not self.enforce and not isinstance(action.work, Ungate):
            raise InvariantError(f"{action.id} must not be started in observe mode")
        if str(action.subject) in self.state.busy:
            raise InvariantError(f"{action.subject} already has an action in flight")
        self.record(
            DecisionKind.STARTED,
            action.subject,
            why,
            incident=incident,
            incident_id=action.incident,
            trigger=trigger,
            action=action,
            guards=guards,
            proof=getattr(action.work, "proof", None),
            inputs=inputs,
        )
        self.effects.append(StartAction(action=action))

    def notice(self, decision: Decision) -> None:
        """Tell a human about a record."""
        self.effects.append(RaiseNotice(seq=decision.seq, text=decision.why))

    def wake_at(self, at: float) -> None:
        """Ask to be called again at ``at`` at the latest."""
        self.effects.append(WakeAt(at=at))

    def retry_delay_s(self, attempt: int) -> float:
        """Return how long to wait after the ``attempt``-th failure of a step."""
        steps = self.settings.steps
        return min(steps.retry_cap_s, steps.retry_after_s * 2.0 ** max(0, attempt - 1))
