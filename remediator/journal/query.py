"""Questions to the projection: filters that combine, newest first, pages by sequence."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

import msgspec

from remediator.engine.chain import Decision
from remediator.engine.model import OutcomeStatus, Verdict
from remediator.journal.links import decode

LIMIT_DEFAULT = 50
LIMIT_MAX = 1000
STORY_MAX = 10_000  # records of one incident that are looked at together


class DecisionQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to look for; every filter that is set must hold.

    ``vm`` is ``NAMESPACE/NAME`` or ``NAME``. ``since`` and ``until`` are epoch seconds. ``text`` is
    words that must all occur. Results come newest first; the next page is ``before_seq`` = the
    last sequence of this one. With ``after_seq`` they come oldest first, for following.
    """

    node: str = ""
    vm: str = ""
    incident: str = ""
    action: str = ""
    outcome: OutcomeStatus | None = None
    verdict: Verdict | None = None
    policy: str = ""
    kind: str = ""
    since: float | None = None
    until: float | None = None
    text: str = ""
    limit: int = LIMIT_DEFAULT
    before_seq: int | None = None
    after_seq: int | None = None


class StoredDecision(msgspec.Struct, frozen=True, kw_only=True):
    """One record as it was stored. ``payload`` is the bytes that the chain is computed over."""

    seq: int
    payload: bytes

    @property
    def decision(self) -> Decision:
        """The record, read from its bytes. Only readable records are stored as decisions."""
        return decode(self.payload, self.seq)


def select(connection: sqlite3.Connection, query: DecisionQuery) -> list[StoredDecision]:
    """Return one page. Raises sqlite3.Error."""
    clauses, values = [], []
    for clause, value in _conditions(query):
        clauses.append(clause)
        values += value
    where = f"WHERE {' AND '.join(clauses)}" if clauses else ""
    order = "ASC" if query.after_seq is not None else "DESC"
    limit = min(max(query.limit, 1), LIMIT_MAX)
    rows = connection.execute(
        # Only fixed text is put together here; every value is bound.
        f"SELECT seq, payload FROM decisions {where} ORDER BY seq {order} LIMIT ?",  # noqa: S608
        [*values, limit],
    )
    return [StoredDecision(seq=seq, payload=payload) for seq, payload in rows]


def get(connection: sqlite3.Connection, seq: int) -> StoredDecision | None:
    """Return one record. Raises sqlite3.Error."""
    row = connection.execute("SELECT payload FROM decisions WHERE seq = ?", [seq]).fetchone()
    return None if row is None else StoredDecision(seq=seq, payload=row[0])


def story(connection: sqlite3.Connection, incident: str) -> list[StoredDecision]:
    """Return an incident's records, oldest first, at most STORY_MAX. Raises sqlite3.Error."""
    found: list[StoredDecision] = []
    question: DecisionQuery | None = story_page(incident)
    while question is not None:
        page = select(connection, question)
        found += page
        question = next_story_page(question, page, len(found))
    return found


def story_page(incident: str) -> DecisionQuery:
    """Return the question for the first page of an incident's records."""
    return DecisionQuery(incident=incident, after_seq=0, limit=LIMIT_MAX)


def next_story_page(
    question: DecisionQuery, page: Sequence[StoredDecision], so_far: int
) -> DecisionQuery | None:
    """Return the question for the page after ``page``, None after the last."""
    if len(page) < LIMIT_MAX or so_far >= STORY_MAX:
        return None
    return msgspec.structs.replace(question, after_seq=page[-1].seq)


def _conditions(query: DecisionQuery) -> Iterator[tuple[str, list[object]]]:
    for column in ("node", "incident", "action", "outcome", "verdict", "policy", "kind"):
        value = getattr(query, column)
        if value:
            # The second half lets SQLite use the partial index, which has no empty strings.
            yield f"{column} = ? AND {column} <> ''", [str(value)]
    if query.since is not None:
        yield "at >= ?", [query.since]
    if query.until is not None:
        yield "at <= ?", [query.until]
    if query.before_seq is not None:
        yield "seq < ?", [query.before_seq]
    if query.after_seq is not None:
        yield "seq > ?", [query.after_seq]
    if query.vm:
        namespace, _, name = query.vm.removeprefix("vm/").rpartition("/")
        mentioned = "seq IN (SELECT seq FROM decision_vms WHERE name = ? AND namespace = ?)"
        anywhere = "seq IN (SELECT seq FROM decision_vms WHERE name = ?)"
        yield (mentioned, [name, namespace]) if namespace else (anywhere, [name])
    words = query.text.replace("\0", " ").split()  # FTS5 ends its input at a NUL
    if words:
        # Quoted, a word is only a word: FTS5's own operators would be syntax errors to people.
        match = " ".join('"' + word.replace('"', '""') + '"' for word in words)
        yield "seq IN (SELECT rowid FROM decisions_text WHERE decisions_text MATCH ?)", [match]
