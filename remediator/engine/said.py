"""The newest signal per plane, source and aspect of each node: what evidence is made of."""

from __future__ import annotations

from collections.abc import Iterator

from remediator.engine.model import Reading, Signal
from remediator.engine.silence import overtaken

# Sources and aspects on one plane of one node. A node has a handful; more is garbage on the bus,
# which makes place for itself only among what other strangers said, never among what our own
# watchers did (``Signal.by``: the intake leaves it to nobody else).
SAID_MAX = 32


class Said:
    """What one source said last of one aspect of one node. Times are arrivals, on our clock.

    ``firm`` is the last reading that was up or down: no answer takes nothing back.
    """

    __slots__ = (
        "arrived_at",
        "aspect",
        "at",
        "detail",
        "firm",
        "firm_at",
        "firm_since",
        "ours",
        "reading",
        "since",
        "source",
    )

    def __init__(self, source: str, aspect: str) -> None:
        self.source = source
        self.aspect = aspect
        self.at = 0.0  # the source's own clock
        self.arrived_at = float("-inf")
        self.reading = Reading.UNKNOWN
        self.since = 0.0  # when the reading last changed
        self.detail = ""
        self.ours = False
        self.firm = Reading.UNKNOWN
        self.firm_at = 0.0  # when that last arrived
        self.firm_since = 0.0  # the first of an unbroken run of it

    def take(self, signal: Signal, now: float) -> None:
        """Take in a newer signal."""
        if signal.reading is not self.reading or not self.since:
            self.since = now
        self.at, self.arrived_at = signal.at, now
        self.reading, self.detail, self.ours = signal.reading, signal.detail, bool(signal.by)
        if signal.reading is Reading.UNKNOWN:
            return
        if signal.reading is not self.firm:
            self.firm, self.firm_since = signal.reading, now
        self.firm_at = now


class SaidBook:
    """What was said of every node on one plane."""

    def __init__(self) -> None:
        self._nodes: dict[str, dict[tuple[str, str], Said]] = {}

    def take(self, signal: Signal, now: float) -> bool:
        """Take in a signal; True when what its source says has changed.

        False, and nothing is taken in, for a repeated message, for one out of order, and for a
        stranger for whom there is no room.
        """
        key = (signal.source, signal.aspect)
        of_node = self._nodes.setdefault(signal.subject.name, {})
        said = of_node.get(key)
        if said is None:
            if len(of_node) >= SAID_MAX and not _make_room(of_node, ours=bool(signal.by)):
                return False
            said = of_node[key] = Said(*key)
        elif (signal.at == said.at and signal.reading is said.reading) or overtaken(
            signal.at, now, said.at, said.arrived_at
        ):
            return False
        before = (said.reading, said.firm)
        first = said.arrived_at < 0
        said.take(signal, now)
        return first or (said.reading, said.firm) != before

    @property
    def silent(self) -> bool:
        """Whether nothing is known of any node."""
        return not any(self._nodes.values())

    def of(self, node: str) -> Iterator[Said]:
        """Yield what every source says of a node."""
        yield from self._nodes.get(node, {}).values()

    def forget(self, node: str) -> None:
        """Forget a node."""
        self._nodes.pop(node, None)


def _make_room(of_node: dict[tuple[str, str], Said], *, ours: bool) -> bool:
    """Forget what a stranger said, of strangers the one silent for longest; False where none is.

    Where everything is our own, our own oldest makes place, but only for our own.
    """
    oldest = min(of_node, key=lambda each: (of_node[each].ours, of_node[each].arrived_at))
    if of_node[oldest].ours and not ours:
        return False
    del of_node[oldest]
    return True


class Books:
    """One book per plane that is read so."""

    def __init__(self) -> None:
        self.kubelet = SaidBook()  # aspect "" or "Ready", and the types of other conditions
        self.handler = SaidBook()  # aspect "pod"
        self.storage = SaidBook()
        self.power = SaidBook()
        self.machine = SaidBook()

    def forget(self, node: str) -> None:
        """Forget a deleted node."""
        for book in (self.kubelet, self.handler, self.storage, self.power, self.machine):
            book.forget(node)
