"""Functions that run in threads."""

from __future__ import annotations

import asyncio
import threading

import pytest

from asyncbatch.core.aio import run_in_thread


@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancellation_waits_for_the_function(fails):
    has_begun, may_end, ended = threading.Event(), threading.Event(), []

    def work():
        has_begun.set()
        may_end.wait()
        ended.append(threading.current_thread())
        if fails:
            raise OSError

    running = asyncio.create_task(run_in_thread(work))
    await asyncio.to_thread(has_begun.wait)
    for _ in range(2):  # also a second one
        running.cancel()
        await asyncio.wait([running], timeout=0.02)
        assert not running.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended != [threading.current_thread()]
    assert len(ended) == 1


async def test_results_and_errors_of_the_function_are_passed_on():
    assert await run_in_thread(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        await run_in_thread(lambda: 1 // 0)
