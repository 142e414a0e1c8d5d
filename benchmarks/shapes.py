"""Elements of many shapes, for huge arrays and huge files of JSON Lines."""

from __future__ import annotations

import json
import random
from itertools import chain, count, islice
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.corpora import SEED
from benchmarks.documents import CITIES, HEX, KINDS, NAMES, WORDS
from benchmarks.orders import orders as arrays_of_orders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from benchmarks.setting import Setting

# Elements that a file repeats: more than the cache of a processor.
BLOCK_BYTES = 20_000_000
ORDER_FILES = 400
# JSON that is no structure, but looks like it to a program that searches for boundaries.
TRAPS = ("},{", '"},{"', "],[", '\\"}', "\\\\", "\n", "\t", '{"id": 1}', "[1, 2]", "日", "😀", '"')
SCRIPTS = (
    *("Съешь же ещё этих мягких французских булок", "色は匂へど散りぬるを我が世誰ぞ常ならむ"),
    *("نص حكيم له سر قاطع وذو شأن عظيم", "ऋषियों को सताने वाले दुष्ट राक्षसों", "Příliš žluťoučký kůň 🐎"),
    *(
        "키스의 고유조건은 입술끼리 만나야 하고",
        "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία",
        "Zwölf Boxkämpfer",
    ),
)
DEPTH = 60
WIDE = 300  # fields of a wide element


class Shape(NamedTuple):
    """A shape of elements. `texts` generates those of one block."""

    name: str
    texts: Callable[[], Sequence[bytes]]
    one_line: bool = True  # whether the elements are also lines of JSON Lines
    large: bool = False  # whether an element may have more than 16 MB, the default limit of DuckDB

    @property
    def key(self) -> str:
        """The name as a part of a file name."""
        return "".join(one if one.isalnum() else "-" for one in self.name)


def shapes(setting: Setting) -> list[Shape]:
    """Return the shapes from seeds, and those of public documents if they can be downloaded."""
    found = [
        Shape("orders", orders),
        Shape("orders, pretty", lambda: _pretty(orders()), one_line=False),
        Shape("100 B", lambda: _block(_event)),
        Shape("20 KB, pretty", lambda: _pretty(_some_composed(20_000)), one_line=False),
        Shape("1 MB", lambda: _some_composed(1_000_000)),
        Shape("30 MB", lambda: _some_composed(30_000_000), large=True),
        Shape("deep", lambda: _block(lambda pick: _deep(pick, pick.randint(2, DEPTH)))),
        Shape("numbers", lambda: _block(_numbers)),
        Shape("long strings", lambda: _block(_trap)),
        Shape("non-ASCII", lambda: _block(_words)),
        Shape("wide", lambda: _block(lambda pick: wide_record(pick, pick.randrange(10**6), WIDE))),
        Shape("mixed types", lambda: _block(_any_type)),
        Shape("diverse", lambda: _block(_diverse)),
    ]
    if (public := setting.public) is not None:
        found += [
            Shape("real documents", public.documents, one_line=False),
            Shape("real documents, compact", lambda: _encode(map(json.loads, public.documents()))),
            Shape("real borders", public.borders, large=True),
        ]
    return found


def wide_record(pick: random.Random, number: int, fields: int) -> dict[str, Any]:
    """Return a record of scalars: whole numbers, numbers, texts, Booleans and nulls in turn."""
    record: dict[str, Any] = {"id": number}
    for at in range(0, fields - 1, 5):
        record[f"count_{at}"] = pick.randrange(10**6)
        record[f"ratio_{at}"] = round(pick.gauss(0, 100), 4)
        record[f"name_{at}"] = pick.choice(NAMES)
        record[f"valid_{at}"] = pick.random() < 0.5
        record[f"note_{at}"] = pick.choice((None, "late", "café au lait", ""))
    return record


def polygon(pick: random.Random) -> dict[str, Any]:
    """Return a GeoJSON feature with rings of 50 to 500 points."""
    rings = [
        [
            [round(pick.uniform(-180, 180), 6), round(pick.uniform(-90, 90), 6)]
            for _ in range(points)
        ]
        for points in pick.choices(range(50, 500), k=pick.randint(1, 3))
    ]
    geometry = {"type": "Polygon", "coordinates": rings}
    return {"type": "Feature", "properties": {"city": pick.choice(CITIES)}, "geometry": geometry}


def _block(value: Callable[[random.Random], object]) -> list[bytes]:
    """Return compact elements, with raw or escaped characters, of a block together."""
    pick = random.Random(SEED)
    texts: list[bytes] = []
    size = 0
    while size < BLOCK_BYTES:
        escaped = pick.random() < 0.2
        text = json.dumps(value(pick), ensure_ascii=escaped, separators=(",", ":")).encode()
        texts.append(text)
        size += len(text) + 1
    return texts


def _encode(values: Iterable[object], indent: int | None = None) -> list[bytes]:
    separators = (",", ":") if indent is None else None
    return [
        json.dumps(one, ensure_ascii=False, separators=separators, indent=indent).encode()
        for one in values
    ]


def _pretty(texts: Iterable[bytes]) -> list[bytes]:
    return _encode(map(json.loads, texts), indent=2)


def orders() -> list[bytes]:
    """Return compact orders: 20 MB."""
    documents = arrays_of_orders(ORDER_FILES, SEED)
    return _encode(chain.from_iterable(json.loads(one.content) for one in documents))


def composed(size: int) -> Iterator[bytes]:
    """Yield objects of about `size` bytes that hold arrays of orders, without end."""
    pick = random.Random(SEED)
    pool = orders()
    for number in count():
        items: list[bytes] = []
        length = 0
        while length < size:
            items.append(pick.choice(pool))
            length += len(items[-1]) + 1
        yield b'{"id":%d,"orders":[%s]}' % (number, b",".join(items))


def _some_composed(size: int) -> list[bytes]:
    return list(islice(composed(size), max(1, BLOCK_BYTES // size)))


def _event(pick: random.Random) -> dict[str, Any]:
    return {
        "id": pick.randrange(10**9),
        "type": pick.choice(KINDS),
        "user": pick.choice(NAMES),
        "ok": pick.random() < 0.9,
        "ms": round(pick.expovariate(0.02), 3),
    }


def _deep(pick: random.Random, depth: int) -> object:
    if not depth:
        return pick.choice((None, 1, -2.5, "end", True))
    inner = _deep(pick, depth - 1)
    if pick.random() < 0.4:
        return [pick.randrange(100), inner]
    return {"level": depth, pick.choice(KINDS): inner, "note": pick.choice(WORDS)}


def _numbers(pick: random.Random) -> object:
    if pick.random() < 0.5:
        return polygon(pick)
    return [[pick.random(), pick.randrange(10**6), -1e-7] for _ in range(pick.randint(1, 1000))]


def _trap(pick: random.Random) -> dict[str, Any]:
    words = pick.choices(TRAPS + WORDS, k=round(pick.lognormvariate(6, 1.5)))
    return {"id": pick.randrange(10**6), "text": "".join(words), "tags": words[:3]}


def _words(pick: random.Random) -> dict[str, Any]:
    lines = pick.choices(SCRIPTS, k=pick.randint(1, 20))
    return {"名前": pick.choice(NAMES), "город": pick.choice(CITIES), "text": " ".join(lines)}


def _any_type(pick: random.Random) -> object:
    options: tuple[Callable[[], object], ...] = (
        lambda: None,
        lambda: pick.random() < 0.5,
        lambda: pick.choice((0, -0.0, 1.5e300, 2**53 + 1, pick.random())),
        lambda: pick.choice(WORDS + TRAPS),
        lambda: [pick.choice((1, "a", None, [], {})) for _ in range(pick.randint(0, 9))],
        lambda: _event(pick),
        dict,
    )
    return pick.choice(options)()


def _diverse(pick: random.Random) -> object:
    """Return a random tree: its size, depth, names and types differ from element to element."""
    return _tree(pick, min(20_000, round(pick.lognormvariate(4, 2))))


def _tree(pick: random.Random, nodes: int) -> object:
    if nodes < 1:
        return pick.choice((None, True, pick.randrange(10**6), pick.random(), *WORDS, *TRAPS))
    children = pick.randint(1, min(nodes, 30))
    values = [_tree(pick, (nodes - 1) // children) for _ in range(children)]
    if pick.random() < 0.3:
        return values
    names = ("".join(islice(pick.choices(HEX, k=12), pick.randint(3, 12))) for _ in values)
    return dict(zip(names, values, strict=True))
