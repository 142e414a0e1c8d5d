"""Faults of files and workers, provoked one by one."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time

import pytest

from asyncbatch.formats.failures import file_failure
from asyncbatch.storage.local import open_content
from tests.commands import COMMAND, ROOT, environment
from tests.conftest import many, python
from tests.processes import wait_until


def errors(outcome):
    return {failure["file"]: failure["kind"] for failure in outcome.json["failures"]}


def test_a_named_file_that_is_not_there_fails_and_the_rest_runs(run, files):
    files({"a.json": "1", "c.json": "1"})
    outcome = run("a.json", "b.json", "c.json", "a.json/x.json", "-o", "json")
    assert errors(outcome) == {"b.json": "not_found", "a.json/x.json": "not_found"}
    assert outcome.json["files"]["succeeded"] == 2
    assert outcome.code == 1


def test_links_that_lead_nowhere(run, files):
    folder = files({"a.json": "1"})
    (folder / "dead.json").symlink_to("nowhere")
    (folder / "self.json").symlink_to("self.json")
    assert errors(run(".", "-o", "json")) == {
        "./dead.json": "not_found",
        "./self.json": "read_error",
    }


def test_files_over_the_size_limit(run, files):
    files({"small.json": "[" + " " * 98 + "]", "big.json": "[" + " " * 99 + "]"})
    outcome = run(".", "-o", "json", "--max-file-size", "100")
    [failure] = outcome.json["failures"]
    assert (failure["file"], failure["kind"]) == ("./big.json", "too_large")
    assert "101 bytes" in failure["message"]
    assert outcome.json["files"]["bytes"] == 100


def test_standard_input_over_the_size_limit(run):
    outcome = run("-", "-o", "json", "--max-file-size", "1MB", stdin=b"[" + b"1," * 10**6 + b"1]")
    assert errors(outcome) == {"-": "too_large"}


def test_a_file_without_permission(run, files):
    folder = files({"locked.json": "1", "fine.json": "1", "closed/x.json": "1"})
    (folder / "locked.json").chmod(0)
    (folder / "closed").chmod(0)
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:  # root can read every file unless it drops that capability
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("setpriv (util-linux) is needed to test this as root")
        prefix = (setpriv, "--bounding-set=-dac_override,-dac_read_search")
    try:
        outcome = run(".", "-o", "json", prefix=prefix)
    finally:
        (folder / "closed").chmod(0o700)
    assert errors(outcome) == {"./locked.json": "permission", "./closed": "permission"}
    assert outcome.json["files"]["succeeded"] == 1


def test_a_folder_that_is_read_as_a_file():
    with pytest.raises(IsADirectoryError) as caught:
        open_content("/")
    failure = file_failure("/", caught.value)
    assert (failure.kind, failure.message) == ("read_error", "is a folder that could not be listed")


def test_files_that_vanish_or_change_between_listing_and_reading(run, files):
    """Files change after they were listed, while the first one holds up the run."""
    gate = (
        "import os, time\n"
        "def gate(record):\n"
        "    open('called', 'w').close()\n"
        "    while not os.path.exists('go-on'):\n"
        "        time.sleep(0.01)\n"
        "    return record\n"
    )
    contents = {"a.json": "1", "b.json": "[1]", "c.json": "1", "d.json": "1"}
    folder = files({**contents, "gate.py": gate})

    def meddle():
        wait_until((folder / "called").exists)
        (folder / "b.json").write_text("[1, 2, 3]")
        (folder / "c.json").unlink()
        (folder / "d.json").unlink()
        (folder / "d.json").mkdir()
        (folder / "go-on").touch()

    meddling = threading.Thread(target=meddle)
    meddling.start()
    outcome = run(".", "-b", "1", "--concurrency", "1", "--call", "gate.py:gate", "-o", "jsonl")
    meddling.join()
    statuses = {
        event["file"]: (event["status"], event.get("error", {}).get("kind"), event["records"])
        for event in outcome.events
    }
    assert statuses == {
        "./a.json": ("success", None, 1),
        "./b.json": ("success", None, 3),
        "./c.json": ("failed", "not_found", 0),
        "./d.json": ("failed", "read_error", 0),
    }


@pytest.mark.parametrize("writer_comes_after", [0.0, 1.0])
def test_a_named_pipe_is_read_to_its_end(run, files, writer_comes_after):
    folder = files({})
    os.mkfifo(folder / "pipe")

    def write():
        time.sleep(writer_comes_after)
        with (folder / "pipe").open("wb") as pipe:
            for _ in range(3):
                pipe.write(b"[" + b"1," * 40_000 + b"1]\n")
                pipe.flush()
                time.sleep(0.1)

    writing = threading.Thread(target=write)
    writing.start()
    outcome = run("pipe", "--format", "jsonl", "-o", "json")
    writing.join()
    assert outcome.json["records"]["read"] == 3
    assert outcome.json["files"]["bytes"] == 3 * 80_004


@pytest.mark.parametrize("read_ahead", [(), ("--read-ahead", "200")])
def test_ten_thousand_files_with_64_descriptors(run, files, read_ahead):
    files({f"{n % 10}/{name}": text for n, (name, text) in enumerate(many(10_000).items())})
    limited = ("sh", "-c", 'ulimit -n 64; exec "$@"', "sh")
    outcome = run(".", "-o", "json", "--no-progress", *read_ahead, prefix=limited)
    assert outcome.stderr == ""
    assert outcome.json["files"]["succeeded"] == 10_000


def test_a_worker_that_dies_costs_no_file_but_its_own(files):
    """Halving finds the file that kills its worker; all others are processed once."""
    folder = files({**many(600), "00300.json": "killer"})
    program = f"""
import asyncio, os
from asyncbatch import FileSource, Inputs, Job, Run
from asyncbatch.workers.tasks.count import CountTask

class Fragile(CountTask):
    def __call__(self, batch):
        for path in batch.paths:
            if os.path.getsize(path) == 6:
                os._exit(3)
        return super().__call__(batch)

async def main():
    run = Run(Job((FileSource(Inputs(({str(folder)!r},))),), workers=2), work=Fragile)
    results = [outcome async for part in run.parts() for outcome in part.outcomes()]
    bad = [one for one in results if one.error]
    print(len(results), len({{one.file for one in results}}), len(bad))
    print(bad[0].file[-10:], bad[0].error.kind, bad[0].error.message)

if __name__ == "__main__":
    asyncio.run(main())
"""
    module = folder / "fragile.py"
    module.write_text(program)
    main = "import asyncio, fragile; asyncio.run(fragile.main())"
    finished = python(main, PYTHONPATH=f"{ROOT}:{folder}")
    assert finished.stdout.splitlines() == [
        "600 600 1",
        "00300.json worker_crash its worker process exited with 3 while it processed this file",
    ]


def test_a_defect_surfaces_as_one(files):
    folder = files(many(300))
    (folder / "broken.py").write_text(
        "from asyncbatch.workers.tasks.count import CountTask\n"
        "class Broken(CountTask):\n"
        "    def __call__(self, batch):\n"
        "        raise ZeroDivisionError('a slip')\n"
        "        yield\n"
    )
    program = (
        "import asyncio, broken\n"
        "from asyncbatch import FileSource, Inputs, Job, Run\n"
        "async def main():\n"
        f"    source = FileSource(Inputs(({str(folder)!r},)))\n"
        "    run = Run(Job((source,), workers=1), work=broken.Broken)\n"
        "    async for part in run.parts(): pass\n"
        "asyncio.run(main())\n"
    )
    finished = python(program, PYTHONPATH=f"{ROOT}:{folder}")
    assert "WorkerBugError" in finished.stderr
    assert "ZeroDivisionError: a slip" in finished.stderr


def test_without_simdjson_all_is_the_same(run, files):
    """The package must work where simdjson has no wheel."""
    folder = files({**many(300), "bad.json": "[1,]", "big.json": "[18446744073709551616]"})
    (folder / "stub").mkdir()
    for name in ("simdjson", "csimdjson"):
        (folder / f"stub/{name}.py").write_text("raise ImportError")
    with_it = run(".", "-w", "2", "-o", "json").json
    without = run(".", "-w", "2", "-o", "json", env={"PYTHONPATH": f"{folder}/stub:{ROOT}"}).json
    for part in ("files", "records", "failures"):
        assert without[part] == with_it[part]


def test_the_command_is_the_module():
    shown = subprocess.run(
        [*COMMAND, "--version"], check=True, capture_output=True, text=True, env=environment()
    )
    assert shown.stdout.startswith("asyncbatch 0.")


def test_memory_does_not_grow_with_the_number_of_files(run, files):
    folder = files({f"few/{name}": text for name, text in many(1000).items()})
    one = folder / "few/00000.json"
    for number in range(30):
        (folder / f"many/{number}").mkdir(parents=True)
        for name in range(1000):
            os.link(one, folder / f"many/{number}/{name}.json")
    options = ("-o", "json", "-w", "2", "--read-ahead", "0")
    few, lots = (run(name, *options).json for name in ("few", "many"))
    assert lots["files"]["succeeded"] == 30_000
    # 30 times as many files: a leak of 100 bytes per file would add 3 MB per process.
    assert lots["peak_memory_bytes"] < few["peak_memory_bytes"] + 8_000_000
