"""What an action works with, and what it hands back."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec

from remediator.actions.fence.devices import FenceDevices
from remediator.clock import Clock
from remediator.engine.model import OutcomeStatus, Proof
from remediator.kube.client import KubeClient

# The lease watch's memory of a node: the renewTime it saw last, and when it saw it change, on our
# clock; 0.0 where it was found by the first list and never seen to change. None: never seen.
LastBeat = Callable[[str], tuple[str, float] | None]


class World(msgspec.Struct, frozen=True, kw_only=True):
    """The doors that an action may use. ``deadline_at`` is when the runner will cut it off.

    ``own(proof)``: whether it was taken in this term, so that its time is of our clock.
    ``void_after(proof)``: a lease renewed later than this, on our clock, voids the proof.
    ``leads``: whether we lead, by the clock: a process that stood still wakes up deposed.
    """

    action_id: str
    client: KubeClient
    devices: FenceDevices
    clock: Clock
    rng: random.Random
    last_beat: LastBeat
    deadline_at: float
    own: Callable[[Proof], bool]
    void_after: Callable[[Proof], float]
    leads: Callable[[], bool]

    def must_lead(self) -> None:
        """Ask just before each write. Raises SparedError when another may lead by now."""
        if not self.leads():
            raise SparedError("we do not lead any more")

    def left_s(self) -> float:
        """Return the seconds until the deadline, never less than 0."""
        return max(0.0, self.deadline_at - self.clock.now())


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How an action ended; the runner adds the times and makes the outcome of it."""

    status: OutcomeStatus
    detail: str
    changed: bool = False
    proof: Proof | None = None


class SparedError(Exception):
    """The recheck found that the ground for acting is gone; nothing was touched.

    ``proof`` is what the recheck found out instead: a node that rebooted by itself needs no fence.
    """

    def __init__(self, detail: str, *, proof: Proof | None = None) -> None:
        super().__init__(detail)
        self.proof = proof


def succeeded(detail: str, *, changed: bool, proof: Proof | None = None) -> Result:
    """Return a success: the effect was read back. ``changed`` is False where it was so before."""
    return Result(status=OutcomeStatus.SUCCEEDED, detail=detail, changed=changed, proof=proof)


def failed(detail: str, *, changed: bool = False) -> Result:
    """Return a failure: it did not happen, or could not be verified."""
    return Result(status=OutcomeStatus.FAILED, detail=detail, changed=changed)
