"""The command line. Each command's module is loaded only when it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from remediator.cli.entry import run_cli

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with one of ``exit_codes``."""
    sys.exit(run_cli(arguments))
