"use strict";
// Fill the page. If it is served while a run goes on, reload it when the run has written something.

const ASK_EVERY = 10_000; // milliseconds; rebuilding the page of a big run takes two seconds of a core that the run could use

async function showPage() {
  const data = JSON.parse(document.getElementById("data").textContent);
  const steps = commonSteps(Object.values(data.charts).flat());
  for (const place of document.querySelectorAll("[data-charts]")) {
    const figures = data.charts[place.dataset.charts].map((chart) => chartFigure(chart, steps));
    place.append(...figures);
    for (const figure of figures) figure.draw(); // draw now: the scroll position of a page that grows later cannot be restored
  }
  drawIntervals();
  if (document.getElementById("rollout-filters")) showRollouts(await unpacked("rollout-data"));
  if (document.getElementById("problem-filters")) showProblems(await unpacked("problem-data"));
  if (data.watch) watch(data.watch);
  document.body.dataset.ready = "yes";
}

function watch(state) {
  history.scrollRestoration = "manual";
  const before = remembered("place");
  document.getElementById(before.focus)?.focus({ preventScroll: true });
  scrollTo(0, before.top ?? 0);
  const ask = async () => {
    const answer = await fetch("state", { cache: "no-store" }).catch(() => null);
    const text = answer?.ok ? await answer.text() : null;
    const trouble = document.getElementById("trouble");
    trouble.textContent = text === null ? "The server does not answer: this page is no longer refreshed." : "";
    const busy = document.activeElement?.matches("input, select") || getSelection().type === "Range";
    if (text !== null && text !== state && !busy) {
      remember("place", { top: scrollY, focus: document.activeElement?.id });
      location.reload();
    } else setTimeout(ask, ASK_EVERY);
  };
  setTimeout(ask, ASK_EVERY);
}

showPage();
