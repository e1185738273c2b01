"""Everything that may happen to the engine: one tagged union."""

from __future__ import annotations

import enum

import msgspec

from remediator.engine.model import FactKind, Facts, Outcome, Record, Signal
from remediator.engine.rules import Policy
from remediator.engine.settings import FenceMethod


class SignalSeen(Record, frozen=True, kw_only=True, tag_field="event", tag="signal"):
    """One observation of one subject on one plane."""

    signal: Signal


class ObjectSeen(Record, frozen=True, kw_only=True, tag_field="event", tag="seen"):
    """An object was added or changed, narrowed to its facts."""

    facts: Facts
    by: str = ""


class ObjectGone(Record, frozen=True, kw_only=True, tag_field="event", tag="gone"):
    """An object was deleted. A later one of the same name has another ``uid``."""

    kind: FactKind
    name: str
    namespace: str = ""
    uid: str = ""
    by: str = ""


class InventorySynced(Record, frozen=True, kw_only=True, tag_field="event", tag="synced"):
    """Every object of this kind that existed when the watch began has been reported."""

    kind: FactKind
    by: str = ""


class WatchProgressed(Record, frozen=True, kw_only=True, tag_field="event", tag="progressed"):
    """A watch proved at ``at`` that it hears the API server; silence before it counts.

    ``watch`` is ``"leases"`` (the lease plane's) or ``"nodes"`` (kubelet and handler planes).
    """

    watch: str
    at: float
    by: str = ""


class ActionFinished(Record, frozen=True, kw_only=True, tag_field="event", tag="finished"):
    """The runner ended an action."""

    outcome: Outcome


class LeadershipGained(Record, frozen=True, kw_only=True, tag_field="event", tag="leading"):
    """This daemon became leader; sent once, after the journal was replayed into the engine."""

    identity: str
    epoch: int  # Lease.spec.leaseTransitions


class OwnHealthSeen(Record, frozen=True, kw_only=True, tag_field="event", tag="own-health"):
    """How this daemon itself is, about once a second. It stretches deadlines; see own_health.py.

    ``None`` where nothing was measured since the last one.
    """

    loop_lag_s: float = 0.0  # the worst lateness of a timer since the last one
    api_latency_s: float | None = None  # the slowest answer of the API server
    nats_latency_s: float | None = None  # a round trip to NATS, or how long none has succeeded
    stale_watches: tuple[str, ...] = ()  # watches that should have shown progress by now


class Verb(enum.StrEnum):
    """What a person may order; docs/operating.md says what each does."""

    CONFIRM_OFF = "confirm-off"  # "I have seen that it is off": proof of the weaker kind
    FENCE_OFF = "fence-off"  # power it off, whether it lives or not
    FENCE_ON = "fence-on"
    DRAIN = "drain"  # empty it while it lives, and keep it empty
    UNDRAIN = "undrain"
    PAUSE = "pause"  # freeze a scope: begin nothing more there
    IGNORE = "ignore"  # a scope is none of our business: no incidents
    RESUME = "resume"  # end both
    APPROVE = "approve"  # yes to the plan of an incident
    DENY = "deny"
    RETRY = "retry"  # try again now, and forget what was given up
    CANCEL = "cancel"  # stop the plan of an incident at its next safe point


PAUSES = frozenset({Verb.PAUSE, Verb.IGNORE, Verb.RESUME})


class CommandGiven(Record, frozen=True, kw_only=True, tag_field="event", tag="command"):
    """A person's order. ``id`` finds the way back of the answer; a repeat has the same.

    ``target`` is a node ("n7" or "node/n7"), another subject ("vm/NS/NAME"), a scope ("cluster",
    "zone/Z", "namespace/NS") or an incident ("inc-17"): each verb says what it takes.
    """

    id: str
    verb: Verb
    target: str
    by: str  # who, as the way that the command came says it
    reason: str
    lasts_s: float | None = None  # of a pause: how long; None: until somebody ends it

    @property
    def node(self) -> str:
        """The node that is meant, where the verb is about one."""
        return self.target.removeprefix("node/")


class FenceMethodsLoaded(Record, frozen=True, kw_only=True, tag_field="event", tag="fence-methods"):
    """The fence configurations changed: these are all of them now, in the order asked."""

    methods: tuple[FenceMethod, ...]


class PoliciesLoaded(Record, frozen=True, kw_only=True, tag_field="event", tag="policies"):
    """The policies changed: these are all of them now."""

    policies: tuple[Policy, ...]


class Tick(Record, frozen=True, kw_only=True, tag_field="event", tag="tick"):
    """Time passed. Sent at least once a second, and when an asked-for wake-up is due."""


Event = (
    SignalSeen
    | ObjectSeen
    | ObjectGone
    | InventorySynced
    | WatchProgressed
    | ActionFinished
    | LeadershipGained
    | OwnHealthSeen
    | CommandGiven
    | FenceMethodsLoaded
    | PoliciesLoaded
    | Tick
)

# What travels on NATS between the watchers and the engine of one replica, besides signals: those
# are a public, bare document of their own (remediator.signals). ``by`` names the process whose
# watchers sent it: facts and marks that a former leader left on its way are not this one's picture,
# and the times in its marks are of another clock.
WireEvent = ObjectSeen | ObjectGone | InventorySynced | WatchProgressed

encoder = msgspec.json.Encoder()
wire_decoder = msgspec.json.Decoder(WireEvent)
