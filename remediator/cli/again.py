"""``remediator decisions again``: one decision, made again from what its record holds."""

from __future__ import annotations

import typing
from collections.abc import Iterator

if typing.TYPE_CHECKING:
    from remediator.engine.chain import Decision
    from remediator.engine.reevaluate import Again


def text_of(decision: Decision, again: Again) -> Iterator[str]:
    """Yield what was made again, line by line, and where it differs."""
    from remediator.engine.reevaluate import differences  # noqa: PLC0415 - not for --help

    yield f"Decision {decision.seq}, {decision.kind} {decision.subject}, made again from its record"
    if again.judged is not None:
        row = again.judged.row or "none has fitted for long enough"
        yield f"  verdict  {again.judged.verdict}, by row {row}"
    if again.answer is not None:
        from remediator.journal.backtest import describe  # noqa: PLC0415 - not for --help

        yield f"  policy   {describe(again.answer)}"
    if again.guards is not None:
        withheld = [row.guard for row in again.guards if row.answer != "grant"]
        said = f"withheld by {', '.join(withheld)}" if withheld else "all grant"
        yield f"  guards   {len(again.guards)} asked again: {said}"
    for guard in again.untold:
        yield f"  guard {guard} keeps nothing of what it saw: it cannot be asked again"
    if again.judged is None and again.answer is None and again.guards is None:
        omitted = decision.inputs.omitted if decision.inputs is not None else ""
        why = omitted or "it weighs nothing, or an older version wrote it"
        yield f"  It holds no inputs: {why}"
        return
    apart = differences(decision, again)
    yield from (f"  DIFFERS  {what}" for what in apart)
    if not apart:
        yield "The same decision."
