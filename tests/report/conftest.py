"""Pages of constructed runs, open in a real Chromium."""

from __future__ import annotations

import shutil

import pytest

from rl_lightning.report.page import page as page_of
from rl_lightning.report.run_files import read_runs
from tests.report.constructed import HOSTILE, make_alike, widen, write_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium or google-chrome on the PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])  # CI runs as root
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Pages: of one run, of two, and of one that has only its configuration."""
    root = tmp_path_factory.mktemp("pages")
    one = write_run(root / "one", hostile=HOSTILE)
    widen(one)
    two = write_run(root / "two", seed=1, ended=False, evaluations=(0, 10, 20, 30, 40))
    (root / "bare").mkdir()
    (root / "bare" / "config.yaml").write_text("seed_everything: 0\n")
    alike = write_run(root / "alike")
    make_alike(alike)
    for name, runs in {"one": [one], "two": [one, two], "bare": [root / "bare"], "alike": [alike]}.items():
        (root / f"{name}.html").write_text(page_of(read_runs(runs)))
    return root


@pytest.fixture
def open_page(browser, written):
    """Open a page offline; whatever the console says, and every request, fails the test at its end."""
    contexts, said = [], []

    def opened(name="one", **settings):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: request.url.startswith(("file:", "data:")) or said.append(request.url))
        tab.goto((written / f"{name}.html").as_uri())
        tab.wait_for_selector("body[data-ready]")
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert said == []
