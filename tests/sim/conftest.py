"""The API behaviour suite's client: the same requests over memory, over HTTP, and at a cluster.

``REMEDIATOR_CONFORMANCE_KUBECONFIG=FILE`` adds a real API server to the faces that the ``api``
fixture runs every test on; tests that need the simulation's inside take ``simulated`` instead.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import ssl
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from remediator.kube.transport import LineStream, Query, Response, Transport, TransportError
from remediator.sim.api_faults import ApiFaults
from remediator.sim.apiserver import ApiServer
from remediator.sim.http_server import serve
from remediator.sim.memory_transport import MemoryTransport
from remediator.sim.resources import Registry
from remediator.sim.store import Store

Obj = dict[str, Any]
DEADLINE_S = 10.0
KUBECONFIG = os.environ.get("REMEDIATOR_CONFORMANCE_KUBECONFIG")
FACES = ["memory", "http", *(["cluster"] if KUBECONFIG else [])]
MERGE_PATCH = "application/merge-patch+json"


class AiohttpTransport:
    """The simplest Transport over real sockets."""

    def __init__(self, url: str, client_name: str, token: str | None = None, ca: str | None = None):
        self.url = url
        self.headers = {"user-agent": client_name}
        if token is not None:
            self.headers["authorization"] = f"Bearer {token}"
        trusted = True if ca is None else ssl.create_default_context(cafile=ca)
        self.session = aiohttp.ClientSession(
            auto_decompress=True, connector=aiohttp.TCPConnector(ssl=trusted)
        )

    async def request(
        self, method, path, *, query: Query = (), body=None, content_type=None, timeout_s
    ) -> Response:
        headers = dict(self.headers)
        if content_type is not None:
            headers["content-type"] = content_type
        try:
            async with (
                asyncio.timeout(timeout_s),
                self.session.request(
                    method,
                    self.url + path,
                    params=list(query),
                    data=body,
                    headers=headers,
                    skip_auto_headers=["content-type"],
                ) as answer,
            ):
                read = await answer.read()
                return Response(status=answer.status, headers=lower(answer.headers), body=read)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise TransportError(str(error) or "timed out") from error

    @asynccontextmanager
    async def stream(self, path, *, query: Query = (), connect_timeout_s):
        timeout = aiohttp.ClientTimeout(total=None)
        try:
            async with asyncio.timeout(connect_timeout_s):
                answer = await self.session.get(
                    self.url + path, params=list(query), headers=self.headers, timeout=timeout
                )
        except (aiohttp.ClientError, TimeoutError) as error:
            raise TransportError(str(error) or "timed out") from error
        try:
            yield AiohttpLines(answer)
        finally:
            answer.close()

    async def close(self):
        await self.session.close()


class AiohttpLines:
    def __init__(self, answer: aiohttp.ClientResponse):
        self.answer = answer
        self.status = answer.status
        self.headers = lower(answer.headers)

    async def lines(self):
        try:
            while line := await self.answer.content.readline():
                if not line.endswith(b"\n"):
                    return
                yield line[:-1]
        except aiohttp.ClientError as error:
            raise TransportError(str(error)) from error

    async def body(self) -> bytes:
        return await self.answer.read()


def lower(headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


class Reply:
    """One answer: its status, its headers and its decoded body."""

    def __init__(self, response: Response):
        self.status = response.status
        self.headers = response.headers
        self.raw = response.body
        is_json = response.headers.get("content-type", "").startswith("application/json")
        self.body: Any = json.loads(response.body) if is_json and response.body else None

    def __repr__(self) -> str:
        return f"{self.status} {self.raw!r}"

    @property
    def version(self) -> str:
        return self.body["metadata"]["resourceVersion"]

    @property
    def names(self) -> list[str]:
        return [item["metadata"]["name"] for item in self.body["items"]]


class Watch:
    """An open watch with a deadline on every read."""

    def __init__(self, stream: LineStream):
        self.stream = stream
        self.status = stream.status
        self._lines = stream.lines()

    async def line(self) -> bytes:
        async with asyncio.timeout(DEADLINE_S):
            return await anext(self._lines)

    async def event(self) -> tuple[str, Obj]:
        decoded = json.loads(await self.line())
        return decoded["type"], decoded["object"]

    async def seen(self) -> tuple[str, str]:
        """Return the next event's type and its object's name."""
        kind, obj = await self.event()
        return kind, obj["metadata"].get("name", "")

    async def rest(self) -> int:
        """Read to the end and return how many lines there were."""
        count = 0
        async with asyncio.timeout(DEADLINE_S):
            async for _ in self._lines:
                count += 1
        return count

    async def end(self) -> None:
        """Wait for the end; fails when an event comes instead."""
        with pytest.raises(StopAsyncIteration):
            await self.line()


class Api:
    """A client with a namespace of its own."""

    def __init__(self, transport: Transport, namespace: str):
        self.transport = transport
        self.namespace = namespace
        core = f"/api/v1/namespaces/{namespace}"
        self.pods = f"{core}/pods"
        self.config_maps = f"{core}/configmaps"
        self.leases = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self.vms = f"/apis/kubevirt.io/v1/namespaces/{namespace}/virtualmachines"
        self.vmis = f"/apis/kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstances"

    @staticmethod
    def config_map(name: str, labels: dict[str, str] | None = None, **data: str) -> Obj:
        return {"metadata": {"name": name, "labels": labels or {}}, "data": data}

    @staticmethod
    def pod(name: str, **spec: Any) -> Obj:
        containers = [{"name": "compute", "image": "registry.invalid/launcher:1"}]
        return {"metadata": {"name": name}, "spec": {"containers": containers, **spec}}

    @staticmethod
    def unique(prefix: str) -> str:
        """Return a name for an object outside any namespace."""
        return f"{prefix}-{uuid.uuid4().hex[:8]}"

    async def call(
        self, method: str, path: str, obj: Any = None, *, content_type=None, **query: str
    ) -> Reply:
        body = obj if isinstance(obj, bytes) else None if obj is None else json.dumps(obj).encode()
        if content_type is None and body is not None:
            content_type = "application/json"
        return Reply(
            await self.transport.request(
                method,
                path,
                query=tuple(query.items()),
                body=body,
                content_type=content_type,
                timeout_s=DEADLINE_S,
            )
        )

    async def get(self, path: str, **query: str) -> Reply:
        return await self.call("GET", path, **query)

    async def post(self, path: str, obj: Any, **query: str) -> Reply:
        return await self.call("POST", path, obj, **query)

    async def put(self, path: str, obj: Any, **query: str) -> Reply:
        return await self.call("PUT", path, obj, **query)

    async def patch(self, path: str, obj: Any, kind: str = MERGE_PATCH, **query: str) -> Reply:
        return await self.call("PATCH", path, obj, content_type=kind, **query)

    async def delete(self, path: str, options: Any = None, **query: str) -> Reply:
        return await self.call("DELETE", path, options, **query)

    async def made(self, path: str, obj: Obj) -> Obj:
        """Create an object that must be accepted."""
        reply = await self.post(path, obj)
        assert reply.status == 201, reply
        return reply.body

    async def bound_pod(self, name: str, node: str = "n1", **spec: Any) -> Obj:
        """Create a pod and bind it, as the scheduler does."""
        await self.made(self.pods, self.pod(name, **spec))
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name},
            "target": {"kind": "Node", "name": node},
        }
        reply = await self.post(f"{self.pods}/{name}/binding", binding)
        assert reply.status == 201, reply
        return (await self.get(f"{self.pods}/{name}")).body

    @asynccontextmanager
    async def watch(self, path: str, **query: str) -> AsyncIterator[Watch]:
        options = (("watch", "true"), *query.items())
        async with self.transport.stream(
            path, query=options, connect_timeout_s=DEADLINE_S
        ) as stream:
            yield Watch(stream)


class Simulated:
    """The inside of a simulated server, and clients of it on one face."""

    def __init__(self, face: str, stack: AsyncExitStack):
        loop = asyncio.get_running_loop()
        self.face = face
        self.stack = stack
        self.faults = ApiFaults()
        self.store = Store(
            now=lambda: 1_800_000_000.0 + loop.time(), rng=random.Random(1), history=100
        )
        self.registry = Registry()
        self.server = ApiServer(self.store, self.registry, faults=self.faults)
        self.url = ""
        stack.callback(self.server.close)

    async def client(self, name: str) -> Api:
        transport: Transport
        if self.face == "memory":
            transport = MemoryTransport(self.server, client_name=name)
        else:
            if not self.url:
                self.url, close = await serve(self.server)
                self.stack.push_async_callback(close)
            transport = AiohttpTransport(self.url, name)
        self.stack.push_async_callback(transport.close)
        return Api(transport, "default")


def cluster_access(kubeconfig: str) -> tuple[str, str, str, str]:
    """Return url, client name, token and CA file of a kubeconfig with one cluster and one user."""
    config = yaml.safe_load(Path(kubeconfig).read_text(encoding="utf-8"))
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    return cluster["server"], "suite", user["token"], cluster["certificate-authority"]


async def until_pods_are_admitted(client: Api) -> None:
    """Wait for the namespace's service account, without which no pod is admitted."""
    path = f"/api/v1/namespaces/{client.namespace}/serviceaccounts/default"
    async with asyncio.timeout(DEADLINE_S):
        while (await client.get(path)).status != 200:
            await asyncio.sleep(0.02)


@pytest.fixture(params=FACES)
async def api(request) -> AsyncIterator[Api]:
    """A client on each face, in a fresh namespace."""
    namespace = Api.unique("suite")
    async with AsyncExitStack() as stack:
        if request.param == "cluster":
            # Not ClusterTransport: it sends nothing but good JSON.
            transport: Transport = AiohttpTransport(*cluster_access(KUBECONFIG))
            stack.push_async_callback(transport.close)
        else:
            transport = (await Simulated(request.param, stack).client("suite")).transport
        client = Api(transport, namespace)
        await client.made("/api/v1/namespaces", {"metadata": {"name": namespace}})
        if request.param == "cluster":
            await until_pods_are_admitted(client)
        yield client
        await client.delete(f"/api/v1/namespaces/{namespace}")


@pytest.fixture(params=["memory", "http"])
async def simulated(request) -> AsyncIterator[Simulated]:
    """A simulated server on each face, with its faults and its store."""
    async with AsyncExitStack() as stack:
        yield Simulated(request.param, stack)


@pytest.fixture
def connect():
    """A function that opens the plainest HTTP client: ``connect(url, name, token)``."""
    return lambda url, name, token=None: Api(AiohttpTransport(url, name, token), "default")
