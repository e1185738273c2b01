"""``remediator release-gates``: open every gate, with access to the cluster alone."""

from __future__ import annotations

import typing
from pathlib import Path

import click

from remediator.cli.entry import CommandError, log_to_stderr, run_async
from remediator.cli.output import dump
from remediator.cli.settings_options import config_option, load_settings
from remediator.exit_codes import ExitCode

if typing.TYPE_CHECKING:
    from remediator.admission.release import Held


@click.command("release-gates")
@config_option
@click.option("--kubeconfig", metavar="FILE", help="Default: in-cluster, $KUBECONFIG, ~/.kube.")
@click.option("--context", metavar="NAME", help="Context of the kubeconfig.")
@click.option("-n", "--namespace", metavar="NAME", default="", help="Only in this namespace.")
@click.option("--dry-run", is_flag=True, help="Only show the gates that are there.")
@click.option("-o", "--output", type=click.Choice(["text", "json", "yaml"]), default="text")
def release_gates(
    config_file: Path | None,
    kubeconfig: str | None,
    context: str | None,
    namespace: str,
    output: str,
    *,
    dry_run: bool,
) -> int:
    """Take the scheduling gate remediator.io/pacing off every launcher pod that has it.

    No daemon is needed, so an uninstall can end with it: delete the webhook's configuration first,
    or new pods are held back again. Exits with 1 if a gate could not be opened, or with --dry-run
    if there is one.
    """
    log_to_stderr()
    flags = {"kube.kubeconfig": kubeconfig, "kube.context": context}
    held = run_async(_release(config_file, flags, namespace, dry_run=dry_run))
    shut = [each for each in held if not each.opened]
    if output == "text":
        _show(held, dry_run=dry_run)
    else:
        answer = {
            "gates": [{"vm": e.vm, "pod": e.pod, "opened": e.opened, "why": e.why} for e in held],
            "opened": len(held) - len(shut),
            "shut": len(shut),
        }
        click.echo(dump(answer, output), nl=False)
    return ExitCode.FINDING if shut else ExitCode.OK


def _show(held: list[Held], *, dry_run: bool) -> None:
    for each in held:
        if dry_run:
            click.echo(f"{each.vm}: {each.pod} waits")
        elif each.opened:
            click.echo(f"{each.vm}: {each.pod} may start")
        else:
            click.echo(f"{each.vm}: {each.pod} is still held back: {each.why}", err=True)
    opened = sum(each.opened for each in held)
    said = f"{len(held)} launcher pods wait behind the gate"
    click.echo(said if dry_run else f"{opened} of {len(held)} gates opened")


async def _release(
    config_file: Path | None, flags: dict[str, str | None], namespace: str, *, dry_run: bool
) -> list[Held]:
    kube = load_settings(config_file, flags).kube
    from remediator.admission.release import (  # noqa: PLC0415 - not needed for --help
        release_gates as release,
    )
    from remediator.kube.client import KubeClient  # noqa: PLC0415 - the same
    from remediator.kube.cluster import ClusterTransport, KubeconfigError  # noqa: PLC0415
    from remediator.kube.errors import ApiError  # noqa: PLC0415 - the same
    from remediator.kube.transport import TransportError  # noqa: PLC0415 - the same

    try:
        cluster = await ClusterTransport.open(
            kubeconfig=kube.kubeconfig or None, context=kube.context or None
        )
        try:
            return await release(KubeClient(cluster), namespace=namespace, dry_run=dry_run)
        finally:
            await cluster.close()
    except (KubeconfigError, ApiError, TransportError) as error:
        raise CommandError(ExitCode.NO_KUBERNETES, str(error)) from error
