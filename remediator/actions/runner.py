"""Run the actions that the engine starts: one task each, one per subject, never for ever."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final, assert_never

import structlog

from remediator.actions.cancel_migration import cancel_migration
from remediator.actions.cordon import cordon
from remediator.actions.fence.devices import FenceDevices
from remediator.actions.fence.fence import fence
from remediator.actions.force_stop import force_stop
from remediator.actions.migrate import migrate
from remediator.actions.power_on import power_on
from remediator.actions.release import release
from remediator.actions.remedy import remedy
from remediator.actions.start import start_vm
from remediator.actions.uncordon import uncordon
from remediator.actions.ungate import ungate
from remediator.actions.world import LastBeat, Result, SparedError, World, failed
from remediator.clock import Clock
from remediator.engine.model import (
    Action,
    CancelMigration,
    Cordon,
    Fence,
    ForceStop,
    KillPod,
    Migrate,
    Outcome,
    OutcomeStatus,
    PowerOn,
    Proof,
    ProofKind,
    Release,
    RestartVm,
    Snapshot,
    SoftReboot,
    StartVm,
    Subject,
    Uncordon,
    Ungate,
    Unpause,
    Work,
)
from remediator.engine.settings import DetectionSettings
from remediator.kube.client import KubeClient
from remediator.logs import redact

log = structlog.get_logger(__name__)

RUNNING_MAX: Final = 256  # the engine's budgets allow far fewer at once; more is a fault
_CAUSE_LIMIT: Final = 300  # characters of an error that go into an outcome
_INHERITED_S: Final = 8.0  # less than the 12 s of silence that a proof stands on
_STOP_S: Final = 5.0  # a cancelled request ends within a turn of the loop; more is a fault


class ActionRunner:
    """Runs actions; hands every outcome to ``on_finished``, on the loop, never inside ``start``.

    ``last_beat`` is the lease watch's memory (``world.LastBeat``); ``late_renewal_s`` should be the
    engine's ``contradiction_after_s``, so that both take a proof for void at the same moment.
    One runner serves one term of leadership: after ``stop`` it starts nothing any more, and actions
    that were cut off report no outcome, because the next leader repeats them.
    """

    def __init__(
        self,
        client: KubeClient,
        devices: FenceDevices,
        clock: Clock,
        *,
        last_beat: LastBeat,
        rng: random.Random,
        on_finished: Callable[[Outcome], None],
        late_renewal_s: float = DetectionSettings().contradiction_after_s,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self._client = client
        self._devices = devices
        self._clock = clock
        self._last_beat = last_beat
        self._rng = rng
        self._late_renewal_s = late_renewal_s
        self._leads = leads
        self._began_at = clock.now()
        self._own_proofs: set[tuple[str, str]] = set()  # (node, boot) proven in this term
        self.on_finished = on_finished
        self._running: dict[Subject, tuple[str, asyncio.Task[None]]] = {}
        self._stopped = False

    @property
    def running(self) -> tuple[str, ...]:
        """The ids of the actions in flight."""
        return tuple(action_id for action_id, _ in self._running.values())

    def start(self, action: Action) -> None:
        """Start an action. A second one on a busy subject is refused with a FAILED outcome.

        The same action again while it runs is one action: it is left to run.
        """
        if self._stopped:
            log.warning("action_not_started", action=action.id, why="the runner is stopped")
            return
        busy = self._running.get(action.subject)
        if busy is not None and busy[0] == action.id:
            log.info("action_already_running", action=action.id)
            return
        if busy is not None:
            self._refuse(action, f"{busy[0]} is still running on {action.subject}")
            return
        if len(self._running) >= RUNNING_MAX:
            self._refuse(action, f"{RUNNING_MAX} actions are running already")
            return
        task = asyncio.create_task(self._run(action), name=f"action-{action.id}")
        self._running[action.subject] = (action.id, task)
        task.add_done_callback(lambda ended: self._free(action.subject, ended))

    def taken(self, proof: Proof) -> None:
        """Note a proof of this term that no action gave: a person's word."""
        self._own_proofs.add((proof.node, proof.boot_id))

    async def stop(self) -> None:
        """Cancel every action and wait until all have ended."""
        self._stopped = True
        tasks = [task for _, task in self._running.values()]
        for task in tasks:
            task.cancel()
        if not tasks:
            return
        _, left = await asyncio.wait(tasks, timeout=_STOP_S)
        for task in left:
            log.error("action_does_not_end", action=task.get_name())

    def _refuse(self, action: Action, why: str) -> None:
        now = self._clock.now()
        outcome = _outcome(action, failed(why), started_at=now, finished_at=now)
        _log(action, outcome)
        # Not at once: the caller may be in the middle of the engine's effects.
        asyncio.get_running_loop().call_soon(self._report, outcome)

    def _report(self, outcome: Outcome) -> None:
        if not self._stopped:
            self.on_finished(outcome)

    async def _run(self, action: Action) -> None:
        started_at = self._clock.now()
        world = World(
            action_id=action.id,
            client=self._client,
            devices=self._devices,
            clock=self._clock,
            rng=self._rng,
            last_beat=self._last_beat,
            deadline_at=started_at + action.deadline_s,
            own=self._own,
            void_after=self._void_after,
            leads=self._leads,
        )
        limit = asyncio.timeout(action.deadline_s)
        try:
            async with limit:
                result = await _do(action.work, world)
        except SparedError as spare:
            result = Result(status=OutcomeStatus.SPARED, detail=str(spare), proof=spare.proof)
        except TimeoutError as error:
            late = f"not finished within {action.deadline_s:g} s; what became of it is unknown"
            result = failed(late if limit.expired() else _cause(error), changed=True)
        except Exception as error:  # noqa: BLE001 - whatever an action raises is its outcome
            result = failed(_cause(error), changed=True)
        outcome = _outcome(action, result, started_at=started_at, finished_at=self._clock.now())
        if outcome.proof is not None:
            self._own_proofs.add((outcome.proof.node, outcome.proof.boot_id))
        _log(action, outcome)
        # The subject is free before the engine hears of it: it may start the next step at once.
        self._free(action.subject, asyncio.current_task())
        self._report(outcome)

    def _own(self, proof: Proof) -> bool:
        return (proof.node, proof.boot_id) in self._own_proofs

    def _void_after(self, proof: Proof) -> float:
        """Return the moment, on our clock, after which a renewed lease voids a proof.

        A proof of this term: its time, plus what a renewal may have been on its way while the
        device was asked. A proof of an earlier leader carries that daemon's clock, which may be off
        by anything; but the node had been silent for longer than ``_INHERITED_S`` by then.
        """
        if self._own(proof) and proof.kind is ProofKind.OPERATOR_CONFIRMED:
            # Taken of a node that had been silent for longer: nothing of it was on its way.
            return proof.at - self._late_renewal_s
        if self._own(proof):
            return proof.at + self._late_renewal_s
        return self._began_at - _INHERITED_S

    def _free(self, subject: Subject, task: asyncio.Task[None] | None) -> None:
        """Free the subject, unless its next action has it by now."""
        held = self._running.get(subject)
        if held is not None and held[1] is task:
            del self._running[subject]


async def _do(work: Work, world: World) -> Result:  # noqa: PLR0911 - one case per work
    match work:
        case Cordon():
            return await cordon(work, world)
        case Fence():
            return await fence(work, world)
        case Release():
            return await release(work, world)
        case ForceStop():
            return await force_stop(work, world)
        case StartVm():
            return await start_vm(work, world)
        case Uncordon():
            return await uncordon(work, world)
        case PowerOn():
            return await power_on(work, world)
        case Migrate():
            return await migrate(work, world)
        case CancelMigration():
            return await cancel_migration(work, world)
        case SoftReboot() | RestartVm() | KillPod() | Unpause() | Snapshot():
            return await remedy(work, world)
        case Ungate():
            return await ungate(work, world)
        case _:
            assert_never(work)


def _outcome(action: Action, result: Result, *, started_at: float, finished_at: float) -> Outcome:
    return Outcome(
        action_id=action.id,
        status=result.status,
        detail=redact(result.detail),  # goes into the journal: a device may quote its login
        started_at=started_at,
        finished_at=finished_at,
        changed=result.changed,
        proof=result.proof,
    )


def _cause(error: Exception) -> str:
    """Return an error as one line."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    return line if len(line) <= _CAUSE_LIMIT else f"{line[:_CAUSE_LIMIT]}…"


def _log(action: Action, outcome: Outcome) -> None:
    log.info(
        "action_finished",
        action=action.id,
        work=type(action.work).__name__,
        subject=str(action.subject),
        status=outcome.status.value,
        changed=outcome.changed,
        detail=outcome.detail,
        took_s=round(outcome.finished_at - outcome.started_at, 3),
        proof=outcome.proof.kind.value if outcome.proof is not None else None,
    )
