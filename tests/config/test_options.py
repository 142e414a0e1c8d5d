"""One declaration of an option is its flag, help, variable, TOML key, schema and completion."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from tests.commands import ROOT, environment

DECLARATION = """\
    lateness: Annotated[
"""
MADE_UP = """\
    made_up: Annotated[
        Span | None, option("Wait for DURATION of nothing.", metavar="DURATION")
    ] = None
"""
JOB = """\
name = "job"
window = { spec = "tumbling:5s", made_up = "2m" }
source = { path = "e.jsonl" }
"""


@pytest.fixture
def changed(tmp_path):
    """Return a function that runs a copy of the program with an option more."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "asyncbatch", copy / "asyncbatch")
    module = copy / "asyncbatch" / "config" / "options" / "streams.py"
    text = module.read_text()
    assert text.count(DECLARATION) == 1
    module.write_text(text.replace(DECLARATION, MADE_UP + DECLARATION))

    def _changed(*arguments, **variables):
        return subprocess.run(
            [sys.executable, "-m", "asyncbatch", *arguments], check=False, capture_output=True,
            text=True, cwd=tmp_path, env=environment(PYTHONPATH=str(copy), **variables),
        )  # fmt: skip

    return _changed


def test_an_option_that_is_declared_once_is_everywhere(changed, tmp_path):
    shown = changed("stream", "--help").stdout
    assert "--made-up DURATION" in shown
    assert "Wait for DURATION of nothing." in shown
    schema = json.loads(changed("stream", "--print-schema").stdout)
    key = schema["$defs"]["WindowTable"]["properties"]["made_up"]
    assert key == {"description": "Wait for DURATION of nothing.", "type": ["number", "string"],
                   "minimum": 0}  # fmt: skip
    (tmp_path / "s.toml").write_text(JOB)
    (tmp_path / "e.jsonl").write_text('{"timestamp": 1}\n')
    assert changed("stream", "s.toml", "--check").returncode == 0
    wrong = changed("stream", "s.toml", "--check", "--set", "window.made_up=soon").stderr
    assert 'window.made_up: "soon" is not a duration' in wrong
    wrong = changed("stream", "e.jsonl", "--made-up", "soon").stderr
    assert "'--made-up'" in wrong
    assert '"soon" is not a duration' in wrong
    wrong = changed("stream", "e.jsonl", ASYNCBATCH_STREAM_MADE_UP="soon").stderr
    assert '"soon" is not a duration' in wrong
    words = {"COMP_WORDS": "asyncbatch stream --made", "COMP_CWORD": "2"}
    completed = changed(_ASYNCBATCH_COMPLETE="complete_bash", **words).stdout
    assert completed.split() == ["--made-up"]
    assert changed("stream", "e.jsonl", "--made-up", "2m").returncode == 0
