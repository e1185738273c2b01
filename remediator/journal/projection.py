"""Writing records into the SQLite projection, link by link, in one transaction per batch."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from remediator.bus.protocols import StoredRecord
from remediator.engine.chain import ChainError, Decision, Head, advance
from remediator.journal.links import check_link, decode
from remediator.journal.rows import index_row


class Break(msgspec.Struct, frozen=True):
    """The first bad link of the chain."""

    seq: int
    problem: str


class Progress(msgspec.Struct, frozen=True):
    """How far the projection is, and whether the chain held so far."""

    head: Head
    broken: Break | None


def progress(connection: sqlite3.Connection) -> Progress:
    """Return how far this projection is. Raises sqlite3.Error."""
    meta = dict(connection.execute("SELECT key, value FROM meta"))
    head = (
        Head(seq=int(meta["head_seq"]), digest=meta["head_digest"]) if "head_seq" in meta else None
    )
    broken = (
        Break(int(meta["broken_seq"]), meta["broken_problem"]) if "broken_seq" in meta else None
    )
    return Progress(head or Head(), broken)


def project(connection: sqlite3.Connection, records: Sequence[StoredRecord]) -> Progress:
    """Add records in order, all or none; records that are there already are skipped.

    A broken link stops nothing: what was recorded is never more wanted than when something is
    wrong with the log. The first break is remembered for good, later records are added after it,
    and what cannot be read at all is kept in the table ``unreadable``.
    Raises sqlite3.Error.
    """
    current = progress(connection)
    connection.execute("BEGIN IMMEDIATE")
    try:
        for record in records:
            if record.seq > current.head.seq:
                current = _add(connection, current, record)
        _save(connection, current)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return current


def mark_broken(connection: sqlite3.Connection, broken: Break) -> Progress:
    """Remember a break that is known from elsewhere, unless one is known. Raises sqlite3.Error."""
    current = progress(connection)
    if current.broken is None:
        current = Progress(current.head, broken)
        _save(connection, current)
    return current


def _add(connection: sqlite3.Connection, current: Progress, record: StoredRecord) -> Progress:
    decision: Decision | None
    broken = current.broken
    try:
        head, decision = check_link(current.head, record.seq, record.payload)
    except ChainError as error:
        broken = broken or Break(error.seq, error.problem)
        head = advance(record.payload, record.seq)
        try:
            decision = decode(record.payload, record.seq)
        except ChainError as unreadable:
            decision = None
            connection.execute(
                "INSERT OR REPLACE INTO unreadable VALUES (?, ?, ?)",
                [record.seq, unreadable.problem, record.payload],
            )
    if decision is not None:
        _insert(connection, record, decision)
    return Progress(head, broken)


def _insert(connection: sqlite3.Connection, record: StoredRecord, decision: Decision) -> None:
    row = index_row(decision)
    node, policy = row.node, row.policy
    if row.incident:
        # Records about a VM do not name the dead node, nor later ones the policy.
        connection.execute(
            "INSERT INTO incidents VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
            " node = CASE WHEN node = '' THEN excluded.node ELSE node END,"
            " policy = CASE WHEN excluded.policy <> '' THEN excluded.policy ELSE policy END",
            [row.incident, node, policy],
        )
        known = connection.execute(
            "SELECT node, policy FROM incidents WHERE id = ?", [row.incident]
        ).fetchone()
        node, policy = node or known[0], policy or known[1]
    connection.execute(
        "INSERT INTO decisions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            record.seq,  # the stream's, not the record's own claim: they differ in a broken chain
            row.at,
            row.kind,
            row.subject,
            row.incident,
            row.state,
            row.verdict,
            node,
            row.action,
            row.outcome,
            policy,
            record.payload,
        ],
    )
    connection.executemany(
        "INSERT OR IGNORE INTO decision_vms VALUES (?, ?, ?)",
        [(name, namespace, record.seq) for namespace, name in row.vms],
    )
    connection.execute(
        "INSERT INTO decisions_text (rowid, text) VALUES (?, ?)", [record.seq, row.text]
    )


def _save(connection: sqlite3.Connection, current: Progress) -> None:
    meta = {"head_seq": str(current.head.seq), "head_digest": current.head.digest}
    if current.broken is not None:
        meta |= {"broken_seq": str(current.broken.seq), "broken_problem": current.broken.problem}
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta.items())
