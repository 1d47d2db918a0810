"""The page in a real Chromium: no error, filters that filter, keys that work; it opens where there is something to see."""

from __future__ import annotations

import pytest

from rl_lightning.report.page import page as page_of
from rl_lightning.report.run_files import read_runs
from tests.report.constructed import HOSTILE, serving, write_run


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
    completions = tab.locator("#rollout-detail .completion")
    assert completions.filter(has_text=HOSTILE).locator(".think, .answer").count() == 2
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
    both = tab.locator("#rollout-detail .completion").count()
    tab.fill("[name=least]", "1")
    right = tab.locator("#rollout-detail .completion").count()
    assert 0 < right < both == 8
    assert tab.locator("#rollout-detail .card.wrong").count() == 0
    assert f"{right} of 8 completions" in tab.locator("#rollout-detail").inner_text()


def test_think_and_answer_are_set_apart(open_page):
    completion = open_page().locator("#rollout-detail .completion").first
    think, answer = completion.locator(".think"), completion.locator(".answer")
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


def test_it_opens_on_a_group_and_a_problem_that_differ(open_page):
    """On the newest step that has a group with reward variance, and there on the first such group."""
    tab = open_page("alike")
    assert tab.locator("#rollout-filters [name=step]").input_value() == "39"
    assert tab.locator("#rollout-list [aria-selected=true] .gist").inner_text().startswith("step 39 · Question 73")
    scores = tab.locator("#rollout-detail .card header b").all_inner_texts()
    assert {"right", "wrong"} <= set(scores)
    changes = tab.locator("#problem-list [aria-selected=true] span:nth-child(2)").inner_text()
    assert changes in ("learnt", "lost")


def test_equal_answers_share_a_card(open_page):
    """Three completions give 7, two of them in the same words; the other five give 8 in five ways."""
    cards = open_page("alike").locator("#rollout-detail .card")
    assert cards.count() == 2
    right, wrong = cards.first, cards.last
    assert right.locator("header").inner_text().split("\n")[0:2] == ["right", "3 of 8"]
    assert right.locator(".completion p").first.inner_text().startswith("2 times")
    assert right.locator("summary").inner_text() == "1 more with this answer"
    assert wrong.locator("header").inner_text().split("\n")[0:2] == ["wrong", "5 of 8"]
    assert wrong.locator(".completion").count() == 5


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
