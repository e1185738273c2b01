"""What the engine remembers, changed in one way only: by applying its own records.

The live engine and a replay after a crash run the same ``apply``, so they cannot disagree.
"""

from __future__ import annotations

import msgspec

from remediator.engine import disruptions, evacuation_state, standing, vm_state
from remediator.engine.chain import Decision, DecisionKind, Head
from remediator.engine.disruptions import Disruption
from remediator.engine.events import Verb
from remediator.engine.incidents import (
    OWN_NODE,
    Incident,
    InvariantError,
    Residue,
    Stage,
    VmIncident,
    VmProgress,
)
from remediator.engine.model import (
    Action,
    CancelMigration,
    Cordon,
    Fence,
    ForceStop,
    IncidentState,
    Outcome,
    OutcomeStatus,
    PowerOn,
    Proof,
    Release,
    StartVm,
    Uncordon,
    Ungate,
    Verdict,
)
from remediator.engine.pace import PaceState, apply_pace
from remediator.engine.standing import ApprovalRequest, Cancelled, Pause

ORDERS_MAX = 256  # far more than people give while a message may still come twice


class GateTry(msgspec.Struct, kw_only=True):
    """A gate that could not be opened yet."""

    attempts: int = 0
    retry_at: float = 0.0


class EngineState(msgspec.Struct, kw_only=True):
    """Open incidents, actions in flight, what is owed to nodes, and the end of the chain."""

    head: Head = Head()
    leader: str = ""
    epoch: int = 0
    incidents: dict[str, Incident] = {}
    open_on: dict[str, str] = {}  # subject -> incident
    pending: dict[str, Action] = {}  # action id -> action without an outcome
    busy: dict[str, str] = {}  # subject -> action id: at most one action per subject
    fenced_at: dict[str, float] = {}  # node -> last time it was fenced
    residues: dict[str, Residue] = {}  # node -> what we owe it
    # Incidents of VMs stand apart: whatever goes through ``incidents`` is about nodes.
    vm_incidents: dict[str, VmIncident] = {}
    vm_open_on: dict[str, str] = {}  # subject -> incident
    kept_off: set[str] = set()  # nodes that a person switched off, or saw to be off
    pace: PaceState = msgspec.field(default_factory=PaceState)  # of starts
    gates: dict[str, GateTry] = {}  # uid of a pod -> the tries to open its gate that failed
    # The last orders of people, so that none is carried out twice: order_key -> (record, obeyed)
    orders: dict[str, tuple[int, bool]] = {}
    drains: dict[str, str] = {}  # node -> who ordered it to be emptied, and why
    pauses: dict[str, Pause] = {}  # scope -> what a person has paused
    approvals: dict[str, ApprovalRequest] = {}  # incident -> what a person is asked, or has said
    cancelled: dict[str, Cancelled] = {}  # incident -> who has stopped its plan
    disruptions: list[Disruption] = []  # what was disrupted lately, oldest first
    losses: dict[str, float] = {}  # node -> when it was last convicted of being lost
    fences: dict[str, tuple[float, ...]] = {}  # node -> when it was fenced lately
    returns: dict[str, tuple[float, ...]] = {}  # node -> when it came back unfenced lately
    matched: dict[str, float] = {}  # policy -> when a plan was last made by it

    def incident_on(self, subject: object) -> Incident | None:
        """Return the open incident of a subject."""
        found = self.open_on.get(str(subject))
        return None if found is None else self.incidents[found]

    def vm_incident_on(self, subject: object) -> VmIncident | None:
        """Return the open incident of a VM."""
        found = self.vm_open_on.get(str(subject))
        return None if found is None else self.vm_incidents[found]


def apply(state: EngineState, decision: Decision, head: Head) -> None:
    """Change ``state`` by one record; ``head`` is the chain's end after it."""
    state.head = head
    if decision.kind is DecisionKind.LEADING:
        state.leader, state.epoch = decision.leader, decision.epoch
        _anchor_times(state, decision.at)
        return
    if decision.kind is DecisionKind.COMMAND:
        _ordered(state, decision)
    if decision.kind is DecisionKind.PACED:
        apply_pace(state.pace, decision)
    if decision.kind is DecisionKind.PLANNED and decision.plan is not None:
        state.matched[decision.plan.policy] = decision.at
    standing.apply(state, decision)
    disruptions.apply(state, decision)
    if vm_state.concerns(state, decision):
        vm_state.apply_vm(state, decision)
        return
    if decision.kind is DecisionKind.OPENED:
        _open(state, decision)
        return
    _apply_node(state, decision)


def _apply_node(state: EngineState, decision: Decision) -> None:
    """Change what is remembered of a node, its incident and its VMs' recovery, by a record."""
    if decision.action is not None:
        if decision.outcome is None:
            _start(state, decision, decision.action)
        else:
            _finish(state, decision, decision.action, decision.outcome)
    incident = state.incidents.get(decision.incident)
    if incident is None:
        _residue_notes(state, decision)
        return
    if decision.state is not None:
        incident.state = decision.state
    match decision.kind:
        case DecisionKind.VERDICT:
            _verdict(incident, decision)
        case DecisionKind.PLANNED if decision.plan is not None:
            incident.plan, incident.step, incident.attempts = decision.plan, 0, {}
            incident.retry_at, incident.answered = 0.0, ""
            incident.vms = {
                str(vm.vm): VmProgress(
                    plan=vm,
                    since_at=decision.at,
                    earlier=evacuation_state.begun(incident.vms.get(str(vm.vm))),
                )
                for vm in decision.plan.vms
            }
        case DecisionKind.REFUSED | DecisionKind.ESCALATED if decision.subject.kind == "node":
            _held_back(incident, decision)
        case DecisionKind.REFUSED if str(decision.subject) in incident.vms:
            evacuation_state.refused(incident.vms[str(decision.subject)], decision)
        case DecisionKind.SKIPPED:
            incident.step += 1
            if decision.proof is not None:
                _prove(state, incident, decision.proof)
        case DecisionKind.COMMAND if decision.proof is not None:
            incident.confirmed = decision.proof
            incident.answered, incident.retry_at = "", 0.0
        case DecisionKind.PROGRESS:
            _progress(incident, decision)
        case DecisionKind.RESOLVED:
            del state.incidents[incident.id]
            del state.open_on[str(incident.subject)]
            if decision.verdict is Verdict.HEALTHY:
                state.kept_off.discard(incident.subject.name)
        case _:
            pass


def order_key(order_id: str, verb: str, target: str) -> str:
    """Return what makes two orders one: an id that is used again for another order is no repeat."""
    return f"{verb} {target} {order_id}"


def _ordered(state: EngineState, decision: Decision) -> None:
    """Remember what a person ordered."""
    verb, _, answer = decision.stage.partition(":")
    if decision.uid:
        target = decision.order.target if decision.order is not None else decision.subject.name
        key = order_key(decision.uid, verb, target)
        state.orders[key] = (decision.seq, answer == "accepted")
        if len(state.orders) > ORDERS_MAX:
            del state.orders[next(iter(state.orders))]
    if evacuation_state.ordered(state.drains, decision) or answer != "accepted":
        return
    if verb == Verb.FENCE_ON:
        state.kept_off.discard(decision.subject.name)
    elif verb in (Verb.FENCE_OFF, Verb.CONFIRM_OFF):
        state.kept_off.add(decision.subject.name)


def _held_back(incident: Incident, decision: Decision) -> None:
    """Remember what was refused, so that it is said once."""
    incident.answered = decision.stage
    incident.retry_at = decision.retry_at or 0.0
    if decision.stage == f"guards:{OWN_NODE}" and decision.leader not in incident.yielded_by:
        incident.yielded_by = (*incident.yielded_by, decision.leader)
    if decision.stage == "proof-void":
        incident.proof, incident.confirmed, incident.contradicted = None, None, True
    elif decision.stage.startswith("exhausted:"):
        incident.attempts = {}


def _prove(state: EngineState, incident: Incident, proof: Proof) -> None:
    """Take a proof that no fence of ours has given."""
    incident.proof = proof
    state.fenced_at[proof.node] = proof.at
    residue = state.residues.get(proof.node)
    if residue is not None:
        residue.fenced_boot_id, residue.proof_at = proof.boot_id, proof.at


def _anchor_times(state: EngineState, at: float) -> None:
    """Begin all waits anew: the leader before had another clock, which may be off by anything."""
    standing.anchor(state, at)
    disruptions.anchor(state, at)
    for incident in state.incidents.values():
        incident.opened_at = min(incident.opened_at, at)
        incident.verdict_at, incident.retry_at = at, 0.0
        for progress in incident.vms.values():
            progress.since_at, progress.retry_at = at, 0.0
            progress.started_at = at if progress.started_at else 0.0
    vm_state.anchor_times(state, at)
    state.gates.clear()
    state.pace.loops.clear()
    state.pace.passed.clear()
    for residue in state.residues.values():
        residue.retry_at = 0.0
    for node, fenced_at in state.fenced_at.items():
        state.fenced_at[node] = min(fenced_at, at)


def _open(state: EngineState, decision: Decision) -> None:
    if decision.state is None or decision.verdict is None:
        raise InvariantError(f"record {decision.seq} opens an incident without state or verdict")
    state.incidents[decision.incident] = Incident(
        id=decision.incident,
        subject=decision.subject,
        state=decision.state,
        opened_at=decision.at,
        node_uid=decision.uid,
        boot_id=decision.boot_id,
        verdict=decision.verdict,
        verdict_at=decision.at,
        row=decision.row,
        contradicted=decision.verdict is Verdict.CONTRADICTION,
        convicted_at=decision.at if decision.state is IncidentState.CONFIRMED else 0.0,
    )
    state.open_on[str(decision.subject)] = decision.incident


def _verdict(incident: Incident, decision: Decision) -> None:
    if decision.verdict is not None:
        if decision.verdict is not incident.verdict:
            incident.retry_at = 0.0  # other evidence deserves another try at once
        incident.verdict, incident.verdict_at = decision.verdict, decision.at
        incident.row = decision.row
        if decision.verdict is Verdict.CONTRADICTION:
            incident.contradicted = True
    if decision.boot_id:
        incident.boot_id = decision.boot_id
    if decision.state is IncidentState.CONFIRMED:
        incident.convicted_at = decision.at
    incident.answered = ""


def _progress(incident: Incident, decision: Decision) -> None:
    key = str(decision.subject)
    progress = incident.vms.get(key)
    if progress is None:
        if decision.vm is None:
            raise InvariantError(f"record {decision.seq}: progress of {key}, which has no plan")
        progress = incident.vms[key] = VmProgress(plan=decision.vm)
    progress.stage, progress.since_at = Stage(decision.stage), decision.at
    evacuation_state.went_back(progress, decision)
    if decision.retry_at is not None:
        progress.retry_at = decision.retry_at
    if progress.stage is Stage.FAILED:
        progress.failures, progress.started_at = progress.failures + 1, 0.0
    if progress.stage in (Stage.STOPPED, Stage.REQUESTED) and not progress.started_at:
        progress.started_at = decision.at  # somebody else stopped it


def _start(state: EngineState, decision: Decision, action: Action) -> None:
    state.pending[action.id] = action
    state.busy[str(action.subject)] = action.id
    incident = state.incidents.get(action.incident)
    work = action.work
    if isinstance(work, (Cordon, Release)) and action.subject.kind == "node":
        # From the first touch on we owe the node its clean-up, even if we never learn the outcome.
        residue = state.residues.setdefault(
            work.node,
            Residue(node=work.node, node_uid=work.node_uid, incident=action.incident),
        )
        residue.incident = action.incident
        if decision.state is IncidentState.EVACUATING:
            residue.evacuated = True
        if isinstance(work, Release):
            residue.fenced_boot_id, residue.proof_at = work.proof.boot_id, work.proof.at
    if isinstance(work, Fence) and work.forced and work.node not in state.residues:
        # By hand, and in no incident: what it leaves elsewhere is taken back after the next boot.
        # Switching the host on is left to the person, too.
        state.residues[work.node] = Residue(
            node=work.node,
            node_uid=work.node_uid,
            incident="",
            by_hand_boot_id=work.boot_id,
            powered_on=True,
        )
    if isinstance(work, Fence) and work.node in state.residues:
        state.residues[work.node].fence_method = work.method
    if isinstance(work, Ungate):
        state.gates.setdefault(work.pod_uid, GateTry()).attempts = action.attempt
        if incident is not None and str(action.subject) in incident.vms:
            incident.vms[str(action.subject)].started_at = decision.at  # it is let go only now
    if isinstance(work, (Uncordon, PowerOn, Ungate)):
        return
    evacuation_state.owe(state.residues, action)
    if incident is None:
        return
    if isinstance(work, evacuation_state.MOVES):
        evacuation_state.started(incident, decision, action)
    elif isinstance(work, (ForceStop, StartVm)):
        progress = incident.vms[str(action.subject)]
        stopping = isinstance(work, ForceStop)
        progress.stage = Stage.STOPPING if stopping else Stage.STARTING
        progress.since_at = decision.at
        progress.started_at = progress.started_at or decision.at
        progress.attempts = action.attempt
    else:
        incident.attempts[incident.next_step] = action.attempt


def _finish(state: EngineState, decision: Decision, action: Action, outcome: Outcome) -> None:
    state.pending.pop(action.id, None)
    state.busy.pop(str(action.subject), None)
    work, done = action.work, outcome.status is OutcomeStatus.SUCCEEDED
    retry_at = decision.retry_at or 0.0
    if isinstance(work, (Uncordon, PowerOn, Ungate)):
        _finish_clean_up(state, action, outcome, work, retry_at)
        return
    if isinstance(work, Fence) and work.forced and not done and work.node in state.residues:
        # It lives on as far as is known: what was begun is taken back while it does.
        state.residues[work.node].by_hand_boot_id = ""
    if isinstance(work, CancelMigration):
        evacuation_state.called_back(state.residues, action, retry_at, done=done)
    incident = state.incidents.get(action.incident)
    if isinstance(work, Fence) and not work.forced and done and outcome.proof is not None:
        state.fenced_at[work.node] = outcome.finished_at
        residue = state.residues.get(work.node)
        if residue is not None:
            residue.fenced_boot_id = outcome.proof.boot_id
            residue.proof_at = outcome.proof.at
    if incident is None:
        return
    if isinstance(work, evacuation_state.MOVES):
        evacuation_state.finished(incident, decision, action, outcome)
        return
    if isinstance(work, (ForceStop, StartVm)):
        progress = incident.vms[str(action.subject)]
        progress.since_at = outcome.finished_at
        if isinstance(work, ForceStop):
            progress.stage = Stage.STOPPED if done else Stage.WAITING
            if done:
                progress.stopped = (*progress.stopped, work.pod_uid)
        elif not done:
            progress.stage = Stage.STOPPED
        progress.retry_at = retry_at
        return
    incident.retry_at = retry_at
    if done:
        incident.step += 1
        incident.proof = outcome.proof or incident.proof
        if isinstance(work, Release):
            incident.released_at = outcome.finished_at


def _finish_clean_up(
    state: EngineState,
    action: Action,
    outcome: Outcome,
    work: Uncordon | PowerOn | Ungate,
    retry_at: float,
) -> None:
    """Note what came of taking back something of ours."""
    done = outcome.status is OutcomeStatus.SUCCEEDED
    if isinstance(work, Ungate):
        if outcome.status is OutcomeStatus.FAILED:
            state.gates.setdefault(work.pod_uid, GateTry()).retry_at = retry_at
        else:
            state.gates.pop(work.pod_uid, None)
        return
    residue = state.residues.get(work.node)
    if residue is None:
        return
    if isinstance(work, PowerOn):
        residue.powered_on, residue.power_on_attempts = done, action.attempt
        residue.retry_at = retry_at
    elif done:
        del state.residues[work.node]
        state.kept_off.discard(work.node)
    else:
        residue.attempts, residue.retry_at = action.attempt, retry_at


def _residue_notes(state: EngineState, decision: Decision) -> None:
    """Apply records about a node whose incident is over but which we still owe its clean-up."""
    residue = state.residues.get(decision.subject.name)
    if residue is None or residue.incident != decision.incident:
        return
    if decision.kind is DecisionKind.ESCALATED:
        residue.alarmed = True
    elif decision.kind is DecisionKind.RESOLVED:
        del state.residues[residue.node]
