"""A real control plane on loopback: etcd, kube-apiserver, the controllers and virt-controller.

Every program is a child process with a log file in ``directory``; all die with this process.
Nothing is emulated here: hosts are (see ``real_cluster``).
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import yaml

from tests.cluster import kubevirt_objects
from tests.cluster.kubevirt_objects import KUBEVIRT, Obj
from tests.cluster.program import Program, StartError

READY_S = 120.0  # all of it takes 8 s on two idle cores
_AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}
# user -> groups. The bootstrap roles of Kubernetes know the first three.
USERS = {
    "admin": "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
    "hosts": "system:masters",  # emulated kubelets, virt-handlers and the CSI attacher
    f"system:serviceaccount:{KUBEVIRT}:kubevirt-controller": "system:serviceaccounts",
}


class ControlPlane:
    """Use as a context manager. ``url``, ``ca``: where the API is; ``tokens`` by user."""

    def __init__(self, directory: Path, assets: Mapping[str, Path]) -> None:
        self.directory = directory
        self._assets = assets
        self.tokens = {user: secrets.token_hex(16) for user in USERS}
        etcd, peer, api, virt = _free_ports(4)
        self.url = f"https://127.0.0.1:{api}"
        self.ca = directory / "certificates" / "apiserver.crt"
        # A folder of their own: virt-controller reads its certificate at each change beside it.
        self._keys = directory / "keys"
        self._keys.mkdir()
        self.audit_log = directory / "audit.log"
        self._etcd_url = f"http://127.0.0.1:{etcd}"
        self.etcd = self._program(
            "etcd",
            f"--data-dir={directory / 'etcd'}",
            f"--listen-client-urls={self._etcd_url}",
            f"--advertise-client-urls={self._etcd_url}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
            "--unsafe-no-fsync",
            # As kubeadm and OpenShift set it. Without it the API server sends no bookmarks for what
            # does not change, and every quiet watch looks dead (etcd's own default is 10 min).
            "--watch-progress-notify-interval=5s",
            "--log-level=warn",
        )
        self.api_server = self._program("kube-apiserver", *self._api_flags(api))
        manager = self.kubeconfig("system:kube-controller-manager")
        self.controller_manager = self._program(
            "kube-controller-manager",
            f"--kubeconfig={manager}",
            f"--service-account-private-key-file={self._keys / 'service-account.key'}",
            f"--root-ca-file={self.ca}",
            "--use-service-account-credentials=true",
            "--leader-elect=false",
            "--secure-port=0",
        )
        self.scheduler = self._program(
            "kube-scheduler",
            f"--kubeconfig={self.kubeconfig('system:kube-scheduler')}",
            "--leader-elect=false",
            "--secure-port=0",
        )
        controller = f"system:serviceaccount:{KUBEVIRT}:kubevirt-controller"
        self.virt_controller = self._program(
            "virt-controller",
            f"--kubeconfig={self.kubeconfig(controller)}",
            "--listen=127.0.0.1",
            f"--port={virt}",
            "--launcher-image=registry.invalid/virt-launcher:test",
            f"--prom-cert-file={self._keys / 'virt-controller.crt'}",
            f"--prom-key-file={self._keys / 'virt-controller.key'}",
        )

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def programs(self) -> tuple[Program, ...]:
        """All of them, in the order in which they start."""
        return (
            self.etcd,
            self.api_server,
            self.controller_manager,
            self.scheduler,
            self.virt_controller,
        )

    def start(self) -> None:
        """Start everything; returns when KubeVirt's API is served. Raises StartError."""
        self._make_keys()
        self.etcd.start()
        self._until(self._etcd_healthy, self.etcd)
        self.api_server.start()
        self._until(self._api_ready, self.api_server)
        for program in (self.controller_manager, self.scheduler):
            program.start()
        for obj in kubevirt_objects.objects(self._assets["kubevirt-objects.json"]):
            self.create(kubevirt_objects.collection_of(obj), obj)
        self.virt_controller.start()
        self._until(self._virt_controller_leads, self.virt_controller)

    def stop(self) -> None:
        """End everything."""
        for program in reversed(self.programs):
            program.stop(kill=program is not self.etcd)

    def revive(self) -> None:
        """Start again what ended by itself: virt-controller does when it loses its lease."""
        for program in self.programs:
            program.revive()

    def restart(self, program: Program, *, down_s: float = 0.0) -> None:
        """Kill a program and start it again after ``down_s``. Blocks."""
        program.stop(kill=True)
        time.sleep(down_s)
        program.start()

    def kubeconfig(self, user: str, token: str | None = None) -> Path:
        """Write a kubeconfig for a user of ``USERS``, or for whoever owns ``token``."""
        file = self.directory / f"kubeconfig-{user.replace(':', '-')}"
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [
                {
                    "name": "test",
                    "cluster": {"server": self.url, "certificate-authority": str(self.ca)},
                }
            ],
            "users": [{"name": user, "user": {"token": token or self.tokens[user]}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
        }
        file.touch(mode=0o600)
        file.write_text(yaml.safe_dump(content))
        return file

    def call(self, method: str, path: str, body: Obj | None = None) -> tuple[int, Obj]:
        """Ask the API server as admin, in a blocking way; for setting up."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "authorization": f"Bearer {self.tokens['admin']}",
                "content-type": "application/json",
            },
        )
        context = ssl.create_default_context(cafile=str(self.ca))
        try:
            with urllib.request.urlopen(request, timeout=10.0, context=context) as answer:
                status, read = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, read = error.code, error.read()
        try:
            return status, json.loads(read)
        except ValueError:  # /readyz, and errors of the server's own: plain text
            return status, {"message": read.decode(errors="replace")}

    def create(self, path: str, obj: Obj) -> Obj:
        """Create an object, or leave the one that exists. Raises StartError when refused."""
        deadline = time.monotonic() + 30.0
        while True:
            status, answer = self.call("POST", path, obj)
            if status in (200, 201, 409):
                return answer
            # A new custom resource is "(re)initializing" for some seconds.
            if status not in (404, 429, 500, 503) or time.monotonic() > deadline:
                raise StartError(f"POST {path}: {status} {answer.get('message')}")
            time.sleep(0.1)

    def kubectl(self, *arguments: str) -> bytes:
        """Run kubectl as admin and return what it printed."""
        command = [str(self._assets["kubectl"]), "--kubeconfig", str(self.kubeconfig("admin"))]
        done = subprocess.run([*command, *arguments], check=True, capture_output=True, timeout=60)
        return done.stdout

    # Inside.

    def _program(self, name: str, *flags: str) -> Program:
        return Program(name, [str(self._assets[name]), *flags], self.directory)

    def _api_flags(self, port: int) -> list[str]:
        tokens = self.directory / "tokens.csv"
        tokens.touch(mode=0o600)
        rows = (f'{self.tokens[user]},{user},{user},"{USERS[user]}"' for user in USERS)
        tokens.write_text("\n".join(rows) + "\n")
        policy = self.directory / "audit-policy.yaml"
        policy.write_text(yaml.safe_dump(_AUDIT))
        key = self._keys / "service-account.key"
        return [
            f"--etcd-servers={self._etcd_url}",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            f"--cert-dir={self.directory / 'certificates'}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=Node,RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--endpoint-reconciler-type=none",  # it refuses to advertise a loopback address
            "--allow-privileged=true",
            f"--audit-policy-file={policy}",
            f"--audit-log-path={self.audit_log}",
        ]

    def _make_keys(self) -> None:
        try:
            _openssl("genrsa", "-out", str(self._keys / "service-account.key"), "2048")
            _openssl(
                *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                *("-subj", "/CN=virt-controller"),
                *("-keyout", str(self._keys / "virt-controller.key")),
                *("-out", str(self._keys / "virt-controller.crt")),
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise StartError(f"openssl makes no keys: {error}") from error

    def _until(self, condition: Callable[[], bool], program: Program) -> None:
        deadline = time.monotonic() + READY_S
        while not condition():
            if not program.alive():
                raise StartError(f"{program.name} ended: {program.tail()}")
            if time.monotonic() > deadline:
                raise StartError(f"{program.name} is not ready: {program.tail()}")
            time.sleep(0.1)

    def _etcd_healthy(self) -> bool:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"{self._etcd_url}/health", timeout=2.0) as answer,
        ):
            return bool(json.loads(answer.read()).get("health") == "true")
        return False

    def _api_ready(self) -> bool:
        with contextlib.suppress(OSError):
            return self.call("GET", "/readyz")[0] == 200
        return False

    def _virt_controller_leads(self) -> bool:
        path = f"/apis/coordination.k8s.io/v1/namespaces/{KUBEVIRT}/leases/virt-controller"
        with contextlib.suppress(OSError):
            status, lease = self.call("GET", path)
            return status == 200 and bool((lease.get("spec") or {}).get("holderIdentity"))
        return False


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
