"""Where somebody else is at work: the facts behind the guard ``hands-off``."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import structlog

from remediator.engine.model import FactKind, HandsOffFacts
from remediator.watchers.outlet import Outlet

log = structlog.get_logger(__name__)


class HandsOffBoard:
    """Remembers, for each object, the nodes that it wants left alone; publishes what changes."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._held: dict[str, dict[str, HandsOffFacts]] = {}
        self._numbers = itertools.count()

    def hold(self, owner: str, facts: Iterable[HandsOffFacts]) -> None:
        """Take in all that an object wants left alone by now; nothing, where it is at rest."""
        now = {each.name: each for each in facts}
        before = self._held.get(owner, {})
        if now:
            self._held[owner] = now
        else:
            self._held.pop(owner, None)
        for name, each in before.items():
            if name not in now:
                log.info("hands_on", node=each.node or "all", by=name)
                self._outlet.gone(FactKind.HANDS_OFF, each, f":{next(self._numbers)}")
        for name, each in now.items():
            if before.get(name) != each:
                log.info("hands_off", node=each.node or "all", by=name, why=each.why)
                self._publish(each)

    def again(self, owner: str) -> None:
        """Offer once more what an object wants left alone."""
        for each in self._held.get(owner, {}).values():
            self._publish(each)

    def _publish(self, facts: HandsOffFacts) -> None:
        # Not the object's version: one version may mean another node once its links are known.
        self._outlet.facts(facts, f"hands-off:{next(self._numbers)}")
