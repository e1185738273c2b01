"""Errors as RFC 9457 problem details, whatever went wrong and wherever."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import msgspec
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

_log = structlog.get_logger(__name__)

CONTENT_TYPE = "application/problem+json"


class ProblemError(Exception):
    """Ends a request with this status; ``detail`` is one sentence for the person who asked."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def problem(status: int, detail: str, *, headers: dict[str, str] | None = None) -> web.Response:
    """Return the answer that tells of an error."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    return web.Response(
        status=status, body=msgspec.json.encode(body), content_type=CONTENT_TYPE, headers=headers
    )


def middleware(*, timeout_s: float) -> Middleware:
    """Return the middleware that limits a request's time and turns errors into problems."""

    @web.middleware
    async def handle(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            async with asyncio.timeout(timeout_s):
                return await handler(request)
        except ProblemError as error:
            return problem(error.status, error.detail)
        except web.HTTPMethodNotAllowed as error:
            allowed = ", ".join(sorted(error.allowed_methods))
            detail = f"{request.method} is not allowed here; allowed: {allowed}"
            return problem(error.status, detail, headers={"Allow": allowed})
        except web.HTTPException as error:
            return problem(error.status, f"{request.path}: {error.reason}")
        except TimeoutError:
            return problem(503, f"no answer within {timeout_s:g} s; try again")
        except Exception:  # noqa: BLE001 - a fault of ours must not leak its text to the client
            _log.exception("request_failed", path=request.path)
            return problem(500, "internal error; the daemon's log has the details")

    return handle
