"""ansible-rulebook beside our policies: installed by itself into a cache, run as its users run it.

It comes from PyPI by pip into a venv of its own under ``~/.cache/remediator-bench`` (or
``$REMEDIATOR_BENCH_CACHE``), never into the project's, and needs Java 17 or newer.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
PACKAGES = ("ansible-rulebook==1.3.2", "ansible-core==2.19.*")
INSTALL_S, RUN_S = 600, 600
JAVA_LEAST = 17

# A source plugin: puts the events of a file onto the queue, and then one that ends the run.
_SOURCE = """
import json, time

async def main(queue, args):
    with open(args["file"]) as file:
        events = [json.loads(line) for line in file]
    print(f"began {time.time():.6f}", flush=True)
    for event in events:
        await queue.put(event)
    await queue.put({"last": True})
"""


class UnavailableError(Exception):
    """It cannot be run here; one line."""


class Ran(NamedTuple):
    """What its rule engine alone did, and how long the whole program took."""

    engine_s: float  # of the processor
    chosen: list[str]
    whole_s: float  # by the clock


def run(rules: list[dict[str, Any]], events: list[dict[str, Any]], directory: Path) -> Ran:
    """Install it if need be, and run both. Raises UnavailableError."""
    java_home = _java_home()
    venv = _installed()
    written = directory / "events.jsonl"
    written.write_text("".join(json.dumps(event) + "\n" for event in events))
    environment = {
        **os.environ,
        "JAVA_HOME": java_home,
        "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    engine = _call(
        [venv / "bin/python", HERE / "rulebook_engine.py", _rulebook(directory, rules), written],
        environment,
        directory,
    )
    told = json.loads(engine.stdout.splitlines()[-1])
    whole_s = _whole(venv, rules, written, environment, directory)
    return Ran(told["seconds"], told["chosen"], whole_s)


def _whole(
    venv: Path,
    rules: list[dict[str, Any]],
    events: Path,
    environment: dict[str, str],
    directory: Path,
) -> float:
    """Run the program as its users do; from the first event until the last one's action."""
    (directory / "feed.py").write_text(_SOURCE)
    (directory / "hosts.yml").write_text("all: {hosts: {localhost: {ansible_connection: local}}}\n")
    end = {"name": "end", "condition": "event.last is defined", "action": {"print_event": None}}
    stop = {"name": "stop", "condition": "event.stop is defined", "action": {"shutdown": None}}
    file = _rulebook(directory, [*rules, end, stop], {"feed": {"file": str(events)}})
    command = [
        venv / "bin/ansible-rulebook",
        *("--rulebook", file, "--inventory", directory / "hosts.yml", "--source-dir", directory),
    ]
    process = subprocess.Popen(
        command, env=environment, cwd=directory, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    began_at = ended_at = 0.0
    deadline = time.monotonic() + RUN_S
    said: list[str] = []
    try:
        for line in process.stdout or ():
            said.append(line.strip())
            if found := re.match(r"began ([0-9.]+)", line):
                began_at = float(found.group(1))
            elif "last" in line and began_at:
                ended_at = time.time()
                break
            if time.monotonic() > deadline:
                break
    finally:
        process.kill()
        process.wait()
    if not began_at or not ended_at:
        raise UnavailableError(f"ansible-rulebook did not come to its end: {' | '.join(said[-3:])}")
    return ended_at - began_at


def _rulebook(
    directory: Path, rules: list[dict[str, Any]], source: dict[str, Any] | None = None
) -> Path:
    """Write a rulebook as JSON, which is YAML."""
    file = directory / ("whole.json" if source else "engine.json")
    sources = [source or {"feed": {"file": ""}}]
    book = {"name": "bench", "hosts": "all", "gather_facts": False, "sources": sources}
    file.write_text(json.dumps([{**book, "rules": rules}]))
    if source:
        return file.rename(file.with_suffix(".yml"))
    return file


def _installed() -> Path:
    cache = Path(os.environ.get("REMEDIATOR_BENCH_CACHE", Path.home() / ".cache/remediator-bench"))
    venv = cache / "-".join(re.sub(r"[^a-z0-9.]+", "-", each) for each in PACKAGES)
    done = venv / "installed"
    if done.exists():
        return venv
    print("installing ansible-rulebook into its own venv…", file=sys.stderr, flush=True)
    cache.mkdir(parents=True, exist_ok=True)
    for command in (
        [sys.executable, "-m", "venv", "--clear", venv],
        [venv / "bin/python", "-m", "pip", "install", "-q", *PACKAGES],
    ):
        _call(command, dict(os.environ), cache)
    done.touch()
    return venv


def _java_home() -> str:
    """Return where Java 17 or newer is: $JAVA_HOME, the java on the path, or Debian's place."""
    on_path = shutil.which("java")
    places = [os.environ.get("JAVA_HOME", "")]
    if on_path:
        places.append(str(Path(on_path).resolve().parent.parent))
    places += [str(place) for place in sorted(Path("/usr/lib/jvm").glob("java-17*"))]
    for place in filter(None, places):
        release = Path(place) / "release"
        if release.is_file():
            found = re.search(r'JAVA_VERSION="(\d+)', release.read_text())
            if found and int(found.group(1)) >= JAVA_LEAST:
                return place
    raise UnavailableError(f"Java {JAVA_LEAST} or newer is not here")


def _call(
    command: list[Any], environment: dict[str, str], where: Path
) -> subprocess.CompletedProcess[str]:
    try:
        done = subprocess.run(
            [str(word) for word in command], env=environment, cwd=where, timeout=INSTALL_S,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{Path(str(command[0])).name}: {error}") from error
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise UnavailableError(f"{Path(str(command[0])).name} failed: {' '.join(last)[:300]}")
    return done
