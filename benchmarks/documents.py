"""JSON documents like the answers of an API, of a given size, from a fixed seed."""

from __future__ import annotations

import json
import random
from typing import Any, NamedTuple

POOL = 4000  # records of each kind, from which documents are built

EVENTS_BELOW = 1200  # bytes: smaller documents hold events, larger ones orders

NAMES = ("Ana Müller", "Zoë O'Neil", "王小明", "José Núñez", "Ольга Иванова", "Sam Lee", "さくら")
CITIES = ("Zürich", "São Paulo", "東京", "Kraków", "Lagos", "Reykjavík", "Boston")
WORDS = (
    "late",
    "gift",
    "naïve",
    "🎁",
    "fragile",
    "call before",
    'said "soon"',
    "a\tb",
    "señal",
    "ok",
)
KINDS = ("view", "click", "purchase", "refund", "sign_in")
HEX = "0123456789abcdef"


class Document(NamedTuple):
    """A JSON document, with its number of records: the length of an array, else 1."""

    content: bytes
    records: int


class Documents:
    """A generator of documents, which are the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._events = [self._dump(self._event()) for _ in range(POOL)]
        self._orders = [self._dump(self.order()) for _ in range(POOL)]

    def document(self, size: int) -> Document:
        """Return an array (seven of ten) or an object, of about `size` bytes."""
        pool = self._events if size < EVENTS_BELOW else self._orders
        if self._random.random() < 0.7:
            records = self._records(pool, size - 2)
            return Document(b"[" + b",".join(records) + b"]", len(records))
        if size < 250:
            return Document(self._random.choice(pool), 1)
        head = b'{"object":"list","has_more":true,"cursor":"%s","data":[' % self._hex(12).encode()
        return Document(head + b",".join(self._records(pool, size - len(head) - 2)) + b"]}", 1)

    def order(self) -> dict[str, Any]:
        """Return an order as a dict."""
        pick = self._random
        items = [self._item() for _ in range(pick.randint(1, 4))]
        return {
            "id": f"ord_{self._hex(20)}",
            "created_at": f"2024-{pick.randint(1, 12):02}-{pick.randint(1, 28):02}T08:15:30.250Z",
            "status": pick.choice(("open", "paid", "shipped", "returned")),
            "total": round(sum(item["price"] * item["quantity"] for item in items), 2),
            "customer": {
                "id": pick.randrange(10**12),
                "name": pick.choice(NAMES),
                "email": f"{self._hex(6)}@example.com",
                "verified": pick.random() < 0.8,
                "address": {
                    "city": pick.choice(CITIES),
                    "position": [pick.uniform(-90, 90), pick.uniform(-180, 180)],
                    "postcode": pick.choice((None, str(pick.randrange(10**5)))),
                },
            },
            "items": items,
            "tags": pick.sample(WORDS, pick.randint(0, 4)),
            "note": " ".join(pick.choices(WORDS, k=pick.randint(0, 12))) or None,
            "metadata": {self._hex(4): pick.choice((True, 1.5e-7, -3, "", {}, [])) for _ in "ab"},
        }

    def shuffle(self, sizes: list[int]) -> None:
        """Shuffle sizes with the seed."""
        self._random.shuffle(sizes)

    def uniform(self, low: int, high: int) -> int:
        """Return a random integer from `low` to `high`, both included."""
        return self._random.randint(low, high)

    def _records(self, pool: list[bytes], size: int) -> list[bytes]:
        """Pick random records of about `size` bytes together."""
        records: list[bytes] = []
        while size > 0:
            record = self._random.choice(pool)
            if len(record) > 2 * size:
                break
            records.append(record)
            size -= len(record) + 1
        return records

    def _event(self) -> dict[str, Any]:
        pick = self._random
        return {
            "id": pick.randrange(10**9),
            "type": pick.choice(KINDS),
            "user": pick.choice(NAMES),
            "ok": pick.random() < 0.9,
            "ms": round(pick.expovariate(0.02), 3),
            "ref": pick.choice((None, self._hex(8))),
        }

    def _item(self) -> dict[str, Any]:
        pick = self._random
        return {
            "sku": self._hex(10).upper(),
            "quantity": pick.randint(1, 5),
            "price": round(pick.lognormvariate(3, 1), 2),
            "options": {"size": pick.choice("SML"), "colour": pick.choice((None, "red", "bleu"))},
        }

    def _hex(self, digits: int) -> str:
        return "".join(self._random.choices(HEX, k=digits))

    def _dump(self, record: dict[str, Any]) -> bytes:
        """Encode compactly, or one of four times with the spaces and escapes of Python."""
        if self._random.random() < 0.25:
            return json.dumps(record).encode()
        return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
