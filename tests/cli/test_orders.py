"""``remediator budgets`` as people read it, and the words of orders before they travel."""

from __future__ import annotations

import click
import pytest

from remediator.cli import orders
from remediator.cli.budgets import budgets_text
from remediator.engine.budget_view import (
    ApprovalLine,
    BudgetsView,
    LimitLine,
    PauseLine,
    WithheldLine,
)
from remediator.engine.views import GuardLine
from remediator.exit_codes import ExitCode

VIEW = BudgetsView(
    at=1_795_144_327.0,
    leader="remediator-0",
    mode="enforce",
    limits=(
        LimitLine(guard="zone-share", about="nodes", scope="zone/a", used=0, limit=2, spent=False),
        LimitLine(
            guard="disruptions-per-hour",
            about="VMs",
            scope="cluster",
            used=3,
            limit=3,
            spent=True,
            in_s=1800.0,
            who=("vm/shop/db", "vm/shop/web"),
        ),
        LimitLine(
            guard="storm-brake",
            about="nodes",
            scope="cluster",
            used=1,
            limit=5,
            spent=False,
            who=("n6",),
        ),
    ),
    pauses=(PauseLine(scope="zone/b", meaning="freeze", by="ana", reason="firmware", in_s=7200.0),),
    approvals=(
        ApprovalLine(
            incident="inc-7", subject="node/n6", policy="site-lost", answer="waits", in_s=3000.0
        ),
    ),
    withheld=(
        WithheldLine(
            incident="inc-7",
            subject="node/n6",
            guards=(GuardLine(guard="approval", answer="wait", why="waits", in_s=3000.0),),
        ),
    ),
)


def test_the_table_leaves_out_what_nobody_uses_and_names_who_spent_a_limit():
    assert click.unstyle(budgets_text(VIEW)) == (
        "leader remediator-0, mode enforce\n"
        "\n"
        "BUDGET                OF     SCOPE    USED  LIMIT\n"
        "disruptions-per-hour  VMs    cluster     3      3  "
        "room in 30 min; vm/shop/db, vm/shop/web\n"
        "storm-brake           nodes  cluster     1      5\n"
        "\n"
        "PAUSED  MEANING  ENDS IN  BY   REASON\n"
        "zone/b  freeze   2 h      ana  firmware\n"
        "\n"
        "APPROVAL  SUBJECT  POLICY     ANSWER  LAPSES IN  BY\n"
        "inc-7     node/n6  site-lost  waits   50 min\n"
        "\n"
        "WITHHELD  SUBJECT  GUARD     ANSWER  AGAIN IN  WHY\n"
        "inc-7     node/n6  approval  wait    50 min    waits\n"
    )


def test_wide_shows_every_limit_and_who_uses_it():
    text = budgets_text(VIEW, wide=True)
    assert "zone-share            nodes  zone/a" in text
    assert "1      5  n6" in text


@pytest.mark.parametrize(
    ("until", "seconds"), [("2h", 7200.0), ("90s", 90.0), ("1h30m", 5400.0), (None, None)]
)
def test_until_may_be_a_duration(until, seconds):
    assert orders._lasts_s(until) == seconds


def test_until_may_be_a_moment(monkeypatch):
    monkeypatch.setattr(orders.time, "time", lambda: 1_795_176_000.0)  # 2026-11-20T12:00 UTC
    assert orders._lasts_s("2026-11-20T18:00") == 6 * 3600


@pytest.mark.parametrize(
    ("until", "says"),
    [
        ("tomorrow", "'tomorrow' is no time: write 2h (from now) or 2026-11-20T18:00 (UTC)"),
        ("2001-01-01T00:00", "2001-01-01T00:00 is over"),
    ],
)
def test_a_wrong_until_is_one_line_and_nothing_is_sent(remediator, until, says):
    answer = remediator("pause", "--until", until, "--reason", "x", "--nats", "nats://127.0.0.1:1")
    assert (answer.code, answer.out) == (ExitCode.USAGE, "")
    assert answer.err == f"remediator: --until: {says}\n"


@pytest.mark.parametrize("command", ["pause", "resume", "approve", "deny", "retry", "cancel"])
def test_an_order_without_a_reason_is_not_given(remediator, command):
    target = () if command in ("pause", "resume") else ("inc-1",)
    answer = remediator(command, *target, "--nats", "nats://127.0.0.1:1")
    assert answer.code == ExitCode.USAGE
    assert "Missing option '--reason'" in answer.err


def test_without_nats_an_order_ends_with_its_own_code(remediator):
    answer = remediator("cancel", "inc-1", "--reason", "x", "--nats", "nats://127.0.0.1:1")
    assert answer.code == ExitCode.NO_NATS
    assert answer.err.startswith("remediator: cannot reach NATS at nats://127.0.0.1:1")
