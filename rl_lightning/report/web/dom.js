"use strict";
// Create elements from plain values. Text becomes text nodes only, so what a model wrote cannot become markup.

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

async function unpacked(id) {
  const text = document.getElementById(id).textContent.trim();
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

// Choices survive a reload, because the browser keeps the state of the history entry.
function remembered(name) {
  return (history.state ?? {})[name] ?? {};
}

function remember(name, value) {
  history.replaceState({ ...history.state, [name]: value }, "");
}

function short(value, digits = 3) {
  if (value === null || value === undefined) return "—";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(1).replace("-", "−");
  return value.toLocaleString("en", { maximumSignificantDigits: size >= 1000 ? 4 : digits }).replace("-", "−");
}

function percent(value, digits = 1) {
  return value === null || value === undefined ? "—" : `${(100 * value).toFixed(digits)}%`;
}
