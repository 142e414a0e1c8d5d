"""Records of people with untidy names and addresses, to clean and load."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.documents import Document

if TYPE_CHECKING:
    from collections.abc import Iterator

PER_FILE = 1000
# One of this number of people has no e-mail address: no field, an empty one, or blanks.
UNREACHABLE = 20

FIRST = (
    *("ada", "alan", "barbara", "claude", "donald", "edsger", "frances", "grace", "hedy", "john"),
    *("joan", "karen", "kurt", "linus", "mary", "niklaus", "radia", "shafi", "tony", "vint"),
)
LAST = (
    *("allen", "backus", "cerf", "clarke", "dijkstra", "goedel", "goldwasser", "hamilton"),
    *("hoare", "hopper", "kernighan", "knuth", "lamarr", "liskov", "lovelace", "neumann"),
    *("perlman", "ritchie", "shannon", "sparck jones", "thompson", "torvalds", "turing"),
    *("wilkes", "wirth"),
)
HOSTS = ("Example.COM", "example.org", "MAIL.example.net")


class Loaded(NamedTuple):
    """The totals of a table of cleaned people."""

    rows: int
    id_sum: int
    names: int
    tidy: int  # tidy e-mail addresses


# Reads the fields of `Loaded`. If some names are not cleaned, `names` is too high.
LOADED_SQL = """
    select count(*), sum(id), count(distinct name), sum(email = lower(trim(email)) and email != '')
    from records
"""


def people(files: int, seed: int) -> Iterator[Document]:
    """Yield arrays of people, with ids from 1 through all files."""
    pick = random.Random(seed)
    for file in range(files):
        first = file * PER_FILE + 1
        records = [_person(pick, number) for number in range(first, first + PER_FILE)]
        yield Document(json.dumps(records, separators=(",", ":")).encode(), PER_FILE)


def loaded(people_read: int) -> Loaded:
    """Return the expected totals after cleaning and loading `people_read` people."""
    dropped = people_read // UNREACHABLE
    rows = people_read - dropped
    id_sum = people_read * (people_read + 1) // 2 - UNREACHABLE * dropped * (dropped + 1) // 2
    return Loaded(rows, id_sum, len(FIRST) * len(LAST), rows)


def _person(pick: random.Random, number: int) -> dict[str, Any]:
    first, last = pick.choice(FIRST), pick.choice(LAST)
    name = pick.choice(
        (f"  {first} {last.upper()} ", f"{first} {last}", f" {first.title()} {last}")
    )
    person = {
        "id": number,
        "name": name,
        "email": f"{first.title()}.{number}@{pick.choice(HOSTS)}",
        "signup": f"20{pick.randint(10, 24)}-{pick.randint(1, 12):02}-{pick.randint(1, 28):02}",
        "amount": round(pick.lognormvariate(3, 1), 2),
    }
    if pick.random() < 0.5:
        person["email"] = f" {person['email']} "
    if number % UNREACHABLE == 0:
        person["email"] = pick.choice(("", "  ", None))
    if person["email"] is None:
        del person["email"]
    return person
