"""What the leader tells every replica's webhook, about once a second, and how it is kept.

A message says everything there is to know; only the newest counts, and only while it is fresh. Its
age is measured from its arrival, on the receiver's own clock: clocks of hosts differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
import structlog

from remediator.clock import Clock
from remediator.engine import gates, pacing, safeguards
from remediator.engine.context import Context
from remediator.engine.model import Subject

_log = structlog.get_logger(__name__)

SCHEMA: Final = 1
STARTING_MAX: Final = 2000  # VMs that hold a place; a storm's limit is a few hundred at most
HINTS_MAX: Final = 5000  # VMs; with three nodes each about 600 kB, below NATS's 1 MB


class AdmissionState(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How many launcher pods may start now, and which need not ask. VMs are ``NAMESPACE/NAME``."""

    by: str  # who leads
    epoch: int  # of the leadership
    number: int  # of the message, counted within the epoch
    gating: bool  # the leader holds pods back: it acts, sees the cluster, and is not paused
    storm: bool = False  # pods wait behind our gate: a new one waits with them
    places: int = 0  # how many more may start
    starting: frozenset[str] = frozenset()  # VMs that hold a place already
    hints: dict[str, tuple[str, ...]] = {}  # VM -> nodes that are better than others, best first
    schema: int = SCHEMA


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(AdmissionState)


def state_of(
    context: Context, number: int, *, hints: Mapping[Subject, tuple[str, ...]] | None = None
) -> AdmissionState:
    """Return what the engine would tell now. ``hints`` are ``gates.hints``, of a moment ago."""
    gating = context.enforce and context.inventory.synced
    if gating and safeguards.paused(context, Subject("daemon", context.identity)):
        gating = False
    if not gating:
        return AdmissionState(by=context.identity, epoch=context.epoch, number=number, gating=False)
    starting = sorted(f"{vm.namespace}/{vm.name}" for vm in pacing.booting(context))
    return AdmissionState(
        by=context.identity,
        epoch=context.epoch,
        number=number,
        gating=True,
        storm=gates.held(context) > 0 or pacing.holds_back(context),
        places=pacing.places(context),
        starting=frozenset(starting[:STARTING_MAX]),
        hints=_named(hints or {}),
    )


def _named(hints: Mapping[Subject, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    few = sorted(hints)[:HINTS_MAX]
    return {f"{vm.namespace}/{vm.name}": hints[vm] for vm in few}


def encode(state: AdmissionState) -> bytes:
    """Return the message."""
    return _encoder.encode(state)


class Outlook:
    """The newest state that a leader told, for as long as it is fresh.

    ``unreadable`` counts messages that were no state, or of a newer schema than ours.
    """

    def __init__(self, clock: Clock, *, fresh_s: float) -> None:
        self._clock = clock
        self._fresh_s = fresh_s
        self._newest: AdmissionState | None = None
        self.heard_at: float | None = None  # None: no leader was ever heard
        self.unreadable = 0

    def hear(self, payload: bytes) -> None:
        """Take in one message."""
        try:
            state = _decoder.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self.unreadable += 1
            _log.debug("admission_state_unreadable", error=str(error))
            return
        if state.schema > SCHEMA:
            self.unreadable += 1
            return
        kept = self.fresh()
        if kept is not None and (state.epoch, state.number) <= (kept.epoch, kept.number):
            return  # of a leader that is deposed and does not know yet, or overtaken on its way
        self._newest, self.heard_at = state, self._clock.now()

    def fresh(self) -> AdmissionState | None:
        """Return what holds now, None where no leader was heard lately."""
        if self.heard_at is None or self._clock.now() - self.heard_at > self._fresh_s:
            return None
        return self._newest
