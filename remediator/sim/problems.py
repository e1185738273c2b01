"""The API server's refusals: each becomes a ``Status`` body (apimachinery ``api/errors``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from remediator.sim.resources import ResourceType


class Problem(Exception):  # noqa: N818 - a refusal is an answer here, not a fault of the program
    """A request that the API server refuses.

    ``status`` is the HTTP status, ``reason`` the machine-readable word clients switch on,
    ``details`` the Status object's details, ``headers`` further answer headers (Retry-After).
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.details = dict(details or {})
        self.metadata = dict(metadata or {})
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Return the Status object."""
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.metadata,
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            body["reason"] = self.reason
        if self.details:
            body["details"] = self.details
        body["code"] = self.status
        return body


def _details(res: ResourceType, name: str) -> dict[str, Any]:
    details: dict[str, Any] = {"name": name} if name else {}
    if res.group:
        details["group"] = res.group
    details["kind"] = res.plural
    return details


def not_found(res: ResourceType, name: str) -> Problem:
    """404: no such object."""
    message = f'{res.group_resource} "{name}" not found'
    return Problem(404, "NotFound", message, details=_details(res, name))


def already_exists(res: ResourceType, name: str, *, deleting: bool) -> Problem:
    """409: create of an object that is there."""
    message = f'{res.group_resource} "{name}" already exists'
    if deleting:
        message = f"object is being deleted: {message}"
    return Problem(409, "AlreadyExists", message, details=_details(res, name))


def conflict(res: ResourceType, name: str, why: str) -> Problem:
    """409: a precondition (resourceVersion, UID) does not hold."""
    message = f'Operation cannot be fulfilled on {res.group_resource} "{name}": {why}'
    return Problem(409, "Conflict", message, details=_details(res, name))


def stale(res: ResourceType, name: str) -> Problem:
    """409: the object has changed since the version that the request was based on."""
    return conflict(
        res,
        name,
        "the object has been modified; please apply your changes to the latest version and try "
        "again",
    )


def invalid(res: ResourceType, name: str, causes: Sequence[tuple[str, str, str]]) -> Problem:
    """422: the object breaks a rule. ``causes`` are (reason, field, what is wrong)."""
    texts = [f"{field}: {text}" for _, field, text in causes]
    listed = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    details = _details(res, name)
    details["kind"] = res.kind
    details["causes"] = [
        {"reason": reason, "message": text, "field": field} for reason, field, text in causes
    ]
    kind = f"{res.kind}.{res.group}" if res.group else res.kind
    return Problem(422, "Invalid", f'{kind} "{name}" is invalid: {listed}', details=details)


def bad_request(message: str) -> Problem:
    """400: the request cannot be understood."""
    return Problem(400, "BadRequest", message)


def expired(message: str, *, continue_token: str = "") -> Problem:
    """410: the asked-for version is gone; list again."""
    metadata = {"continue": continue_token} if continue_token else {}
    return Problem(410, "Expired", message, metadata=metadata)


def forbidden(res: ResourceType, name: str, why: str) -> Problem:
    """403: admission refuses."""
    message = f'{res.group_resource} "{name}" is forbidden: {why}'
    return Problem(403, "Forbidden", message, details=_details(res, name))


def too_many_requests(message: str, *, retry_after_s: int | None = None) -> Problem:
    """429: come back later."""
    headers = {} if retry_after_s is None else {"retry-after": str(retry_after_s)}
    details = {} if retry_after_s is None else {"retryAfterSeconds": retry_after_s}
    return Problem(429, "TooManyRequests", message, details=details, headers=headers)
