"""The engine: one event and the time in, effects out.

``Engine.handle`` never waits, never reads a clock and never fails for what the cluster does. What
it must remember lives in ``EngineState``, which only its own records change: replaying the journal
into a new engine gives the same state. Evidence and inventory are not remembered: a new leader's
own watches bring them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import msgspec

from remediator.engine import (
    cleanup,
    commands,
    conviction,
    evacuation,
    evacuation_end,
    execution,
    fencing,
    gates,
    holds,
    maintenance,
    pacing,
    pause_orders,
    policy_changes,
    proofs,
    recovery,
    safeguards,
    suspension,
    vm_remedies,
)
from remediator.engine.chain import ChainError, Decision, DecisionKind, Head
from remediator.engine.context import Context
from remediator.engine.effects import Effect
from remediator.engine.events import (
    PAUSES,
    ActionFinished,
    CommandGiven,
    Event,
    FenceMethodsLoaded,
    InventorySynced,
    LeadershipGained,
    ObjectGone,
    ObjectSeen,
    OwnHealthSeen,
    PoliciesLoaded,
    SignalSeen,
    Tick,
    WatchProgressed,
)
from remediator.engine.incidents import Incident
from remediator.engine.model import (
    FactKind,
    Facts,
    HandsOffFacts,
    IncidentState,
    MigrationFacts,
    NodeFacts,
    NodeLeaseFacts,
    Outcome,
    Plane,
    PodFacts,
    Signal,
    Subject,
    Verdict,
    VmFacts,
    VmiFacts,
    node_subject,
    vm_subject,
)
from remediator.engine.rules import Policy
from remediator.engine.settings import EngineSettings, FenceMethod
from remediator.engine.state import EngineState, apply
from remediator.engine.takeover import Takeover
from remediator.engine.verdicts import LIVING
from remediator.engine.vm_watch import VmObject, VmWatch

_WITHOUT_PROOF = frozenset(
    {
        IncidentState.SUSPECTED,
        IncidentState.CONFIRMED,
        IncidentState.HELD,
        IncidentState.ESCALATED,
    }
)


class Engine:
    """Decides. One instance per term of leadership."""

    def __init__(
        self,
        settings: EngineSettings | None = None,
        policies: Sequence[Policy] = (),
        fence_methods: Sequence[FenceMethod] = (),
        *,
        enforce: bool = False,
        home: str = "",
    ) -> None:
        self._context = Context(
            settings or EngineSettings(), policies, fence_methods, enforce=enforce, home=home
        )
        self._takeover = Takeover()
        self._vms = VmWatch(self._context)

    # --- memory -------------------------------------------------------------------------------

    @property
    def state(self) -> EngineState:
        """What the engine remembers. Read it; only records change it."""
        return self._context.state

    @property
    def context(self) -> Context:
        """The pictures behind the decisions, for ``health`` views. Read only."""
        return self._context

    @property
    def vms(self) -> VmWatch:
        """The VMs that look bad, for ``health`` views (see ``vm_health.py``). Read only."""
        return self._vms

    def replay(self, decision: Decision, head: Head) -> None:
        """Take in one record of the journal. ``head`` is the chain's end after it.

        Raises ChainError when the record does not continue what was replayed before.
        """
        if decision.seq != self.state.head.seq + 1:
            raise ChainError(decision.seq, f"does not follow record {self.state.head.seq}")
        apply(self.state, decision, head)

    def snapshot(self) -> bytes:
        """Return the memory as bytes; with the journal's rest it restores any engine."""
        return msgspec.json.encode(self.state)

    def restore(self, snapshot: bytes) -> None:
        """Replace the memory by a snapshot. Raises msgspec.ValidationError for foreign bytes."""
        self._context.state = msgspec.json.decode(snapshot, type=EngineState)

    # --- events -------------------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take in one event at ``now`` and return what is to be done, in order."""
        context = self._context
        context.now = max(now, context.now)
        context.effects = []
        context.down_now = None
        match event:
            case SignalSeen():
                self._signal(event.signal)
            case WatchProgressed():
                self._progressed(event)
            case ObjectSeen():
                self._seen(event.facts)
            case ObjectGone():
                self._gone(event)
            case InventorySynced():
                self._synced(event.kind)
            case ActionFinished():
                self._finished(event.outcome)
            case Tick():
                self._tick()
            case LeadershipGained():
                self._lead(event)
            case CommandGiven():
                commands.give(context, event)
                self._ordered(event)
            case OwnHealthSeen():
                context.evidence.own_health.seen(event, context.now)
                suspension.look(context)
                self._vms.deaf(event.stale_watches)
            case FenceMethodsLoaded():
                fencing.load(context, event.methods)
            case PoliciesLoaded():
                if policy_changes.load(context, event.policies):
                    self._consider_all()
            case _:
                assert_never(event)
        if context.pace.due:
            pacing.go_on(context)
        return context.effects

    def _signal(self, signal: Signal) -> None:
        context, name = self._context, signal.subject.name
        match signal.subject.kind:
            case "node":
                known = name in context.inventory.nodes
                if context.evidence.signal(signal, context.now, known=known):
                    self._consider(name)
            case "vantage" if signal.plane is Plane.NETWORK:
                context.evidence.network.life(signal, context.now)
            case "vm":
                self._vms.signal(signal)
            case _:
                pass

    def _progressed(self, event: WatchProgressed) -> None:
        if self._context.evidence.progressed(event.watch, event.at, self._context.now):
            self._consider_due()

    def _consider_due(self) -> None:
        """Look at the nodes that have become overdue, or silent."""
        due = self._context.evidence.due(self._context.now)
        if due:
            suspension.look(self._context)
        for name in due:
            self._consider(name)

    def _seen(self, facts: Facts) -> None:
        old = self._context.inventory.put(facts)
        if isinstance(facts, NodeFacts):
            self._context.evidence.made_known(facts.name)
            if isinstance(old, NodeFacts) and facts.boot_id not in ("", old.boot_id):
                self._context.evidence.rebooted(facts.name)
            if old != facts:
                self._consider(facts.name)
        elif isinstance(facts, NodeLeaseFacts):
            self._consider(facts.node)
        elif isinstance(facts, HandsOffFacts):
            self._claim_changed(facts)
        elif isinstance(facts, (VmFacts, VmiFacts, PodFacts)):
            self._vm_touched(facts)
            if isinstance(facts, VmFacts) and facts != old:
                pacing.look_for_loops(self._context, facts)
            if isinstance(facts, PodFacts):
                gates.pod_seen(self._context, facts)
            elif isinstance(facts, VmiFacts):
                gates.vmi_seen(self._context, facts)
            if old is not None and getattr(old, "node", "") != getattr(facts, "node", ""):
                self._consider_open(getattr(old, "node", ""))
        elif isinstance(facts, MigrationFacts):
            self._context.flights.seen(facts, self._context.now)
            self._migration_touched(facts)
        if isinstance(facts, VmObject):
            self._vms.seen(facts, old)

    def _gone(self, event: ObjectGone) -> None:
        context = self._context
        old = context.inventory.drop(event.kind, event.namespace, event.name, event.uid)
        if old is None:
            return
        if isinstance(old, NodeFacts):
            self._consider(old.name)
            context.evidence.forget(old.name)
            context.power_asked.pop(old.name, None)
            context.probes_asked.pop(old.name, None)
        elif isinstance(old, NodeLeaseFacts):
            self._consider(old.node)
        elif isinstance(old, HandsOffFacts):
            self._claim_changed(old)
        elif isinstance(old, (VmFacts, VmiFacts, PodFacts)):
            self._vm_touched(old)
        elif isinstance(old, MigrationFacts):
            context.flights.gone(old, context.now)
            self._migration_touched(old)
        if isinstance(old, VmiFacts):
            context.flights.forget(vm_subject(old.namespace, old.name))
        if isinstance(old, VmObject):
            self._vms.gone(old)

    def _claim_changed(self, facts: HandsOffFacts) -> None:
        """Look again at the nodes that somebody else has claimed, or gives back."""
        if facts.node:
            self._consider(facts.node)
        else:
            self._consider_all()

    def _vm_touched(self, facts: VmFacts | VmiFacts | PodFacts) -> None:
        """Look again at the incidents that this VM is part of."""
        name = facts.vmi if isinstance(facts, PodFacts) else facts.name
        key = str(Subject("vm", name, facts.namespace))
        node = "" if isinstance(facts, VmFacts) else facts.node
        for incident in list(self.state.incidents.values()):
            if key in incident.vms or incident.subject.name == node:
                self._consider(incident.subject.name)

    def _migration_touched(self, facts: MigrationFacts) -> None:
        """Look again at the nodes that are being emptied: a place may be free."""
        key = str(vm_subject(facts.namespace, facts.vmi))
        for incident in list(self.state.incidents.values()):
            if incident.state is IncidentState.EVACUATING or key in incident.vms:
                self._consider(incident.subject.name)

    def _synced(self, kind: FactKind) -> None:
        inventory = self._context.inventory
        before = inventory.synced
        inventory.synced_kinds.add(kind)
        if inventory.synced and not before:
            self._consider_all()
            self._vms.synced()
            gates.adopt(self._context)
            pacing.look_for_loops(self._context)

    def _finished(self, outcome: Outcome) -> None:
        context = self._context
        if vm_remedies.is_remedy(self.state, outcome.action_id):
            self._takeover.ended(outcome.action_id)
            self._vms.finished(outcome)
            return
        action = execution.finish(context, outcome)
        if action is None:
            return
        self._takeover.ended(action.id)
        gates.finished(context, action, outcome)
        incident = self.state.incidents.get(action.incident)
        self._consider(incident.subject.name if incident is not None else action.subject.name)
        if action.subject.kind == "vm":
            gates.vm_free(context, action.subject)

    def _ordered(self, command: CommandGiven) -> None:
        """Look at whatever a person's order may have changed."""
        if command.verb in PAUSES:
            self._consider_everybody()
        elif command.target in self._context.inventory.nodes:
            self._consider(command.target)
        else:
            self._consider_all()
            self._consider(command.node)

    def _consider_everybody(self) -> None:
        """Look at every node: a pause has begun or ended."""
        for name in sorted({*self._context.inventory.nodes, *self.state.residues}):
            self._consider(name)

    def _lead(self, event: LeadershipGained) -> None:
        context = self._context
        context.identity, context.epoch = event.identity, event.epoch
        context.leading_since = context.now
        context.inherited = proofs.held(self.state)
        open_now, pending = len(self.state.incidents), len(self.state.pending)
        context.record(
            DecisionKind.LEADING,
            Subject("daemon", event.identity),
            f"leads from now on (epoch {event.epoch}); open incidents: {open_now}, actions "
            f"without an outcome: {pending}",
        )
        self._takeover.begin(context)
        self._vms.lead()

    def _tick(self) -> None:
        context = self._context
        suspension.look(context)
        if pause_orders.expire(context):
            self._consider_everybody()
        context.evidence.network.forget_gone(context.now)
        self._consider_due()
        for name in context.evidence.holding():
            self._consider(name)
        if context.inventory.synced:
            for outcome in self._takeover.go_on(context, ""):
                self._finished(outcome)
        self._consider_all()
        gates.tick(context)
        self._vms.tick()

    # --- what to do about a node -----------------------------------------------------------------

    def _consider_all(self) -> None:
        names = {incident.subject.name for incident in self.state.incidents.values()}
        names |= maintenance.wanted_nodes(self._context) | self._takeover.nodes(self._context)
        for name in sorted(names | set(self.state.residues)):
            self._consider(name)

    def _consider_open(self, name: str) -> None:
        if self.state.incident_on(node_subject(name)) is not None:
            self._consider(name)

    def _consider(self, name: str) -> None:
        """Bring everything about one node up to date with what is known now."""
        context = self._context
        if context.inventory.synced:
            for outcome in self._takeover.go_on(context, name):
                self._finished(outcome)
        incident = self.state.incident_on(node_subject(name))
        if incident is None or holds.closed(context, incident):
            self._consider_quiet(name)
        elif not context.enforce and incident.state not in _WITHOUT_PROOF:
            conviction.stand_still(context, incident)
        elif incident.state in _WITHOUT_PROOF:
            self._consider_unproven(incident)
        elif incident.state is IncidentState.FENCING:
            self._consider_fencing(incident)
        elif incident.state is IncidentState.EVACUATING:
            self._consider_evacuating(incident)
        else:
            self._consider_proven(incident)

    def _consider_quiet(self, name: str) -> None:
        """Look at a node without open incident: it may need one, or be owed a clean-up."""
        context = self._context
        node = context.inventory.nodes.get(name)
        residue = self.state.residues.get(name)
        if node is not None and (residue is None or not cleanup.owes(residue, node)):
            row = conviction.judge(context, node)
            quiet = evacuation.keeps_quiet(context, node, row) or bool(
                safeguards.ignored(context, node_subject(name))
            )
            if row.verdict not in (Verdict.HEALTHY, Verdict.UNKNOWN) and not quiet:
                incident = conviction.open_incident(context, node, row)
                conviction.weigh(context, incident, node, row)
                return
            conviction.look_closer(context, node)
        if residue is not None:
            cleanup.take_back(context, residue)

    def _consider_unproven(self, incident: Incident) -> None:
        context = self._context
        node = context.inventory.nodes.get(incident.subject.name)
        if str(incident.subject) in self.state.busy:
            return
        if node is None or node.uid != incident.node_uid:
            conviction.close_vanished(context, incident)
            return
        row = conviction.judge(context, node)
        if not evacuation_end.emptied(context, incident, node, row):
            conviction.weigh(context, incident, node, row)

    def _consider_evacuating(self, incident: Incident) -> None:
        context = self._context
        node = context.inventory.nodes.get(incident.subject.name)
        if not context.inventory.synced:
            return
        if node is None or node.uid != incident.node_uid:
            conviction.close_vanished(context, incident)
            return
        conviction.look_closer(context, node, incident)
        evacuation.consider(context, incident, node, conviction.judge(context, node))
        if incident.state in _WITHOUT_PROOF and incident.id in self.state.incidents:
            self._consider_unproven(incident)

    def _consider_fencing(self, incident: Incident) -> None:
        context = self._context
        if not execution.due(context, incident):
            return
        node = context.inventory.nodes.get(incident.subject.name)
        if node is None or node.uid != incident.node_uid:
            conviction.close_vanished(context, incident)
            return
        row = conviction.judge(context, node)
        if row.verdict in LIVING:
            conviction.spare(context, incident, node, row)
        elif conviction.held_back(context, incident, node):
            pass
        elif incident.plan is not None and row.verdict in incident.plan.verdicts:
            execution.go_on_fencing(context, incident, node)
        else:  # in doubt: wait for the evidence to become clear, one way or the other
            conviction.ask_power(context, incident, node)
            conviction.look_closer(context, node, incident)

    def _consider_proven(self, incident: Incident) -> None:
        context = self._context
        node = context.inventory.nodes.get(incident.subject.name)
        if node is not None and node.uid != incident.node_uid:
            node = None  # another machine took the name: the old one is as gone as if deleted
        if not context.inventory.synced:
            return
        if incident.state is IncidentState.RECOVERING:
            recovery.follow(context, incident)
        if not execution.proof_stands(context, incident, node):
            return
        if not holds.holds(context, incident):
            released = incident.state is IncidentState.RECOVERING
            if not released and execution.due(context, incident):
                released = execution.go_on_releasing(context, incident, node)
            if released:
                recovery.go_on(context, incident)
        residue = self.state.residues.get(incident.subject.name)
        if node is not None and residue is not None and residue.fenced_boot_id:
            # A host that is back is needed: some of its VMs may fit nowhere else.
            cleanup.take_back(context, residue)
