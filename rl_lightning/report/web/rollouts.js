"use strict";
// Show the rollouts one group at a time: the completions of a prompt side by side, with their rewards.

const [TEXT, EXACT, FORMAT, FAILURE, REWARD, ADVANTAGE, TOKENS, ENTROPY, CUT, ANSWER] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];

const KINDS = {
  all: ["all groups", () => true],
  variance: ["with reward variance", (group) => !sameRewards(group)],
  right: ["all right", (group) => group.rows.every((row) => row[EXACT] >= 1)],
  wrong: ["all wrong", (group) => group.rows.every((row) => !(row[EXACT] >= 1))],
};

function sameRewards(group) {
  return group.rows.every((row) => row[REWARD] === group.rows[0][REWARD]);
}

function within(row, values) {
  const [least, most] = [values.least, values.most].map((text) => (text === "" ? null : Number(text)));
  if (least === null && most === null) return true;
  return row[REWARD] !== null && row[REWARD] >= (least ?? -Infinity) && row[REWARD] <= (most ?? Infinity);
}

function contains(group, words) {
  const wanted = words.toLowerCase();
  return [group.prompt, group.expected, ...group.rows.map((row) => row[TEXT])].some((text) => text?.toLowerCase().includes(wanted));
}

function groupMatches(group, values) {
  return (
    (values.run === undefined || values.run === String(group.run)) &&
    (values.task === "" || values.task === group.task) &&
    (values.step === "" || values.step === String(group.step)) &&
    KINDS[values.kind][1](group) &&
    group.rows.some((row) => within(row, values)) &&
    (values.words === "" || contains(group, values.words))
  );
}

function groupOption(group) {
  const right = group.rows.filter((row) => row[EXACT] >= 1).length;
  const tone = right === 0 ? "bad-word" : right === group.rows.length ? "good-word" : "";
  return [
    element("span", { className: "name" }, group.task),
    element("span", { className: tone }, `${right}/${group.rows.length} right`),
    element("span", { className: "gist" }, `step ${group.step.toLocaleString("en")} · ${gist(group)}`),
  ];
}

// The last line of a question usually tells it apart from others of its task.
function gist(group) {
  return (group.question ?? group.prompt ?? "").trim().split("\n").filter((line) => line.trim()).at(-1) ?? "";
}

function groupDetail(group, values) {
  const rows = group.rows.filter((row) => within(row, values));
  const mean = group.rows.reduce((sum, row) => sum + (row[REWARD] ?? 0), 0) / group.rows.length;
  const facts = [`problem ${group.index}`, `step ${group.step.toLocaleString("en")}`, `mean reward ${short(mean)}`];
  if (sameRewards(group)) facts.push("no reward variance: all completions have the same reward, so there is no gradient");
  if (rows.length < group.rows.length) facts.push(`${rows.length} of ${group.rows.length} completions have a reward in this range`);
  const answers = alike(rows, [ANSWER, REWARD, EXACT]).sort((a, b) => b[0][REWARD] - a[0][REWARD] || b.length - a.length);
  return [
    element("h3", {}, group.task),
    element("p", { className: "about" }, facts.join(" · ")),
    ...questionBlock(group.prompt, group.expected),
    element("div", { className: "cards" }, ...answers.map((same) => answerCard(same, group))),
  ];
}

// Lists of the rows that have the same values, in the order of the first of each.
function alike(rows, columns) {
  const found = new Map();
  for (const row of rows) {
    const key = JSON.stringify(columns.map((column) => row[column]));
    found.set(key, [...(found.get(key) ?? []), row]);
  }
  return [...found.values()];
}

// One answer with all completions that gave it and got the same reward; the most frequent text is in view.
function answerCard(rows, group) {
  const first = rows[0];
  const advantage = first[ADVANTAGE] === null ? null : `advantage ${first[ADVANTAGE] > 0 ? "+" : ""}${short(first[ADVANTAGE])}`;
  const facts = [`${rows.length} of ${group.rows.length}`, `reward ${short(first[REWARD])}`, advantage];
  const texts = alike(rows, [TEXT]).sort((a, b) => b.length - a.length);
  const more = rows.length - texts[0].length;
  const others = element("details", {}, element("summary", {}, `${more} more with this answer`), ...texts.slice(1).map(completion));
  return scoreCard(null, first[EXACT], facts, completion(texts[0]), more ? others : null);
}

// A text, and how often it was sampled.
function completion(rows) {
  const row = rows[0];
  const entropy = row[ENTROPY] === null ? null : `entropy ${short(row[ENTROPY], 2)}`;
  const failure = row[FAILURE] ? row[FAILURE].replaceAll("_", " ") : null;
  const facts = [rows.length > 1 ? `${rows.length} times` : null, `${row[TOKENS]} tokens`, entropy, row[CUT] ? "truncated" : null];
  facts.push(row[FORMAT] ? null : "not well-formed", failure);
  return element("div", { className: "completion" }, factsLine("p", ...facts), completionText(row[TEXT]));
}

function showRollouts(data) {
  const groups = data.runs.flatMap((run, place) => run.groups.map((group) => ({ ...group, run: place })));
  const tasks = [...new Set(groups.map((group) => group.task))].sort();
  const steps = [...new Set(groups.map((group) => group.step))].sort((a, b) => a - b);
  const controls = {
    task: chooser("Task", [["", "all tasks"], ...tasks.map((task) => [task, task])]),
    step: chooser("Step", [["", "all steps"], ...steps.map((step) => [String(step), step.toLocaleString("en")])]),
    kind: chooser("Group", Object.entries(KINDS).map(([name, [label]]) => [name, label])),
    least: numberField("Reward from"),
    most: numberField("Reward to"),
    words: searchField("Words in it"),
  };
  const telling = (group) => !sameRewards(group);
  controls.step.control.value = String(groups.findLast((group) => group.run === 0 && telling(group))?.step ?? steps.at(-1) ?? "");
  const named = data.runs.map((run, place) => [String(place), run.name]);
  new Browser("rollout", groups, data.runs.length > 1 ? { run: chooser("Run", named), ...controls } : controls, {
    matches: groupMatches,
    option: groupOption,
    telling,
    detail: groupDetail,
    key: (group) => `${group.run} ${group.step} ${group.task} ${group.index}`,
    sideways(direction) {
      const select = this.controls.step.control;
      const place = select.selectedIndex + direction;
      if (place < 1 || place >= select.options.length) return;
      select.selectedIndex = place;
      this.filter();
    },
  });
}
