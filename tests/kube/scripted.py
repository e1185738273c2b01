"""An API server in memory that says exactly what a test's script says, on virtual time."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from remediator.kube.transport import Query, Response, TransportError
from remediator.sim import virtual_time


@dataclass
class Call:
    method: str
    path: str
    query: dict[str, str]
    body: Any
    content_type: str | None
    at: float


@dataclass
class Hang:
    """No answer until the caller's own timeout."""


@dataclass
class Reset:
    """The connection breaks."""


@dataclass
class Wait:
    """Time passes before the next line."""

    seconds: float


@dataclass
class Lines:
    """A streamed answer: bytes are lines; Wait, Hang and Reset happen between them."""

    steps: Sequence[bytes | Wait | Hang | Reset]
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    whole_body: bytes = b""


Answer = Response | Lines | Hang | Reset
Script = Callable[[Call], Answer | Awaitable[Answer]]


def answer(body: Any, status: int = 200, **headers: str) -> Response:
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    names = {name.replace("_", "-").lower(): value for name, value in headers.items()}
    return Response(status=status, headers=names, body=raw)


def status(code: int, reason: str, message: str = "no", **headers: str) -> Response:
    body = {"kind": "Status", "code": code, "reason": reason, "message": message}
    return answer(body, code, **headers)


def node(name: str, version: int | str, uid: str = "") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "uid": uid or f"uid-{name}", "resourceVersion": str(version)}
    }


def page(*items: dict[str, Any], version: int | str, token: str = "") -> Response:
    metadata = {"resourceVersion": str(version), "continue": token}
    return answer({"kind": "List", "metadata": metadata, "items": list(items)})


def event(kind: str, obj: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"type": kind, "object": obj})


def bookmark(version: int | str, *, initial_end: bool = False) -> bytes:
    metadata: dict[str, Any] = {"resourceVersion": str(version)}
    if initial_end:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    return event("BOOKMARK", {"kind": "Node", "metadata": metadata})


def error_event(code: int, reason: str, message: str = "no") -> bytes:
    body = {"kind": "Status", "code": code, "reason": reason, "message": message}
    return event("ERROR", body)


class ScriptedTransport:
    """Implements Transport; asks the script for every answer and remembers every call."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.calls: list[Call] = []
        self.open_streams = 0

    async def _ask(self, call: Call, timeout_s: float) -> Response | Lines:
        self.calls.append(call)
        try:
            async with asyncio.timeout(timeout_s):
                said = self.script(call)
                if isinstance(said, Awaitable):
                    said = await said
                if isinstance(said, Hang):
                    await asyncio.Event().wait()
        except TimeoutError as error:
            raise TransportError("no answer in time") from error
        if isinstance(said, Reset):
            raise TransportError("connection reset")
        assert not isinstance(said, Hang)
        return said

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: bytes | None = None,
        content_type: str | None = None,
        timeout_s: float,
    ) -> Response:
        sent = None if body is None else msgspec.json.decode(body)
        call = Call(method, path, dict(query), sent, content_type, _now())
        said = await self._ask(call, timeout_s)
        assert isinstance(said, Response)
        return said

    @asynccontextmanager
    async def stream(
        self, path: str, *, query: Query = (), connect_timeout_s: float
    ) -> AsyncIterator[ScriptedStream]:
        said = await self._ask(
            Call("WATCH", path, dict(query), None, None, _now()), connect_timeout_s
        )
        self.open_streams += 1
        try:
            yield ScriptedStream(said)
        finally:
            self.open_streams -= 1

    async def close(self) -> None:
        self.script = lambda _: Reset()

    def count(self, method: str) -> int:
        return sum(call.method == method for call in self.calls)


class ScriptedStream:
    def __init__(self, said: Response | Lines) -> None:
        self.status = said.status
        self.headers = said.headers
        self._said = said

    async def lines(self) -> AsyncIterator[bytes]:
        assert isinstance(self._said, Lines)
        for step in self._said.steps:
            if isinstance(step, bytes):
                yield step
            elif isinstance(step, Wait):
                await asyncio.sleep(step.seconds)
            elif isinstance(step, Hang):
                await asyncio.Event().wait()
            else:
                raise TransportError("connection reset by peer")

    async def body(self) -> bytes:
        return self._said.body if isinstance(self._said, Response) else self._said.whole_body


def _now() -> float:
    return asyncio.get_running_loop().time()


def on_virtual_time(test: Callable[..., Any]) -> Callable[..., None]:
    """Run an async test on the virtual-time loop: hours of patience take milliseconds."""

    @functools.wraps(test)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        virtual_time.run(test(*args, **kwargs))

    return wrapper
