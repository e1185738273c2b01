from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from remediator.exit_codes import MEANINGS, ExitCode

ROOT = Path(__file__).parents[2]


def test_every_exit_code_is_documented(remediator):
    documented = (ROOT / "docs" / "exit-codes.md").read_text()
    text = remediator("--help").out
    for code in ExitCode:
        assert f"{int(code):>3}  {MEANINGS[code]}" in text
        assert f"| {int(code)} |" in documented


def test_help_loads_nothing_heavy():
    program = (
        "import sys; from remediator.cli.entry import run_cli; run_cli(['--help']);"
        "run_cli(['decisions', '--help']); run_cli(['probe', '--help']);"
        "heavy = {'kubernetes_asyncio', 'nats', 'aiohttp', 'structlog', 'rich', 'yaml'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_version_names_what_it_stands_on(remediator):
    answer = remediator("version")
    assert answer.code == ExitCode.OK
    assert answer.out.startswith("remediator 0.")
    assert "nats-py" in answer.out


def test_an_unknown_command_exits_2(remediator):
    answer = remediator("decision")
    assert answer.code == ExitCode.USAGE


def test_a_fault_of_ours_is_said_to_be_ours(remediator, monkeypatch):
    from importlib import metadata  # noqa: PLC0415

    def broken(_name):
        raise RuntimeError("oh no")

    monkeypatch.setattr(metadata, "version", broken)
    answer = remediator("version")
    assert answer.code == ExitCode.INTERNAL
    assert answer.err.splitlines()[-1].startswith("remediator: internal error: RuntimeError: oh no")


def test_config_show_prints_what_is_in_force(remediator, tmp_path, monkeypatch):
    file = tmp_path / "remediator.yaml"
    file.write_text("mode: enforce\nhttp: {port: 9000}\n")
    monkeypatch.setenv("REMEDIATOR_HTTP__HOST", "0.0.0.0")
    answer = remediator("config", "show", "--config", file)
    assert answer.code == ExitCode.OK
    assert "mode: enforce" in answer.out
    assert "host: 0.0.0.0\n  port: 9000" in answer.out


def test_config_show_names_every_wrong_key(remediator, tmp_path):
    file = tmp_path / "remediator.yaml"
    file.write_text("mod: enforce\nhttp: {port: x}\n")
    answer = remediator("config", "show", "--config", file)
    assert answer.code == ExitCode.USAGE
    assert f"{file}:1:1: mod: unknown key; did you mean 'mode'?" in answer.err
    assert f"{file}:2:8: http.port: expected int, found text 'x'" in answer.err


def test_policy_lint_accepts_the_shipped_ones(remediator):
    answer = remediator("policy", "lint")
    assert answer.code == ExitCode.OK
    assert "node-lost: ok" in answer.out


def test_policy_lint_names_faults_and_exits_1(remediator, tmp_path):
    (tmp_path / "bad.yaml").write_text("kind: Foo\n")
    answer = remediator("policy", "lint", tmp_path)
    assert answer.code == ExitCode.FINDING
    assert f"{tmp_path}/bad.yaml:1:1: kind: 'Foo' is not one of RemediationPolicy" in answer.out
    assert remediator("policy", "show", tmp_path).code == ExitCode.USAGE


def test_policy_show_is_readable_and_parsable(remediator):
    assert "a node is Dead or Unreachable" in remediator("policy", "show").out
    assert "node-lost" in remediator("policy", "show", "-o", "json").out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--http", "8080"), "write HOST:PORT"),
        (("--mode", "dry"), "'dry' is not one of 'observe', 'enforce'"),
        (("--config", "/nonexistent.yaml"), "/nonexistent.yaml: cannot be read: No such file"),
        (("--nats", "redis://x"), "nats.url"),
    ],
)
def test_run_refuses_what_cannot_work_before_anything_starts(remediator, arguments, says):
    answer = remediator("run", *arguments)
    assert answer.code == ExitCode.USAGE
    assert says in answer.err


def test_run_hands_the_settings_to_the_daemon_and_returns_its_code(
    remediator, monkeypatch, tmp_path
):
    import types  # noqa: PLC0415

    seen = []
    fake = types.ModuleType("remediator.daemon")
    fake.serve = lambda settings: seen.append(settings) or ExitCode.DEPOSED
    monkeypatch.setitem(sys.modules, "remediator.daemon", fake)
    answer = remediator(
        "run", "--mode", "enforce", "--http", "[::1]:0", "--data-dir", tmp_path, "--nats",
        "nats://127.0.0.1:4222", "--log-level", "error",
    )  # fmt: skip
    assert answer.code == ExitCode.DEPOSED
    (settings,) = seen
    assert (settings.mode, settings.http.host, settings.http.port) == ("enforce", "::1", 0)
    assert settings.journal.path == f"{tmp_path}/journal.sqlite"
