"""Find the cluster and how to prove who we are: a kubeconfig file, or the pod's service account.

kubernetes-asyncio reads the files. What it does badly is done here: a file that is missing or wrong
becomes one clear line instead of a KeyError from deep inside, and a rotated token is picked up.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from remediator.kube.tokens import ExecCredential, TokenFile, TokenSource

if TYPE_CHECKING:
    from kubernetes_asyncio.client import Configuration

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_DEFAULT_FILE = "~/.kube/config"


class KubeconfigError(Exception):
    """The way to the cluster is missing or wrong; the text names the file and what is wrong."""


class Access:
    """How to reach one API server. ``token`` is None where a certificate, or nothing, is used."""

    def __init__(
        self, configuration: Configuration, source: str, token: TokenSource | None
    ) -> None:
        self.configuration = configuration
        self.source = source
        self.token = token


async def find_access(
    kubeconfig: str | None, context: str | None, environ: Mapping[str, str]
) -> Access:
    """Take what was asked for, else KUBECONFIG, else the pod's account, else ~/.kube/config.

    Raises KubeconfigError.
    """
    chosen = kubeconfig or environ.get("KUBECONFIG")
    if chosen:
        return await from_kubeconfig(chosen, context)
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return from_service_account(SERVICE_ACCOUNT, environ)
    default = _default_file()
    if default is None:
        raise KubeconfigError(
            f"no cluster given: no --kubeconfig, no KUBECONFIG, not in a pod, no {_DEFAULT_FILE}"
        )
    return await from_kubeconfig(default, context)


async def from_kubeconfig(paths: str, context: str | None = None) -> Access:
    """Read a kubeconfig file, or several joined by ``:`` as in KUBECONFIG.

    Raises KubeconfigError.
    """
    from kubernetes_asyncio.client import Configuration  # noqa: PLC0415 - its import takes 1.2 s
    from kubernetes_asyncio.config import load_kube_config  # noqa: PLC0415

    documents = [_read(path) for path in paths.split(os.pathsep) if path]
    if not documents:
        raise KubeconfigError(f"{paths!r}: no kubeconfig file named")
    configuration = Configuration()
    try:
        loader = await load_kube_config(
            config_file=paths,
            context=context,
            client_configuration=configuration,
            persist_config=False,
        )
    except Exception as error:  # it raises whatever a malformed file makes it trip over
        raise KubeconfigError(f"{paths}: {_reason(error)}") from error
    if not str(configuration.host).startswith(("http://", "https://")):
        raise KubeconfigError(f"{paths}: the cluster's server is no URL: {configuration.host!r}")
    user = _user(documents, context)
    token: TokenSource | None = None
    if "tokenFile" in user and "token" not in user:
        base, name = user["__path__"], str(user["tokenFile"])
        token = TokenFile(Path(base).parent / name)
    elif "exec" in user:
        token = ExecCredential(loader)
    return Access(configuration, paths, token)


def from_service_account(directory: Path, environ: Mapping[str, str]) -> Access:
    """Use the service account that Kubernetes mounts into a pod. Raises KubeconfigError."""
    from kubernetes_asyncio.client import Configuration  # noqa: PLC0415 - its import takes 1.2 s
    from kubernetes_asyncio.config import ConfigException, load_incluster_config  # noqa: PLC0415

    configuration = Configuration()
    token_file = directory / "token"
    try:
        load_incluster_config(  # type: ignore[no-untyped-call] # the library left it untyped
            client_configuration=configuration,
            try_refresh_token=False,  # it would keep the newline, and the old token for a minute
            token_filename=str(token_file),
            cert_filename=str(directory / "ca.crt"),
            environ=dict(environ),
        )
    except (ConfigException, OSError, UnicodeDecodeError) as error:
        raise KubeconfigError(f"{directory}: {_reason(error)}") from error
    return Access(configuration, str(directory), TokenFile(token_file))


def _default_file() -> str | None:
    path = Path(_DEFAULT_FILE).expanduser()
    return str(path) if path.exists() else None


def _read(path: str) -> dict[str, Any]:
    full = Path(path).expanduser()
    try:
        document = yaml.safe_load(full.read_text(encoding="utf-8"))
    except OSError as error:
        raise KubeconfigError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise KubeconfigError(f"{path}: not a text file") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        raise KubeconfigError(f"{path}: not valid YAML{where}") from error
    if not isinstance(document, dict):
        raise KubeconfigError(
            f"{path}: not a kubeconfig (a mapping with clusters, contexts, users)"
        )
    for section in ("clusters", "contexts", "users"):
        if not isinstance(document.get(section) or [], list):
            raise KubeconfigError(f"{path}: {section} must be a list")
    return {**document, "__path__": str(full)}


def _user(documents: list[dict[str, Any]], context: str | None) -> dict[str, Any]:
    """Return the user section that is in use, with the file it came from; {} when there is none."""
    current = context
    for document in documents:  # as the library merges: the last current-context wins
        current = context or document.get("current-context") or current
    name = (_named(documents, "contexts", current) or {}).get("context", {}).get("user")
    entry = _named(documents, "users", name)
    if entry is None:
        return {}
    return {**(entry.get("user") or {}), "__path__": entry["__path__"]}


def _named(
    documents: list[dict[str, Any]], section: str, name: str | None
) -> dict[str, Any] | None:
    for document in documents:  # the first definition of a name wins
        for entry in document.get(section) or []:
            if entry.get("name") == name:
                return {**entry, "__path__": document["__path__"]}
    return None


def _reason(error: Exception) -> str:
    """Tell an error in one line."""
    text = " ".join(str(error).split())[:300]
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or ''}: {error.strerror}".lstrip(": ")
    return text if text and not isinstance(error, KeyError) else f"{type(error).__name__} {text}"
