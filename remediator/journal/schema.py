"""The SQLite file: its tables, and what happens to a file that is not one of ours or is damaged."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import structlog

_log = structlog.get_logger(__name__)

VERSION = 1  # PRAGMA user_version; any other version is rebuilt, never migrated: NATS has the truth
APPLICATION_ID = 0x52454D44  # "REMD"; PRAGMA application_id tells our files from other programs'
BUSY_TIMEOUT_S = 5.0

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE decisions (
    seq INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    incident TEXT NOT NULL,
    state TEXT NOT NULL,
    verdict TEXT NOT NULL,
    node TEXT NOT NULL,
    action TEXT NOT NULL,
    outcome TEXT NOT NULL,
    policy TEXT NOT NULL,
    payload BLOB NOT NULL
);
CREATE INDEX decisions_at ON decisions (at, seq);
CREATE INDEX decisions_kind ON decisions (kind, seq);
CREATE INDEX decisions_node ON decisions (node, seq) WHERE node <> '';
CREATE INDEX decisions_incident ON decisions (incident, seq) WHERE incident <> '';
CREATE INDEX decisions_verdict ON decisions (verdict, seq) WHERE verdict <> '';
CREATE INDEX decisions_action ON decisions (action, seq) WHERE action <> '';
CREATE INDEX decisions_outcome ON decisions (outcome, seq) WHERE outcome <> '';
CREATE INDEX decisions_policy ON decisions (policy, seq) WHERE policy <> '';
CREATE TABLE decision_vms (
    name TEXT NOT NULL,
    namespace TEXT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (name, namespace, seq)
) WITHOUT ROWID;
CREATE TABLE incidents (
    id TEXT PRIMARY KEY,
    node TEXT NOT NULL DEFAULT '',
    policy TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE TABLE unreadable (seq INTEGER PRIMARY KEY, problem TEXT NOT NULL, payload BLOB NOT NULL);
CREATE VIRTUAL TABLE decisions_text USING fts5(text, content='');
"""


class StoreError(Exception):
    """The SQLite file cannot be used; the text names the file and says what to do."""


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Open the projection, making it where it is missing.

    A damaged file, or one of another version, is moved aside as ``NAME.corrupt-N`` and a new one
    is begun: the projector fills it from NATS.
    Raises StoreError: another program's database, or a directory that cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        problem = _problem(path)
        if problem:
            aside = move_aside(path)
            _log.warning("projection_moved_aside", path=str(path), to=str(aside), why=problem)
        connection = _connect(str(path))
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # a lost tail is projected again
        if _number(connection, "user_version") == 0:
            _create(connection)
        return connection
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{path}: cannot be used as the journal's SQLite file: {error}") from error


def open_for_reading(path: Path) -> sqlite3.Connection:
    """Open an existing projection without ever changing it. Raises StoreError."""
    if not path.is_file():
        raise StoreError(f"{path}: there is no such file")
    try:
        connection = _connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        version = _number(connection, "user_version")
        ours = _number(connection, "application_id") == APPLICATION_ID
    except sqlite3.Error as error:
        raise StoreError(f"{path}: cannot be read: {error}") from error
    if not ours or version != VERSION:
        connection.close()
        what = f"version {version}, not {VERSION}" if ours else "not a remediator journal file"
        raise StoreError(f"{path}: {what}")
    return connection


def open_in_memory() -> sqlite3.Connection:
    """Open an empty projection that lives as long as the connection."""
    connection = _connect(":memory:")
    _create(connection)
    return connection


def move_aside(path: Path) -> Path:
    """Rename the file, with its write-ahead log, to the first free ``NAME.corrupt-N``."""
    number = 1
    while (aside := path.with_name(f"{path.name}.corrupt-{number}")).exists():
        number += 1
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        beside = path.with_name(path.name + suffix)
        with contextlib.suppress(FileNotFoundError):
            beside.rename(aside.with_name(aside.name + suffix))
    return aside


def _connect(database: str, *, uri: bool = False) -> sqlite3.Connection:
    # isolation_level None: transactions are written out (BEGIN, COMMIT), never implied.
    # check_same_thread: opened on one thread of a pool of one, closed on another at the end.
    return sqlite3.connect(
        database, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, uri=uri
    )


def _create(connection: sqlite3.Connection) -> None:
    connection.executescript(
        f"BEGIN;{_TABLES}PRAGMA application_id = {APPLICATION_ID};"
        f"PRAGMA user_version = {VERSION};COMMIT;"
    )


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])


def _problem(path: Path) -> str:
    """Return why an existing file cannot serve, "" when it can. Raises StoreError if not ours."""
    if not path.exists() or path.stat().st_size == 0:
        return ""
    try:
        with contextlib.closing(_connect(str(path))) as connection:
            version = _number(connection, "user_version")
            owner = _number(connection, "application_id")
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if owner != APPLICATION_ID and tables:
                raise StoreError(
                    f"{path}: is another program's database; choose another journal.path"
                )
            if owner == APPLICATION_ID and version != VERSION:
                return f"version {version}, this program writes {VERSION}"
            verdict = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
            return "" if verdict == "ok" else f"damaged: {verdict}"
    except sqlite3.OperationalError:
        raise  # locked or unreadable: says nothing about the file's health
    except sqlite3.DatabaseError as error:
        return f"damaged: {error}"
