"""Everything the engine may ask for: one tagged union, carried out in the order given."""

from __future__ import annotations

from remediator.engine.chain import Decision
from remediator.engine.model import Action, Record


class RecordDecision(Record, frozen=True, kw_only=True, tag_field="effect", tag="record"):
    """Append this record to the journal and wait for its acknowledgement.

    Every effect after it in the same list, and in later lists, must wait for that acknowledgement.
    """

    decision: Decision
    payload: bytes  # the canonical bytes that the chain is computed over; append exactly these


class StartAction(Record, frozen=True, kw_only=True, tag_field="effect", tag="start"):
    """Hand this action to the runner. Its record stands before it in the same list."""

    action: Action


class AskPower(Record, frozen=True, kw_only=True, tag_field="effect", tag="ask-power"):
    """Ask the node's fence device for its power state now, rather than at the next slow poll."""

    node: str


class AskProbes(Record, frozen=True, kw_only=True, tag_field="effect", tag="ask-probes"):
    """Ask every vantage point to probe this node now and often, rather than at its slow pace."""

    node: str


class GiveUpLeadership(Record, frozen=True, kw_only=True, tag_field="effect", tag="give-up"):
    """End this term and release the Lease, so that a replica elsewhere leads on."""

    why: str


class AnswerCommand(Record, frozen=True, kw_only=True, tag_field="effect", tag="answer"):
    """Tell whoever gave the command what became of it; its record stands before it."""

    id: str
    accepted: bool
    seq: int
    text: str


class RaiseNotice(Record, frozen=True, kw_only=True, tag_field="effect", tag="notice"):
    """Tell a human; the record with the same ``seq`` says why."""

    seq: int
    text: str


class WakeAt(Record, frozen=True, kw_only=True, tag_field="effect", tag="wake"):
    """Send a Tick at this time at the latest."""

    at: float


Effect = (
    RecordDecision
    | StartAction
    | AskPower
    | AskProbes
    | GiveUpLeadership
    | AnswerCommand
    | RaiseNotice
    | WakeAt
)
