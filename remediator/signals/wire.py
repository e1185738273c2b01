"""A signal on its way: the bare JSON document, its subject, its id and its offer to the bus.

Every publisher of ours goes through ``offer``; docs/signals.md tells others the same in words.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec
import structlog

from remediator.bus import subjects
from remediator.bus.protocols import EventPublisher
from remediator.engine.model import Plane, Signal
from remediator.signals import text

log = structlog.get_logger(__name__)

# Here one source speaks of a node, so its subject needs no name of the source unless the source
# has several things to say (an aspect). Everywhere else the newest message per subject must be the
# newest of one source.
_ONE_SOURCE: Final = frozenset({Plane.LEASE, Plane.KUBELET, Plane.HANDLER, Plane.POWER})

_ID_LENGTH: Final = 32

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Signal)


def encode(signal: Signal) -> bytes:
    """Return the document that travels."""
    return _encoder.encode(signal)


def decode(payload: bytes) -> Signal:
    """Return the signal of a document; unknown fields are passed over.

    Raises msgspec.DecodeError (ValidationError included), UnicodeDecodeError and RecursionError.
    """
    return _decoder.decode(payload)


def subject_of(signal: Signal, *, beat: bool = False) -> str:
    """Return the subject that a signal is published on. Raises SubjectNameError.

    ``beat``: a repeated proof of life, of which only the newest is kept, rather than a change.
    Our own beats end in the name of their process, which nobody guesses: a message of anybody's on
    the same subject would take the place of one that has not been delivered yet.
    """
    of = signal.subject
    source = signal.source if signal.aspect or signal.plane not in _ONE_SOURCE else ""
    build = subjects.signal
    if beat:
        build = subjects.heartbeat
        source = source or signal.by
    return build(
        signal.plane.value,
        of.kind,
        of.name,
        of.namespace,
        source=source,
        aspect=signal.aspect,
    )


def signal_id(signal: Signal) -> str:
    """Return the id of an observation: the same for the same observation, whoever computes it.

    SHA-256 over plane, source, subject, aspect, the time in seconds with six decimals, reading,
    and "first" or nothing, a line each; of its hexadecimal form the first 32 characters.
    """
    lines = (
        signal.plane.value,
        signal.source,
        str(signal.subject),
        signal.aspect,
        f"{signal.at:.6f}",
        signal.reading.value,
        "first" if signal.first else "",
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:_ID_LENGTH]


def offer(
    publisher: EventPublisher, signal: Signal, *, beat: bool = False, edition: str = ""
) -> bool:
    """Offer a signal to the bus, on its subject; False, with a warning, where a name is none.

    The message id is the signal's, followed by the ``edition`` of whoever may have to say
    everything again (see ``watchers.outlet``): without it NATS would take it for a repeat.
    """
    signal = text.fit(signal)
    try:
        subject = subject_of(signal, beat=beat)
    except subjects.SubjectNameError as error:
        log.warning("signal_ignored", plane=signal.plane.value, error=str(error))
        return False
    message_id = signal_id(signal)
    if edition:
        message_id = f"{message_id}:{edition}"
    publisher.offer(subject, encode(signal), message_id=message_id)
    return True
