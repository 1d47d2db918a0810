"use strict";
// Show the evaluation's problems with each run's answers at its first and its last evaluation.

const [ANSWER_TEXT, RIGHT, LENGTH, CUT_OFF] = [0, 1, 2, 3];

const CHANGES = {
  all: ["all problems", () => true],
  learnt: ["wrong, now right", (then, now) => then < 1 && now >= 1],
  lost: ["right, now wrong", (then, now) => then >= 1 && now < 1],
  never: ["wrong both times", (then, now) => then < 1 && now < 1],
  always: ["right both times", (then, now) => then >= 1 && now >= 1],
};

// The scores of the first and the last version that has an answer.
function ends(problem) {
  const answered = problem.answers.filter(Boolean);
  return [answered[0], answered.at(-1)].map((answer) => answer[RIGHT]);
}

function problemMatches(problem, values) {
  const texts = [problem.question, problem.expected, ...problem.answers.map((answer) => answer?.[ANSWER_TEXT])];
  return (
    (values.task === "" || values.task === problem.task) &&
    CHANGES[values.change][1](...ends(problem)) &&
    (values.words === "" || texts.some((text) => text?.toLowerCase().includes(values.words.toLowerCase())))
  );
}

function problemOption(problem) {
  const [then, now] = ends(problem);
  const words = { learnt: "learnt", lost: "lost", never: "wrong", always: "right" };
  const change = Object.keys(words).find((name) => CHANGES[name][1](then, now));
  const tone = { learnt: "good-word", lost: "bad-word" }[change] ?? "soft";
  const text = problem.question ? gist(problem) : problem.answers.findLast(Boolean)[ANSWER_TEXT];
  return [
    element("span", { className: "name" }, `${problem.task} ${problem.index}`),
    element("span", { className: tone }, words[change]),
    element("span", { className: "gist" }, text.replace(/<\/?(think|answer)>|\s+/g, " ")),
  ];
}

function showProblems(data) {
  const tasks = [...new Set(data.problems.map((problem) => problem.task))].sort();
  const controls = {
    task: chooser("Task", [["", "all tasks"], ...tasks.map((task) => [task, task])]),
    change: chooser("What changed", Object.entries(CHANGES).map(([name, [label]]) => [name, label])),
    words: searchField("Words in it"),
  };
  new Browser("problem", data.problems, controls, {
    matches: problemMatches,
    option: problemOption,
    telling: (problem) => (ends(problem)[0] >= 1) !== (ends(problem)[1] >= 1),
    key: (problem) => `${problem.task} ${problem.index}`,
    detail: (problem) => {
      const cards = problem.answers.map((answer, place) => {
        const facts = answer && [`${short(answer[LENGTH])} tokens`, answer[CUT_OFF] ? "truncated" : null];
        return answer && scoreCard(data.versions[place].label, answer[RIGHT], facts, completionText(answer[ANSWER_TEXT]));
      });
      return [
        element("h3", {}, `${problem.task}, problem ${problem.index}`),
        ...questionBlock(problem.question, problem.expected),
        element("div", { className: "cards" }, ...cards.filter(Boolean)),
      ];
    },
  });
}
