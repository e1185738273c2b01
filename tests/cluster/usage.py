"""What a process costs: CPU and memory from /proc, its API requests from the audit log."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import msgspec

DAEMON = "system:serviceaccount:remediator:remediator"


class _User(msgspec.Struct):
    username: str = ""


class _Ref(msgspec.Struct):
    resource: str = ""
    subresource: str = ""


class _Audited(msgspec.Struct, rename="camel"):
    stage: str = ""
    verb: str = ""
    user: _User = msgspec.field(default_factory=_User)
    object_ref: _Ref | None = None


_decode = msgspec.json.Decoder(_Audited).decode


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> float:
    """Return a process's resident memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class RequestCount:
    """Counts one user's requests in an audit log from now on, a watch when it begins."""

    def __init__(self, log: Path, user: str = DAEMON) -> None:
        self._log = log
        self._user = user
        self._offset = log.stat().st_size

    def read(self) -> Counter[str]:
        """Return how many requests there were since the beginning, as ``verb resource``."""
        found: Counter[str] = Counter()
        with self._log.open("rb") as log:
            log.seek(self._offset)
            for line in log:
                if self._user.encode() not in line or not line.endswith(b"\n"):
                    continue
                one = _decode(line)
                began = one.stage == (
                    "ResponseStarted" if one.verb == "watch" else "ResponseComplete"
                )
                if one.user.username == self._user and began and one.object_ref is not None:
                    sub = one.object_ref.subresource
                    found[f"{one.verb} {one.object_ref.resource}{'/' + sub if sub else ''}"] += 1
        return found
