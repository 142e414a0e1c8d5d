"""The cleaning of people.py's records: a function for `--call`, and for the peers in Python."""

from __future__ import annotations

from typing import Any


def clean(person: dict[str, Any]) -> dict[str, Any] | None:
    """Tidy the name and the e-mail address; drop who has none."""
    email = person.get("email", "").strip().lower()
    if not email:
        return None
    person["email"] = email
    person["name"] = person["name"].strip().title()
    return person
