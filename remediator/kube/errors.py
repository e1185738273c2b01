"""What the API server's refusals mean, told from whatever it (or a proxy before it) answered.

Every error is built from one whole ``Response``, or from a ``Status`` object found inside a watch.
Bodies are never carried along: the message is capped, and a body that is not a ``Status`` is named
by its kind and size, because an HTML page in a log line helps nobody.
"""

from __future__ import annotations

import email.utils
import re
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from remediator.kube.transport import Response

_MESSAGE_LIMIT = 400  # characters; a long admission webhook message still fits a log line
_SAMPLE_LIMIT = 80  # characters shown of a body that is not a Status


class ApiError(Exception):
    """The API server answered, and the answer is no.

    ``status`` is the HTTP status (or ``Status.code`` in a watch), ``reason`` the API's
    machine-readable reason ("" when there was none), ``retry_after_s`` how long the server asks us
    to stay away, None when it does not say.
    """

    def __init__(
        self, status: int, reason: str, message: str, retry_after_s: float | None = None
    ) -> None:
        super().__init__(f"{status} {reason}: {message}" if reason else f"{status}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after_s = retry_after_s


class BadRequestError(ApiError):
    """400: the request makes no sense to this server (an older version, or our mistake)."""


class UnauthorizedError(ApiError):
    """401: the token is missing, expired or unknown."""


class ForbiddenError(ApiError):
    """403: RBAC, or an admission plugin, does not allow it."""


class NotFoundError(ApiError):
    """404: no such object, or no such resource (its CRD is not installed)."""


class ConflictError(ApiError):
    """409: somebody else wrote first, or a precondition (uid, resourceVersion) does not hold."""


class AlreadyExistsError(ConflictError):
    """409 with reason AlreadyExists: an object of this name is there."""


class GoneError(ApiError):
    """410: the resourceVersion or the continue token is too old; list anew."""


class InvalidError(ApiError):
    """422: the object or the patch is not valid (also: a JSON patch ``test`` that failed)."""


class TooManyRequestsError(ApiError):
    """429: priority and fairness, a storage that initializes, or an eviction that must wait."""


class ServerError(ApiError):
    """5xx: the server, or a proxy before it, is in trouble. Whether a write happened is unknown."""


class UnreadableAnswerError(ApiError):
    """The status says success, the body is not what was asked for (often a proxy's page)."""


_BY_STATUS: Mapping[int, type[ApiError]] = {
    400: BadRequestError,
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
    422: InvalidError,
    429: TooManyRequestsError,
}


class StatusDetails(msgspec.Struct, frozen=True, rename="camel"):
    """``Status.details``, narrowed."""

    retry_after_seconds: float | None = None


class Status(msgspec.Struct, frozen=True):
    """``v1.Status``: the body of a refusal, and the object of a watch's ERROR event."""

    kind: str | None = None
    code: int | None = None
    reason: str | None = None
    message: str | None = None
    details: StatusDetails | None = None


_status_decoder = msgspec.json.Decoder(Status)


def raise_for(response: Response, method: str, path: str) -> None:
    """Raise the fitting ApiError unless the answer is a success (2xx)."""
    if not 200 <= response.status < 300:
        raise error_from(response, method, path)


def error_from(response: Response, method: str, path: str) -> ApiError:
    """Return the error that a refused request means. ``method`` and ``path`` go in the message."""
    status = _parse_status(response.body)
    retry_after_s = retry_after(response.headers)
    if status is None:
        message = describe_body(response.body)
        return _build(response.status, "", f"{method} {path}: {message}", retry_after_s)
    if retry_after_s is None and status.details is not None:
        retry_after_s = status.details.retry_after_seconds
    message = f"{method} {path}: {_cap(status.message or 'no message', _MESSAGE_LIMIT)}"
    return _build(response.status, status.reason or "", message, retry_after_s)


def error_from_status(status: Status, method: str, path: str) -> ApiError:
    """Return the error that a ``Status`` inside a watch means; a missing code counts as 500."""
    code = status.code or 500
    if status.reason in {"Expired", "Gone"}:
        code = 410
    retry_after_s = status.details.retry_after_seconds if status.details else None
    message = f"{method} {path}: {_cap(status.message or 'no message', _MESSAGE_LIMIT)}"
    return _build(code, status.reason or "", message, retry_after_s)


def unreadable(response: Response, method: str, path: str, why: str) -> UnreadableAnswerError:
    """Return the error for a success whose body could not be decoded."""
    message = f"{method} {path}: {_cap(why, _SAMPLE_LIMIT)}; got {describe_body(response.body)}"
    return UnreadableAnswerError(response.status, "Unreadable", message)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for; None when absent or unreadable.

    A date is measured from the answer's own ``Date`` header, so that no clock of ours, and no
    difference between the clocks, comes in. Never negative.
    """
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
        return float(text)
    until, since = _http_date(text), _http_date(headers.get("date", ""))
    if until is None or since is None:
        return None
    return max(0.0, (until - since).total_seconds())


def describe_body(body: bytes) -> str:
    """Name a body that is not a ``Status``: its kind, its size, a short sample."""
    if not body.strip():
        return "an empty body"
    text = body[:4096].decode("utf-8", errors="replace")
    if re.match(r"\s*<(!doctype|html|\?xml|head|body)", text, re.IGNORECASE):
        title = re.search(r"<title>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        said = f" titled {_cap(title.group(1), _SAMPLE_LIMIT)!r}" if title else ""
        return f"an HTML page of {len(body)} bytes{said}"
    return f"{len(body)} bytes that are no Status, beginning {_cap(text, _SAMPLE_LIMIT)!r}"


def _parse_status(body: bytes) -> Status | None:
    try:
        status = _status_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return status if status.kind == "Status" or status.message else None


def _build(status: int, reason: str, message: str, retry_after_s: float | None) -> ApiError:
    kind = _BY_STATUS.get(status, ServerError if status >= 500 else ApiError)
    if kind is ConflictError and reason == "AlreadyExists":
        kind = AlreadyExistsError
    return kind(status, _cap(reason, _SAMPLE_LIMIT), message, retry_after_s)


def _cap(text: str, limit: int) -> str:
    """Put a text on one line of at most ``limit`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[:limit]}… ({len(line)} characters)"


def _http_date(text: str) -> datetime | None:
    try:
        parsed = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    # "-0000" and some sloppy servers give no zone; HTTP dates are GMT by definition (RFC 9110).
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)
