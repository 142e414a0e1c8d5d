"""The wheel and the source distribution, as users install them; and the files of the image."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email.parser import Parser
from fnmatch import fnmatch
from pathlib import Path

import pytest

from asyncbatch._version import __version__
from tests.commands import PATIENCE, ROOT, environment

pytestmark = pytest.mark.xdist_group("packaging")


def python(*arguments, cwd, program=sys.executable):
    finished = subprocess.run(
        [program, *arguments], check=False, capture_output=True, text=True, cwd=cwd,
        env=environment(PYTHONPATH="", PIP_DISABLE_PIP_VERSION_CHECK="1"), timeout=PATIENCE,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """A folder with both distributions."""
    place = tmp_path_factory.mktemp("packaging")
    python("-m", "build", "--no-isolation", "--outdir", place, ROOT, cwd=place)
    return place


def test_the_distributions_are_well_formed(dist, tmp_path):
    names = [f"asyncbatch-{__version__}-py3-none-any.whl", f"asyncbatch-{__version__}.tar.gz"]
    assert sorted(path.name for path in dist.iterdir()) == sorted(names)
    python("-m", "twine", "check", "--strict", *names, cwd=dist)
    settings = ROOT / "pyproject.toml"
    python("-m", "check_wheel_contents", "--config", settings, names[0], cwd=dist)
    python("-m", "validate_pyproject", settings, cwd=tmp_path)


def test_the_wheel_has_the_package_and_its_licences_and_nothing_else(dist):
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
        about = f"asyncbatch-{__version__}.dist-info"
        metadata = Parser().parsestr(wheel.read(f"{about}/METADATA").decode())
    files = (path for path in (ROOT / "asyncbatch").rglob("*") if path.is_file())
    package = {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}
    assert {name for name in names if not name.startswith(about)} == package
    assert metadata["License-Expression"] == "MIT"
    licences = metadata.get_all("License-File", [])
    assert {f"{about}/licenses/{name}" for name in licences} <= names
    assert (ROOT / "asyncbatch/cli/render/page/uPlot-LICENSE.txt").is_file()
    assert any("uPlot" in name for name in licences)
    classifiers = metadata.get_all("Classifier", [])
    versions = [text.rpartition(" ")[2] for text in classifiers if ":: 3." in text]
    assert versions[0] == metadata["Requires-Python"].removeprefix(">=")


def test_a_wheel_can_be_built_from_the_source_distribution(dist, tmp_path):
    # Not by `tarfile`: Python 3.11.2 has no `filter`, and 3.12 warns without one.
    subprocess.run(["tar", "xf", next(dist.glob("*.tar.gz"))], check=True, cwd=tmp_path)
    [source] = tmp_path.iterdir()
    python("-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, source, cwd=tmp_path)
    with (
        zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as again,
        zipfile.ZipFile(next(dist.glob("*.whl"))) as first,
    ):
        assert again.namelist() == first.namelist()


def test_the_installed_wheel_runs_without_the_source(dist, tmp_path):
    place = tmp_path / "installed"
    venv.create(place, symlinks=True, with_pip=False)
    program = place / "bin/python"
    [wheel] = dist.glob("*.whl")
    python(
        "-m", "pip", f"--python={program}", "install", "--no-index", "--no-deps", wheel,
        cwd=tmp_path,
    )  # fmt: skip
    # Its dependencies are those of the tests; the path of the wheel stands before theirs.
    [site] = place.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (tmp_path / "a.json").write_text('[{"id": 1}, {"id": 2}]')
    found = python(
        "-c", "import asyncbatch; print(asyncbatch.__file__)", cwd=tmp_path, program=program
    )
    assert Path(found.strip()).is_relative_to(place)
    command = place / "bin/asyncbatch"
    assert python("--version", cwd=tmp_path, program=command) == f"asyncbatch {__version__}\n"
    arguments = ("run", "a.json", "--to", "out.jsonl", "--report", "report.html")
    python(*arguments, cwd=tmp_path, program=command)
    assert (tmp_path / "out.jsonl").read_text() == '{"id":1}\n{"id":2}\n'
    assert "uPlot" in (tmp_path / "report.html").read_text()  # a file beside the modules


def test_the_image_is_built_from_files_that_exist_and_are_not_ignored():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    kept = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    assert ignored[0] == "*"
    dockerfile = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    copies = re.findall(r"^COPY (.+) \S+$", dockerfile, re.MULTILINE)
    for name in " ".join(copies).split():
        assert os.path.exists(ROOT / name)
        assert any(fnmatch(name, pattern) for pattern in kept), name
    assert 'ENTRYPOINT ["asyncbatch"]' in dockerfile
    assert re.search(r"^USER (?!root|0)", dockerfile, re.MULTILINE)
    hadolint = os.path.join(os.path.dirname(sys.executable), "hadolint")
    judged = subprocess.run(
        [hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (judged.returncode, judged.stdout + judged.stderr) == (0, "")
