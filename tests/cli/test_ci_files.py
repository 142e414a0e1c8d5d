"""The files for CI services: GitHub's action, the hooks of pre-commit, GitLab's job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.commands import PATIENCE, ROOT, environment

SCHEMA = '{"type": "object", "required": ["id"]}'
BIN = Path(sys.executable).parent


def load(name):
    return yaml.safe_load((ROOT / name).read_text())


def steps():
    return {step.get("name", step.get("id")): step for step in load("action.yml")["runs"]["steps"]}


@pytest.fixture
def act(tmp_path):
    """Run the step of the action that checks files, as a runner of GitHub does."""
    runner = tmp_path / "runner"
    (runner / "asyncbatch/bin").mkdir(parents=True)
    (runner / "asyncbatch/bin/asyncbatch").symlink_to(BIN / "asyncbatch")

    def _act(**inputs):
        inputs = {
            name: one["default"] for name, one in load("action.yml")["inputs"].items()
        } | inputs
        step = steps()["Check the files"]
        variables = {
            name: inputs[text.removeprefix("${{ inputs.").removesuffix(" }}")]
            for name, text in step["env"].items()
        }
        script = tmp_path / "runner/step.sh"
        script.write_text(step["run"])
        return subprocess.run(
            # The flags of `shell: bash` on runners.
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
            cwd=tmp_path,
            env=environment(RUNNER_TEMP=str(runner), **variables),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    return _act


@pytest.mark.parametrize(
    ("schema", "name"),
    [("github-actions", "action.yml"), ("gitlab-ci", "docs/examples/gitlab-ci.yml")],
)
def test_the_services_accept_the_files(schema, name):
    done = subprocess.run(
        [BIN / "check-jsonschema", "--builtin-schema", f"vendor.{schema}", ROOT / name],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_action_annotates_and_reports(act, files, tmp_path):
    files({"in/a.json": "[1,]", "in/b.json": "{}", "other/c.json": "x"})
    done = act(paths="in\n")
    assert done.returncode == 1
    assert "::error file=in/a.json," in done.stdout
    assert "line=1,col=4" in done.stdout
    results = json.loads((tmp_path / "asyncbatch.sarif").read_bytes())["runs"][0]["results"]
    assert [one["ruleId"] for one in results] == ["invalid_json"]
    assert act(paths="in/b.json").returncode == 0


def test_the_action_takes_a_schema_and_options(act, files, tmp_path):
    files({"in/a.json": "[]", "in/b.txt": "[]", "in/c.json": '{"id": 1}', "s.json": SCHEMA})
    done = act(paths="in", schema="s.json", args="--pattern\n*.txt\n", report="r.sarif")
    assert done.returncode == 1
    results = json.loads((tmp_path / "r.sarif").read_bytes())["runs"][0]["results"]
    [place] = results[0]["locations"]
    assert place["physicalLocation"]["artifactLocation"]["uri"] == "in/b.txt"
    assert [one["ruleId"] for one in results] == ["schema/type"]


def test_inputs_of_the_action_are_no_commands(act, files, tmp_path):
    strange = "$(touch pwned) `touch pwned`; touch pwned #.json"
    files({strange: "x", "-v.json": "x"})
    done = act(paths=f"{strange}\n-v.json", report="a b.sarif")
    assert done.returncode == 1
    results = json.loads((tmp_path / "a b.sarif").read_bytes())["runs"][0]["results"]
    assert len(results) == 2
    assert not (tmp_path / "pwned").exists()
    # Nor in the other steps: no expression stands in a script.
    assert not any("${{" in step.get("run", "") for step in steps().values())


@pytest.mark.parametrize(
    ("hook", "args", "bad"),
    [
        ("asyncbatch-json", [], {"a.json": "[1,]", "l.jsonl": "1\nx\n"}),
        ("asyncbatch-schema", ["--schema", "s.schema"], {"a.json": "[]"}),
    ],
)
def test_the_hooks_of_pre_commit_check_what_is_staged(files, tmp_path, hook, args, bad):
    [found] = [one for one in load(".pre-commit-hooks.yaml") if one["id"] == hook]
    # Of this environment: the installation into one of its own is pip's work.
    local = {**found, "language": "system", "args": args}
    config = {"repos": [{"repo": "local", "hooks": [local]}]}
    files({"s.schema": SCHEMA, "good dir/ü.json": '{"id": 1}', "x.txt": "{", **bad})
    files({".pre-commit-config.yaml": json.dumps(config)})
    env = environment(
        PATH=f"{BIN}:{os.environ['PATH']}",
        HOME=str(tmp_path / "home"),
        **{f"GIT_CONFIG_{name}": "/dev/null" for name in ("GLOBAL", "SYSTEM")},
    )

    def call(*words):
        return subprocess.run(
            words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False,
            timeout=PATIENCE,
        )  # fmt: skip

    assert call("git", "init", "--quiet").returncode == 0
    assert call("git", "add", ".").returncode == 0
    done = call("pre-commit", "run")
    assert done.returncode == 1, done.stdout + done.stderr
    for name in bad:
        assert name in done.stdout
    assert "good dir" not in done.stdout
    for name in bad:
        (tmp_path / name).write_text('{"id": 2}')
    assert call("git", "add", ".").returncode == 0
    done = call("pre-commit", "run")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_job_of_gitlab_writes_its_artifacts(files, tmp_path):
    files({"in/a.json": "[1,]"})
    job = load("docs/examples/gitlab-ci.yml")["asyncbatch"]
    done = subprocess.run(
        ["sh", "-ec", "\n".join(job["script"])],
        cwd=tmp_path,
        env=environment(PATH=f"{BIN}:{os.environ['PATH']}", **job["variables"]),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 1, done.stderr
    reports = job["artifacts"]["reports"]
    [entry] = json.loads((tmp_path / reports["codequality"]).read_bytes())
    assert entry["location"] == {"path": "in/a.json", "lines": {"begin": 1}}
    assert b"<failure" in (tmp_path / reports["junit"]).read_bytes()
