"""Verbs of a story about what people order: pauses, approvals, retries, cancellations."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from remediator.engine.events import CommandGiven, Verb
from remediator.replica import Replica


class OrderVerbs:
    """The verb ``order``."""

    alive: dict[str, Replica]
    note: Callable[[str], None]

    async def do_order(
        self,
        verb: str,
        target: str,
        reason: str,
        by: str = "ann",
        lasts_s: float | None = None,
    ) -> None:
        """Give an order to whoever leads, and note the answer where it is refused."""
        lasts = f" for {lasts_s:g} s" if lasts_s is not None else ""
        self.note(f"{by} orders: {verb} {target}{lasts} ({reason})")
        command = CommandGiven(
            id=f"{verb}-{target}-{reason}",
            verb=Verb(verb),
            target=target,
            by=by,
            reason=reason,
            lasts_s=lasts_s,
        )
        for replica in list(self.alive.values()):
            if replica.term is not None:
                with contextlib.suppress(TimeoutError):
                    await replica.term.command(command)
