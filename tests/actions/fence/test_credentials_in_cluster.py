"""Logins out of Secrets, over the simulated API server: read, rotated, refused; never told."""

from __future__ import annotations

import asyncio
import base64

import pytest
from cluster_lab import Cluster

from remediator.actions.fence.credentials import CredentialsError, StoredLogins
from remediator.actions.fence.loading import unreadable_secrets
from remediator.fence_config.document import Credentials, SecretKeys
from remediator.fence_config.loader import load_text
from remediator.kube.client import KubeClient
from remediator.logs import redact
from remediator.sim.memory_transport import MemoryTransport
from remediator.sim.resources import NAMESPACES, SECRETS

CANARY = "canary-4b7d-in-the-secret"


def encoded(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


@pytest.fixture
async def cluster():
    made = Cluster()
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "remediator"}}
    made.store.create(NAMESPACES, namespace)
    yield made
    await made.close()


def secret(cluster, **data):
    head = {"apiVersion": "v1", "kind": "Secret"}
    metadata = {"name": "bmc", "namespace": "remediator"}
    cluster.store.create(SECRETS, {**head, "metadata": metadata, "data": data})


def logins(cluster, username="", **keys):
    client = KubeClient(MemoryTransport(cluster.server, client_name="daemon"))
    source = Credentials(username=username, secret=SecretKeys(name="bmc", **keys))
    return StoredLogins(source, client, cluster.clock, "remediator")


async def test_a_login_is_read_from_the_daemons_own_namespace_by_its_keys(cluster):
    secret(cluster, username=encoded("ops"), password=encoded(f"{CANARY}\n"), pin=encoded("1234"))
    login = await logins(cluster).login()
    assert (login.username, login.password) == ("ops", CANARY)
    other = await logins(cluster, username="me", password_key="pin").login()
    assert (other.username, other.password) == ("me", "1234")


async def test_a_password_that_was_read_is_taken_out_of_whatever_is_said(cluster):
    secret(cluster, username=encoded("ops"), password=encoded(CANARY))
    login = await logins(cluster).login()
    assert CANARY not in repr(login)
    assert CANARY not in redact(f"agent said: login {CANARY} refused")


async def test_a_rotated_secret_counts_within_half_a_minute_and_is_not_read_at_each_use(cluster):
    secret(cluster, username=encoded("ops"), password=encoded("first-one"))
    stored = logins(cluster)
    assert (await stored.login()).password == "first-one"
    cluster.store.mutate(
        SECRETS, "remediator", "bmc", lambda tree: tree["data"].update(password=encoded("second"))
    )
    assert (await stored.login()).password == "first-one"
    await asyncio.sleep(31.0)
    assert (await stored.login()).password == "second"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "Secret remediator/bmc: "),
        ({"username": encoded("ops")}, "it has no key 'password'"),
        ({"username": encoded("ops"), "password": encoded(b"\xff\xfe")}, "is not UTF-8 text"),
        ({"username": encoded("ops"), "password": encoded("\n")}, "it is empty"),
        ({"username": encoded("ops"), "password": encoded(f"{CANARY}\nx")}, "holds a line break"),
        ({"username": encoded("ops"), "password": encoded(CANARY * 400)}, "larger than 4096"),
    ],
)
async def test_what_is_no_login_is_said_by_the_secrets_name_and_not_its_content(
    cluster, data, words
):
    if data is not None:
        secret(cluster, **data)
    with pytest.raises(CredentialsError) as caught:
        await logins(cluster).login()
    assert words in str(caught.value)
    assert CANARY not in str(caught.value)


async def test_without_a_cluster_no_secret_can_be_read(cluster):
    stored = StoredLogins(
        Credentials(secret=SecretKeys(name="bmc")), None, cluster.clock, "remediator"
    )
    with pytest.raises(CredentialsError, match="Secret remediator/bmc: no cluster"):
        await stored.login()


CONFIG = """apiVersion: remediator.io/v1alpha1
kind: FenceConfig
metadata: {name: racks}
spec:
  devices:
    - {name: a, method: agent, program: fence_x, credentials: {secret: {name: bmc}}}
    - {name: b, method: agent, program: fence_x, credentials: {secret: {name: bmc}}}
    - {name: c, method: agent, program: fence_x, credentials: {secret: {name: other}}}
  levels: [{devices: [a, b, c]}]
"""


async def test_at_start_each_secret_that_cannot_be_read_is_said_once(cluster):
    secret(cluster, username=encoded("ops"), password=encoded(CANARY))
    client = KubeClient(MemoryTransport(cluster.server, client_name="daemon"))
    configs = load_text(CONFIG, file="f.yaml")
    told = await unreadable_secrets(configs, client, cluster.clock, "remediator")
    assert len(told) == 1
    assert told[0].startswith("racks: device 'c': Secret remediator/other: ")
    cluster.store.delete(SECRETS, "remediator", "bmc")
    told = await unreadable_secrets(configs, client, cluster.clock, "remediator")
    assert [line.split(": ")[1] for line in told] == ["device 'a'", "device 'c'"]
