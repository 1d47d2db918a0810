"""How the page looks in a real Chromium: readable in light, in dark and on a phone, nothing cut off, colours with a meaning."""

from __future__ import annotations

import itertools

import pytest

from tests.report.colour_blindness import difference_as_seen

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
    """WCAG: 3 to 1 for what a picture is understood by. The chart follows the scheme."""
    tab = open_page("one", color_scheme=scheme)
    ratios = tab.evaluate(
        """() => { const style = getComputedStyle(document.documentElement);
        const light = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16) / 255)
          .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
          .reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0);
        const ground = light(style.getPropertyValue("--paper").trim());
        return ["c0", "c1", "c2", "c3", "good", "bad"].map((name) => light(style.getPropertyValue(`--${name}`).trim()))
          .map((l) => (Math.max(l, ground) + 0.05) / (Math.min(l, ground) + 0.05)); }"""
    )
    assert min(ratios) >= 3


@pytest.mark.parametrize("name", ["one", "two", "bare"])
def test_a_phone_needs_no_sideways_scrolling(open_page, name):
    tab = open_page(name, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    assert tab.evaluate("document.documentElement.scrollWidth") == 360
    assert tab.evaluate("Math.max(0, ...[...document.querySelectorAll('canvas')].map(e => e.clientWidth))") <= 360


@pytest.mark.parametrize("name", ["one", "two"])
@pytest.mark.parametrize("width", [390, 820, 1100, 1440])
def test_nothing_of_a_table_of_changes_is_out_of_view(open_page, name, width):
    """Every cell lies within the window, the changes and their intervals too; the run has every column there is."""
    tab = open_page(name, viewport={"width": width, "height": 900})
    cells = tab.locator(".paired td, .paired tbody th")
    ends = cells.evaluate_all(
        "(cells) => cells.filter((c) => c.checkVisibility()).map((c) => c.getBoundingClientRect().right)"
    )
    assert len(ends) > 40
    assert max(ends) <= width
    assert tab.locator(".paired .interval").first.bounding_box()["width"] > 40


@pytest.mark.parametrize("width", [390, 820, 1440])
def test_tiles_stand_in_rows_of_equal_length(open_page, width):
    """Of eight tiles none is left over."""
    tab = open_page(viewport={"width": width, "height": 900})
    tops = tab.locator(".summary div").evaluate_all("(tiles) => tiles.map((tile) => tile.offsetTop)")
    assert len(tops) == 8
    assert len({tops.count(top) for top in tops}) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_say_the_same_everywhere_and_to_everybody(open_page, scheme):
    """Right has one colour, wrong another, on cards and in charts; seen as by people with each kind of colour blindness."""
    tab = open_page(color_scheme=scheme)
    key = (
        "(e, text) => [...e.querySelectorAll('.legend > span')].find((s) => s.textContent.startsWith(text)).firstChild"
    )
    colours = {
        name: tab.locator("#learning").evaluate(f"(e) => getComputedStyle(({key})(e, '{name}')).borderTopColor")
        for name in ("exactly right", "all right", "all wrong", "with variance", "accuracy", "well-formed")
    }
    edge = "(cards, side) => getComputedStyle(cards.find((card) => card.matches(side))).borderTopColor"
    right, wrong = (
        tab.locator("#rollout-detail .card").evaluate_all(f"(cards) => ({edge})(cards, '.{s}')")
        for s in ("right", "wrong")
    )
    assert colours["exactly right"] == colours["all right"] == colours["accuracy"] == right
    assert colours["all wrong"] == wrong
    assert colours["with variance"] == colours["well-formed"]
    names = ("c0", "c1", "c2", "c3")
    style = "(name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()"
    seen = {name: tab.evaluate(style, name) for name in (*names, "good", "bad")}
    pairs = [*itertools.combinations(names, 2), ("good", "bad"), ("good", "c0"), ("bad", "c0")]
    distances = {pair: difference_as_seen(*(seen[name] for name in pair)) for pair in pairs}
    assert {pair: d for pair, d in distances.items() if d < 18} == {}


def test_charts_side_by_side_have_the_same_steps(open_page):
    """Held-out accuracy begins at step 0 and training at step 1; both axes begin at 0."""
    tab = open_page()
    over = tab.locator(".charts.main .u-over")
    boxes = [over.nth(place).bounding_box() for place in (0, 1)]
    assert boxes[0]["y"] == boxes[1]["y"]
    for place in (0, 1):
        over.nth(place).hover(position={"x": boxes[place]["width"] / 2, "y": 20})
        assert set(tab.locator(".charts.main .at").all_inner_texts()) == {"step 20"}
