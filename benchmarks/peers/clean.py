"""The cleaning of the records of people.py, for `--call` and for the Python peers."""

from __future__ import annotations

from typing import Any


def clean(person: dict[str, Any]) -> dict[str, Any] | None:
    """Tidy the name and the e-mail address. Drop a record without an address."""
    email = person.get("email", "").strip().lower()
    if not email:
        return None
    person["email"] = email
    person["name"] = person["name"].strip().title()
    return person
