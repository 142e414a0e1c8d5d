"""Checks and readers of reports and JSON Lines."""

from __future__ import annotations

import json


def balanced(report):
    """Check the sums that hold in every report, and return it."""
    records, files = report["records"], report["files"]
    assert records["read"] == records["passed"] + records["dropped"] + records["rejected"]
    assert files["total"] == sum(
        files[status] for status in ("succeeded", "partial", "failed", "skipped")
    )
    assert (report["exit_code"] == 0) == (report["status"] == "success")
    return report


def rows(text: str):
    """Return the values of JSON Lines."""
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.split("\n")[:-1]]
