"""One small job of each command that does work, for tests of all commands alike."""

from __future__ import annotations

SCHEMA = '{"type": "object", "required": ["a"]}'
PIPELINE = """
name = "nightly"
[[source]]
type = "files"
paths = ["in"]
[sink]
to = "out.jsonl"
"""
# By command; the files are those of `GOOD`.
ARGUMENTS = {
    "run": ("in",),
    "validate": ("in", "--schema", "s.json"),
    "etl": ("p.toml",),
    "stream": ("in/1.json", "--time", "a", "--to", "windows.jsonl"),
}
GOOD = {"in/1.json": '{"a": 1}\n', "in/2.json": '{"a": 2}\n', "s.json": SCHEMA, "p.toml": PIPELINE}
