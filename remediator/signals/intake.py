"""What is let in: every message on the way to the engine is checked here, once.

Whoever may publish on NATS may send anything at any rate. A message becomes an event, or is a
repeat and counted, or is refused, counted and put aside as a dead letter; nothing else can come of
it. Times of a source are never compared with ours to judge a signal, only to count what is odd.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import msgspec

from remediator.bus import subjects
from remediator.clock import Clock
from remediator.engine.events import Event, SignalSeen, WatchProgressed, WireEvent, wire_decoder
from remediator.engine.model import Signal
from remediator.metrics import METRICS, Metrics
from remediator.signals import text, wire
from remediator.signals.address import Address, parse
from remediator.signals.dead_letters import DeadLetters
from remediator.signals.refusal import Refusal, RefusedError
from remediator.signals.sources import Sources

PAYLOAD_BYTES_MAX: Final = 16 * 1024  # of a signal; the longest of ours has about 2 KiB

# Signals remembered for repeats: two generations of so many. At 10,000 a second that is seven to
# thirteen seconds; a repeat under the same Nats-Msg-Id is NATS's to drop, for two minutes.
REMEMBERED: Final = 65_536
# Subjects and sources whose checks are remembered; a large cluster has 50,000 subjects.
ADDRESSES_MAX: Final = 131_072
SPEAKERS_MAX: Final = 16_384

# Odd times, only counted: so far from our clock, or so much further than the source's signal
# before it (its clock was set, or the signal waited).
SKEW_S: Final = 60.0
JUMP_S: Final = 60.0
# A mark of our own watches is of our own clock.
MARK_AHEAD_S: Final = 5.0


class _Speaker:
    """What is remembered of one source on one plane."""

    __slots__ = ("always", "offset_s", "token")

    def __init__(self, token: str, *, always: bool) -> None:
        self.token = token
        self.always = always  # it may speak of every subject
        self.offset_s: float | None = None  # its last time less ours


class Intake:
    """Turns messages into events. One per term: a new engine must hear again what an old one heard.

    ``origin`` is the name under which this process's own watchers and probes send (``by``); empty,
    where nobody's facts are refused. ``accepted``, ``duplicates`` and the sum of ``refused`` add up
    to the messages taken.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        sources: Sources | None = None,
        dead_letters: DeadLetters | None = None,
        origin: str = "",
        metrics: Metrics = METRICS,
    ) -> None:
        self._clock = clock
        self._sources = sources
        self._dead_letters = dead_letters or DeadLetters(None, metrics=metrics)
        self._origin = origin
        self._metrics = metrics
        self._addresses: dict[str, Address] = {}
        self._speakers: dict[tuple[str, str], _Speaker] = {}
        self._seen: set[int] = set()
        self._seen_before: set[int] = set()
        self._times: dict[int, float] = {}
        self._times_before: dict[int, float] = {}
        self.accepted = 0
        self.duplicates = 0
        self.refused: Counter[Refusal] = Counter()
        self.odd_times: Counter[str] = Counter()

    def take(self, subject: str, payload: bytes) -> Event | None:
        """Return the event of a message, None where it is refused or a repeat. Never raises."""
        now = self._clock.now()
        address = self._addresses.get(subject)
        try:
            if address is None:
                if not subjects.is_signal(subject):
                    return self._ours(subject, payload, now)
                address = self._address(subject)
            signal = _decoded(payload)
            speaker = self._check(address, signal)
        except RefusedError as refused:
            self.refused[refused.reason] += 1
            self._dead_letters.put(subject, payload, refused, now)
            return None
        key = hash((address.key, signal.source, signal.aspect))
        if self._repeated(key, signal):
            self.duplicates += 1
            self._metrics.duplicates.inc()
            return None
        self._note_time(key, signal.at, now, speaker)
        self.accepted += 1
        self._metrics.signal(address.plane_name, signal.reading.value)
        return SignalSeen(signal=signal)

    # --- signals ----------------------------------------------------------------------------------

    def _address(self, subject: str) -> Address:
        """Return what a subject says. Raises RefusedError."""
        address = parse(subject)
        if len(self._addresses) >= ADDRESSES_MAX:
            self._addresses.clear()
        self._addresses[subject] = address
        return address

    def _check(self, address: Address, signal: Signal) -> _Speaker:
        """See that a signal may be believed to be what it says it is. Raises RefusedError."""
        if signal.plane is not address.plane or signal.subject != address.subject:
            raise RefusedError(
                Refusal.MISMATCH,
                f"the document is about {signal.subject} on plane {signal.plane}, its subject "
                f"about {address.subject} on plane {address.plane}",
            )
        if signal.reading not in address.readings:
            raise RefusedError(
                Refusal.WRONG_READING,
                f"plane {address.plane} gives no {signal.reading} of a {address.subject.kind}",
            )
        source = signal.source
        if not (
            source.isprintable()
            and signal.detail.isprintable()
            and signal.aspect.isprintable()
            and signal.zone.isprintable()
            and signal.by.isprintable()
        ):
            text.check(signal)
        speaker = self._speakers.get((address.plane_name, source))
        if speaker is None:
            speaker = self._speaker(address, source)
        self._check_tail(address, signal, speaker)
        if self._sources is None or speaker.always or (self._origin and signal.by == self._origin):
            return speaker
        self._sources.check(address.plane, source, address.subject)
        return speaker

    def _speaker(self, address: Address, source: str) -> _Speaker:
        if len(self._speakers) >= SPEAKERS_MAX:
            self._speakers.clear()
        always = self._sources is None or self._sources.always(address.plane, source)
        speaker = _Speaker(subjects.tail_token(source), always=always)
        self._speakers[address.plane_name, source] = speaker
        return speaker

    def _check_tail(self, address: Address, signal: Signal, speaker: _Speaker) -> None:
        """See that what the subject says of source and aspect is so. Raises RefusedError."""
        if address.source and address.source != speaker.token:
            raise RefusedError(
                Refusal.MISMATCH,
                f"the document is of {signal.source[:80]!r}, its subject of {address.source!r}",
            )
        if address.aspect and not (
            signal.aspect and address.aspect == subjects.tail_token(signal.aspect)
        ):
            raise RefusedError(
                Refusal.MISMATCH,
                f"the document's aspect is {signal.aspect[:80]!r}, its subject's "
                f"{address.aspect!r}",
            )
        if address.subject.kind == "vantage" and signal.source != address.subject.name:
            raise RefusedError(
                Refusal.WRONG_SOURCE, "a vantage point's own life is told by nobody else"
            )

    def _repeated(self, key: int, signal: Signal) -> bool:
        """Whether this very signal was taken in before; from now on it was.

        Hashes stand for signals. Python salts those of texts for each process, so that nobody can
        make two that agree; by chance one in 10^14 signals is taken for a repeat.
        """
        seen = hash((key, signal.at, id(signal.reading), signal.first))
        if seen in self._seen:
            return True
        repeated = seen in self._seen_before
        self._seen.add(seen)
        if len(self._seen) >= REMEMBERED:
            self._seen_before, self._seen = self._seen, set()
        return repeated

    def _note_time(self, key: int, at: float, now: float, speaker: _Speaker) -> None:
        """Count what is odd about a source's time; nothing follows from it here."""
        offset_s = at - now
        if not -SKEW_S <= offset_s <= SKEW_S:
            self._odd("future" if offset_s > 0 else "past")
        before_s = speaker.offset_s
        speaker.offset_s = offset_s
        if before_s is not None and not -JUMP_S <= offset_s - before_s <= JUMP_S:
            self._odd("jump")
        times = self._times
        last_at = times.get(key)
        if last_at is None:
            last_at = self._times_before.get(key, at)
            if len(times) >= REMEMBERED:
                self._times_before, self._times = times, {}
                times = self._times
        if at < last_at:
            self._odd("out-of-order")
        times[key] = at

    def _odd(self, oddity: str) -> None:
        self.odd_times[oddity] += 1
        self._metrics.odd_times[oddity].inc()

    # --- facts and marks --------------------------------------------------------------------------

    def _ours(self, subject: str, payload: bytes, now: float) -> Event:
        """Return the event of a message that only our own watchers send. Raises RefusedError."""
        try:
            event: WireEvent = wire_decoder.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RefusedError(Refusal.BAD_EVENT, str(error)) from error
        if self._origin and event.by != self._origin:
            raise RefusedError(
                Refusal.NOT_OURS, f"sent by {event.by[:80]!r}, not by this process's own watchers"
            )
        if isinstance(event, WatchProgressed):
            if subject != f"{subjects.PROGRESS}watch.{event.watch}":
                raise RefusedError(Refusal.BAD_EVENT, "a mark of progress on another's subject")
            if event.at > now + MARK_AHEAD_S:
                raise RefusedError(Refusal.BAD_EVENT, "a mark of progress from the future")
        elif subject.startswith(subjects.PROGRESS):
            raise RefusedError(Refusal.BAD_EVENT, "no mark of progress")
        self.accepted += 1
        return event


def _decoded(payload: bytes) -> Signal:
    """Return the signal of a payload. Raises RefusedError."""
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise RefusedError(
            Refusal.TOO_LARGE, f"{len(payload)} bytes, more than {PAYLOAD_BYTES_MAX}"
        )
    try:
        if not payload.isascii():
            payload.decode()  # msgspec looks at the text of known fields only
        return wire.decode(payload)
    except UnicodeDecodeError as error:
        raise RefusedError(Refusal.NOT_UTF8, str(error)) from error
    except RecursionError as error:
        raise RefusedError(Refusal.NOT_JSON, "nested too deeply") from error
    except msgspec.ValidationError as error:
        said = str(error)
        raise RefusedError(_reason(said), said) from error
    except msgspec.DecodeError as error:
        raise RefusedError(Refusal.NOT_JSON, str(error)) from error


def _reason(said: str) -> Refusal:
    """Return the reason behind what msgspec says of a document's form."""
    if said.startswith("Invalid enum value"):
        return Refusal.UNKNOWN_PLANE if said.endswith("`$.plane`") else Refusal.WRONG_READING
    if " of length " in said:
        return Refusal.TOO_LONG
    if said.startswith(("Number out of range", "Expected `float` ")):
        return Refusal.BAD_NUMBER
    return Refusal.WRONG_TYPE
