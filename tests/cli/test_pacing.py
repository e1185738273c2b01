"""``remediator pacing``: the leader's picture as people and as programs read it."""

from __future__ import annotations

import json

import click
import msgspec
import pytest
from prometheus_client import CollectorRegistry

from remediator.api.app import make_app, serving
from remediator.cli.pacing import pacing_text
from remediator.engine.pacing_view import BootingLine, BoundLine, PacingView, WaitingLine
from remediator.exit_codes import ExitCode
from remediator.health_query import HealthAnswer
from remediator.metrics import Metrics


def a_view(**changes) -> PacingView:
    boots = tuple(
        BootingLine(
            vm=f"shop/b{number}",
            tier="medium",
            node="n2" if number else "",
            for_s=5.0 + 30 * number,
            back_in_s=5.0,
            late=number == 1,
        )
        for number in range(2)
    )
    queue = tuple(
        WaitingLine(
            vm=f"shop/w{number:02d}",
            tier="high",
            position=number + 1,
            origin="deletion",
            reason="places",
            why="2 boot, as many as boot without delay",
            waited_s=12.0,
            back_in_s=None if number == 0 else 20.0 + number,
        )
        for number in range(20)
    )
    view = PacingView(
        leader="remediator-1",
        mode="enforce",
        at=1.0,
        limit=2,
        phase="holding",
        boot_s=9.5,
        took_s=11.0,
        booting=2,
        waiting=20,
        by_reason={"places": 20},
        by_tier={"high": 20},
        not_yet=3,
        all_back_in_s=None,
        bounds=(BoundLine(scope="node", at_once=4, per_minute=None),),
        boots=boots,
        queue=queue,
    )
    return msgspec.structs.replace(view, **changes)


def test_the_table_shows_who_waits_for_what_and_when_each_is_back():
    text = click.unstyle(pacing_text(a_view()))
    assert "2 boot, of 2 that may at once (holding); 20 wait\n" in text
    assert "a boot takes 9.5 s undisturbed, 11 s now" in text
    assert "3 VMs of lost hosts are not in it: no proof yet" in text
    assert "shop/b1  medium  n2    35.0 s  late" in text
    assert "1   shop/w00  high  12.0 s  ?        2 boot, as many as boot without delay" in text
    assert "2   shop/w01  high  12.0 s  ~21.0 s" in text
    assert "… and 5 more" in text
    assert "fixed limit" not in text


def test_the_wide_table_shows_everybody_and_the_limits():
    text = click.unstyle(pacing_text(a_view(left_out=7), wide=True))
    assert "shop/w19" in text
    assert "fixed limit for each node: 4 at once" in text
    assert "… and 7 more" in text


def test_nothing_at_all_is_said_in_one_line():
    view = a_view(booting=0, waiting=0, boots=(), queue=(), not_yet=0, boot_s=0.0)
    assert "nothing waits and nothing boots; 2 may boot at once" in pacing_text(view)


class Reader:
    """Answers questions about the pace."""

    async def answer(self, query):
        assert query.view == "pacing"
        return HealthAnswer(status=200, view=msgspec.Raw(msgspec.json.encode(a_view())))


@pytest.fixture
def server(background):
    app = make_app(
        readiness=dict,
        journal=None,
        now=lambda: 0.0,
        metrics=Metrics(CollectorRegistry()),
        health=Reader(),
    )
    serve = serving(app, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{background(serve.__aenter__())}"
    background(serve.__aexit__(None, None, None))


@pytest.mark.parametrize("output", ["table", "wide", "json", "yaml"])
def test_a_daemon_is_asked_and_its_answer_shown(remediator, server, output):
    done = remediator("pacing", "-o", output, "--server", server)
    assert done.code == ExitCode.OK, done.err
    if output == "json":
        assert msgspec.convert(json.loads(done.out), PacingView) == a_view()
    else:
        assert "shop/w00" in done.out


def test_without_a_daemon_it_says_so_in_one_line(remediator):
    done = remediator("pacing", "--server", "http://127.0.0.1:9")
    assert done.code == ExitCode.NO_DAEMON
    assert done.err.count("\n") == 1
