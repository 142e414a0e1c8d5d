"""A bare aiohttp client that requests, decodes and counts pages concurrently."""

from __future__ import annotations

import asyncio
import json
import sys

import aiohttp


async def main(url: str, pages: int, at_once: int) -> None:
    """Print the number of records."""
    numbers, total = iter(range(1, pages + 1)), 0

    async def ask(session: aiohttp.ClientSession) -> None:
        nonlocal total
        for number in numbers:
            async with session.get(url, params={"page": number}) as answer:
                total += len(json.loads(await answer.read())["items"])

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(ask(session) for _ in range(at_once)))
    print(total)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
