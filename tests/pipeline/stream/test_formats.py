"""Files of other formats among the sources of a stream: one rejection for each of them."""

from __future__ import annotations

import json
import subprocess

import pytest

from asyncbatch.config.job import StreamSettings
from asyncbatch.pipeline.stream.stream import StreamCore
from asyncbatch.sources.base import LiveChunk
from asyncbatch.windows.aggregates import parse_aggregates
from asyncbatch.windows.spec import parse_window
from tests.conftest import COMMAND, environment

EVENTS = [{"timestamp": 1_700_000_000 + second, "v": second} for second in range(60)]
LINES = "".join(json.dumps(event) + "\n" for event in EVENTS)
ARRAY = json.dumps(EVENTS, indent=1)
OPTIONS = ("--window", "tumbling:1h", "--report", "r.json")
UTF_16 = ("encoding", "looks like UTF-16; JSON must be UTF-8 (convert with iconv)")
TEXT = ("invalid_json", ("is one JSON text over several lines, not JSON Lines (jq -c '.[]' makes"
                        " JSON Lines of it)"))  # fmt: skip
SPREAD = ("invalid_json", ("has values over several lines, so it is not JSON Lines (jq -c '.' makes"
                          " JSON Lines of it)"))  # fmt: skip
OTHERS = {
    "wide": (LINES.encode("utf-16"), UTF_16),
    "wide-le": (LINES.encode("utf-16-le"), UTF_16),
    "array": (ARRAY.encode(), TEXT),
    "array-mark": (b"\xef\xbb\xbf" + ARRAY.encode(), TEXT),
    "object": (json.dumps(EVENTS[0], indent=2).encode(),
               (TEXT[0], TEXT[1].replace(".[]", "."))),
    "objects": ("\n".join(json.dumps(one, indent=2) for one in EVENTS).encode(), SPREAD),
}  # fmt: skip


def report_of(folder):
    return json.loads((folder / "r.json").read_text())


@pytest.mark.parametrize("options", [(), ("--jq", "."), ("--workers", "0")])
def test_a_file_of_another_format_is_one_rejection(stream, files, options):
    contents = {f"in/{name}.jsonl": content for name, (content, _) in OTHERS.items()}
    folder = files(contents | {"in/lines.jsonl": LINES, "in/zzz.jsonl": LINES})
    code, [window], _ = stream("in", *OPTIONS, *options, "--dead-letter", "bad.jsonl")
    assert (code, window["aggregates"]) == (0, {"count": 120})
    report = report_of(folder)
    assert report["events"]["rejected"] == len(OTHERS)
    found = {one["file"]: (one["kind"], one["message"]) for one in report["failures"]}
    assert found == {f"in/{name}.jsonl": told for name, (_, told) in OTHERS.items()}
    letters = [json.loads(line) for line in (folder / "bad.jsonl").read_text().splitlines()]
    assert {(one["file"], one["message"]) for one in letters} == {
        (file, message) for file, (_, message) in found.items()
    }


@pytest.mark.parametrize("name", ["wide", "array"])
def test_nothing_but_another_format_fails(stream, files, name):
    content, (kind, message) = OTHERS[name]
    folder = files({"in.jsonl": content})
    code, windows, text = stream("in.jsonl", *OPTIONS)
    assert (code, windows) == (1, [])
    assert text.startswith(f"rejected  in.jsonl:1:1: {kind}: {message}\n")
    assert report_of(folder)["failure_kinds"] == {kind: 1}


@pytest.mark.parametrize("first", ["[", '{"timestamp": 1, "v', "{"])
def test_lines_after_a_bad_first_line_are_read(stream, files, first):
    files({"in.jsonl": f"{first}\n{LINES}"})
    code, [window], _ = stream("in.jsonl", *OPTIONS)
    assert (code, window["aggregates"]["count"]) == (0, len(EVENTS))


def test_an_array_in_one_line_gets_advice(stream, files):
    folder = files({"in.jsonl": json.dumps(EVENTS)})
    assert stream("in.jsonl", *OPTIONS)[0] == 1
    [failure] = report_of(folder)["failures"]
    assert failure["message"].endswith("an array (--jq '.[]' makes an event of each element)")
    assert stream("in.jsonl", *OPTIONS, "--jq", ".[]")[1][0]["aggregates"]["count"] == len(EVENTS)


@pytest.mark.parametrize("name", ["wide", "array"])
def test_a_pipe_is_read_line_by_line(tmp_path, name):
    """Its first bytes may be few, and the result must not depend on how it is cut."""
    process = subprocess.run(
        [*COMMAND, "stream", "-", *OPTIONS], input=OTHERS[name][0], capture_output=True,
        check=False, cwd=tmp_path, env=environment(),
    )  # fmt: skip
    assert process.returncode == 1
    assert report_of(tmp_path)["events"]["rejected"] >= len(EVENTS)


def test_a_resumed_stream_skips_the_rest_of_such_a_file():
    settings = StreamSettings(parse_window("tumbling:1h"), parse_aggregates("count"))
    first = StreamCore(settings)
    first.join("in")
    first.feed("in", LiveChunk("in/a", ARRAY[:500].encode(), position=1, is_head=True))
    assert first.tally.kinds == {"invalid_json": 1}
    second = StreamCore(settings)
    second.join("in")
    second.restore(first.state())
    second.feed("in", LiveChunk("in/a", ARRAY[500:].encode(), ends_file=True, position=2))
    assert second.tally.kinds == {"invalid_json": 1}
    second.feed("in", LiveChunk("in/b", LINES.encode(), ends_file=True, position=3))
    assert (second.tally.events, second.tally.rejected) == (len(EVENTS), 1)
