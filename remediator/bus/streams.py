"""The streams as they shall be, and how they get there.

============  =======  =========================  ==================================================
stream        storage  keeps                      why
============  =======  =========================  ==================================================
HEARTBEATS    memory   newest per subject, 1 h    old beats prove nothing
INVENTORY     memory   newest per subject         republished whenever it is lost
SIGNALS       file     24 h, bounded bytes        changes of state, for a late look
DEAD_LETTERS  file     7 days, 64 MiB             messages that were not let in, and why
DECISIONS     file     everything                 the source of truth; refuses deletion and purge
============  =======  =========================  ==================================================

JetStream discards memory streams when a single server restarts: call ``ensure_all`` again after
each reconnect. Nothing here ever deletes a stream.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import structlog

from remediator.bus import subjects
from remediator.bus.connection import BusConnection, JetStreamError

_log = structlog.get_logger(__name__)

HEARTBEATS = "HEARTBEATS"
INVENTORY = "INVENTORY"
SIGNALS = "SIGNALS"
DEAD_LETTERS = "DEAD_LETTERS"
DECISIONS = "DECISIONS"

_MIB = 1024 * 1024
_SECOND_NS = 1_000_000_000

STREAM_NOT_FOUND = 10059  # nats-server, JSStreamNotFoundErr


class StreamSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The desired state of one stream. Sizes in bytes, -1 for no limit."""

    name: str
    subjects: tuple[str, ...]
    storage: Literal["file", "memory"]
    max_bytes: int = -1
    max_age_s: float = 0.0
    max_msgs_per_subject: int = -1
    max_msg_size: int = -1
    discard: Literal["old", "new"] = "old"
    duplicate_window_s: float = 60.0
    replicas: int = 1
    deny_delete: bool = False
    deny_purge: bool = False
    # Acknowledge before the record is on disk (nats-server 2.12, unreplicated streams only). The
    # embedded server syncs each write, which halves the rate of a stream that need not survive a
    # power loss.
    persist_async: bool = False
    allow_direct: bool = True
    # The daemon works without it: a server that refuses it is no reason to end.
    dispensable: bool = False
    # Without these the stream must not be used: a daemon that acts on a weaker journal lies.
    vital: tuple[str, ...] = ()

    def config(self) -> dict[str, Any]:
        """Return the server's form of it."""
        config: dict[str, Any] = {
            "name": self.name,
            "subjects": list(self.subjects),
            "retention": "limits",
            "storage": self.storage,
            "max_msgs": -1,
            "max_bytes": self.max_bytes,
            "max_age": int(self.max_age_s * _SECOND_NS),
            "max_msgs_per_subject": self.max_msgs_per_subject,
            "max_msg_size": self.max_msg_size,
            "discard": self.discard,
            "duplicate_window": int(self.duplicate_window_s * _SECOND_NS),
            "num_replicas": self.replicas,
            "deny_delete": self.deny_delete,
            "deny_purge": self.deny_purge,
            "allow_direct": self.allow_direct,
        }
        if self.persist_async and self.replicas == 1:
            config["persist_mode"] = "async"
        return config


class Difference(msgspec.Struct, frozen=True):
    """One setting of a stream that was not as desired; ``fixed`` when it is now."""

    field: str
    wanted: Any
    found: Any
    fixed: bool


class StreamReport(msgspec.Struct, frozen=True):
    """What ``ensure`` found and did."""

    name: str
    action: Literal["created", "unchanged", "updated", "differs"]
    differences: tuple[Difference, ...] = ()

    @property
    def unfixed(self) -> tuple[Difference, ...]:
        """What could not be changed; a person has to."""
        return tuple(difference for difference in self.differences if not difference.fixed)


class StreamUnfitError(Exception):
    """A stream lacks what the daemon's promises rest on; the text is one line and says what."""


def desired_streams(*, replicas: int = 1) -> tuple[StreamSpec, ...]:
    """Return the daemon's streams. ``replicas`` holds for those on disk."""
    return (
        StreamSpec(
            name=HEARTBEATS,
            subjects=(subjects.HEARTBEATS_FILTER,),
            storage="memory",
            max_bytes=64 * _MIB,
            max_age_s=3600.0,  # each process beats on subjects of its own
            max_msgs_per_subject=1,
        ),
        StreamSpec(
            name=INVENTORY,
            subjects=(subjects.INVENTORY_FILTER,),
            storage="memory",
            max_bytes=256 * _MIB,  # about 300,000 objects at 600 bytes and NATS's overhead
            max_msgs_per_subject=1,
        ),
        StreamSpec(
            name=SIGNALS,
            subjects=(subjects.SIGNALS_FILTER,),
            storage="file",
            max_bytes=256 * _MIB,
            max_age_s=24 * 3600.0,
            duplicate_window_s=120.0,
            replicas=replicas,
            persist_async=True,
        ),
        StreamSpec(
            name=DEAD_LETTERS,
            subjects=(subjects.DEAD_LETTERS_FILTER,),
            storage="file",
            max_bytes=64 * _MIB,
            max_age_s=7 * 24 * 3600.0,
            replicas=replicas,
            persist_async=True,
            dispensable=True,
        ),
        StreamSpec(
            name=DECISIONS,
            subjects=(subjects.DECISIONS_FILTER,),
            storage="file",
            discard="new",  # a full disk refuses new records, and with them action; it loses none
            duplicate_window_s=120.0,
            replicas=replicas,
            deny_delete=True,
            deny_purge=True,
            vital=(
                "storage",
                "retention",
                "max_msgs",
                "max_bytes",
                "max_age",
                "max_msgs_per_subject",
                "discard",
                "deny_delete",
                "deny_purge",
            ),
        ),
    )


async def ensure_all(connection: BusConnection) -> list[StreamReport]:
    """Bring every stream to its desired state; use it first in ``on_reconnect`` too.

    Raises StreamUnfitError, JetStreamError and BusUnavailableError.
    """
    reports = []
    for spec in desired_streams(replicas=connection.settings.replicas):
        try:
            reports.append(await ensure(connection, spec))
        except JetStreamError as error:
            if not spec.dispensable:
                raise
            _log.warning("stream_refused", stream=spec.name, error=str(error))
    return reports


async def ensure(connection: BusConnection, spec: StreamSpec) -> StreamReport:
    """Create the stream or change what may be changed; never delete it.

    Raises StreamUnfitError when something vital cannot be changed, JetStreamError and
    BusUnavailableError.
    """
    wanted = spec.config()
    try:
        info = await connection.api(f"STREAM.INFO.{spec.name}")
    except JetStreamError as error:
        if error.err_code != STREAM_NOT_FOUND:
            raise
        await connection.api(f"STREAM.CREATE.{spec.name}", wanted)
        _log.info("stream_created", stream=spec.name, storage=spec.storage)
        return StreamReport(spec.name, "created")
    found: dict[str, Any] = info["config"]
    different = _differing(wanted, found)
    if not different:
        return StreamReport(spec.name, "unchanged")
    after = await _change(connection, spec, found, different)
    report = StreamReport(
        spec.name,
        "updated" if after != found else "differs",
        tuple(
            Difference(field, wanted[field], found.get(field), _same(wanted, after, field))
            for field in different
        ),
    )
    _tell(report)
    _check_vital(spec, report)
    return report


async def _change(
    connection: BusConnection, spec: StreamSpec, found: dict[str, Any], different: list[str]
) -> dict[str, Any]:
    """Ask for all differences at once; if the server refuses, one by one. Return what is now."""
    wanted = spec.config()
    try:
        return await _update(connection, {**found, **wanted})
    except JetStreamError as error:
        _log.debug("stream_update_refused", stream=spec.name, error=str(error))
    now = found
    for field in different:
        try:
            now = await _update(connection, {**now, field: wanted[field]})
        except JetStreamError as error:
            _log.debug("stream_field_refused", stream=spec.name, field=field, error=str(error))
    return now


async def _update(connection: BusConnection, config: dict[str, Any]) -> dict[str, Any]:
    answer = await connection.api(f"STREAM.UPDATE.{config['name']}", config)
    updated: dict[str, Any] = answer["config"]
    return updated


def _differing(wanted: dict[str, Any], found: dict[str, Any]) -> list[str]:
    return [field for field in wanted if not _same(wanted, found, field)]


def _same(wanted: dict[str, Any], found: dict[str, Any], field: str) -> bool:
    # The server leaves fields out of its answer that have Go's zero value.
    return bool((wanted[field] or None) == (found.get(field) or None))


def _tell(report: StreamReport) -> None:
    for difference in report.differences:
        tell = _log.info if difference.fixed else _log.warning
        tell(
            "stream_changed" if difference.fixed else "stream_differs",
            stream=report.name,
            field=difference.field,
            wanted=difference.wanted,
            found=difference.found,
        )


def _check_vital(spec: StreamSpec, report: StreamReport) -> None:
    for difference in report.unfixed:
        if difference.field in spec.vital:
            raise StreamUnfitError(
                f"stream {spec.name}: {difference.field} is {difference.found!r}, must be "
                f"{difference.wanted!r}, and the server will not change it"
            )
