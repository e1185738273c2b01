from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from remediator.api.app import Part, make_app, serving
from remediator.bus.protocols import StoredRecord
from remediator.engine.chain import verify
from remediator.journal.schema import StoreError
from remediator.journal.store import DecisionStore
from remediator.metrics import Metrics

NOW = 1_790_000_060.0


class Daemon:
    """The API over a real socket and a real SQLite file."""

    def __init__(self, session, base, store):
        self.session, self.base, self.store = session, base, store
        self.parts = {"nats": Part(ok=True), "leader": Part(ok=False, needed=False)}

    async def get(self, path, method="GET"):
        async with self.session.request(method, f"{self.base}{path}") as answer:
            body = await answer.read()
            is_json = "json" in answer.content_type
            return answer, json.loads(body) if is_json and body else body


@pytest.fixture
async def daemon(tmp_path, book):
    store = await DecisionStore.open(tmp_path / "journal.sqlite")
    await store.project([StoredRecord(d.seq, "s", payload) for d, payload in book.written])
    parts: dict[str, Part] = {}
    app = make_app(
        readiness=lambda: parts,
        journal=store,
        now=lambda: NOW,
        metrics=Metrics(CollectorRegistry()),
        timeout_s=0.5,
    )
    async with serving(app, "127.0.0.1", 0) as port, aiohttp.ClientSession() as session:
        made = Daemon(session, f"http://127.0.0.1:{port}", store)
        parts.update(made.parts)
        made.parts = parts
        yield made
    await store.close()


async def test_is_alive_even_when_nothing_is_ready(daemon):
    daemon.parts["nats"] = Part(ok=False, detail="no answer for 12 s")
    answer, body = await daemon.get("/healthz")
    assert (answer.status, body) == (200, {"status": "ok"})


async def test_ready_when_every_needed_part_is(daemon):
    answer, body = await daemon.get("/readyz")
    assert (answer.status, body["ready"]) == (200, True)
    assert body["parts"]["leader"] == {"ok": False, "detail": "", "needed": False}


async def test_not_ready_says_which_part_and_why(daemon):
    daemon.parts["nats"] = Part(ok=False, detail="no answer for 12 s")
    answer, body = await daemon.get("/readyz")
    assert (answer.status, body["ready"]) == (503, False)
    assert body["parts"]["nats"]["detail"] == "no answer for 12 s"


async def test_metrics_are_prometheus_text(daemon):
    answer, body = await daemon.get("/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert b"# TYPE remediator_decisions_total counter" in body


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [9, 8, 7, 6, 5, 4, 3, 2, 1]),
        ("?vm=payments/db&limit=2", [8, 7]),
        ("?vm=payments/db&limit=2&before_seq=7", [4]),
        ("?after_seq=7", [8, 9]),
        ("?verdict=Unreachable", [4, 3]),
        ("?since=50s", [9, 8, 7, 6, 5, 4, 3, 2]),
        ("?until=2026-09-21T14:13:30Z", [1]),
        ("?text=nobody%20probes", [3]),
    ],
)
async def test_pages_of_decisions(daemon, query, expected):
    answer, body = await daemon.get(f"/api/v1/decisions{query}")
    assert answer.status == 200, body
    assert [one["seq"] for one in body["decisions"]] == expected


async def test_a_full_page_says_where_the_next_begins(daemon):
    _, body = await daemon.get("/api/v1/decisions?limit=4")
    assert body["next_before_seq"] == 6
    _, body = await daemon.get("/api/v1/decisions?limit=4&before_seq=2")
    assert body["next_before_seq"] is None


async def test_raw_pages_carry_the_bytes_of_the_chain(daemon, book):
    _, body = await daemon.get("/api/v1/decisions?raw=true&after_seq=0")
    head = verify((one["seq"], one["payload"].encode()) for one in body["decisions"])
    assert head == book.head


async def test_one_decision_is_explained(daemon):
    answer, body = await daemon.get("/api/v1/decisions/6")
    assert answer.status == 200
    assert body["decision"]["seq"] == 6
    assert "power-off-verified, from redfish bmc-n3" in body["explanation"]
    assert body["incident_seqs"] == [2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/api/v1/decisions/99", 404, "there is no decision 99"),
        ("/api/v1/decisions/six", 400, "is not a decision's sequence"),
        ("/api/v1/decisions/" + "9" * 30, 400, "is not a decision's sequence"),
        ("/api/v1/decisions/%D9%A3", 400, "is not a decision's sequence"),  # Arabic digit three
        ("/api/v1/decisions?nod=n3", 400, "nod: unknown key; did you mean 'node'?"),
        ("/api/v1/decisions?node=a&node=b", 400, "node is given twice"),
        ("/api/v1/decisions?limit=0", 400, "limit: 0 is not between 1 and 1000"),
        ("/api/v1/decisions?limit=many", 400, "limit: expected int"),
        ("/api/v1/decisions?verdict=Ded", 400, "'Ded' is not one of"),
        ("/api/v1/decisions?since=yesterday", 400, "since: 'yesterday' is not a time"),
        ("/api/v1/decisions?raw=yes", 400, "raw: write true or false"),
        ("/api/v1/decisions?before_seq=99999999999999999999", 400, "before_seq"),
        ("/nothing", 404, "Not Found"),
    ],
)
async def test_errors_are_problems_that_name_the_fault(daemon, path, status, says):
    answer, body = await daemon.get(path)
    assert answer.status == status, body
    assert answer.content_type == "application/problem+json"
    assert (body["type"], body["status"]) == ("about:blank", status)
    assert says in body["detail"]


async def test_bytes_that_are_not_text_are_no_server_error(daemon):
    answer, _ = await daemon.get("/api/v1/decisions?text=%ff%00")
    assert answer.status == 200


async def test_only_reading_is_allowed(daemon):
    answer, body = await daemon.get("/api/v1/decisions", method="POST")
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD"
    assert "POST is not allowed here" in body["detail"]


async def test_an_unreadable_journal_is_503_and_not_a_crash(daemon, monkeypatch):
    async def select(_query):
        raise StoreError("journal.sqlite: cannot be read: locked")

    monkeypatch.setattr(daemon.store, "select", select)
    answer, body = await daemon.get("/api/v1/decisions")
    assert answer.status == 503
    assert "cannot be read: locked" in body["detail"]


async def test_a_slow_answer_is_given_up(daemon, monkeypatch):
    monkeypatch.setattr(daemon.store, "select", lambda _query: asyncio.Event().wait())
    answer, body = await daemon.get("/api/v1/decisions")
    assert answer.status == 503
    assert "no answer within 0.5 s" in body["detail"]


async def test_a_fault_of_ours_is_logged_and_not_shown(daemon, monkeypatch):
    async def select(_query):
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr(daemon.store, "select", select)
    with capture_logs() as lines:
        answer, body = await daemon.get("/api/v1/decisions")
    assert answer.status == 500
    assert "hunter2" not in json.dumps(body)
    assert [line["event"] for line in lines] == ["request_failed"]


async def test_a_taken_port_is_an_os_error(daemon):
    port = int(daemon.base.rpartition(":")[2])
    app = make_app(readiness=dict, journal=daemon.store, now=lambda: NOW)
    with pytest.raises(OSError, match="address already in use"):
        async with serving(app, "127.0.0.1", port):
            pass
