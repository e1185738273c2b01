"""What objects say of nodes on one plane: each change of it is published, and nothing else.

A watcher hands over all that an object says now; what is new or different goes out, and what it no
longer says is taken back with ``unknown``. Kept on followers, too: a new leader has to offer it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from remediator.clock import Clock
from remediator.engine.model import Plane, Reading, Signal, node_subject
from remediator.watchers.outlet import Outlet

DETAIL_LIMIT: Final = 200
_TAKEN_BACK: Final = "no longer said"


class Aspect(NamedTuple):
    """What is said something about: a node, and which of several things of it."""

    node: str
    name: str


class Word(NamedTuple):
    """One reading, and why, in few words."""

    reading: Reading
    detail: str


Words = Mapping[Aspect, Word]


class Statements:
    """Remembers what each object said last. ``unknown`` is not kept: it is as good as silence."""

    def __init__(self, plane: Plane, outlet: Outlet, clock: Clock) -> None:
        self._plane = plane
        self._outlet = outlet
        self._clock = clock
        self._said: dict[str, tuple[str, dict[Aspect, Word]]] = {}

    def say(self, speaker: str, source: str, words: Words, *, first: bool = False) -> None:
        """Take in all that an object says by now.

        ``speaker`` identifies the object, ``source`` is its public name; ``first``: this was found,
        not seen to happen.
        """
        before = self._said.get(speaker, ("", {}))[1]
        now = {
            aspect: Word(word.reading, word.detail[:DETAIL_LIMIT])
            for aspect, word in words.items()
            if aspect.node and word.reading is not Reading.UNKNOWN
        }
        if now:
            self._said[speaker] = (source, now)
        else:
            self._said.pop(speaker, None)
        for aspect, word in now.items():
            if before.get(aspect) != word:
                self._publish(source, aspect, word, first=first)
        for aspect in [each for each in before if each not in now]:
            given = words.get(aspect)
            word = Word(Reading.UNKNOWN, given.detail if given else _TAKEN_BACK)
            self._publish(source, aspect, word, first=False)

    def again(self, speaker: str) -> None:
        """Offer once more what an object says, as found."""
        source, words = self._said.get(speaker, ("", {}))
        for aspect, word in words.items():
            self._publish(source, aspect, word, first=True)

    def _publish(self, source: str, aspect: Aspect, word: Word, *, first: bool) -> None:
        if not self._outlet.is_open:
            return
        signal = Signal(
            plane=self._plane,
            source=source,
            subject=node_subject(aspect.node),
            reading=word.reading,
            at=self._clock.now(),
            aspect=aspect.name,
            detail=word.detail,
            first=first,
        )
        self._outlet.signal(signal)
