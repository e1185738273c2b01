"""Where the control plane's programs come from."""

from __future__ import annotations

import re

import pytest

from tests.cluster.assets import provide


@pytest.fixture
def empty(monkeypatch, tmp_path):
    """Nothing in the cache, and no KUBEBUILDER_ASSETS."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return tmp_path


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.mark.usefixtures("empty")
def test_whatever_is_nowhere_is_missing():
    assert provide.missing() == list(provide.NEEDED)


def test_given_programs_go_before_cached_ones(empty, monkeypatch):
    cached = program(provide.cache_directory() / "etcd", "cached")
    kubectl = program(provide.cache_directory() / "kubectl", "cached")
    given = program(empty / "given" / "etcd", "given")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(given.parent))
    assert cached.exists()
    assert provide.find() == {"etcd": given, "kubectl": kubectl}


def test_official_programs_are_taken_from_setup_envtest(empty, monkeypatch):
    for name in provide.FROM_ENVTEST:
        program(empty / "official" / name, f"official {name}")
    tool = program(empty / "bin" / "setup-envtest", f'#!/bin/sh\nprintf %s "{empty}/official"\n')
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    building = empty / "building"
    building.mkdir()
    taken = provide._from_envtest(building, list(provide.NEEDED))
    assert taken == list(provide.FROM_ENVTEST)
    assert (building / "etcd").read_text() == "official etcd"


def test_a_setup_envtest_that_fails_is_passed_over(empty, monkeypatch, capsys):
    tool = program(empty / "bin" / "setup-envtest", "#!/bin/sh\nexit 1\n")
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    assert provide._from_envtest(empty, list(provide.NEEDED)) == []
    assert "building" in capsys.readouterr().err


@pytest.mark.usefixtures("empty")
def test_without_go_it_says_what_is_missing(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(provide.AssetsError, match="Go is not installed"):
        provide.provide()
    assert provide.missing() == list(provide.NEEDED)


@pytest.mark.parametrize("repository", ["k8s.io/kubernetes", "kubevirt.io/kubevirt"])
def test_staging_modules_have_the_version_of_their_repository(repository):
    staging, _, folder = repository.partition("/")
    text = (provide.HERE / folder / "go.mod").read_text()
    replaced = re.findall(rf"^\t{staging}/\S+ => {staging}/\S+ v\d+\.(\S+)$", text, re.MULTILINE)
    # v1.36.3 of Kubernetes is v0.36.3 of its staging modules; KubeVirt's have its own version
    assert set(replaced) == {provide.version_of(repository).partition(".")[2]}
