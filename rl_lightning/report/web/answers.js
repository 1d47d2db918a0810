"use strict";
// Show a completion, its think section and its answer separately, and how it was scored.

const TAGS = /(<think>[\s\S]*?(?:<\/think>|$)|<answer>[\s\S]*?(?:<\/answer>|$))/;

function completionText(text) {
  const parts = text.split(TAGS).filter((part) => part.trim());
  const made = parts.map((part) => {
    const kind = /^<(think|answer)>/.exec(part)?.[1];
    if (!kind) return element("span", { className: "part" }, part);
    const closed = part.endsWith(`</${kind}>`);
    const inner = part.slice(kind.length + 2, closed ? -(kind.length + 3) : undefined).trim();
    const tag = element("span", { className: "tag" }, closed ? kind : `${kind}, not closed`);
    return element("span", { className: `part ${kind}` }, tag, inner || "(empty)");
  });
  return element("div", { className: "text" }, ...(made.length ? made : ["(nothing)"]));
}

function scoreText(exact) {
  if (exact === null || exact === undefined) return "not scored";
  if (exact >= 1) return "right";
  return exact <= 0 ? "wrong" : `right in ${percent(exact, 0)}`;
}

function factsLine(tag, ...facts) {
  return element(tag, {}, ...facts.filter(Boolean).map((fact) => (fact instanceof Node ? fact : element("span", {}, fact))));
}

// A card with a coloured edge: a header that begins with the score, and what is below it.
function scoreCard(title, exact, facts, ...bodies) {
  const side = exact === null || exact === undefined ? "" : exact >= 1 ? "right" : "wrong";
  const header = factsLine("header", title, element("b", {}, scoreText(exact)), ...facts);
  return element("article", { className: `card ${side}` }, header, ...bodies);
}

function questionBlock(question, expected) {
  const nodes = [];
  if (question) nodes.push(element("div", { className: "question" }, question.trim()));
  if (expected !== null && expected !== undefined) {
    nodes.push(element("p", {}, element("span", { className: "soft" }, "Expected: "), element("code", {}, expected)));
  }
  return nodes;
}
