"""Whether a launcher pod may start at once: decided in memory, in microseconds, by each replica.

Two things are known here: what the leader told last, and which pods this very replica let through
since. So a storm is noticed with its first pods, before the leader has seen any of them. Without a
leader that was heard lately nothing is held back: nobody would open the gate.

With several replicas each sees only the pods that the API server asks it about, so in the first
second of a storm as many pods may pass as there are places, times the replicas.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from remediator.admission.state import AdmissionState, Outlook
from remediator.clock import Clock

# How long a pod that we let through may stay unknown to the leader: a watch event, a turn of the
# engine and a message are within a second, and a loaded API server takes two more.
UNSEEN_S: Final = 5.0
# How far back creations are counted, for people to see.
RATE_S: Final = 60.0
REMEMBERED_MAX: Final = 20_000  # creations; 2,000 VMs and their retries are far fewer in a minute


class Ruling(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What becomes of one launcher pod."""

    gate: bool
    why: str  # a few words of a fixed vocabulary: a label of the metrics
    prefer: tuple[str, ...] = ()  # nodes, best first


HAS_A_PLACE: Final = "has-a-place"
NO_LEADER: Final = Ruling(gate=False, why="no-leader")
NOT_GATING: Final = Ruling(gate=False, why="not-gating")


class Gatekeeper:
    """Rules over launcher pods, and counts them."""

    def __init__(self, outlook: Outlook, clock: Clock) -> None:
        self.outlook = outlook
        self._clock = clock
        self._created: deque[float] = deque(maxlen=REMEMBERED_MAX)
        self._passed: dict[str, float] = {}  # VM -> when we let a pod of it through, oldest first
        self._unseen: set[str] = set()  # those of them that hold no place as the leader told last
        self._counted_for: AdmissionState | None = None

    @property
    def created_lately(self) -> int:
        """How many launcher pods were created in the last minute, as far as we were asked."""
        self._forget_old(self._clock.now())
        return len(self._created)

    def rule(self, vm: str) -> Ruling:
        """Rule over a new launcher pod of a VM (``NAMESPACE/NAME``), and count it."""
        now = self._clock.now()
        self._created.append(now)
        self._forget_old(now)
        ruling = self._rule(vm, self.outlook.fresh())
        if not ruling.gate:
            self._passed.pop(vm, None)  # to the end of the order
            self._passed[vm] = now
            if ruling.why != HAS_A_PLACE:
                self._unseen.add(vm)
        return ruling

    def _rule(self, vm: str, state: AdmissionState | None) -> Ruling:
        if state is None:
            return NO_LEADER
        if not state.gating:
            return NOT_GATING
        prefer = state.hints.get(vm, ())
        if vm in state.starting:
            return Ruling(gate=False, why=HAS_A_PLACE, prefer=prefer)
        if state.storm:
            return Ruling(gate=True, why="storm", prefer=prefer)
        if state is not self._counted_for:
            self._unseen = self._passed.keys() - state.starting
            self._counted_for = state
        if len(self._unseen) >= state.places:
            return Ruling(gate=True, why="no-place", prefer=prefer)
        return Ruling(gate=False, why="place", prefer=prefer)

    def _forget_old(self, now: float) -> None:
        while self._created and self._created[0] < now - RATE_S:
            self._created.popleft()
        while self._passed:
            vm = next(iter(self._passed))
            if self._passed[vm] >= now - UNSEEN_S:
                break
            del self._passed[vm]
            self._unseen.discard(vm)
