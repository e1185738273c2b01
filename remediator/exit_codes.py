"""What exit codes mean; docs/exit-codes.md and ``remediator --help`` say the same. A leaf."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """Every exit code of ``remediator``."""

    OK = 0
    FINDING = 1  # a check ran and found something: a broken chain, nothing there to show
    USAGE = 2  # wrong arguments, settings or policies; nothing was started
    NO_KUBERNETES = 3  # the kubeconfig cannot be used, or no API server answers
    NO_NATS = 4  # NATS cannot be reached, refuses us, or lacks the streams
    JOURNAL = 5  # the journal has a broken link, or its local file cannot be used
    DEPOSED = 6  # another daemon leads or writes the journal; restart to follow it
    NO_DAEMON = 7  # the daemon's API does not answer
    INTERNAL = 70  # a fault of remediator itself (sysexits.h: EX_SOFTWARE)
    INTERRUPTED = 130  # Ctrl-C (128 + SIGINT)
    BROKEN_PIPE = 141  # the reader of our output went away (128 + SIGPIPE)


MEANINGS = {
    ExitCode.OK: "done",
    ExitCode.FINDING: "a check found something, or what was asked for is not there",
    ExitCode.USAGE: "wrong arguments, settings or policies",
    ExitCode.NO_KUBERNETES: "Kubernetes cannot be reached, or the kubeconfig cannot be used",
    ExitCode.NO_NATS: "NATS cannot be reached, or refuses us",
    ExitCode.JOURNAL: "the journal has a broken link, or its local file cannot be used",
    ExitCode.DEPOSED: "another daemon took over; restart to follow it",
    ExitCode.NO_DAEMON: "the daemon's API does not answer",
    ExitCode.INTERNAL: "a fault of remediator itself",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C)",
    ExitCode.BROKEN_PIPE: "the reader of the output went away",
}
