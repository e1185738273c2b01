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
PLACES_MAX: Final = 131_072
SPEAKERS_MAX: Final = 16_384

# Odd times, only counted: so far from our clock, or so much further than the source's signal
# before it (its clock was set, or the signal waited).
SKEW_S: Final = 60.0
JUMP_S: Final = 60.0
# A mark of our own watches is of our own clock.
MARK_AHEAD_S: Final = 5.0


class _Speaker:
    """What is remembered of one source on one plane."""

    __slots__ = ("offset_s", "ours", "token")

    def __init__(self, token: str) -> None:
        self.token = token
        self.ours = False  # this process's own watchers or probes speak under this name
        self.offset_s: float | None = None  # its last time less ours


class _Place:
    """What is remembered of one NATS subject, and of the source and aspect heard there last.

    What follows from these three is worked out once: nearly all subjects have one source.
    """

    __slots__ = ("address", "aspect", "by", "closed", "key", "last_at", "source", "speaker")

    def __init__(self, address: Address) -> None:
        self.address = address
        self.source = ""  # none yet: no signal has an empty one
        self.aspect = ""
        self.by = ""  # whose messages alone belong here, where the subject names a process
        self.closed: RefusedError | None = None  # to this source, if it is not ours
        self.key = 0
        self.last_at = 0.0
        self.speaker = _Speaker("")


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
        self._places: dict[str, _Place] = {}
        self._speakers: dict[tuple[str, str], _Speaker] = {}
        self._seen: set[int] = set()
        self._seen_before: set[int] = set()
        self._marked_at: dict[str, float] = {}
        self._untold: dict[tuple[str, str], int] = {}
        self.accepted = 0
        self.duplicates = 0
        self.refused: Counter[Refusal] = Counter()
        self.odd_times: Counter[str] = Counter()

    def take(self, subject: str, payload: bytes) -> Event | None:
        """Return the event of a message, None where it is refused or a repeat. Never raises."""
        now = self._clock.now()
        place = self._places.get(subject)
        try:
            if place is None:
                if not subjects.is_signal(subject):
                    return self._ours(subject, payload, now)
                place = self._place(subject)
            signal = _decoded(payload)
            self._check(place, signal)
        except RefusedError as refused:
            self.refused[refused.reason] += 1
            self._dead_letters.put(subject, payload, refused, now)
            return None
        # Hashes stand for signals. Python salts those of texts for each process, so that nobody
        # can make two that agree; by chance one in 10^14 signals is taken for a repeat.
        seen = hash((place.key, signal.at, id(signal.reading), signal.first))
        if seen in self._seen or seen in self._seen_before:
            self.duplicates += 1
            self._metrics.duplicates.inc()
            return None
        self._seen.add(seen)
        if len(self._seen) >= REMEMBERED:
            self._seen_before, self._seen = self._seen, set()
        self._note_time(place, signal.at, now)
        if signal.by and signal.by != self._origin:
            signal = msgspec.structs.replace(signal, by="")  # to the engine, ours is what has one
        self.accepted += 1
        counted = (place.address.plane_name, signal.reading._value_)
        self._untold[counted] = self._untold.get(counted, 0) + 1
        return SignalSeen(signal=signal)

    def tell_metrics(self) -> None:
        """Count in the metrics what was let in; call it now and then: one by one is dear."""
        for (plane, reading), count in self._untold.items():
            self._metrics.signals(plane, reading, count)
        self._untold.clear()

    # --- signals ----------------------------------------------------------------------------------

    def _place(self, subject: str) -> _Place:
        """Return what a subject says. Raises RefusedError."""
        place = _Place(parse(subject))
        if len(self._places) >= PLACES_MAX:
            self._places.clear()
        self._places[subject] = place
        return place

    def _check(self, place: _Place, signal: Signal) -> None:
        """See that a signal may be believed to be what it says it is. Raises RefusedError."""
        address = place.address
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
        if not f"{signal.detail}{signal.zone}{signal.by}".isprintable():
            text.check(signal)
        if signal.source != place.source or signal.aspect != place.aspect:
            self._meet(place, signal)
        elif place.by and signal.by != place.by:
            raise self._not_of(signal, address)
        if signal.by and signal.by == self._origin:
            place.speaker.ours = True
        elif place.closed is not None:
            raise RefusedError(place.closed.reason, place.closed.why)
        elif place.speaker.ours:
            # Evidence is kept by source: another's word would take the place of our own.
            raise RefusedError(
                Refusal.WRONG_SOURCE, f"{signal.source[:80]!r} is a name of our own on this plane"
            )

    def _meet(self, place: _Place, signal: Signal) -> None:
        """Take up another source or aspect at a place. Raises RefusedError."""
        text.check(signal)
        address, source, aspect = place.address, signal.source, signal.aspect
        speaker = self._speakers.get((address.plane_name, source))
        if speaker is None:
            if len(self._speakers) >= SPEAKERS_MAX:
                self._speakers = {key: each for key, each in self._speakers.items() if each.ours}
            speaker = _Speaker(subjects.tail_token(source))
            self._speakers[address.plane_name, source] = speaker
        by = ""
        if address.source and address.source != speaker.token:
            by = signal.by  # a beat of a process that is named instead of its source
            if not by or address.source != subjects.tail_token(by):
                raise self._not_of(signal, address)
        if address.aspect and not (aspect and address.aspect == subjects.tail_token(aspect)):
            raise RefusedError(
                Refusal.MISMATCH,
                f"the document's aspect is {aspect[:80]!r}, its subject's {address.aspect!r}",
            )
        if address.subject.kind == "vantage" and source != address.subject.name:
            raise RefusedError(
                Refusal.WRONG_SOURCE, "a vantage point's own life is told by nobody else"
            )
        place.by, place.closed = by, None
        if self._sources is not None:
            place.closed = self._sources.judge(address.plane, source, address.subject)
        place.source, place.aspect, place.speaker = source, aspect, speaker
        place.key = hash((address.key, source, aspect))
        place.last_at = signal.at

    def _not_of(self, signal: Signal, address: Address) -> RefusedError:
        return RefusedError(
            Refusal.MISMATCH,
            f"the document is of {signal.source[:80]!r}, its subject of {address.source!r}",
        )

    def _note_time(self, place: _Place, at: float, now: float) -> None:
        """Count what is odd about a source's time; nothing follows from it here."""
        speaker = place.speaker
        offset_s = at - now
        if not -SKEW_S <= offset_s <= SKEW_S:
            self._odd("future" if offset_s > 0 else "past")
        before_s = speaker.offset_s
        if before_s is not None and not -JUMP_S <= offset_s - before_s <= JUMP_S:
            self._odd("jump")
        speaker.offset_s = offset_s
        if at < place.last_at:
            self._odd("out-of-order")
        place.last_at = at

    def _odd(self, oddity: str) -> None:
        self.odd_times[oddity] += 1
        self._metrics.odd_times[oddity].inc()

    # --- facts and marks --------------------------------------------------------------------------

    def _ours(self, subject: str, payload: bytes, now: float) -> Event | None:
        """Return the event of a message that only our own watchers send, None for a repeat.

        Raises RefusedError.
        """
        try:
            event: WireEvent = wire_decoder.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RefusedError(Refusal.BAD_EVENT, str(error)) from error
        if self._origin and event.by != self._origin:
            raise RefusedError(
                Refusal.NOT_OURS, f"sent by {event.by[:80]!r}, not by this process's own watchers"
            )
        if isinstance(event, WatchProgressed):
            own = f"{subjects.PROGRESS}watch.{event.watch}"
            if subject not in (own, f"{own}.{event.by}"):
                raise RefusedError(Refusal.BAD_EVENT, "a mark of progress on another's subject")
            if event.at > now + MARK_AHEAD_S:
                raise RefusedError(Refusal.BAD_EVENT, "a mark of progress from the future")
            if self._origin and self._is_marked(event):
                self.duplicates += 1
                self._metrics.duplicates.inc()
                return None
        elif subject.startswith(subjects.PROGRESS):
            raise RefusedError(Refusal.BAD_EVENT, "no mark of progress")
        self.accepted += 1
        return event

    def _is_marked(self, mark: WatchProgressed) -> bool:
        """Whether a mark of our own says nothing new: our clock does not step backward.

        To the engine an older one would mean that the watch's clock was set back.
        """
        if mark.at <= self._marked_at.get(mark.watch, float("-inf")):
            return True
        self._marked_at[mark.watch] = mark.at
        return False


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
