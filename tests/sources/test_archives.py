"""Archives as inputs: their members, values, names, damage, limits and ledgers."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import stat
import struct
import subprocess
import tarfile
import zipfile

import pytest

from asyncbatch.formats.compression import compression_by_name
from asyncbatch.sources.inputs import Inputs
from asyncbatch.sources.selection import Selection, Shard
from tests.commands import COMMAND, environment

VALUES = {
    "a.json": [{"n": 1}, {"n": 2}],
    "in/b.jsonl": [{"n": 3}, {"n": 4}],
    "in/c.json.gz": [{"n": 5}],
    "in/deep/d.JSON": {"n": 6},
    "in/big.jsonl": [{"n": n, "text": "x" * 90} for n in range(7, 4000)],
}
FORMS = ("zip", "tar", "tar.gz", "tar.bz2", "tar.xz", "tar.zst", "tgz")


def packed(name, text):
    """Return a text, compressed if the name says so."""
    form = compression_by_name(name)
    return form.compress(text) if form else text


def text_of(name, value):
    """Return the content of the file of a value."""
    if ".jsonl" in name:
        return packed(name, "".join(json.dumps(one) + "\n" for one in value).encode())
    return packed(name, json.dumps(value).encode())


def records_in(values):
    """Return the records of values, in order."""
    return [r for value in values for r in (value if isinstance(value, list) else [value])]


CONTENTS = {name: text_of(name, value) for name, value in VALUES.items()}


def zipped(contents, method=zipfile.ZIP_DEFLATED):
    """Return a zip with some contents."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)  # all of one time
    return packed.getvalue()


def tarred(contents, form=tarfile.PAX_FORMAT):
    """Return a tar with some contents, and what `TarInfo`s there are among them."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=form) as archive:
        for name, content in contents.items():
            entry = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(content, tarfile.TarInfo):
                entry.name = name
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def archive_of(form, contents):
    """Return an archive of a form with some contents."""
    if form == "zip":
        return zipped(contents)
    return packed("x.gz" if form == "tgz" else f"x.{form}", tarred(contents))


def failures_of(outcome):
    """Return the kind and message of each failed file, by name."""
    return {one["file"]: (one["kind"], one["message"]) for one in outcome.json["failures"]}


def test_members_are_read_as_files(run, files, tmp_path):
    files({f"a.{form}": archive_of(form, {**CONTENTS, "readme.txt": b"no"}) for form in FORMS})
    names = [f"a.{form}" for form in FORMS]
    events = run(*names, "-o", "jsonl", "--workers", "2", "--to", "out.jsonl").events
    assert [(one["file"], one["records"], one["bytes"]) for one in events] == [
        (f"{archive}/{name}", len(records_in([value])), len(CONTENTS[name]))
        for archive in names
        for name, value in VALUES.items()
    ]
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert list(map(json.loads, lines)) == len(FORMS) * records_in(VALUES.values())


def test_each_compression_of_a_zip(run, files):
    for name in ("STORED", "DEFLATED", "BZIP2", "LZMA"):
        whole = zipped(CONTENTS, getattr(zipfile, f"ZIP_{name}"))
        begin, end = whole.index(b"in/big.jsonl") + 200, whole.rindex(b"PK\1\2") - 200
        damaged = bytearray(whole)
        damaged[(begin + end) // 2] ^= 4
        files({f"{name}.zip": whole, f"{name}-damaged.zip": bytes(damaged)})
    outcome = run("*.zip", "-o", "json")
    failed = failures_of(outcome)
    assert len(failed) == 4
    for name, (kind, message) in failed.items():
        assert name.endswith("-damaged.zip/in/big.jsonl")
        assert (kind, message[:5]) == ("corrupt_archive", "zip: ")
    count = len(records_in(VALUES.values()))
    assert outcome.json["records"]["read"] == 4 * (2 * count - len(VALUES["in/big.jsonl"]))


def test_an_archive_that_is_cut_short_is_told(run, files):
    cuts: dict[str, bytes] = {}
    for form in FORMS:
        whole = archive_of(form, CONTENTS)
        lengths = [0, 1, len(whole) // 3, len(whole) // 2, len(whole) * 3 // 4, len(whole) - 1]
        cuts |= {f"{length}.{form}": whole[:length] for length in lengths}
    with tarfile.open(fileobj=io.BytesIO(tarred(CONTENTS))) as archive:
        second = archive.getmembers()[1].offset
    cuts["between.tar"] = tarred(CONTENTS)[:second]
    files(cuts)
    failed = failures_of(run(*cuts, "-o", "json"))
    assert {kind for kind, _ in failed.values()} == {"corrupt_archive"}
    assert {name.partition("/")[0] for name in failed} == set(cuts)


def test_a_damaged_directory_of_a_zip_is_told(run, files):
    whole = bytearray(zipped(CONTENTS))
    entry = whole.index(b"PK\1\2")
    longer = bytearray(whole)
    longer[entry + 29] = 1  # the name of the first entry hides the second
    nowhere = bytearray(whole)
    nowhere[entry + 42 : entry + 46] = struct.pack("<I", 5)  # where the first member begins
    files({"a.zip": bytes(longer), "b.zip": bytes(nowhere), "c.zip": b"{}"})
    failed = failures_of(run("a.zip", "b.zip", "c.zip", "-o", "json"))
    assert failed["b.zip/a.json"] == (
        "corrupt_archive",
        "zip: no member begins at byte 5 of the archive",
    )
    assert {failed[name][0] for name in ("a.zip", "c.zip")} == {"corrupt_archive"}


def test_a_zip_hides_no_other_archive(run, files):
    one, two = zipped({"a.json": "[1]"}), zipped({"b.json": "[2]"})
    files({
        "both.zip": one + two, "cut.zip": one + two[:-30], "junk.zip": one + b"junk",
        "padded.zip": one + bytes(10), "program.zip": b"#!/bin/sh\nunpack PK\5\6\n" + one,
    })  # fmt: skip
    outcome = run("both.zip", "cut.zip", "junk.zip", "padded.zip", "program.zip", "-o", "json")
    failed = failures_of(outcome)
    assert {name: kind for name, (kind, _) in failed.items()} == dict.fromkeys(
        ("both.zip", "cut.zip", "junk.zip"), "corrupt_archive"
    )
    assert f"another archive is in its first {len(one):,} bytes" in failed["both.zip"][1]
    assert "4 bytes follow the end" in failed["junk.zip"][1]
    assert outcome.json["files"]["succeeded"] == 2


def test_damage_in_a_tar_is_told(run, files):
    whole = tarred(CONTENTS)
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        third = archive.getmembers()[2].offset
    damaged = whole[:third] + b"X" + whole[third + 1 :]
    flipped = bytearray(packed("a.tar.gz", whole))
    flipped[-6] ^= 1  # in the CRC of the gzip file
    files({"a.tar": damaged, "b.tar": whole + whole, "c.tar.gz": bytes(flipped), "d.tar": "{}"})
    failed = failures_of(run("a.tar", "b.tar", "c.tar.gz", "d.tar", "-o", "json"))
    assert {kind for kind, _ in failed.values()} == {"corrupt_archive"}
    assert set(failed) - {"c.tar.gz/in/big.jsonl"} == {"a.tar", "b.tar", "c.tar.gz", "d.tar"}
    assert "bad checksum" in failed["a.tar"][1]
    assert "more data follows its end mark" in failed["b.tar"][1]


def encrypted(content):
    """Return a zip whose only member is marked as encrypted."""
    whole = bytearray(zipped({"secret.json": content}))
    for at in (6, whole.index(b"PK\1\2") + 8):
        whole[at] |= 1
    return bytes(whole)


def test_members_that_cannot_be_read_are_failures(run, files):
    link, device, hard = (tarfile.TarInfo() for _ in range(3))
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    hard.type, hard.linkname = tarfile.LNKTYPE, "a.json"
    device.type = tarfile.CHRTYPE
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        info = zipfile.ZipInfo("link.json")
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
        archive.writestr("inner.zip", zipped({"a.json": "1"}))
        archive.writestr("sub/inner.tar.gz", b"")
        archive.writestr("zip.json", zipped({"a.json": "1"}))
        archive.writestr("good.json", "1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("good.json", "2")
    method = bytearray(zipped({"old.json": "1"}))
    for at in (8, method.index(b"PK\1\2") + 10):
        method[at : at + 2] = struct.pack("<H", 9)
    files(
        {
            "t.tar": tarred({"l.json": link, "h.json": hard, "d.json": device, "ok.json": b"1"}),
            "z.zip": packed.getvalue(),
            "e.zip": encrypted(b"{}"),
            "m.zip": bytes(method),
        }
    )
    outcome = run("t.tar", "z.zip", "e.zip", "m.zip", "-o", "json")
    failed = failures_of(outcome)
    assert outcome.json["files"]["succeeded"] == 2
    words = {
        "t.tar/l.json": "symbolic link",
        "t.tar/h.json": "hard link in the archive, to 'a.json'",
        "t.tar/d.json": "a device",
        "z.zip/link.json": "symbolic link",
        "z.zip/inner.zip": "archive in an archive",
        "z.zip/sub/inner.tar.gz": "archive in an archive",
        "z.zip/zip.json": "is a zip archive",
        "e.zip/secret.json": "encrypted",
        "m.zip/old.json": "deflate64, method 9",
    }
    [twice] = set(failed) - set(words)
    assert twice.startswith("z.zip/good.json (at byte")
    assert "earlier member" in failed[twice][1]
    for name, word in words.items():
        assert word in failed[name][1]


HOSTILE = ["../../up.json", "/etc/root.json", "a/../../b.json", "./c.json", "new\nline\x1b[2J.json"]


def test_no_name_leaves_the_folder_of_a_mirrored_output(run, files, tmp_path):
    forms = ("zip", "tar")
    contents = dict.fromkeys(HOSTILE, b'{"a": 1}')
    files({f"in/sub/a.{form}": archive_of(form, contents) for form in forms})
    named = [f"sub/a.{form}" for form in forms]
    outcome = run(*named, "--to", "../out/x/", "-o", "json", cwd=tmp_path / "in")
    assert outcome.code == 0, outcome.stderr
    written = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    names = ["up.json", "etc/root.json", "a/b.json", "c.json", HOSTILE[4]]
    for form in forms:
        written.remove(f"in/sub/a.{form}")
        written -= {f"out/x/sub/a.{form}/{name}" for name in names}
        found = (tmp_path / f"out/x/sub/a.{form}/up.json").read_text()
        assert json.loads(found) == {"a": 1}
    assert not written
    shown = run("in/sub/a.zip", "--max-file-size", "1")
    assert "\x1b" not in shown.stdout + shown.stderr


def test_a_zip_may_have_the_separators_of_windows(run, files):
    names = ("..\\c.json", "in\\d.json", "in/..\\e.json", "in\\.git\\f.json", "in\\")
    folder = files({"w.zip": zipped(dict.fromkeys(names, "1"))})
    outcome = run("w.zip", "--to", "out/", "-o", "json")
    assert outcome.json["files"]["succeeded"] == 3
    found = {str(path.relative_to(folder / "out")) for path in folder.rglob("out/**/*.json")}
    assert found == {"w.zip/c.json", "w.zip/in/d.json", "w.zip/in/e.json"}
    assert run("w.zip/in/d.json").code == 0


def test_patterns_apply_to_members(run, files, monkeypatch, tmp_path):
    contents = {"a.json": "1", "t/b.json": "1", "t/c.txt": "1", ".h/d.json": "1", "x/e.json": "1"}
    files({"in/a.zip": zipped(contents), "in/f.json": "1", "in/g.txt": "1", "list": "in/a.zip\nin"})
    monkeypatch.chdir(tmp_path)

    def names(*paths, shard=None, files_from=None, **selection):
        chosen = Selection(**selection)
        return list(Inputs(paths, files_from, selection=chosen, shard=shard).find())

    zips = ["in/a.zip/a.json", "in/a.zip/t/b.json", "in/a.zip/x/e.json"]
    assert names("in") == ["in/f.json"]  # as ever
    assert names("in/a.zip") == names("in/*.zip") == names("in", patterns=("*.zip",)) == zips
    assert names("in", patterns=("*.zip", "*.json")) == [*zips, "in/f.json"]
    assert names("in/a.zip", exclude=("t", "e*")) == zips[:1]
    assert names("in/a.zip", patterns=("t/*",)) == ["in/a.zip/t/b.json", "in/a.zip/t/c.txt"]
    assert names("in/a.zip", "in", "in/a.zip") == names(files_from="list") == [*zips, "in/f.json"]
    assert len(names("in/a.zip", hidden=True)) == 4
    shards = [names("in/a.zip", shard=Shard(number, 2)) for number in (1, 2)]
    assert sorted(shards[0] + shards[1]) == zips
    assert names("in/a.zip", exclude=("a.zip",)) == []
    shown = run("in/a.zip", "--exclude", "t", "--limit", "1", "--dry-run", "-o", "jsonl")
    assert [one["file"] for one in shown.events] == zips[:1]


def test_what_unpacks_to_too_much_is_a_failure(run, files):
    contents = {f"{n}.json": b'{"a": "%b"}' % (b" " * 900_000) for n in range(3)}
    names = [f"a.{form}" for form in ("zip", "tar", "tar.gz")]
    files({name: archive_of(name[2:], contents) for name in names})
    outcome = run(*names, "-o", "json", "--max-decompressed-size", "2MB")
    failed = failures_of(outcome)  # a compressed tar itself too, which is read no further
    assert set(failed) == {"a.tar.gz", *(f"{name}/2.json" for name in names)}
    assert {kind for kind, _ in failed.values()} == {"too_large"}
    assert all("--max-decompressed-size" in message for _, message in failed.values())
    assert run("a.zip", "--max-file-size", "800K", "-o", "json").json["files"]["failed"] == 3


def test_a_member_with_more_than_it_admits_is_damaged(run, files):
    whole = bytearray(zipped({"a.json": b"1" + b" " * 1_000_000}))
    at = whole.index(b"PK\1\2") + 24
    whole[at : at + 4] = struct.pack("<I", 10)
    files({"a.zip": bytes(whole)})
    [(kind, message)] = failures_of(run("a.zip", "-o", "json")).values()
    assert (kind, message) == ("corrupt_archive", "zip: has more bytes than the 10 of its entry")


def rows(path):
    """Return the rows of the table, in order."""
    connection = sqlite3.connect(path)
    try:
        return [n for (n,) in connection.execute("SELECT n FROM t ORDER BY rowid")]
    finally:
        connection.close()


def test_resume_knows_the_members_that_are_done(run, files, tmp_path):
    forms = ("zip", "tar", "tar.gz")

    def write(**changed):
        for number, form in enumerate(forms):
            contents = {f"{n}.json": b'{"n": %d}' % (10 * number + n) for n in range(5)}
            files({f"a.{form}": archive_of(form, {**contents, **changed})})

    write(**{"3.json": b'{"n": '})
    named = [f"a.{form}" for form in forms]
    options = (*named, "--to", "sqlite:///o.db", "--table", "t", "--key", "n", "-o", "json")
    assert run(*options).code == 1
    resumed = run(*options, "--resume").json["files"]
    assert (resumed["failed"], resumed["skipped"]) == (3, 12)
    write()
    for name in named:  # whatever the clock of the file system is
        os.utime(tmp_path / name, ns=(0, 10**18))
    mended = run(*options, "--resume").json["files"]
    # Each member of a zip has a time and a CRC. Of a new tar, everything is read.
    assert (mended["succeeded"], mended["skipped"]) == (11, 4)
    assert sorted(rows(tmp_path / "o.db")) == [n for n in range(25) if n % 10 < 5]


def test_a_table_without_a_key_refuses_members_again(run, files, tmp_path):
    contents = {f"{n}.json": b'{"n": 1}' for n in range(3)}  # all with one stamp
    files({"a.tar": tarred(contents), "b.zip": zipped(contents)})
    options = ("--to", "sqlite:///o.db", "--table", "t", "-o", "json")
    assert run("a.tar", "b.zip", *options).json["files"]["succeeded"] == 6
    again = run("a.tar", "b.zip", *options)
    assert again.json["files"]["failed"] == 6
    (tmp_path / "a.tar").rename(tmp_path / "c.tar")
    [message] = {text for _, text in failures_of(run("c.tar", *options)).values()}
    assert "a.tar/0.json under another name" in message
    assert rows(tmp_path / "o.db") == [1] * 6


def test_members_come_in_order_from_several_workers(run, files, tmp_path):
    contents = {f"{n:03}.json": json.dumps({"n": n}).encode() for n in range(300)}
    files({f"a.{form}": archive_of(form, contents) for form in ("zip", "tar.gz")})
    options = ("--to", "out.jsonl", "--workers", "2", "--batch-size", "7", "--jq", ".n")
    assert run("a.zip", "a.tar.gz", *options).code == 0
    assert (tmp_path / "out.jsonl").read_text().split() == list(map(str, range(300))) * 2


def test_async_functions_read_members(run, files, tmp_path):
    files(
        {
            "f.py": "async def keep(record):\n    return record\n",
            **{f"a.{form}": archive_of(form, CONTENTS) for form in ("zip", "tar.gz")},
        }
    )
    assert run("a.zip", "a.tar.gz", "--call", "f.py:keep", "--to", "out.jsonl").code == 0
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert list(map(json.loads, lines)) == 2 * records_in(VALUES.values())


def test_a_pipeline_file_reads_archives(etl, files, tmp_path):
    files(
        {
            "in/a.zip": zipped(CONTENTS),
            "in/b.json": "1",
            "p.toml": """
                name = "p"
                [[source]]
                type = "files"
                paths = ["in"]
                pattern = ["*.zip", "*.json", "*.jsonl"]
                [sink]
                to = "out.jsonl"
            """,
        }
    )
    assert etl("p.toml").returncode == 0
    found = list(map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines()))
    names = ("a.json", "in/b.jsonl", "in/big.jsonl")
    assert found == [*records_in(VALUES[name] for name in names), 1]


def test_standard_input_and_wrong_names_are_told(run, files):
    whole = zipped(CONTENTS)
    files({"a.bin": whole})
    for outcome in (run("-", "-o", "json", stdin=whole), run("a.bin", "-o", "json")):
        [(kind, message)] = failures_of(outcome).values()
        assert kind == "invalid_json"
        assert "read only as a local file with the ending" in message
    missing = failures_of(run("none.zip", "-o", "json"))
    assert missing == {"none.zip": ("not_found", "no such file")}


def test_a_member_can_be_named_and_run_again(run, files):
    contents = {"a.json": b"1", "in/b.json": b"[", "c.txt": b"[1, 2]", ".h.json": b"1"}
    letter = {"file": "x.zip/in/b.json", "record": None, "kind": "invalid_json", "message": ""}
    files({"x.zip": zipped(contents), "bad.jsonl": json.dumps(letter) + "\n"})
    [again] = run("--from-dead-letter", "bad.jsonl", "-o", "json").json["failures"]
    assert (again["file"], again["kind"]) == ("x.zip/in/b.json", "invalid_json")
    events = run("x.zip/c.txt", "x.zip/.h.json", "x.zip/none.json", "-o", "jsonl").events
    assert [(one["file"], one["records"]) for one in events] == [
        ("x.zip/c.txt", 2), ("x.zip/.h.json", 1), ("x.zip/none.json", 0)
    ]  # fmt: skip
    assert events[2]["error"]["kind"] == "not_found"


def test_a_replacement_that_failed_is_resumed(run, files, tmp_path):
    contents = {"a.json": b'{"n": 1}', "b.json": b"{"}
    files({"x.zip": zipped(contents), "y.tar": tarred(contents)})
    options = ("--to", "sqlite:///o.db", "--table", "t", "--mode", "replace", "-o", "json")
    assert run("x.zip", "y.tar", *options, "--resume").code == 1
    resumed = run("x.zip", "y.tar", *options, "--resume").json["files"]
    assert (resumed["skipped"], resumed["failed"]) == (2, 2)


def test_streams_refuse_archives(files):
    folder = files({"in/a.zip": zipped(CONTENTS), "in/b.jsonl": '{"n": 1}\n'})

    def stream(*arguments):
        return subprocess.run(
            [*COMMAND, "stream", *arguments, "--window", "tumbling:1s", "--time", "n"],
            check=False, capture_output=True, text=True, cwd=folder, env=environment(),
        )  # fmt: skip

    named = stream("in/a.zip")
    assert (named.returncode, "in/a.zip is an archive" in named.stderr) == (2, True)
    found = stream("in", "--pattern", "*.zip", "--pattern", "*.jsonl")
    assert "in/a.zip: read_error: is an archive" in found.stderr
    assert json.loads(found.stdout)["aggregates"]["count"] == 1
