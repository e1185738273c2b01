"""``remediator run``: the daemon."""

from __future__ import annotations

from pathlib import Path

import click

from remediator.cli.early_signals import ending_at_once
from remediator.cli.settings_options import config_option, load_settings


@click.command()
@config_option
@click.option("--kubeconfig", metavar="FILE", help="Default: in-cluster, $KUBECONFIG, ~/.kube.")
@click.option("--context", metavar="NAME", help="Context of the kubeconfig.")
@click.option("--nats", metavar="embedded|URL", help="NATS server; embedded starts one of its own.")
@click.option(
    "--mode",
    type=click.Choice(["observe", "enforce"]),
    help="observe (default) decides and records and touches nothing.",
)
@click.option("--identity", metavar="NAME", help="Who this daemon is; default the host name.")
@click.option(
    "--data-dir", metavar="DIR", help="Where the journal's SQLite and embedded NATS live."
)
@click.option("--policies", metavar="DIR", help="Policies; default the shipped ones.")
@click.option("--http", "http_address", metavar="HOST:PORT", help="Where health and API listen.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
@click.option("--log-format", type=click.Choice(["auto", "json", "console"]))
def run(config_file: Path | None, http_address: str | None, **flags: str | None) -> int:
    """Run the daemon until SIGTERM or Ctrl-C.

    Settings come from the file, then REMEDIATOR_SECTION__KEY variables, then these flags.
    In observe mode, the default, it is safe to point it at any cluster.
    """
    host, port = _address(http_address)
    with ending_at_once():
        return _run(config_file, host, port, flags)


def _run(
    config_file: Path | None, host: str | None, port: int | None, flags: dict[str, str | None]
) -> int:
    settings = load_settings(
        config_file,
        {
            "kube.kubeconfig": flags["kubeconfig"],
            "kube.context": flags["context"],
            "nats.url": flags["nats"],
            "mode": flags["mode"],
            "identity": flags["identity"],
            "data_dir": flags["data_dir"],
            "policies": flags["policies"],
            "http.host": host,
            "http.port": port,
            "log.level": flags["log_level"],
            "log.format": flags["log_format"],
        },
    )
    from remediator import logs  # noqa: PLC0415 - not needed for --help
    from remediator.daemon import serve  # noqa: PLC0415 - loads everything

    logs.configure(level=settings.log.level, form=settings.log.format)
    return int(serve(settings))


def _address(text: str | None) -> tuple[str | None, int | None]:
    """Split ``HOST:PORT``, ``:PORT`` and ``[::1]:PORT``."""
    if text is None:
        return None, None
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal():
        raise click.BadParameter("write HOST:PORT, for example 127.0.0.1:8080", param_hint="--http")
    return host.strip("[]") or None, int(port)
