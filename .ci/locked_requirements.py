# ruff: noqa: INP001 - a script, not a package
"""Print the packages that uv.lock names for this Python, for pip, with their hashes.

Only for machines where uv itself cannot be had. Needs nothing but Python and the pip beside it.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pip._vendor.packaging.markers import Marker, default_environment

ROOT = "remediator"


def main() -> None:
    """Walk the lock from the project and its development group, and print one line a package."""
    lock = tomllib.loads(Path(__file__).parent.parent.joinpath("uv.lock").read_text("utf-8"))
    packages = {package["name"]: package for package in lock["package"] if _is_for_us(package)}
    root = packages.pop(ROOT)
    wanted: set[str] = set()
    waiting = [*root.get("dependencies", []), *root["dev-dependencies"]["dev"]]
    while waiting:
        edge = waiting.pop()
        marker = edge.get("marker")
        if edge["name"] in wanted or (marker and not _holds(marker)):
            continue
        wanted.add(edge["name"])
        package = packages[edge["name"]]
        waiting += package.get("dependencies", [])
        for extra in edge.get("extra", []):
            waiting += package.get("optional-dependencies", {}).get(extra, [])
    for name in sorted(wanted):
        hashes = " ".join(f"--hash={one}" for one in _hashes(packages[name]))
        sys.stdout.write(f"{name}=={packages[name]['version']} {hashes}\n")


def _is_for_us(package: dict[str, Any]) -> bool:
    """Whether this entry is meant for this Python; the lock may hold several versions of one."""
    markers = package.get("resolution-markers", [])
    return not markers or any(_holds(marker) for marker in markers)


def _holds(marker: str) -> bool:
    return bool(Marker(marker).evaluate({**default_environment(), "extra": ""}))


def _hashes(package: dict[str, Any]) -> Iterator[str]:
    if "sdist" in package:
        yield package["sdist"]["hash"]
    for wheel in package.get("wheels", []):
        yield wheel["hash"]


main()
