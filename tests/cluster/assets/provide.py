"""Provide the control plane's programs: found, or built from their published Go modules.

    python3 tests/cluster/assets/provide.py           build what is missing; print the directory
    python3 tests/cluster/assets/provide.py --check   only say what is missing (exit code 1)

By the ecosystem's convention the programs are looked for in KUBEBUILDER_ASSETS. Else they live in
``${XDG_CACHE_HOME:-~/.cache}/remediator/cluster-assets/``, in a directory named by their versions
and a hash of the recipe, so that a new version never meets an old program and a second run finds
everything.
``SHA256SUMS`` beside them says what was built. With ``setup-envtest`` on the PATH the official
kube-apiserver, etcd and kubectl are taken instead of built. Needs nothing but Python's standard
library and Go.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENVTEST_TIMEOUT_S = 60.0  # "works at once", or is built
# The whole cold build takes about ten minutes on two cores.
BUILD_TIMEOUT_S = 3600.0
OBJECTS = "kubevirt-objects.json"
SUMS = "SHA256SUMS"

# What to build: program -> (Go module's folder here, package).
PROGRAMS = {
    "etcd": ("kubernetes", "go.etcd.io/etcd/server/v3"),
    "kube-apiserver": ("kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver"),
    "kube-controller-manager": ("kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    "kube-scheduler": ("kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler"),
    "kubectl": ("kubernetes", "k8s.io/kubernetes/cmd/kubectl"),
    "virt-controller": ("kubevirt", "kubevirt.io/kubevirt/cmd/virt-controller"),
}
# How the Kubernetes programs are told their version, which nothing but the linker knows.
STAMP = "k8s.io/component-base/version"
LINKING = (
    "-s -w -X {stamp}.gitVersion=v{version} -X {stamp}.gitTreeState=clean"
    " -X {stamp}.gitMajor={major} -X {stamp}.gitMinor={minor}"
)
NEEDED = (*PROGRAMS, OBJECTS)
FROM_ENVTEST = ("etcd", "kube-apiserver", "kubectl")
HOW = "run `make cluster-assets` (needs Go; about ten minutes, once)"


class AssetsError(Exception):
    """The programs cannot be provided; the text says why and what to do."""


def version_of(module: str) -> str:
    """Return the version that the modules here require of ``module``, without its v."""
    for file in sorted(HERE.glob("*/go.mod")):
        found = re.search(
            rf"^(?:require )?\s*{re.escape(module)} v(\S+)", file.read_text(), re.MULTILINE
        )
        if found:
            return found[1]
    raise AssetsError(f"no go.mod under {HERE} requires {module}")


def cache_directory() -> Path:
    """Return where this recipe's programs are kept, whether they exist or not."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    recipe = hashlib.sha256(repr((PROGRAMS, LINKING)).encode())
    for file in sorted([*HERE.glob("*/go.*"), *HERE.glob("*/*/*.go")]):
        recipe.update(file.read_bytes())
    name = "-".join(
        (
            f"kubernetes-{version_of('k8s.io/kubernetes')}",
            f"kubevirt-{version_of('kubevirt.io/kubevirt')}",
            recipe.hexdigest()[:8],
        )
    )
    return base / "remediator" / "cluster-assets" / name


def find() -> dict[str, Path]:
    """Return each needed file that exists: in KUBEBUILDER_ASSETS, else in the cache."""
    places = [cache_directory()]
    if given := os.environ.get("KUBEBUILDER_ASSETS"):
        places.insert(0, Path(given))
    found = {}
    for name in NEEDED:
        for place in places:
            if (place / name).is_file():
                found[name] = place / name
                break
    return found


def missing() -> list[str]:
    """Return the names of what is needed and nowhere found."""
    found = find()
    return [name for name in NEEDED if name not in found]


def provide() -> Path:
    """Build what is missing into the cache. Raises AssetsError."""
    target = cache_directory()
    if not missing():
        return target
    target.mkdir(parents=True, exist_ok=True)
    with (target / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two at once the second finds the first one's work
        wanted = missing()
        if wanted:
            _fill(target, wanted)
    return target


def _fill(target: Path, wanted: list[str]) -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=target, prefix=".building-") as name:
        building = Path(name)
        taken = _from_envtest(building, wanted)
        for program in wanted:
            if program not in taken:
                _build(program, building)
        for file in sorted(building.iterdir()):  # whole files appear, one by one, or none
            file.replace(target / file.name)
    sums = {name: _sum(target / name) for name in NEEDED if (target / name).is_file()}
    (target / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))
    _say(f"all there after {time.monotonic() - began:.0f} s: {target}")


def _from_envtest(building: Path, wanted: list[str]) -> list[str]:
    """Take the official programs where setup-envtest has them or can fetch them at once."""
    tool = shutil.which("setup-envtest")
    names = [name for name in FROM_ENVTEST if name in wanted]
    if tool is None or not names:
        return []
    version = version_of("k8s.io/kubernetes")
    try:
        done = subprocess.run(
            [tool, "use", version, "-p", "path"],
            check=True,
            capture_output=True,
            text=True,
            timeout=ENVTEST_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        _say(f"setup-envtest has no {version} ({error}): building")
        return []
    source = Path(done.stdout.strip())
    taken = [name for name in names if (source / name).is_file()]
    for name in taken:
        shutil.copy2(source / name, building / name)
    _say(f"from setup-envtest: {', '.join(taken)}")
    return taken


def _build(name: str, building: Path) -> None:
    began = time.monotonic()
    if name == OBJECTS:
        printed = _go(["run", "-trimpath", "./objects"], HERE / "kubevirt")  # as built above
        (building / name).write_bytes(printed)
    else:
        module, package = PROGRAMS[name]
        version = version_of("k8s.io/kubernetes")
        major, minor, _ = version.split(".", 2)
        linking = LINKING.format(stamp=STAMP, version=version, major=major, minor=minor)
        options = ["-ldflags", linking if module == "kubernetes" else "-s -w"]
        _go(["build", "-trimpath", *options, "-o", str(building / name), package], HERE / module)
    _say(f"built {name} in {time.monotonic() - began:.0f} s")


def _go(arguments: list[str], folder: Path) -> bytes:
    go = shutil.which("go")
    if go is None:
        raise AssetsError("Go is not installed; the control plane is built from its Go modules")
    env = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}
    env["GOFLAGS"] = f"{os.environ.get('GOFLAGS', '')} -mod=readonly -buildvcs=false".strip()
    try:
        done = subprocess.run(
            [go, *arguments],
            cwd=folder,
            env=env,
            stdout=subprocess.PIPE,
            check=True,
            timeout=BUILD_TIMEOUT_S,
        )
    except subprocess.SubprocessError as error:
        raise AssetsError(f"go {arguments[0]} in {folder}: {error}") from error
    return done.stdout


def _sum(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _say(text: str) -> None:
    print(f"cluster-assets: {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="build nothing")
    if parser.parse_args().check:
        lacking = missing()
        if lacking:
            print(f"missing: {', '.join(lacking)}; {HOW}")
        return bool(lacking)
    try:
        print(provide())
    except AssetsError as error:
        _say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
