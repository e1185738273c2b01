"""A signal on its way: the bare JSON document, its subject and its offer to the bus.

Every publisher of ours goes through ``offer``; docs/signals.md tells others the same in words.
"""

from __future__ import annotations

from typing import Final

import msgspec
import structlog

from remediator.bus import subjects
from remediator.bus.protocols import EventPublisher
from remediator.engine.model import Plane, Signal

log = structlog.get_logger(__name__)

# Here one source speaks of a node, so its subject needs no name of the source unless the source
# has several things to say (an aspect). Everywhere else the newest message per subject must be the
# newest of one source.
_ONE_SOURCE: Final = frozenset({Plane.LEASE, Plane.KUBELET, Plane.HANDLER, Plane.POWER})

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Signal)


def encode(signal: Signal) -> bytes:
    """Return the document that travels."""
    return _encoder.encode(signal)


def decode(payload: bytes) -> Signal:
    """Return the signal of a document; unknown fields are passed over.

    Raises msgspec.DecodeError (ValidationError included).
    """
    return _decoder.decode(payload)


def subject_of(signal: Signal, *, beat: bool = False) -> str:
    """Return the subject that a signal is published on. Raises SubjectNameError.

    ``beat``: a repeated proof of life, of which only the newest is kept, rather than a change.
    """
    build = subjects.heartbeat if beat else subjects.signal
    of = signal.subject
    named = signal.aspect or signal.plane not in _ONE_SOURCE
    return build(
        signal.plane.value,
        of.kind,
        of.name,
        of.namespace,
        source=signal.source if named else "",
        aspect=signal.aspect,
    )


def offer(
    publisher: EventPublisher,
    signal: Signal,
    *,
    beat: bool = False,
    message_id: str | None = None,
) -> bool:
    """Offer a signal to the bus, on its subject; False, with a warning, where a name is none."""
    try:
        subject = subject_of(signal, beat=beat)
    except subjects.SubjectNameError as error:
        log.warning("signal_ignored", plane=signal.plane.value, error=str(error))
        return False
    publisher.offer(subject, encode(signal), message_id=message_id)
    return True
