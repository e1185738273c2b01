"""The real transport against a real server that misbehaves."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys

import msgspec
import pytest
from aiohttp import web

from remediator.kube.client import KubeClient, PatchKind
from remediator.kube.cluster import ClusterTransport, KubeconfigError
from remediator.kube.errors import TooManyRequestsError
from remediator.kube.objects import Node
from remediator.kube.transport import TransportError
from tests.kube.conftest import TLS, kubeconfig
from tests.kube.fault_server import HANG, RESET, Stream
from tests.kube.reflecting import reflecting, until
from tests.kube.scripted import bookmark, error_event, event, node


def ok(body=None, status=200, **headers):
    raw = msgspec.json.encode(body if body is not None else {})
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.Response(status=status, body=raw, headers=names, content_type="application/json")


def listing(*items, version=9, token=""):
    return ok({"metadata": {"resourceVersion": str(version), "continue": token}, "items": items})


def refusal(code, reason="No"):
    return ok({"kind": "Status", "code": code, "reason": reason, "message": "no"}, code)


async def lines_of(transport, path="/w", **query):
    async with transport.stream(path, query=list(query.items()), connect_timeout_s=2) as stream:
        assert stream.status == 200
        return [line async for line in stream.lines()]


# --- requests -------------------------------------------------------------------------------------


async def test_a_request_and_its_answer_arrive_whole(serve, connect):
    server = await serve(lambda _: ok({"a": 1}, 418, X_Thing="yes"))
    transport = await connect(server)
    response = await transport.request(
        "PATCH",
        "/api/v1/nodes/n%2F1",
        query=[("fieldSelector", "spec.nodeName=n1"), ("continue", "a+b/c==")],
        body=b'{"spec": {"x": [1, null, "\xc3\xa9"]}}',
        content_type=PatchKind.MERGE.value,
        timeout_s=5,
    )
    assert (response.status, response.body) == (418, b'{"a":1}')
    assert response.headers["x-thing"] == "yes"
    request = server.requests[0]
    assert request.method == "PATCH"
    assert request.rel_url.raw_path == "/api/v1/nodes/n%2F1"
    assert dict(request.query) == {"fieldSelector": "spec.nodeName=n1", "continue": "a+b/c=="}
    assert request.headers["Content-Type"] == "application/merge-patch+json"
    assert request.headers["User-Agent"] == "remediator"
    assert msgspec.json.decode(server.bodies[0]) == {"spec": {"x": [1, None, "é"]}}


async def test_every_kind_of_write_reaches_the_server_as_it_should(serve, connect):
    server = await serve(lambda _: ok(node("n1", 2)))
    client = KubeClient(await connect(server))
    for kind in PatchKind:
        body = [{"op": "test"}] if kind is PatchKind.JSON else {"a": None}
        await client.patch("/p", body, kind=kind, result=Node)
        assert server.requests[-1].headers["Content-Type"] == kind.value
        assert msgspec.json.decode(server.bodies[-1]) == body
    await client.replace("/start", None)
    assert (server.requests[-1].method, server.bodies[-1]) == ("PUT", b"")
    await client.create("/c", {})
    assert (server.requests[-1].method, server.bodies[-1]) == ("POST", b"{}")
    await client.delete("/d", uid="u", grace_s=0)
    assert server.requests[-1].method == "DELETE"
    assert msgspec.json.decode(server.bodies[-1])["preconditions"] == {"uid": "u"}


async def test_a_server_that_hangs_is_given_up_in_time(serve, connect):
    transport = await connect(await serve(lambda _: HANG))
    with pytest.raises(TransportError, match=r"no answer within 0\.2 s"):
        await transport.request("GET", "/x", timeout_s=0.2)
    with pytest.raises(TransportError, match=r"no answer within 0\.2 s"):
        async with transport.stream("/x", connect_timeout_s=0.2):
            pass


async def test_a_body_that_hangs_midway_is_given_up_in_time(serve, connect):
    transport = await connect(await serve(lambda _: Stream([b'{"items":', HANG])))
    with pytest.raises(TransportError, match=r"no answer within 0\.3 s"):
        await transport.request("GET", "/x", timeout_s=0.3)


async def test_a_reset_is_a_transport_error(serve, connect):
    transport = await connect(await serve(lambda _: RESET))
    with pytest.raises(TransportError):
        await transport.request("PUT", "/x", body=b"{}", timeout_s=2)
    with pytest.raises(TransportError):
        await lines_of(transport)


async def test_nobody_listening_is_a_transport_error(serve, connect):
    server = await serve(lambda _: ok())
    transport = await connect(server)
    await server.stop()
    with pytest.raises(TransportError, match="GET /x"):
        await transport.request("GET", "/x", timeout_s=2)


async def test_a_refusal_is_an_answer_with_its_headers(serve, connect):
    def script(_):
        answer = refusal(429, "TooManyRequests")
        answer.headers["Retry-After"] = "3"
        return answer

    client = KubeClient(await connect(await serve(script)))
    with pytest.raises(TooManyRequestsError) as caught:
        await client.get("/x", Node)
    assert caught.value.retry_after_s == 3


async def test_a_closed_transport_sends_nothing(serve, connect):
    server = await serve(lambda _: ok())
    transport = await connect(server)
    await transport.close()
    with pytest.raises(TransportError, match="closed"):
        await transport.request("GET", "/x", timeout_s=2)
    with pytest.raises(TransportError, match="closed"):
        await lines_of(transport)
    assert server.requests == []


async def test_a_cancelled_request_is_cancelled(serve, connect):
    server = await serve(lambda _: HANG)
    transport = await connect(server)
    task = asyncio.create_task(transport.request("GET", "/x", timeout_s=60))
    await until(lambda: server.requests)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_watches_do_not_starve_requests(serve, connect):
    server = await serve(lambda r: Stream([b"x\n", HANG]) if r.path == "/w" else ok())
    transport = await connect(server)

    async def watch():
        async with transport.stream("/w", connect_timeout_s=20) as stream:
            async for _ in stream.lines():
                pass

    tasks = [asyncio.create_task(watch()) for _ in range(110)]  # more than the pool of 100
    await until(lambda: server.open >= 100)
    assert (await transport.request("GET", "/x", timeout_s=2)).status == 200
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await until(lambda: server.open == 0)


# --- streams --------------------------------------------------------------------------------------


async def test_lines_are_whole_however_they_are_cut(serve, connect):
    steps = [b"on", 0.02, b"e\ntwo\nth", 0.02, b"ree", 0.02, b"\n\nfive\n"]
    transport = await connect(await serve(lambda _: Stream(steps)))
    assert await lines_of(transport) == [b"one", b"two", b"three", b"", b"five"]


async def test_an_unfinished_last_line_is_dropped(serve, connect):
    transport = await connect(await serve(lambda _: Stream([b'{"a":1}\n{"b":'])))
    assert await lines_of(transport) == [b'{"a":1}']


async def test_a_reset_midway_gives_the_whole_lines_and_then_the_error(serve, connect):
    transport = await connect(await serve(lambda _: Stream([b"one\ntw", 0.05, RESET])))
    async with transport.stream("/w", connect_timeout_s=2) as stream:
        lines = stream.lines()
        assert await anext(lines) == b"one"
        with pytest.raises(TransportError):
            await anext(lines)


async def test_a_line_of_twelve_mebibytes_survives(serve, connect):
    big = b"x" * (12 * 2**20)
    steps = [b"small\n", *[big[i : i + 2**18] for i in range(0, len(big), 2**18)], b"\nend\n"]
    transport = await connect(await serve(lambda _: Stream(steps)))
    got = await lines_of(transport)
    assert [len(line) for line in got] == [5, len(big), 3]
    assert got[1] == big


async def test_the_body_of_a_refused_stream_is_read_up_to_a_mebibyte(serve, connect):
    transport = await connect(
        await serve(lambda _: Stream([b"<html>", *[b"x" * 2**16] * 64], status=503))
    )
    async with transport.stream("/w", connect_timeout_s=2) as stream:
        assert stream.status == 503
        assert len(await stream.body()) == 2**20


async def test_leaving_a_stream_closes_its_connection(serve, connect):
    server = await serve(lambda _: Stream([b"one\n", HANG]))
    transport = await connect(server)
    async with transport.stream("/w", connect_timeout_s=2) as stream:
        async for _ in stream.lines():
            break
        assert server.open == 1
    await until(lambda: server.open == 0)


# --- tokens ---------------------------------------------------------------------------------------


class Gate:
    """Lets in whoever shows the token of the moment."""

    def __init__(self, token, answer):
        self.token, self.answer, self.shown = token, answer, []

    def __call__(self, request):
        self.shown.append(request.headers.get("Authorization"))
        if self.shown[-1] != f"Bearer {self.token}":
            return refusal(401, "Unauthorized")
        return self.answer(request)


@pytest.fixture
async def in_pod(serve, tmp_path):
    """A server over TLS, and the service account of a pod with token t1."""
    gate = Gate("t1", lambda r: Stream([b"line\n"]) if r.path == "/w" else ok())
    server = await serve(gate, tls=True)
    shutil.copy(TLS / "ca.crt", tmp_path / "ca.crt")
    (tmp_path / "token").write_text("t1\n")
    environ = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.port)}
    transport = await ClusterTransport.from_service_account(tmp_path, environ)
    yield gate, transport, tmp_path / "token"
    await transport.close()


def swap(token_file, token):
    """Replace the file as kubelet does: a new one is renamed over it."""
    new = token_file.with_name("token.new")
    new.write_text(token)
    new.rename(token_file)


async def test_a_pod_shows_its_token_over_tls(in_pod):
    gate, transport, _ = in_pod
    assert (await transport.request("GET", "/x", timeout_s=5)).status == 200
    assert gate.shown == ["Bearer t1"], "without the newline of the file"


async def test_a_rotated_token_is_read_at_the_first_401(in_pod):
    gate, transport, token_file = in_pod
    await transport.request("GET", "/x", timeout_s=5)
    swap(token_file, "t2\n")
    gate.token = "t2"
    assert (await transport.request("GET", "/x", timeout_s=5)).status == 200
    assert await lines_of(transport) == [b"line"]
    assert gate.shown == ["Bearer t1", "Bearer t1", "Bearer t2", "Bearer t2"]


async def test_a_watch_too_reads_the_token_anew_at_401(in_pod):
    gate, transport, token_file = in_pod
    assert await lines_of(transport) == [b"line"]
    swap(token_file, "t2")
    gate.token = "t2"
    assert await lines_of(transport) == [b"line"]


async def test_a_rotated_token_is_read_within_a_minute_without_any_401(in_pod):
    gate, transport, token_file = in_pod
    await transport.request("GET", "/x", timeout_s=5)
    swap(token_file, "t2")
    await transport.request("GET", "/x", timeout_s=5)
    loop = asyncio.get_running_loop()
    source = transport._token
    source._read_at = loop.time() - 61
    gate.token = "t2"
    await transport.request("GET", "/x", timeout_s=5)
    assert gate.shown == ["Bearer t1", "Bearer t1", "Bearer t2"]


async def test_a_token_that_stays_wrong_is_a_401_and_no_loop(in_pod):
    gate, transport, _ = in_pod
    gate.token = "another"
    assert (await transport.request("GET", "/x", timeout_s=5)).status == 401
    assert len(gate.shown) == 2


async def test_a_token_file_that_vanishes_leaves_the_token_that_we_have(in_pod):
    gate, transport, token_file = in_pod
    await transport.request("GET", "/x", timeout_s=5)
    token_file.unlink()
    transport._token._read_at -= 61
    assert (await transport.request("GET", "/x", timeout_s=5)).status == 200
    gate.token = "another"
    assert (await transport.request("GET", "/x", timeout_s=5)).status == 401


async def test_a_server_with_a_wrong_certificate_is_not_talked_to(serve, tmp_path):
    server = await serve(lambda _: ok(), tls=True)
    path = tmp_path / "kubeconfig"
    path.write_text(kubeconfig(f"https://127.0.0.1:{server.port}"))  # its CA is not given
    transport = await ClusterTransport.open(kubeconfig=str(path))
    with pytest.raises(TransportError, match=r"(?i)certificate"):
        await transport.request("GET", "/x", timeout_s=5)
    await transport.close()
    assert server.requests == []


async def test_the_token_file_of_a_kubeconfig_is_read_anew_too(serve, connect, tmp_path):
    gate = Gate("t1", lambda _: ok())
    (tmp_path / "mytoken").write_text("t1")
    transport = await connect(await serve(gate), user={"tokenFile": "mytoken"})
    assert (await transport.request("GET", "/x", timeout_s=5)).status == 200
    swap(tmp_path / "mytoken", "t2")
    gate.token = "t2"
    assert (await transport.request("GET", "/x", timeout_s=5)).status == 200


async def test_a_static_token_is_sent(serve, connect):
    gate = Gate("s3cret", lambda _: ok())
    transport = await connect(await serve(gate), user={"token": "s3cret"})
    assert (await transport.request("GET", "/x", timeout_s=5)).status == 200


async def test_a_credential_plugin_runs_again_at_401(serve, connect, tmp_path):
    gate = Gate("p1", lambda _: ok())
    said = tmp_path / "said"
    said.write_text("p1")
    program = (
        "import json,sys;print(json.dumps({'apiVersion':'client.authentication.k8s.io/v1',"
        "'kind':'ExecCredential','status':{'token':open(sys.argv[1]).read(),"
        "'expirationTimestamp':'2999-01-01T00:00:00Z'}}))"
    )
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": ["-c", program, str(said)],
    }
    transport = await connect(await serve(gate), user={"exec": plugin})
    assert (await transport.request("GET", "/x", timeout_s=10)).status == 200
    said.write_text("p2")
    gate.token = "p2"
    assert (await transport.request("GET", "/x", timeout_s=10)).status == 200


# --- the reflector over real sockets --------------------------------------------------------------


class Api:
    """Lists nodes, and answers one watch after the other as scripted."""

    def __init__(self, *watches):
        self.watches = list(watches)
        self.lists = [listing(node("a", 1))]
        self.asked = []

    def __call__(self, request):
        query = dict(request.query)
        if "watch" in query:
            self.asked.append(query)
            return self.watches.pop(0) if len(self.watches) > 1 else self.watches[0]
        if query.get("limit") == "1":
            return listing(version=9)
        said = self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]
        return web.Response(body=said.body, content_type="application/json")


FAST = {"backoff_base_s": 0.02, "backoff_cap_s": 0.05, "progress_delay_s": 0.01}


def sent(line):
    return line + b"\n"


QUIET = Stream([HANG])


@pytest.mark.parametrize(
    ("fault", "resumes_at"),
    [
        (Stream([sent(event("ADDED", node("b", 10))), RESET]), "10"),
        (Stream([sent(event("ADDED", node("b", 10))), b'{"type":"MODIFIED","obj', RESET]), "10"),
        (Stream([sent(event("ADDED", node("b", 10))), b'{"type":"MODIFIED","obj']), "10"),
        (Stream([sent(event("ADDED", node("b", 10))), HANG]), "10"),
        (Stream([]), "9"),
        (Stream([b"<html>\n<head>\n"]), "9"),
        (Stream([b"<html><title>503</title></html>"], status=503), "9"),
        (HANG, "9"),
        (RESET, "9"),
        (Stream([sent(error_event(410, "Expired"))]), "30"),
        (Stream([sent(bookmark(20)), sent(error_event(500, "InternalError"))]), "30"),
    ],
    ids=[
        "reset",
        "half line and reset",
        "half line and end",
        "half-open",
        "empty 200",
        "html 200",
        "html 503",
        "hang",
        "reset at once",
        "410",
        "error after a bookmark",
    ],
)
async def test_a_reflector_survives(serve, connect, fault, resumes_at):
    api = Api(fault, Stream([sent(event("ADDED", node("c", 40))), HANG]))
    api.lists = [listing(node("a", 1)), listing(node("a", 1), node("b", 25), version=30)]
    transport = await connect(await serve(api))
    patience = {"inactivity_timeout_s": 0.3, "connect_timeout_s": 0.3}
    async with reflecting(transport, **FAST, **patience) as (reflector, sink):
        await until(lambda: ("", "c") in reflector.store)
        assert reflector.synced
        assert ("", "a") in reflector.store
        assert api.asked[1]["resourceVersion"] == resumes_at
        await until(lambda: len(sink.progress) > 1)


async def test_a_reflector_honours_retry_after(serve, connect):
    busy = web.Response(status=429, headers={"Retry-After": "1"}, body=b"")
    api = Api(busy, Stream([sent(event("ADDED", node("c", 40))), HANG]))
    transport = await connect(await serve(api))
    loop = asyncio.get_running_loop()
    async with reflecting(transport, **FAST) as (reflector, _):
        began_at = loop.time()
        await until(lambda: ("", "c") in reflector.store)
        assert loop.time() - began_at >= 1.0


async def test_a_reflector_takes_a_line_over_four_mebibytes(serve, connect):
    big = node("b", 10)
    big["metadata"]["managedFields"] = ["x" * 2**20] * 6
    line = sent(event("ADDED", big))
    cut = [line[i : i + 2**18] for i in range(0, len(line), 2**18)]
    api = Api(Stream([*cut, sent(event("ADDED", node("c", 11))), HANG]))
    transport = await connect(await serve(api))
    async with reflecting(transport, **FAST) as (reflector, _):
        await until(lambda: ("", "c") in reflector.store)
        assert ("", "b") in reflector.store
        assert len(api.asked) == 1


async def test_a_reflector_does_not_ask_in_a_hot_loop(serve, connect):
    server = await serve(Api(Stream([])))
    transport = await connect(server)
    async with reflecting(transport):
        await asyncio.sleep(2)
        assert len(server.requests) < 30


async def test_a_reflector_pages_through_a_real_list(serve, connect):
    def script(request):
        if "watch" in request.query:
            return QUIET
        if request.query.get("limit") == "1":
            return listing(version=9)
        start = int(request.query.get("continue", "0"))
        token = str(start + 2) if start < 4 else ""
        return listing(node(f"n{start}", 1), node(f"n{start + 1}", 1), token=token)

    transport = await connect(await serve(script))
    async with reflecting(transport, page_limit=2) as (reflector, _):
        await until(lambda: reflector.synced)
        assert len(reflector.store) == 6


# --- configuration --------------------------------------------------------------------------------


def test_importing_the_client_does_not_import_the_library():
    code = (
        "import sys, remediator.kube.cluster, remediator.kube.reflector, remediator.kube.election;"
    )
    code += "sys.exit('kubernetes_asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


GOOD = kubeconfig("https://127.0.0.1:1")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a kubeconfig"),
        ("just text", "not a kubeconfig"),
        ("- a\n- b", "not a kubeconfig"),
        ("a: [", "not valid YAML at line 1"),
        ("a: b\n  c: {\n", "not valid YAML at line 2"),
        ("clusters: 7", "clusters must be a list"),
        ("{}", "current-context"),
        (GOOD.replace("current-context: here", "current-context: there"), "there"),
        (GOOD.replace("cluster: c", "cluster: d"), "name d"),
        (GOOD.replace("server: https://127.0.0.1:1", "server: nonsense"), "no URL"),
        (
            GOOD.replace("server: https", "certificate-authority: /no/ca.crt\n    server: https"),
            "/no/ca.crt",
        ),
        (
            GOOD.replace(
                "server: https", "certificate-authority-data: aGVsbG8=\n    server: https"
            ),
            "certificates cannot be used",
        ),
        (
            GOOD.replace("server: https", "certificate-authority-data: '%%%'\n    server: https"),
            "kubeconfig",
        ),
        (GOOD.replace("user: {}", "user:\n    tokenFile: /no/token"), "/no/token"),
        (GOOD.replace("user: {}", "user:\n    exec: {command: /no/such/plugin}"), "kubeconfig"),
        (GOOD.replace("user: {}", "user:\n    exec: 7"), "kubeconfig"),
        (GOOD.replace("context:\n    cluster: c\n    user: u", "context: null"), "kubeconfig"),
        (GOOD.replace("- name: u", "- nom: u"), "name"),
    ],
)
async def test_a_wrong_kubeconfig_is_one_clear_line(tmp_path, text, says):
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(KubeconfigError, match=says) as caught:
        await ClusterTransport.open(kubeconfig=str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_missing_an_unreadable_and_a_binary_kubeconfig_are_told_apart(tmp_path):
    with pytest.raises(KubeconfigError, match="nothere: No such file or directory"):
        await ClusterTransport.open(kubeconfig=str(tmp_path / "nothere"))
    with pytest.raises(KubeconfigError, match="Is a directory"):
        await ClusterTransport.open(kubeconfig=str(tmp_path))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(KubeconfigError, match="not a text file"):
        await ClusterTransport.open(kubeconfig=str(tmp_path / "binary"))


async def test_without_anything_given_the_pods_account_is_next_and_then_the_home(
    monkeypatch, tmp_path
):
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(KubeconfigError, match="no cluster given"):
        await ClusterTransport.open()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    with pytest.raises(KubeconfigError, match="serviceaccount"):
        await ClusterTransport.open()
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").write_text(GOOD)
    transport = await ClusterTransport.open()
    assert transport.source.endswith(".kube/config")
    await transport.close()
    other = tmp_path / "other"
    other.write_text(GOOD)
    monkeypatch.setenv("KUBECONFIG", f"{other}:{tmp_path / '.kube' / 'config'}")
    transport = await ClusterTransport.open()
    assert transport.source.startswith(str(other))
    await transport.close()


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "token file does not exist"),
        ({"token": "t"}, "does not exist"),
        ({"token": "t", "ca.crt": ""}, "empty"),
        ({"token": "t", "ca.crt": "no certificate"}, "certificates cannot be used"),
        ({"token": "", "ca.crt": "x"}, "empty"),
    ],
)
async def test_a_wrong_service_account_is_one_clear_line(tmp_path, files, says):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    environ = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "1"}
    with pytest.raises(KubeconfigError, match=says) as caught:
        await ClusterTransport.from_service_account(tmp_path, environ)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
