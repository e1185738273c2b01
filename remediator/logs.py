"""Logging: JSON lines on stdout for machines, aligned colours on a terminal for people.

Nothing secret is written: values under secret-looking keys, passwords inside URLs, and every value
given to ``register_secret`` are replaced, also inside exception texts and in what libraries log.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, Literal, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, WrappedLogger

from remediator.engine.chain import Decision

REDACTED = "[redacted]"

_SECRET_KEY = re.compile(
    r"passw(?:or)?d|passphrase|secret|(?:^|[_-])token$|authorization|api[_-]?key|private[_-]?key"
    r"|credential|cookie",
    re.IGNORECASE,
)
_PATH_KEY = re.compile(r"(?:_file|_path|_dir|_name)$", re.IGNORECASE)  # names of files, no secrets
_USERINFO = re.compile(r"(?<=://)[^/@\s:]*(?::[^/@\s]*)?(?=@)")
_SHORTEST_SECRET = 4  # shorter ones would blank out ordinary words

_secrets: set[str] = set()

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "json", "console"]


def register_secret(value: str) -> None:
    """Replace ``value`` wherever it would be logged from now on; too short ones are ignored."""
    trimmed = value.strip()
    if len(trimmed) >= _SHORTEST_SECRET:
        _secrets.add(trimmed)


def redact(text: str) -> str:
    """Return ``text`` without registered secrets and without user names and passwords in URLs."""
    if "://" in text:
        text = _USERINFO.sub(REDACTED, text)
    for secret in _secrets:
        if secret in text:
            text = text.replace(secret, REDACTED)
    return text


def _clean(value: object) -> object:
    cleaned: object
    match value:
        case str():
            cleaned = redact(value)
        case bytes():
            cleaned = redact(value.decode("utf-8", "replace"))
        case None | bool() | int() | float():
            cleaned = value
        case Mapping():
            cleaned = {
                key: REDACTED if one and _is_secret_key(str(key)) else _clean(one)
                for key, one in value.items()
            }
        case list() | tuple() | set() | frozenset():
            cleaned = [_clean(one) for one in value]
        case msgspec.Struct():
            cleaned = _clean(msgspec.to_builtins(value))
        case _:
            cleaned = redact(str(value))
    return cleaned


def _is_secret_key(key: str) -> bool:
    return bool(_SECRET_KEY.search(key)) and not _PATH_KEY.search(key)


def _redactor(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {
        key: REDACTED if value and _is_secret_key(key) else _clean(value)
        for key, value in event.items()
    }


_json = msgspec.json.Encoder()


def _render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    # The reader's eye goes to the time, the level and the event first.
    first = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    return _json.encode({**first, **event}).decode()


class _Bridge(logging.Handler):
    """Hands what libraries log through the stdlib to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            extra: dict[str, Any] = {"exc_info": record.exc_info} if record.exc_info else {}
            structlog.get_logger().log(
                record.levelno, "library_log", logger=record.name, text=record.getMessage(), **extra
            )
        except Exception:  # noqa: BLE001 - logging's own contract: a handler never raises
            self.handleError(record)


def configure(
    *, level: Level = "info", form: Format = "auto", stream: TextIO | None = None
) -> None:
    """Set up logging for the whole process; calling it again replaces the set-up.

    ``form`` "auto" is "console" where the stream is a terminal, else "json".
    """
    out = stream or sys.stdout
    console = form == "console" or (form == "auto" and out.isatty())
    number = logging.getLevelNamesMapping()[level.upper()]
    renderer: Any = structlog.dev.ConsoleRenderer(colors=out.isatty()) if console else _render_json
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            _redactor,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(out),
        # Module-level loggers must follow a later configure(), for example a test's.
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in [one for one in root.handlers if isinstance(one, _Bridge)]:
        root.removeHandler(handler)
    root.addHandler(_Bridge())
    root.setLevel(max(number, logging.INFO))
    # One line per HTTP request of a probe every few seconds is noise.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


def log_decision(decision: Decision) -> None:
    """Write the one canonical line of a record that the journal has acknowledged."""
    fields: dict[str, Any] = {
        "seq": decision.seq,
        "kind": str(decision.kind),
        "subject": str(decision.subject),
        "why": decision.why,
        "mode": decision.mode,
        "incident": decision.incident,
        "state": decision.state and str(decision.state),
        "verdict": decision.verdict and str(decision.verdict),
        "row": decision.row,
        "policy": decision.plan.policy if decision.plan else "",
        "action": decision.action.id if decision.action else "",
        "refused_by": [guard.guard for guard in decision.guards if guard.answer != "grant"],
        "leader": decision.leader,
        "epoch": decision.epoch,
        "boot_id": decision.boot_id,
    }
    if decision.outcome is not None:
        fields["action"] = decision.outcome.action_id
        fields["outcome"] = str(decision.outcome.status)
        fields["detail"] = decision.outcome.detail
        fields["took_s"] = round(decision.outcome.finished_at - decision.outcome.started_at, 3)
    proof = decision.proof or (decision.outcome.proof if decision.outcome else None)
    if proof is not None:
        fields["proof"] = str(proof.kind)
    structlog.get_logger(__name__).info(
        "decision", **{key: value for key, value in fields.items() if value not in ("", None, [])}
    )
