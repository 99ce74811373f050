from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
PROJECT = CONFTEST.parents[1]

SKIPS = {
    "in a test": "import pytest\ndef test_it(): pytest.skip('no browser')\n",
    "in a fixture": (
        "import pytest\n@pytest.fixture\ndef part(): pytest.skip('no browser')\ndef test_it(part): pass\n"
    ),
    "by a mark": "import pytest\n@pytest.mark.skip('no browser')\ndef test_it(): pass\n",
    "of a module": "import pytest\npytest.skip('no browser', allow_module_level=True)\n",
    "of an import": "import pytest\npytest.importorskip('no_browser', reason='no browser')\n",
}
XFAIL = "import pytest\n@pytest.mark.xfail\ndef test_it(): assert False\ndef test_other(): pass\n"


def run(folder, text, *, ci):
    shutil.copy(CONFTEST, folder / "conftest.py")
    (folder / "test_it.py").write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "CI": ci, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("text", SKIPS.values(), ids=SKIPS.keys())
def test_a_skip_is_a_failure_in_ci_and_says_why(tmp_path, text):
    done = run(tmp_path, text, ci="true")
    assert done.returncode not in (0, pytest.ExitCode.NO_TESTS_COLLECTED), done.stdout
    assert "no browser" in done.stdout


def test_a_skip_is_no_failure_elsewhere(tmp_path):
    assert run(tmp_path, SKIPS["in a test"], ci="").returncode == 0


def test_an_expected_failure_is_no_skip(tmp_path):
    assert run(tmp_path, XFAIL, ci="true").returncode == 0
