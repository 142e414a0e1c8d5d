"""Orders that order.schema.json describes. A few of them break one of its rules."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

from benchmarks.documents import HEX, Document, Documents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PER_FILE = 50
POOL = 2000  # valid orders in the pool, beside a tenth as many invalid ones

UNSOUND = 33  # one of this number of orders breaks a rule

FAULTS: tuple[Callable[[dict[str, Any]], object], ...] = (
    lambda order: order.update(status="lost"),
    lambda order: order.update(id=order["id"].upper()),
    lambda order: order.update(total=str(order["total"])),
    lambda order: order.update(rebate=5),
    lambda order: order["customer"].pop("email"),
    lambda order: order["customer"]["address"]["position"].append(0.0),
    lambda order: order["items"][-1].update(quantity=0),
    lambda order: order["items"][0]["options"].update(size="XXL"),
    lambda order: order["tags"].extend(("twice", "twice")),
    lambda order: order["payment"].pop("method"),
)


def orders(files: int, seed: int) -> Iterator[Document]:
    """Yield arrays of orders."""
    pick = random.Random(seed)
    documents = Documents(seed)
    sound = [_dump(_full(documents.order(), pick)) for _ in range(POOL)]
    unsound = []
    for number in range(POOL // 10):
        order = _full(documents.order(), pick)
        FAULTS[number % len(FAULTS)](order)
        unsound.append(_dump(order))
    for file in range(files):
        numbers = range(file * PER_FILE + 1, (file + 1) * PER_FILE + 1)
        records = [pick.choice(sound if number % UNSOUND else unsound) for number in numbers]
        yield Document(b"[" + b",".join(records) + b"]", PER_FILE)


def unsound_among(records: int) -> int:
    """Return the number of invalid orders among `records` orders."""
    return records // UNSOUND


def _full(order: dict[str, Any], pick: random.Random) -> dict[str, Any]:
    order["currency"] = pick.choice(("EUR", "USD", "CHF", "JPY", "PLN"))
    order["channel"] = pick.choice(("web", "app", "store", "phone"))
    order["customer"]["locale"] = pick.choice(("de-CH", "pt-BR", "ja", "pl", "en-US"))
    order["payment"] = _payment(pick)
    order["shipments"] = [_shipment(pick) for _ in range(pick.randint(0, 2))]
    return order


def _payment(pick: random.Random) -> dict[str, Any]:
    amount = round(pick.lognormvariate(4, 1), 2)
    return pick.choice(
        (
            {
                "method": "card",
                "amount": amount,
                "brand": pick.choice(("visa", "mastercard", "amex")),
                "last4": f"{pick.randrange(10**4):04}",
                "expires": f"20{pick.randint(25, 34)}-{pick.randint(1, 12):02}",
            },
            {
                "method": "invoice",
                "amount": amount,
                "number": f"INV-{pick.randrange(10**6):06}",
                "due": f"2024-{pick.randint(1, 12):02}-{pick.randint(1, 28):02}",
            },
            {"method": "voucher", "amount": amount, "codes": [_hex(pick, 8).upper()]},
        )
    )


def _shipment(pick: random.Random) -> dict[str, Any]:
    number = _hex(pick, 12).upper()
    return {
        "id": "-".join(_hex(pick, digits) for digits in (8, 4, 4, 4, 12)),
        "carrier": pick.choice(("dhl", "ups", "post")),
        "tracking": {"number": number, "url": f"https://track.example.com/{number}"},
        "shipped_at": pick.choice((None, "2024-05-17T09:00:00Z", "2024-06-02T16:45:12+02:00")),
        "grams": pick.randint(50, 30_000),
    }


def _hex(pick: random.Random, digits: int) -> str:
    return "".join(pick.choices(HEX, k=digits))


def _dump(order: dict[str, Any]) -> bytes:
    return json.dumps(order, ensure_ascii=False, separators=(",", ":")).encode()
