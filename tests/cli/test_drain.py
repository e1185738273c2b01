"""``remediator drain`` and ``undrain``: the preview through a real API, what an order needs."""

from __future__ import annotations

import json

import msgspec
import pytest
import yaml
from prometheus_client import CollectorRegistry

from remediator.api.app import make_app, serving
from remediator.engine.views import DrainView, GuardLine, LeaderLine, MoveLine
from remediator.exit_codes import ExitCode
from remediator.health_query import HealthAnswer, HealthQuery
from remediator.metrics import Metrics

AT = 1_795_144_327.25
MOVES = (
    MoveLine(
        namespace="shop", name="api", how="live migration", why="it can be moved while it runs",
        target="n4", stage="migrating", since_s=8.5, attempts=1,
        migration="Running to n4, copying for 5 s",
    ),
    MoveLine(namespace="shop", name="db", how="stays", why="its disk is ReadWriteOnce"),
    MoveLine(
        namespace="shop", name="web", how="live migration", why="it can be moved while it runs"
    ),
)  # fmt: skip
VIEW = DrainView(
    at=AT,
    leader=LeaderLine(identity="remediator-0", epoch=3, since_s=7500.0, mode="enforce"),
    name="n1",
    wanted="",
    policy="drain",
    steps=("cordon", "migrate"),
    state="nothing is under way",
    limits="1 of 5 live migrations in the cluster, 1 of 2 off n1 (settings)",
    guards=(GuardLine(guard="evacuations-at-once", answer="wait", why="1 of 1 nodes: n2"),),
    moves=MOVES,
)
TABLE = """\
drain of node/n1 at 2026-11-20 03:12:07 UTC
now          nothing is under way
wanted       nobody has asked for it
policy       drain: cordon, migrate
limits       1 of 5 live migrations in the cluster, 1 of 2 off n1 (settings)
guards       evacuations-at-once: wait, 1 of 1 nodes: n2
"""


class Reader:
    def __init__(self):
        self.asked, self.view, self.refusal = [], VIEW, None

    async def answer(self, query):
        self.asked.append(query)
        if self.refusal is not None:
            return self.refusal
        return HealthAnswer(status=200, view=msgspec.Raw(msgspec.json.encode(self.view)))


@pytest.fixture
def api(background, remediator):
    reader = Reader()

    async def start():
        app = make_app(
            readiness=dict,
            journal=None,
            now=lambda: 0.0,
            metrics=Metrics(CollectorRegistry()),
            health=reader,
        )
        context = serving(app, "127.0.0.1", 0)
        return context, await context.__aenter__()

    context, port = background(start())
    reader.run = lambda *arguments: remediator(
        "drain", "n1", "--dry-run", *arguments, "--server", f"http://127.0.0.1:{port}"
    )
    yield reader
    background(context.__aexit__(None, None, None))


def test_the_preview_is_a_table_for_people(api):
    answer = api.run()
    assert answer.out.startswith(TABLE)
    rows = [line.split() for line in answer.out.splitlines()[len(TABLE.splitlines()) + 1 :]]
    assert rows[0] == ["VM", "HOW", "TO", "STAGE", "WHY"]
    assert rows[1][:5] == ["shop/api", "live", "migration", "n4", "migrating"]
    assert rows[2][:2] == ["shop/db", "stays"]
    assert rows[3][3:5] == ["KubeVirt's", "choice"]
    assert " ".join(rows[4]) == "1 of 3 VMs cannot be moved, and stay on the node"
    assert api.asked == [HealthQuery(view="drain", name="n1")]


def test_json_and_yaml_are_the_view_itself(api):
    view = json.loads(msgspec.json.encode(VIEW))
    assert json.loads(api.run("-o", "json").out) == view
    assert yaml.safe_load(api.run("-o", "yaml").out) == view


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, ExitCode.FINDING),
        ({"guards": ()}, ExitCode.FINDING),
        ({"guards": (), "moves": (MOVES[0], MOVES[2])}, ExitCode.OK),
        ({"moves": (MOVES[0],)}, ExitCode.FINDING),
        ({"guards": (), "moves": (), "policy": ""}, ExitCode.FINDING),
        ({"guards": (), "moves": ()}, ExitCode.OK),
    ],
    ids=["guard-and-vm", "vm-stays", "clear", "guard-waits", "no-policy", "empty"],
)
def test_the_exit_code_says_whether_the_node_would_be_empty(api, changes, code):
    api.view = msgspec.structs.replace(VIEW, **changes)
    assert api.run().code == code


def test_a_node_that_is_not_there_is_said_with_the_one_that_is_meant(api):
    api.refusal = HealthAnswer(status=404, detail="there is no node n1; did you mean n01?")
    answer = api.run()
    assert (answer.code, answer.out) == (ExitCode.FINDING, "")
    assert answer.err == "remediator: there is no node n1; did you mean n01?\n"


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (("drain", "n1", "--nats", "nats://127.0.0.1:1"), "--reason"),
        (("drain", "n1", "--reason", "x"), "--nats"),
        (("undrain", "n1", "--nats", "nats://127.0.0.1:1"), "--reason"),
    ],
)
def test_an_order_needs_a_reason_and_a_way(remediator, arguments, missing):
    answer = remediator(*arguments)
    assert answer.code == ExitCode.USAGE
    assert missing in answer.err
