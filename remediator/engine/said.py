"""The newest signal per plane, source and aspect of each node: what evidence is made of."""

from __future__ import annotations

from collections.abc import Iterator

from remediator.engine.model import Reading, Signal
from remediator.engine.silence import overtaken

# Sources and aspects on one plane of one node. A node has a handful; more is garbage on the bus.
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
        self.firm = Reading.UNKNOWN
        self.firm_at = 0.0  # when that last arrived
        self.firm_since = 0.0  # the first of an unbroken run of it

    def take(self, signal: Signal, now: float) -> None:
        """Take in a newer signal."""
        if signal.reading is not self.reading or not self.since:
            self.since = now
        self.at, self.arrived_at = signal.at, now
        self.reading, self.detail = signal.reading, signal.detail
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

        False, and nothing is taken in, for a repeated message and for one out of order.
        """
        key = (signal.source, signal.aspect)
        of_node = self._nodes.setdefault(signal.subject.name, {})
        said = of_node.get(key)
        if said is None:
            if len(of_node) >= SAID_MAX:
                del of_node[min(of_node, key=lambda each: of_node[each].arrived_at)]
            said = of_node[key] = Said(*key)
        elif (signal.at == said.at and signal.reading is said.reading) or overtaken(
            signal.at, now, said.at, said.arrived_at
        ):
            return False
        before = (said.reading, said.firm)
        first = said.arrived_at < 0
        said.take(signal, now)
        return first or (said.reading, said.firm) != before

    def of(self, node: str) -> Iterator[Said]:
        """Yield what every source says of a node."""
        yield from self._nodes.get(node, {}).values()

    def forget(self, node: str) -> None:
        """Forget a node."""
        self._nodes.pop(node, None)


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
