"""Tests that axe-core finds no fault in the pages of reports and of live runs."""

from __future__ import annotations

import json
from importlib.resources import files as resources
from itertools import product

import pytest

from tests.cli.test_live_page import EVENTS, GATED, PIPELINE, gated
from tests.commands import run_command_text
from tests.conftest import many
from tests.servers.browser import CHROMIUM, Browser
from tests.servers.live_pages import LiveCommand

__all__ = ["gated"]

AXE = resources("axe_core_python").joinpath("axe.min.js").read_text()
FAULTS = """axe.run().then((found) => JSON.stringify({
    faults: found.violations.map((one) => [one.id, one.nodes.map((node) => node.html)]),
    passed: found.passes.map((one) => one.id),
}))"""
PHONE = {"width": 375, "height": 700, "deviceScaleFactor": 1, "mobile": True}
DESKTOP = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
COMMANDS = {
    "run": ("run", "in", "--report", "page.html"),
    "etl": ("etl", "nightly.toml", "--report", "page.html"),
    "stream": (
        "stream", "events.jsonl", "--time", "t", "--window", "tumbling:2s", "--report", "page.html",
    ),
    "profile": ("profile", "in", "--report", "page.html"),
}  # fmt: skip

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium: `apt-get install chromium` brings it"
)


async def assert_accessible(browser):
    """Judge the page that is open, with all its details, on each screen and in each colour."""
    await browser.evaluate("document.querySelectorAll('details').forEach((one) => one.open = true)")
    await browser.evaluate(f"{AXE}; 1")
    for screen, colors in product((DESKTOP, PHONE), ("light", "dark")):
        scheme = [{"name": "prefers-color-scheme", "value": colors}]
        await browser.ask("Emulation.setDeviceMetricsOverride", **screen)
        await browser.ask("Emulation.setEmulatedMedia", features=scheme)
        found = json.loads(await browser.evaluate(FAULTS))
        assert found["faults"] == []
        assert {"color-contrast", "document-title", "html-has-lang"} <= {*found["passed"]}


@pytest.mark.parametrize("command", COMMANDS)
async def test_reports(command, files):
    broken = {"in/broken.json": '{"n": 1,, }', "in/<b>.json": "[", "in/lines.jsonl": '{"n": 1}\n2'}
    inputs = {f"in/{name}": text for name, text in many(9).items()} | broken
    folder = files({**inputs, "nightly.toml": PIPELINE, "events.jsonl": f"{EVENTS}no event\n"})
    finished = run_command_text(*COMMANDS[command], cwd=folder)
    assert finished.returncode in {0, 1}, finished.stderr
    async with Browser(folder) as browser:
        await browser.open(folder / "page.html")
        await assert_accessible(browser)


async def test_a_live_page(gated):
    async with Browser(gated) as browser:
        with LiveCommand(gated, "run", *GATED, "--live") as command:
            await browser.open(command.url)
            await browser.wait_for("document.querySelector('h1 strong')?.textContent === 'Running'")
            await browser.wait_for("document.body.textContent.includes('script')")
            await assert_accessible(browser)
