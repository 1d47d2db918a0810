"use strict";
// Draw the charts with uPlot: lines over optimizer steps, with a band if a line has low and high; their cursors are synchronised.

const dark = matchMedia("(prefers-color-scheme: dark)");
const WHOLE_STEPS = [0, 1, 2, 3, 4, 5, 6].flatMap((power) => [1, 2, 5].map((digit) => digit * 10 ** power)); // allowed distances between ticks of steps and levels
const DASHES = [6, 4]; // pixels drawn and left out
const together = uPlot.sync("steps");

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function shown(value, unit) {
  if (value === null || value === undefined) return "—";
  return unit === "share" ? percent(value) : short(value);
}

// The steps that any chart has: all charts have the same axis, so that those side by side can be compared.
function commonSteps(charts) {
  const steps = charts.flatMap((chart) => chart.lines.flatMap((line) => [line.x[0], line.x.at(-1)]));
  const [low, high] = [Math.min(...steps), Math.max(...steps)];
  return low === high ? [low - 1, high + 1] : [low, high];
}

function keyOf(line) {
  return element("span", { className: `key ${line.colour}${line.dashed ? " dashed" : ""}` });
}

function chartFigure(chart, steps) {
  const legend = element("div", { className: "legend", "aria-hidden": "true" });
  const plot = element("div", { className: "plot" });
  const unit = chart.unit === "share" ? "" : chart.unit;
  const at = element("i", { className: "at", "aria-hidden": "true" });
  const figure = element(
    "figure", {},
    element("figcaption", {}, element("b", {}, chart.title), element("i", {}, unit), at),
    legend, plot,
    element("p", {}, chart.about),
    element("p", { className: "hidden" }, chart.text),
  );
  plot.setAttribute("aria-hidden", "true"); // screen readers get the text instead
  let drawn = null;
  const draw = () => {
    const width = Math.floor(plot.clientWidth);
    if (!width || !plot.checkVisibility()) return; // inside a closed <details>
    const height = Number(getComputedStyle(plot).getPropertyValue("--height"));
    if (drawn) drawn.setSize({ width, height });
    else drawn = new uPlot(chartOptions(chart, steps, { legend, at }, width, height), chartData(chart), plot);
  };
  new ResizeObserver(draw).observe(plot);
  figure.draw = draw;
  dark.addEventListener("change", () => {
    if (!drawn) return;
    drawn.destroy();
    drawn = null;
    draw();
  });
  return figure;
}

// uPlot needs one x for all lines. Each line is three series: its lower edge, its upper edge, itself.
function chartData(chart) {
  const tables = chart.lines.map((line) => [line.x, line.low ?? line.y, line.high ?? line.y, line.y]);
  return uPlot.join(tables, tables.map(() => [0, 2, 2, 2]));
}

function chartOptions(chart, steps, words, width, height) {
  const series = [{}];
  const bands = [];
  chart.lines.forEach((line, place) => {
    const stroke = colour(`--${line.colour}`);
    const edge = { stroke: "transparent", width: 0, points: { show: false } };
    if (line.low) bands.push({ series: [3 * place + 2, 3 * place + 1], fill: `${stroke}2e` });
    series.push({ ...edge }, { ...edge }, { stroke, width: 2, dash: line.dashed ? DASHES : [], spanGaps: chart.points, points: chartPoints(chart, line, stroke, width) });
  });
  return {
    width, height, series, bands,
    padding: [8, 18, 0, 0],
    legend: { show: false },
    cursor: { y: false, sync: { key: together.key }, points: { show: false }, drag: { x: false, y: false } },
    scales: { x: { time: false, range: steps }, y: { range: (_, low, high) => chartRange(chart, low, high) } },
    axes: [chartAxis({ size: 26, space: 50, incrs: WHOLE_STEPS }), chartAxis({ size: 52, space: 32, ...(chart.unit === "level" ? { incrs: WHOLE_STEPS } : {}), values: (_, ticks) => ticks.map((tick) => tickText(chart, tick)) })],
    hooks: {
      draw: [(plot) => whiskers(plot, chart)],
      setCursor: [(plot) => fillLegend(words, chart, plot)],
      ready: [(plot) => fillLegend(words, chart, plot)],
    },
  };
}

// Evaluations are single measurements: they get point markers while there is room.
function marked(chart, line, width) {
  return chart.points && line.x.length * 14 < width;
}

function chartPoints(chart, line, stroke, width) {
  return { show: marked(chart, line, width) || line.x.length < 2, size: 6, fill: stroke, stroke };
}

function chartAxis(more) {
  const rule = { stroke: colour("--line"), width: 1 };
  return { stroke: colour("--soft"), font: "11px system-ui, sans-serif", grid: rule, ticks: { ...rule, size: 4 }, gap: 4, ...more };
}

function chartRange(chart, low, high) {
  if (chart.unit === "share") return [0, 1];
  if (low === null || low === undefined) return [0, 1];
  if (chart.unit === "level") return [0, Math.max(1, high)];
  const room = 0.06 * (high - low || Math.abs(high) || 1);
  return [chart.zero && low >= 0 ? 0 : low - room, high + room];
}

function tickText(chart, tick) {
  return chart.unit === "share" ? percent(tick, 0) : short(tick);
}

function whiskers(plot, chart) {
  const { ctx } = plot;
  ctx.save();
  ctx.lineWidth = devicePixelRatio;
  for (const line of chart.lines.filter((each) => marked(chart, each, plot.width))) {
    ctx.strokeStyle = colour(`--${line.colour}`);
    ctx.beginPath();
    line.x.forEach((step, k) => {
      const x = plot.valToPos(step, "x", true);
      ctx.moveTo(x, plot.valToPos(line.low[k], "y", true));
      ctx.lineTo(x, plot.valToPos(line.high[k], "y", true));
    });
    ctx.stroke();
  }
  ctx.restore();
}

// Show the values under the cursor, or without a cursor the newest ones.
function fillLegend({ legend, at }, chart, plot) {
  const pointed = plot.cursor.idx ?? plot.data[0].length - 1;
  const rows = chart.lines.map((line, which) => {
    const [lows, highs, values] = plot.data.slice(3 * which + 1, 3 * which + 4);
    let place = pointed;
    while (place > 0 && (values[place] === null || values[place] === undefined)) place -= 1;
    const value = element("span", { className: "value" }, shown(values[place], chart.unit));
    if (line.low && chart.points) {
      value.append(` (${shown(lows[place], chart.unit)} to ${shown(highs[place], chart.unit)})`);
    }
    return element("span", {}, keyOf(line), line.label, value);
  });
  legend.replaceChildren(...rows);
  at.textContent = `step ${plot.data[0][pointed].toLocaleString("en")}`;
}

// Draw paired differences: a dot on its interval, on a scale from −100 to +100 points.
function drawIntervals() {
  for (const place of document.querySelectorAll(".interval")) {
    const [mean, low, high] = ["mean", "low", "high"].map((name) => Number(place.dataset[name]));
    const range = element("span", { className: "range" });
    range.style.left = `${50 + 50 * low}%`;
    range.style.width = `${50 * (high - low)}%`;
    const dot = element("span", { className: "dot" });
    dot.style.left = `${50 + 50 * mean}%`;
    if (low > 0) place.classList.add("good");
    if (high < 0) place.classList.add("bad");
    place.append(range, dot);
  }
}
