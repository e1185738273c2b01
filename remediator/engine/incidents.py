"""The life cycle of an incident, as a table, and what is remembered of one while it is open.

Read the table as: in this state, when this happens, go there. Anything else is a bug in the engine
and raises InvariantError.
"""

from __future__ import annotations

import enum

import msgspec

from remediator.engine.chain import Plan, VmPlan
from remediator.engine.model import IncidentState, Proof, Subject, Verdict

OWN_NODE = "own-node"  # the guard that keeps a leader from fencing the node that it runs on


class InvariantError(Exception):
    """The engine contradicts itself: a bug in remediator, never the cluster's fault."""


class Trigger(enum.StrEnum):
    """What moves an incident."""

    SUSPECTED = "suspected"  # the evidence turned
    CONVICTED = "convicted"  # a verdict that a policy answers
    DOUBTED = "doubted"  # the evidence is no longer enough
    CLEARED = "cleared"  # the node lives
    GRANTED = "granted"  # every guard and budget said yes
    WITHHELD = "withheld"  # a guard or budget said not now
    EXHAUSTED = "exhausted"  # no step is left, or none is allowed: a human is asked
    PROVED = "proved"  # the old copies no longer write
    DISPROVED = "disproved"  # the proof turned out to be wrong
    RELEASED = "released"  # the out-of-service taint is on
    EMPTYING = "emptying"  # its VMs are moved off while it lives
    EMPTIED = "emptied"  # no VM is on it any more
    RECOVERED = "recovered"  # every VM is back, or left as its run strategy says
    TREATED = "treated"  # a step of a VM's plan is begun


_W, _S, _C = IncidentState.WATCHING, IncidentState.SUSPECTED, IncidentState.CONFIRMED
_F, _D, _R = IncidentState.FENCING, IncidentState.FENCED, IncidentState.RECOVERING
_H, _E, _X = IncidentState.HELD, IncidentState.ESCALATED, IncidentState.RESOLVED
_T = IncidentState.REMEDYING
_V = IncidentState.EVACUATING

TRANSITIONS: dict[tuple[IncidentState, Trigger], IncidentState] = {
    (_W, Trigger.SUSPECTED): _S,
    (_W, Trigger.CONVICTED): _C,
    (_S, Trigger.CLEARED): _X,
    (_S, Trigger.CONVICTED): _C,
    (_S, Trigger.WITHHELD): _H,
    (_S, Trigger.EXHAUSTED): _E,
    (_C, Trigger.CLEARED): _X,
    (_C, Trigger.DOUBTED): _S,
    (_C, Trigger.GRANTED): _F,
    (_C, Trigger.WITHHELD): _H,
    (_C, Trigger.EXHAUSTED): _E,
    (_C, Trigger.PROVED): _D,
    (_H, Trigger.CLEARED): _X,
    (_H, Trigger.DOUBTED): _S,
    (_H, Trigger.CONVICTED): _C,
    (_H, Trigger.WITHHELD): _H,
    (_H, Trigger.GRANTED): _F,
    (_H, Trigger.EXHAUSTED): _E,
    (_H, Trigger.PROVED): _D,
    (_E, Trigger.CLEARED): _X,
    (_E, Trigger.DOUBTED): _S,
    (_E, Trigger.CONVICTED): _C,
    (_E, Trigger.WITHHELD): _H,
    (_E, Trigger.GRANTED): _F,
    (_E, Trigger.EXHAUSTED): _E,
    (_E, Trigger.PROVED): _D,
    (_F, Trigger.CLEARED): _X,
    (_F, Trigger.DOUBTED): _S,
    (_F, Trigger.WITHHELD): _H,
    (_F, Trigger.EXHAUSTED): _E,
    (_F, Trigger.PROVED): _D,
    (_D, Trigger.DISPROVED): _E,
    (_D, Trigger.RELEASED): _R,
    (_D, Trigger.RECOVERED): _X,
    (_R, Trigger.DISPROVED): _E,
    (_R, Trigger.RECOVERED): _X,
    (_C, Trigger.TREATED): _T,
    (_H, Trigger.TREATED): _T,
    (_E, Trigger.TREATED): _T,
    (_T, Trigger.CLEARED): _X,
    (_T, Trigger.WITHHELD): _H,
    (_T, Trigger.EXHAUSTED): _E,
    (_C, Trigger.EMPTYING): _V,
    (_H, Trigger.EMPTYING): _V,
    (_E, Trigger.EMPTYING): _V,
    (_H, Trigger.EMPTIED): _X,
    (_E, Trigger.EMPTIED): _X,
    (_V, Trigger.EMPTIED): _X,
    (_V, Trigger.CLEARED): _X,
    (_V, Trigger.CONVICTED): _C,
    (_V, Trigger.WITHHELD): _H,
    (_V, Trigger.EXHAUSTED): _E,
}


def next_state(state: IncidentState, trigger: Trigger) -> IncidentState:
    """Return where ``trigger`` leads from ``state``. Raises InvariantError if it leads nowhere."""
    try:
        return TRANSITIONS[state, trigger]
    except KeyError:
        raise InvariantError(f"an incident that is {state} cannot be {trigger}") from None


class Stage(enum.StrEnum):
    """How far the recovery of one VM has come."""

    WAITING = "waiting"  # for its turn
    STOPPING = "stopping"  # its old launcher pod is being deleted
    STOPPED = "stopped"  # the old pod is gone; KubeVirt is to make a new VMI
    STARTING = (
        "starting"  # a start was asked for (run strategies that do not restart by themselves)
    )
    REQUESTED = "requested"  # a new VMI exists
    RUNNING = "running"  # the new VMI runs; its guest boots
    UP = "up"  # the guest is up
    FAILED = "failed"  # its start failed: it waits for its turn again
    MIGRATING = "migrating"  # off a node that lives: a live migration was asked for
    CANCELLING = "cancelling"  # that migration is being taken back
    MOVED = "moved"  # it runs on another node
    STUCK = "stuck"  # not up in time: a human was told; still watched
    LEFT = "left"  # stays stopped, as its run strategy says
    GONE = "gone"  # its owner deleted or stopped it


DONE_STAGES = frozenset({Stage.UP, Stage.LEFT, Stage.GONE, Stage.MOVED})
BOOTING_STAGES = frozenset(
    {Stage.STOPPING, Stage.STOPPED, Stage.STARTING, Stage.REQUESTED, Stage.RUNNING}
)


class VmProgress(msgspec.Struct, kw_only=True):
    """Recovery of one VM. Changed only by ``state.apply``."""

    plan: VmPlan
    stage: Stage = Stage.WAITING
    since_at: float = 0.0
    started_at: float = 0.0  # when its restart began (the old pod's deletion)
    attempts: int = 0
    retry_at: float = 0.0
    failures: int = 0  # starts whose new VMI has ended
    stopped: tuple[str, ...] = ()  # uids of the launcher pods that were deleted
    target: str = ""  # the node that a migration was asked to go to; empty: KubeVirt chooses
    cancels: int = 0  # tries to take its migration back
    restarts: int = 0  # in place of a migration
    earlier: int = 0  # moves and restarts of it that earlier plans of the incident began
    last: str = ""  # why the last attempt to move it came to nothing
    answered: str = ""  # what was last refused of this VM, so that it is said once


def holds_place(progress: VmProgress) -> bool:
    """Whether a VM boots because pacing granted it.

    Not so where somebody else removed its dead pod: its new one waits for its turn at our gate, or
    boots on its own account.
    """
    return progress.stage in BOOTING_STAGES and progress.attempts > 0


class Incident(msgspec.Struct, kw_only=True):
    """One open incident. Changed only by ``state.apply``, so that a replay rebuilds it exactly."""

    id: str
    subject: Subject
    state: IncidentState
    opened_at: float
    node_uid: str
    boot_id: str
    verdict: Verdict
    verdict_at: float
    row: str
    contradicted: bool = False  # the BMC was caught lying: it proves nothing in this incident
    plan: Plan | None = None
    step: int = 0  # index into plan.steps
    attempts: dict[str, int] = {}
    retry_at: float = 0.0
    confirmed: Proof | None = None  # a person has seen that it is off
    yielded_by: tuple[str, ...] = ()  # leaders that gave up for it: they ran on this very node
    answered: str = ""  # what was last refused or escalated, so that it is said once
    convicted_at: float = 0.0
    proof: Proof | None = None
    released_at: float = 0.0
    vms: dict[str, VmProgress] = {}

    @property
    def next_step(self) -> str:
        """The name of the step that is due, or "" when the plan is through or not made."""
        if self.plan is None or self.step >= len(self.plan.steps):
            return ""
        return self.plan.steps[self.step]


class VmIncident(msgspec.Struct, kw_only=True):
    """One open incident of one VM. Changed only by ``state.apply``.

    It stands apart from the incidents of nodes: what is done about it disrupts one VM, needs no
    proof about a host, and is over when the VM is well again.
    """

    id: str
    subject: Subject
    state: IncidentState
    opened_at: float
    vmi_uid: str
    verdict: Verdict
    verdict_at: float
    row: str
    agent: bool = False  # its guest agent has answered: it is well only once that answers again
    heard_uid: str = ""  # the VMI in which it did
    plan: Plan | None = None
    step: int = 0  # index into plan.steps
    attempts: dict[str, int] = {}  # step -> tries begun since the plan was begun
    done: dict[str, int] = {}  # step -> of these, tries that took effect
    started: int = 0  # actions in all: their ids are numbered by it
    awaiting: bool = False  # the step took effect; whether it helps, the evidence will tell
    run_uid: str = ""  # the VMI that the last step was about
    retry_at: float = 0.0
    answered: str = ""  # what was last refused or escalated, so that it is said once

    @property
    def next_step(self) -> str:
        """The name of the step that is due, or "" when the plan is through or not made."""
        if self.plan is None or self.step >= len(self.plan.steps):
            return ""
        return self.plan.steps[self.step]


class Residue(msgspec.Struct, kw_only=True):
    """What we have left on a node and owe to take back once it has returned."""

    node: str
    node_uid: str
    incident: str
    fenced_boot_id: str = ""  # empty: cordoned only
    proof_at: float = 0.0
    attempts: int = 0
    retry_at: float = 0.0
    fence_method: str = ""  # configuration that fenced it, or tried to
    by_hand_boot_id: str = ""  # the boot in which a person had it fenced, without an incident
    evacuated: bool = False  # marked to be emptied while it lives: it stays so until it is well
    evicted: tuple[Subject, ...] = ()  # VMs that KubeVirt was told, by us, to move off it
    powered_on: bool = False  # we switched it on again, or gave up trying
    power_on_attempts: int = 0
    alarmed: bool = False  # it was reported that the node lives on in the fenced boot
