"""The kinds of failure: the meaning, the explanation and the remedy of each.

Reports show the meanings, SARIF the remedies, and `docs/failures.md` is made of all three.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from asyncbatch.core.records import FailureKind


class Kind(NamedTuple):
    """A kind of failure in words. `subject` fails: a file, a record, or an event of a stream."""

    subject: str
    meaning: str
    explanation: str  # in Markdown
    remedy: str  # in Markdown


KINDS: dict[FailureKind, Kind] = {
    "not_found": Kind(
        "file",
        "A named file does not exist.",
        "A path that was given, or that a list of `--files-from` names, leads to no file. A file "
        "that was found in a folder and removed before its turn fails in the same way.",
        "Correct the path. If other programs remove files meanwhile, let them move the files away "
        "before the run begins.",
    ),
    "permission": Kind(
        "file",
        "A file may not be read.",
        "The system or the object store refuses to open the file for the user of this run.",
        "Let this user read the file and enter its folders, or run as another user. For object "
        "stores, check the credentials and their rights.",
    ),
    "read_error": Kind(
        "file",
        "A file could not be read to its end.",
        "The disk, the network file system or the object store reported an error. In a stream, "
        "data of a source was lost, or could not be read. In a program, its own source raised an "
        "exception.",
        "Read the reason in the message. For temporary errors use `--retries`.",
    ),
    "empty": Kind(
        "file",
        "A file has no content.",
        "A JSON document is one value, and the file has none: it has no bytes, or only blanks. "
        "Often the program that should have written it was stopped. A file of JSON Lines may be "
        "empty: it has no records.",
        "Write the file again, or leave it out with `--exclude`.",
    ),
    "encoding": Kind(
        "file or record",
        "A file is not UTF-8.",
        "JSON between systems is UTF-8. The position is that of the first byte that is not. If "
        "the text looks like UTF-16 or UTF-32, the message says so.",
        "Convert the file: `iconv -f LATIN1 -t UTF-8 old.json > new.json`, with the encoding that "
        "it has.",
    ),
    "invalid_json": Kind(
        "file or record",
        "A text is not JSON.",
        "The position is the first byte at which the text cannot be the beginning of JSON. The "
        "message recognises common reasons: trailing commas, comments, `NaN`, single quotes, JSON "
        "Lines under another name, archives. In JSON Lines only that line is rejected.",
        "Correct the text there, or the program that writes it. For values one after another use "
        "`--input-format jsonl`, concat or seq.",
    ),
    "too_large": Kind(
        "file or record",
        "A file or a record is larger than a limit.",
        "The limit is `--max-file-size`, `--max-decompressed-size`, `--max-window` or "
        "`--max-memory`, or the memory of the machine. The message names it.",
        "Raise the limit that the message names, if the file is as large as it should be. Use "
        "fewer `--workers` if memory is the limit.",
    ),
    "too_deep": Kind(
        "file or record",
        "A value is nested too deeply.",
        "Arrays and objects are in each other for more than 1,024 levels. Such a text is rarely "
        "meant, and would overflow the stack of many programs.",
        "Correct the program that writes it.",
    ),
    "corrupt_archive": Kind(
        "file",
        "A compressed file or an archive is damaged or cut short.",
        "The content begins as one of a known compression or archive, and cannot be unpacked to "
        "its end. None of its records are counted or written.",
        "Copy or download the file again, and compare its size with that of the original.",
    ),
    "timeout": Kind(
        "file or record",
        "A file took longer than --timeout.",
        "The time runs from the opening of the file until its results are there, with all "
        "retries. The worker process was ended, wherever it hung. In a stream it is the time of "
        "one event.",
        "Look for a loop in the jq program or the function. Raise `--timeout` if the work takes "
        "that long.",
    ),
    "worker_crash": Kind(
        "file or record",
        "A worker process died at a file.",
        "The process ended at this file twice: the second time it worked on the file alone. After "
        "signal SIGKILL, memory has probably run out.",
        "Use fewer `--workers`, or `--max-memory`, if memory ran out. Otherwise run the function "
        "of `--call` on this file alone.",
    ),
    "schema": Kind(
        "file or record",
        "A record does not fit its JSON Schema.",
        "Each violation has the JSON Pointer of the value, the keyword of the schema, and line "
        "and column. Up to ten are listed for a record.",
        "Correct the value at the pointer, or the schema if it is too strict. `--dead-letter` "
        "keeps the rejected records.",
    ),
    "missing_field": Kind(
        "file or record",
        "A record lacks a field that the settings name.",
        "The field of `--key`, of a require transform, of `--time`, `--by` or an aggregate is "
        "missing or null, or a document has no array at the pointer of `--records`.",
        "Check the spelling of the field: the run says so if no record has it. Drop such records "
        "with `--jq 'select(.id)'`, or set `on_missing`.",
    ),
    "transform": Kind(
        "record",
        "A transform failed at a record.",
        "The jq program ended with an error, the function raised an exception or returned no "
        "value of JSON, or a field could not be converted.",
        "Read the reason in the message; `-v` shows the traceback of a function. `--dead-letter` "
        "keeps the records, and `--from-dead-letter` runs them again.",
    ),
    "http": Kind(
        "URL",
        "A request failed.",
        "The server answered with an error, with a body that is no JSON or larger than "
        "`max_body`, or not in time; or a link led to a server that may not be asked. Temporary "
        "failures were retried.",
        "Read the status in the message. Check the token and the URL, or lower `rate_limit`. The "
        "next run goes on where this one ended.",
    ),
    "sink": Kind(
        "record, file or target",
        "The target refused a row, or could not be written.",
        "A database refuses a row that breaks its types or constraints; the other rows are "
        "loaded. If the file of the failure is the target itself, it was lost: a full disk, a "
        "server that is down. An input that would double rows without a key fails in this way, "
        "too.",
        "Read the reason in the message. Free the disk or start the server, and run again with "
        "`--resume`. Use `--key` to load inputs again.",
    ),
    "late": Kind(
        "event",
        "An event came after its window had closed.",
        "The watermark, the largest time so far less `--lateness`, had passed the end of the "
        "window. Late events are counted, and are in no window.",
        "Raise `--lateness` by the delay of such events. `--late` keeps them in a file.",
    ),
}
