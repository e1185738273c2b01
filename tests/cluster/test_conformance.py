"""The API behaviour suite of ``tests/sim``, on the real API server.

Whatever it says of the simulated server it must say of the real one too. The scheduler is stopped:
it would write to the pods of the suite. Each test's namespace is its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SUITE = Path(__file__).resolve().parent.parent / "sim"


def test_the_real_api_server_behaves_as_the_suite_says(control_plane, tmp_path):
    control_plane.scheduler.stop()
    kubeconfig = control_plane.kubeconfig("admin")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-k", "cluster"),
            *("-p", "no:cacheprovider", f"--basetemp={tmp_path / 'suite'}"),
            *map(str, sorted(SUITE.glob("test_api_*.py"))),
        ],
        cwd=SUITE.parent.parent,
        env={**os.environ, "REMEDIATOR_CONFORMANCE_KUBECONFIG": str(kubeconfig)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,  # its output is the assertion's text
        timeout=400,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-3000:]
