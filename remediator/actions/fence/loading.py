"""Fence configurations from a directory and from the shorthand, checked before a daemon starts."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from remediator.actions.fence.agent_catalog import AgentCatalog, programs
from remediator.actions.fence.credentials import CredentialsError, StoredLogins, check_files
from remediator.clock import Clock
from remediator.documents import DocumentError, DocumentProblem
from remediator.fence_config.document import AnyDevice, Credentials, RedfishFence, Spec
from remediator.fence_config.loader import FenceConfig, in_order, of_document, read_configs
from remediator.kube.client import KubeClient
from remediator.typed_tree import Problem, dotted

SECRETS_S: Final = 10.0  # for all of them, at start; they are read again at each use


class Linted(msgspec.Struct, frozen=True, kw_only=True):
    """A directory's sound documents, all faults, and what could not be checked here."""

    configs: tuple[FenceConfig, ...]
    problems: tuple[DocumentProblem, ...]
    unchecked: tuple[DocumentProblem, ...]  # agents that are not installed


async def lint(directory: Path, catalog: AgentCatalog) -> Linted:
    """Read a directory and hold its agents' parameters against the agents themselves."""
    found, problems = read_configs(directory)
    await catalog.read(programs(one.value.spec for one in found))
    unchecked: list[DocumentProblem] = []
    for one in found:
        problems += [one.place(each.path, each.text) for each in catalog.faults(one.value.spec)]
        unchecked += [one.place(each.path, each.text) for each in catalog.missing(one.value.spec)]
    return Linted(
        configs=tuple(in_order(map(of_document, found))),
        problems=tuple(sorted(problems)),
        unchecked=tuple(sorted(unchecked)),
    )


async def load(
    directory: Path | None, shorthand: Sequence[FenceConfig], catalog: AgentCatalog
) -> list[FenceConfig]:
    """Return all configurations of the daemon in the order asked; without a directory, as given.

    The shorthand comes first, in its own order, as it was before there were directories. Raises
    DocumentError: all faults, an agent that is not installed, a name that both places use.
    """
    if directory is None:
        return list(shorthand)
    linted = await lint(directory, catalog)
    problems = [*linted.problems, *linted.unchecked]
    problems += [
        DocumentProblem(one.source, 0, 0, dotted(each.path), each.text)
        for one in linted.configs
        for each in unusable_files(one.spec)
    ]
    taken = {one.name for one in shorthand}
    problems += [
        DocumentProblem(one.source, 0, 0, "metadata.name", f"{one.name!r} is in fence.devices, too")
        for one in linted.configs
        if one.name in taken
    ]
    if problems:
        raise DocumentError(problems)
    return [*shorthand, *linted.configs]


def unusable_files(spec: Spec) -> Iterator[Problem]:
    """Yield the certificates of authorities that cannot be used by this process."""
    for at, device in enumerate(spec.devices):
        file = device.ca_file if isinstance(device, RedfishFence) else ""
        if file:
            try:
                ssl.create_default_context(cafile=file)
            except (OSError, ssl.SSLError) as error:
                why = f"{file}: {error.strerror or error}"
                yield Problem(("spec", "devices", at, "caFile"), why)


def check_logins(configs: Sequence[FenceConfig]) -> None:
    """See that every login that stands in files can be read now; keep the passwords unlogged.

    Raises CredentialsError, which says whose it is.
    """
    for config, device, credentials in _logins(configs):
        try:
            check_files(credentials)
        except CredentialsError as error:
            raise CredentialsError(f"{config.source}: device {device.name!r}: {error}") from error


async def unreadable_secrets(
    configs: Sequence[FenceConfig], client: KubeClient, clock: Clock, namespace: str
) -> list[str]:
    """Return what is wrong with Secrets that cannot be read now, a line for each login."""
    wrong: list[str] = []
    seen: set[bytes] = set()
    try:
        async with asyncio.timeout(SECRETS_S):
            for config, device, credentials in _logins(configs):
                asked = msgspec.json.encode(credentials)
                if credentials.secret is None or asked in seen:
                    continue
                seen.add(asked)
                try:
                    await StoredLogins(credentials, client, clock, namespace).login()
                except CredentialsError as error:
                    wrong.append(f"{config.name}: device {device.name!r}: {error}")
    except TimeoutError:
        wrong.append(f"the rest of the Secrets was not read within {SECRETS_S:g} s")
    return wrong


def _logins(
    configs: Sequence[FenceConfig],
) -> Iterator[tuple[FenceConfig, AnyDevice, Credentials]]:
    for config in configs:
        for device in config.spec.devices:
            credentials = getattr(device, "credentials", None)
            if isinstance(credentials, Credentials):
                yield config, device, credentials
