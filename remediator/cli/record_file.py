"""Reading decisions from a file that somebody exported: JSON Lines, or one JSON array."""

from __future__ import annotations

import itertools
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from remediator.bus.protocols import StoredRecord
from remediator.cli.entry import CommandError
from remediator.exit_codes import ExitCode

_STDIN = "-"


class _Numbered(msgspec.Struct):
    """As much of a record as tells which one it is."""

    seq: int


class RecordFile:
    """Records as ``decisions export`` writes them, or as ``decisions list -o json`` does.

    A line that is no record is passed on as it is, under the sequence after the last one, so that
    whoever reads it can say so.
    """

    def __init__(self, path: Path) -> None:
        self.name = "stdin" if str(path) == _STDIN else str(path)
        self._path = path

    async def walk(self) -> AsyncIterator[StoredRecord]:
        """Yield every record, in the file's order."""
        last = 0
        for payload in self._payloads():
            last = _seq_of(payload, last + 1)
            yield StoredRecord(last, "", payload)

    async def last_seq(self) -> int:
        """Return 0: how much there is shows only when it was read."""
        return 0

    def _payloads(self) -> Iterator[bytes]:
        try:
            if str(self._path) == _STDIN:
                yield from _split(sys.stdin.buffer)
                return
            with self._path.open("rb") as file:
                yield from _split(file)
        except OSError as error:
            raise CommandError(ExitCode.USAGE, f"{self.name}: {error.strerror or error}") from error


def _split(file: BinaryIO) -> Iterator[bytes]:
    first = file.readline()
    if not first.lstrip().startswith(b"["):
        for line in itertools.chain((first,), file):
            if line.strip():
                yield line.strip()
        return
    try:
        records = msgspec.json.decode(first + file.read(), type=list[msgspec.Raw])
    except msgspec.DecodeError as error:
        raise CommandError(ExitCode.USAGE, f"neither JSON Lines nor an array: {error}") from error
    yield from (bytes(record) for record in records)


def _seq_of(payload: bytes, otherwise: int) -> int:
    try:
        return msgspec.json.decode(payload, type=_Numbered).seq
    except (msgspec.DecodeError, UnicodeDecodeError):
        return otherwise
