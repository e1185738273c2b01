"""From a URL's query to a typed question; everything that is not understood is refused by name."""

from __future__ import annotations

from typing import Any

from multidict import MultiMapping

from remediator.api.problems import ProblemError
from remediator.durations import parse_moment
from remediator.journal.query import LIMIT_MAX, DecisionQuery
from remediator.typed_tree import convert, dotted

SEQ_MAX = 2**63 - 1  # what SQLite and JetStream can count to


def read_query(given: MultiMapping[str], now: float) -> DecisionQuery:
    """Return the question. Raises ProblemError (400) with all that is wrong with it."""
    values: dict[str, Any] = {}
    faults = [f"{key} is given twice" for key in set(given) if len(given.getall(key)) > 1]
    for key, text in given.items():
        if key == "raw":
            continue
        values[key] = text
        if key in {"since", "until"}:
            try:
                values[key] = parse_moment(text, now)
            except ValueError as error:
                faults.append(f"{key}: {error}")
                values[key] = 0.0
    query, problems = convert(values, DecisionQuery, lax=True)
    faults += [": ".join((dotted(one.path), one.text)) for one in problems]
    if query is not None:
        faults += _out_of_range(query)
    if query is None or faults:
        raise ProblemError(400, "; ".join(faults))
    return query


def _out_of_range(query: DecisionQuery) -> list[str]:
    faults = []
    if not 1 <= query.limit <= LIMIT_MAX:
        faults.append(f"limit: {query.limit} is not between 1 and {LIMIT_MAX}")
    for name in ("before_seq", "after_seq"):
        seq = getattr(query, name)
        if seq is not None and not 0 <= seq <= SEQ_MAX:
            faults.append(f"{name}: {seq} is not a sequence")
    return faults


def read_flag(given: MultiMapping[str], name: str) -> bool:
    """Return a boolean parameter, false where it is not given. Raises ProblemError (400)."""
    text = given.get(name, "false")
    if text not in {"true", "false"}:
        raise ProblemError(400, f"{name}: write true or false")
    return text == "true"


def read_seq(text: str) -> int:
    """Return a sequence from a path. Raises ProblemError (400)."""
    if not (text.isascii() and text.isdigit() and int(text[:20]) <= SEQ_MAX and len(text) < 20):
        raise ProblemError(400, f"{text[:40]!r} is not a decision's sequence; write a number")
    return int(text)
