"""Arrays whose records are only counted: workers confirm guessed bounds, or one reads the whole."""

from __future__ import annotations

import json

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st
from msgspec import structs

from asyncbatch.core.batches import Batch, SplitFile
from asyncbatch.core.records import FileResult
from asyncbatch.core.settings import FileWorkSettings, Sizes
from asyncbatch.formats import element_pattern
from asyncbatch.formats.grammar import examine
from asyncbatch.formats.positions import BOM
from asyncbatch.sources.splitter import Splitter
from asyncbatch.workers.tasks.count import CountTask
from tests.sources.test_huge_arrays import arrays, broken
from tests.sources.test_huge_lines import SMALL, job_of, outcomes

GUESSED = SplitFile("array", is_relative=True)


def count_splits(path, sizes):
    """Return the number of records of each split, or None if a guess was wrong."""
    task = CountTask(FileWorkSettings(sizes=sizes))
    *some, end = Splitter(str(path), GUESSED, sizes).splits()
    size = path.stat().st_size
    assert end.is_end_marker
    assert end.is_whole or sum(one.length for one in (*some, end)) == size
    assert end.is_whole == (not some or end.start.byte < size)
    parts = [part for one in some for part in task(Batch(0, (str(path),), one))]
    if end.is_whole or any(part.split_file is not None for part in parts):
        return None
    assert sum(part.bytes[0] for part in parts) == size
    return [part.records[0] for part in parts]


@given(
    arrays().map(lambda found: found[0]) | broken(),
    st.integers(1, 60),
    st.sampled_from([100, 1000]),
    st.integers(2, 24),
)
@example(b"", 1, 100, 2)
@example(b"[1,,2,3]", 1, 100, 2)
@example(b"[11,22,,44]", 1, 100, 2)
@example(b"[,11,22,44]", 1, 100, 2)
@example(b"[11,22,44,]", 1, 100, 2)
@example(b"[11,22,44]]", 1, 100, 2)
@example(b"[11,22],[33]", 1, 100, 2)
@example(BOM + BOM + b"[11,22,33]", 1, 100, 2)
@example(b'["a","b","c,\\"d","e"]', 1, 100, 2)
def test_confirmed_guesses_have_the_records_of_the_whole(
    tmp_path_factory, text, split, most, beginning
):
    path = tmp_path_factory.mktemp("array") / "a.json"
    path.write_bytes(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(element_pattern, "_BEGINNING_BYTES", beginning)
        counts = count_splits(path, Sizes(split_threshold=most, split=split))
    event(f"confirmed splits: {counts and min(len(counts), 3)}")
    if counts is not None:
        assert sum(counts) == examine(text)


ELEMENTS = {
    "numbers": lambda at: f"{at * 7919 % 1000}",
    "texts": lambda at: json.dumps('},{ "é\\' * (at % 5)),
    "arrays of numbers": lambda at: json.dumps([at, [at % 7, -1.5e-3]]),
    "objects": lambda at: json.dumps({"id": at, "lines": [{"id": 1}, {"id": 2}]}),
    "objects of other names": lambda at: json.dumps({f"k{at % 9}": at, "x": [1, 2]}),
    "pretty objects": lambda at: json.dumps({"id": at, "more": [{"id": 1}, [2, 3]]}, indent=2),
}


@pytest.mark.parametrize("between", [",", ", ", ",\n", "\n  ,\t"])
@pytest.mark.parametrize("kind", [*ELEMENTS])
def test_elements_that_begin_alike_are_split_for_several_workers(tmp_path, kind, between):
    alike = "" if "\n" in between else between
    if f"{alike}{ELEMENTS[kind](1)[:1]}" in ELEMENTS[kind](1)[1:]:
        pytest.skip("the same bytes stand inside of elements")
    texts = [ELEMENTS[kind](at) for at in range(2000)]
    path = tmp_path / "a.json"
    path.write_text(f" [\n{between.join(texts)} ]\n")
    counts = count_splits(path, Sizes(split_threshold=100_000, split=4000))
    assert counts is not None
    assert len(counts) > 1
    assert sum(counts) == 2000


ELEMENT = '{"id": %d, "text": "' + "é},{" * 10 + '"}'
ROWS = [ELEMENT % at for at in range(5000)]


def text_of(rows):
    return ("[" + ",\n".join(rows) + "]").encode()


def changed(at, row):
    return [*ROWS[:at], row, *ROWS[at + 1 :]]


# Between quotes or brackets, it looks like the place before an element.
TRAP = ELEMENT % 1 + ",\n" + ELEMENT % 2
TEXTS = {
    "valid": text_of(ROWS),
    "marked": BOM + text_of(ROWS),
    "a nested array of the same elements": text_of(changed(4000, f"[{TRAP}]")),
    "nothing but nested arrays later": text_of(ROWS[:3000] + [f"[{TRAP}]"] * 2000),
    "one late element of another type": text_of(changed(4999, "12345678901234567890123")),
    "an invalid element": text_of(changed(4321, '{"id": tru}')),
    "an element is missing": text_of(changed(4321, "")),
    "a raw line end in a text": text_of(changed(2000, f'"{TRAP}"')),
    "a bracket too early": text_of(changed(3000, ROWS[3000] + "]")),
    "a bracket too many": text_of(ROWS) + b"]",
    "more after the end": text_of(ROWS) + b"\n{}",
    "cut off": text_of(ROWS)[:-300],
    "cut off at a comma": text_of(ROWS)[:-1] + b",",
    "an invalid byte": text_of(ROWS).replace(b'"id": 4500', b'"id": "\xff"'),
}


@pytest.mark.parametrize("kind", [*TEXTS])
@pytest.mark.parametrize("workers", [0, 2])
async def test_the_result_is_that_of_the_whole_document(tmp_path, kind, workers):
    path, last = tmp_path / "a.json", tmp_path / "b.json"
    path.write_bytes(TEXTS[kind])
    last.write_bytes(b"[1, 2]")
    guessed, report = await outcomes(job_of(tmp_path, workers))
    whole, whole_report = await outcomes(job_of(tmp_path, workers, Sizes()))
    assert list(map(facts, guessed)) == list(map(facts, whole))
    assert report.tally == whole_report.tally
    assert list(map(facts, report.failures)) == list(map(facts, whole_report.failures))
    assert (report.tally.failed == 0) == isinstance(examine(TEXTS[kind]), int)


def facts(result):
    """Return a result without its duration, and without how far a reader of parts has got."""
    if isinstance(result, FileResult):
        error = result.error and facts(result.error)
        return structs.replace(result, elapsed_ms=0, error=error)
    return structs.replace(result, message=result.message.partition(" (after")[0])


async def test_the_file_may_become_shorter_meanwhile(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(text_of(ROWS))
    *some, _ = Splitter(str(path), GUESSED, SMALL).splits()
    path.write_bytes(text_of(ROWS)[: some[2].start.byte + 100])
    task = CountTask(FileWorkSettings(sizes=SMALL))
    for split, is_there in ((some[0], True), (some[2], False), (some[-1], False)):
        [part] = task(Batch(0, (str(path),), split))
        assert (part.split_file is None) == is_there
