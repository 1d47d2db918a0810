"""The page in a real Chromium: no error, filters that filter, keys that work, readable in light, in dark and on a phone."""

from __future__ import annotations

import shutil

import pytest

from rl_lightning.report.page import page as page_of
from rl_lightning.report.run_files import read_runs
from tests.report.constructed import HOSTILE, serving, write_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome on the PATH")

CONTRASTS = """() => {
  const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
  };
  const found = {};
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.checkVisibility() || node.closest("script, .hidden")) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const name = `${node.tagName} ${node.className} ${node.parentElement.className}`;
    found[name] = Math.min(found[name] ?? 99, ratio);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser():
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
    two = write_run(root / "two", seed=1, ended=False, evaluations=(0, 10, 20, 30, 40))
    (root / "bare").mkdir()
    (root / "bare" / "config.yaml").write_text("seed_everything: 0\n")
    for name, runs in {"one": [one], "two": [one, two], "bare": [root / "bare"]}.items():
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


@pytest.mark.parametrize("name", ["one", "two", "bare"])
def test_it_loads_without_a_word_on_the_console_and_asks_for_nothing(open_page, name):
    tab = open_page(name)
    charts = tab.locator(".charts:not(details *) canvas")
    assert (charts.count() > 5) == (name != "bare")
    for figure in tab.locator(".charts:not(details *) figure").all():
        assert figure.locator("canvas").count() == 1


def test_text_of_a_model_does_nothing(open_page):
    tab = open_page()
    assert tab.locator("img").count() == 0
    tab.locator("#rollout-list .option").last.click()
    assert HOSTILE in tab.locator("#rollout-detail .question").inner_text()
    cards = tab.locator("#rollout-detail .card")
    assert cards.filter(has_text=HOSTILE).locator(".think, .answer").count() == 2
    tab.wait_for_timeout(200)
    assert tab.title() == "one · rl_lightning"
    assert tab.locator("img").count() == 0


def test_filters_narrow_the_groups(open_page):
    tab = open_page()
    count = tab.locator("#rollout-filters output")
    assert count.inner_text() == "4 of 160"  # the last step
    tab.select_option("[name=step]", "")
    assert count.inner_text() == "160 of 160"
    tab.select_option("#rollout-filters [name=task]", "leg_counting")
    assert set(tab.locator("#rollout-list .name").all_inner_texts()) == {"leg_counting"}
    tab.select_option("[name=kind]", "wrong")
    assert set(tab.locator("#rollout-list .option span:nth-child(2)").all_inner_texts()) == {"0/8 right"}
    tab.fill("[name=least]", "1")
    assert count.inner_text() == "0 of 160"
    assert "Nothing matches" in tab.locator("#rollout-list").inner_text()
    assert tab.locator("#rollout-detail").inner_text() == ""


def test_a_range_of_rewards_shows_the_completions_in_it(open_page):
    tab = open_page()
    tab.select_option("[name=step]", "")
    tab.select_option("[name=kind]", "variance")
    both = tab.locator("#rollout-detail .card").count()
    tab.fill("[name=least]", "1")
    right = tab.locator("#rollout-detail .card").count()
    assert 0 < right < both == 8
    assert tab.locator("#rollout-detail .card.wrong").count() == 0
    assert f"{right} of 8 completions" in tab.locator("#rollout-detail").inner_text()


def test_think_and_answer_are_set_apart(open_page):
    card = open_page().locator("#rollout-detail .card").first
    think, answer = card.locator(".think"), card.locator(".answer")
    assert "<" not in think.inner_text() + answer.inner_text()
    assert think.evaluate("e => getComputedStyle(e).color") != answer.evaluate("e => getComputedStyle(e).color")


def test_what_changed_on_the_same_problem(open_page):
    tab = open_page()
    tab.select_option("[name=change]", "learnt")
    cards = tab.locator("#problem-detail .card header")
    assert cards.count() == 2
    assert cards.first.locator("span").first.inner_text() == "step 0"
    assert cards.first.locator("b").inner_text() == "wrong"
    assert cards.last.locator("span").first.inner_text() == "step 40"
    assert cards.last.locator("b").inner_text() == "right"


def test_everything_is_reached_by_tab_in_the_order_of_the_page(open_page):
    tab = open_page()
    reached = []
    for _ in range(40):
        tab.keyboard.press("Tab")
        reached.append(
            tab.evaluate("(e => e.id || e.name || e.getAttribute('href') || e.tagName)(document.activeElement)")
        )
    wanted = ["#learning", "#configuration", "SUMMARY", "task", "words", "rollout-list", "change", "problem-list"]
    places = [reached.index(name) for name in wanted]
    assert places == sorted(places)
    focused = tab.locator("#rollout-list")
    focused.focus()
    tab.keyboard.press("ArrowDown")
    assert focused.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"


def test_arrow_keys_walk_the_groups_and_the_steps(open_page):
    tab = open_page()
    tab.locator("#rollout-list").focus()
    chosen = "#rollout-list [aria-selected=true]"

    def shown():
        assert tab.locator(chosen).count() == 1
        assert tab.get_attribute("#rollout-list", "aria-activedescendant") == tab.get_attribute(chosen, "id")
        return tab.locator("#rollout-detail .about").inner_text().split(" · ")[:2]

    assert shown() == ["problem 156", "step 40"]
    tab.keyboard.press("ArrowDown")
    assert shown() == ["problem 157", "step 40"]
    tab.keyboard.press("End")
    assert shown() == ["problem 159", "step 40"]
    tab.keyboard.press("ArrowDown")
    assert shown() == ["problem 159", "step 40"]
    tab.keyboard.press("ArrowLeft")
    assert shown()[1] == "step 39"
    tab.keyboard.press("Home")
    tab.keyboard.press("ArrowRight")
    assert shown() == ["problem 156", "step 40"]


def test_what_is_chosen_survives_a_reload(open_page):
    tab = open_page()
    tab.select_option("[name=step]", "3")
    tab.locator("#rollout-list .option").nth(2).click()
    before = tab.locator("#rollout-detail .about").inner_text()
    tab.reload()
    tab.wait_for_selector("body[data-ready]")
    assert tab.locator("#rollout-detail .about").inner_text() == before


def test_pointing_at_a_chart_reads_all_charts(open_page):
    tab = open_page()
    tab.locator("[data-charts=training] .u-over").first.hover()
    steps = set(tab.locator("[data-charts=training] .at").all_inner_texts())
    assert len(steps) == 1
    assert steps != {"step 40"}


def test_closed_charts_are_drawn_when_they_are_opened(open_page):
    tab = open_page()
    assert tab.locator("details canvas").count() == 0
    tab.locator("#training summary").click()
    tab.wait_for_selector("details canvas")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["one", "two"])
def test_text_is_readable(open_page, scheme, name):
    """WCAG AA: 4.5 to 1."""
    tab = open_page(name, color_scheme=scheme)
    found = tab.evaluate(CONTRASTS)
    assert len(found) > 30
    assert {name: ratio for name, ratio in found.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_stand_out(open_page, scheme):
    """WCAG: 3 to 1 for what a picture is understood by. Eight colours, and the chart follows the scheme."""
    tab = open_page("one", color_scheme=scheme)
    ratios = tab.evaluate(
        """() => { const style = getComputedStyle(document.documentElement);
        const light = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16) / 255)
          .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
          .reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0);
        const ground = light(style.getPropertyValue("--ground").trim());
        return [0,1,2,3,4,5,6,7].map((k) => light(style.getPropertyValue(`--c${k}`).trim()))
          .map((l) => (Math.max(l, ground) + 0.05) / (Math.min(l, ground) + 0.05)); }"""
    )
    assert min(ratios) >= 3


@pytest.mark.parametrize("name", ["one", "two", "bare"])
def test_a_phone_needs_no_sideways_scrolling(open_page, name):
    tab = open_page(name, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    assert tab.evaluate("document.documentElement.scrollWidth") == 360
    assert tab.evaluate("Math.max(0, ...[...document.querySelectorAll('canvas')].map(e => e.clientWidth))") <= 360


def test_a_big_run_gives_the_browser_no_more_to_do_than_a_tenth_of_it(browser, tmp_path):
    """2,000 steps of 64 rollouts: what is read and what is drawn have a limit, so the page opens as fast as that of 200 steps."""

    def opened(steps):
        """The page's bytes, its elements, and what it says of the rollouts."""
        evaluations = range(0, steps + 1, steps // 40)
        run = write_run(tmp_path / f"{steps}", steps=steps, prompts=8, group=8, evaluations=evaluations, words=60)
        file = tmp_path / f"{steps}.html"
        file.write_text(page_of(read_runs([run])))
        tab = browser.new_page()
        tab.goto(file.as_uri())
        tab.wait_for_selector("body[data-ready]")
        note = tab.locator("#rollouts .about").first.inner_text()
        elements = tab.evaluate("document.querySelectorAll('*').length")
        tab.close()
        return file.stat().st_size, elements, note

    small, big = opened(200), opened(2000)
    assert small[2].startswith("8,192 of 12,800 completions")
    assert big[2].startswith("8,192 of 128,000 completions")
    assert big[0] < 1.25 * small[0] < 4_000_000
    assert big[1] < 1.25 * small[1] < 4_000


def test_a_watched_page_shows_what_the_run_writes(browser, tmp_path):
    run = write_run(tmp_path / "run", steps=4, evaluations=(0,), ended=False)
    with serving(run) as server:
        tab = browser.new_page()
        tab.clock.install()  # so that nobody waits for the page's next question
        said = []
        tab.on("console", lambda message: said.append(message.text))
        tab.goto(f"http://127.0.0.1:{server.server_port}/")
        tab.wait_for_selector("body[data-ready]")
        tab.locator("#rollout-list").focus()
        tab.keyboard.press("ArrowLeft")
        before = tab.evaluate("scrollY")
        (run / "warnings.jsonl").write_text('{"step": 4, "name": "new", "text": "a new warning"}\n')
        tab.clock.run_for(10_500)
        tab.wait_for_selector("text=a new warning")
        tab.wait_for_selector("body[data-ready]")
        assert tab.evaluate("document.activeElement.id") == "rollout-list"
        assert tab.locator("#rollout-list .gist").first.inner_text().startswith("step 3")
        assert abs(tab.evaluate("scrollY") - before) < 30 < before
        tab.close()
    assert said == []
