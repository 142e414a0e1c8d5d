"""The ways to load a case: by one run with one batch, or in parts."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from tests.commands import COMMAND, PATIENCE, environment
from tests.torture.cases import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.torture.cases import Case
    from tests.torture.targets import Output

# Both functions return the same records: those of a function have other texts than those of a file.
_FUNCTIONS = f"""
import time

def keep(record):
    return record

def slow(record):
    if record["{KEY}"] % 5 == 3:
        time.sleep(0.05)
    return record
"""
_PIPELINE = """
name = "torture"
[[source]]
type = "http"
urls = {urls}
retry_delay = 0.01
pagination = {{ type = "page" }}
[[transform]]
type = "call"
function = "functions.py:{function}"
[sink]
{sink}
"""


class Loader:
    """Loads a case into an output, in a folder of its own."""

    def __init__(self, case: Case, output: Output, folder: Path) -> None:
        self._case, self._output, self._folder = case, output, folder
        (folder / "functions.py").write_text(_FUNCTIONS)
        self._options = output.options()
        if case.mode != "append":
            self._options += ["--mode", case.mode]
        if case.mode == "upsert":
            self._options += ["--key", KEY]
        if case.target == "csv":
            self._options += ["--columns", ",".join(case.columns)]

    def load_at_once(self) -> None:
        """Load by one run with one batch."""
        files = self._rest()
        lines = "".join(json.dumps(record) + "\n" for file in files for record in file)
        (self._folder / "all.jsonl").write_text(lines)
        self._run("run", "all.jsonl", *self._contract(), *self._call("keep"), "--workers", "0")

    def load_in_parts(self, rnd: random.Random) -> None:
        """Load by several runs that resume, of which some are killed."""
        files, case = self._rest(), self._case
        if case.is_etl:
            self._load_pages(files, rnd)
            return
        (self._folder / "in").mkdir()
        for number, records in enumerate(files):
            path = self._folder / "in" / f"{number:03}.{rnd.choice(['json', 'jsonl'])}"
            lines = list(map(json.dumps, records))
            is_array = path.suffix == ".json"
            path.write_text(
                f"[{','.join(lines)}]" if is_array else "".join(f"{x}\n" for x in lines)
            )
            if number < len(files) - 1 and rnd.random() < 0.7:
                continue
            more = ["--unordered"] if case.is_unordered else []
            self._disturb(
                rnd, "run", "in", *self._contract(), *self._call("slow"), *more, "--resume",
                "--load-batch", str(rnd.randint(1, 5)), "-b", str(rnd.randint(1, 3)),
                "--workers", str(rnd.choice([0, 2])),
            )  # fmt: skip

    def _rest(self) -> list[list[dict[str, Any]]]:
        """Load the first file if it makes the table; return the other files."""
        files = self._case.files
        if not self._case.is_frozen:
            return files
        (self._folder / "first.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in files[0]))
        self._run("run", "first.jsonl", "--workers", "0")
        return files[1:]

    def _contract(self) -> list[str]:
        return ["--schema-contract", "freeze"] if self._case.is_frozen else []

    def _call(self, function: str) -> list[str]:
        is_called = self._case.is_slow or self._case.is_etl
        return ["--call", f"functions.py:{function}"] if is_called else []

    def _load_pages(self, files: list[list[dict[str, Any]]], rnd: random.Random) -> None:
        case = self._case
        names = {"--to": "to", "--table": "table", "--mode": "mode"}
        pairs = list(zip(self._options[::2], self._options[1::2], strict=True))
        sink: dict[str, Any] = {names[name]: value for name, value in pairs if name in names}
        sink |= {"key": [KEY]} if case.mode == "upsert" else {}
        sink |= {"columns": case.columns} if case.target == "csv" else {}
        sink |= {"schema_contract": "freeze"} if case.is_frozen else {}
        sink |= {"unordered": True} if case.is_unordered else {}
        sink["batch_size"] = rnd.randint(1, 5)
        lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in sink.items())
        with _serve(files, rnd) as urls:
            (self._folder / "job.toml").write_text(
                _PIPELINE.format(
                    urls=json.dumps(urls), sink=lines, function="slow" if case.is_slow else "keep"
                )
            )
            workers = str(rnd.choice([0, 2]))
            self._disturb(rnd, "etl", "job.toml", "--workers", workers)

    def _disturb(self, rnd: random.Random, *arguments: str) -> None:
        """Run the command, perhaps kill it with all its processes, and run it to its end."""
        for _ in range(rnd.randint(1, 3) if self._case.is_killed else 0):
            process = subprocess.Popen(
                self._command(arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                cwd=self._folder, env=self._environment(), start_new_session=True,
            )  # fmt: skip
            try:
                process.wait(rnd.uniform(0.2, 1.2))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._run(*arguments)

    def _run(self, *arguments: str) -> None:
        """Run the command, which must succeed, except for records that do not fit."""
        finished = subprocess.run(
            self._command(arguments), check=False, capture_output=True, text=True, cwd=self._folder,
            env=self._environment(), timeout=PATIENCE,
        )  # fmt: skip
        said = finished.stdout + finished.stderr
        is_frozen = "freeze" in said or ("etl" in arguments and self._case.is_frozen)
        assert finished.returncode <= int(self._case.is_frozen and is_frozen), (
            f"{arguments}: {said}"
        )

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        options = [] if arguments[0] == "etl" else self._options
        return [*COMMAND, *arguments, *options, "-q"]

    def _environment(self) -> dict[str, str]:
        return environment(XDG_STATE_HOME=str(self._folder / "state"))


@contextmanager
def _serve(files: list[list[dict[str, Any]]], rnd: random.Random) -> Iterator[list[str]]:
    """Serve each file as pages of an API; yield the addresses. Some requests fail once."""
    size = rnd.randint(1, 7)
    failing = {f"/{number}" for number in range(len(files)) if rnd.random() < 0.2}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            page = int(parse_qs(url.query).get("page", ["1"])[0])
            records = files[int(url.path[1:])][size * (page - 1) : size * page]
            time.sleep(sum(record[KEY] % 7 for record in records) / 1000)
            body = json.dumps(records).encode()
            is_failing = url.path in failing
            failing.discard(url.path)
            self.send_response(503 if is_failing else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # of clients that are killed
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        port = server.server_address[1]
        yield [f"http://127.0.0.1:{port}/{number}" for number in range(len(files))]
    finally:
        server.shutdown()
        server.server_close()
