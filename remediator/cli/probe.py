"""``remediator probe``: a vantage point of its own, wherever hosts should be seen from."""

from __future__ import annotations

from pathlib import Path

import click

from remediator.cli.early_signals import ending_at_once
from remediator.cli.settings_options import config_option, load_settings

_EPILOG = """\b
Examples:
  remediator probe --vantage zone-a-0 --zone zone-a --nats nats://nats:4222
  remediator probe --node "$NODE_NAME" --nats tls://nats:4222 --http-port 8080
  remediator probe --config prober.yaml

\b
Ends with 0 on SIGTERM, 2 when settings cannot be used, 4 when NATS cannot be
reached at the start. Once started it waits out whatever NATS does.
"""


@click.command(epilog=_EPILOG)
@config_option
@click.option("--vantage", metavar="NAME", help="Its name; no other prober may have it.")
@click.option("--zone", metavar="ZONE", help="Where it stands; default: the zone of --node.")
@click.option("--node", metavar="NODE", help="The node that it runs on, if it is one of them.")
@click.option("--nats", metavar="URL", help="The daemon's NATS server.")
@click.option("--http-port", type=click.IntRange(0, 65535), help="Serve health and metrics here.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
@click.option("--log-format", type=click.Choice(["auto", "json", "console"]))
def probe(config_file: Path | None, http_port: int | None, **flags: str | None) -> int:
    """Probe all nodes from here until SIGTERM or Ctrl-C.

    It needs nothing but NATS, from which it learns the nodes and on which it says what it sees.
    "Down" takes more than half of the zones that have a vantage point: run one in each. Settings
    are those of ``remediator run``; of them it uses nats, probes, http.host and log.
    """
    with ending_at_once():
        return _probe(config_file, http_port, flags)


def _probe(config_file: Path | None, http_port: int | None, flags: dict[str, str | None]) -> int:
    settings = load_settings(
        config_file,
        {
            "probes.vantage": flags["vantage"],
            "probes.zone": flags["zone"],
            "probes.node": flags["node"],
            "nats.url": flags["nats"],
            "log.level": flags["log_level"],
            "log.format": flags["log_format"],
        },
    )
    from remediator import logs  # noqa: PLC0415 - not needed for --help
    from remediator.prober import probe as serve  # noqa: PLC0415 - loads what it needs

    logs.configure(level=settings.log.level, form=settings.log.format)
    return int(serve(settings, http_port=http_port))
