from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import yaml

from remediator.kube.cluster import ClusterTransport
from tests.kube.fault_server import FaultServer

TLS = Path(__file__).parent / "tls"


@pytest.fixture
async def serve():
    """Start a server with this script."""
    started = []

    async def start(script, *, tls=False):
        context = None
        if tls:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(TLS / "server.crt", TLS / "server.key")
        server = FaultServer(script)
        await server.start(context)
        started.append(server)
        return server

    yield start
    for server in started:
        await server.stop()


@pytest.fixture
async def connect(tmp_path):
    """Open a transport to a server through a kubeconfig file."""
    opened = []

    async def start(server, user=None):
        path = tmp_path / "kubeconfig"
        path.write_text(kubeconfig(f"http://127.0.0.1:{server.port}", user))
        transport = await ClusterTransport.open(kubeconfig=str(path))
        opened.append(transport)
        return transport

    yield start
    for transport in opened:
        await transport.close()


def kubeconfig(server, user=None, **extra):
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": user or {}}],
            **extra,
        }
    )
