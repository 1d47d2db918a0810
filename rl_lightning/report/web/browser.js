"use strict";
// A list with keyboard navigation, a row of filters above it, and the details of the chosen item beside it.

const MOST_OPTIONS = 500;

class Browser {
  // kind: the prefix of the ids in the page. controls: {name: form control}. matches(item, values), option(item),
  // detail(item, values), key(item): how items are filtered, listed, shown and identified.
  // telling(item): whether it is worth opening first. sideways(direction): what the left (-1) and right (1) arrow keys do.
  constructor(kind, items, controls, callbacks) {
    Object.assign(this, { kind, items, controls, ...callbacks });
    [this.form, this.list, this.pane] = ["filters", "list", "detail"].map((part) => document.getElementById(`${kind}-${part}`));
    this.count = element("output");
    const before = remembered(kind);
    for (const [name, { label, control }] of Object.entries(controls)) {
      control.name = name;
      if (name in (before.values ?? {})) control.value = before.values[name];
      this.form.append(element("label", {}, label, control));
    }
    this.form.append(this.count);
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("input", () => this.filter());
    this.list.addEventListener("keydown", (event) => this.pressed(event));
    this.chosen = before.chosen ?? null;
    this.filter();
  }

  values() {
    return Object.fromEntries(Object.entries(this.controls).map(([name, { control }]) => [name, control.value]));
  }

  filter() {
    const values = this.values();
    this.found = this.items.filter((item) => this.matches(item, values));
    this.count.textContent = `${this.found.length.toLocaleString("en")} of ${this.items.length.toLocaleString("en")}`;
    const listed = this.found.slice(0, MOST_OPTIONS);
    this.options = listed.map((item, place) => {
      const option = element("div", { className: "option", role: "option", id: `${this.kind}-${place}` }, ...this.option(item));
      option.addEventListener("click", () => this.choose(place));
      return option;
    });
    this.list.replaceChildren(...this.options);
    const rest = this.found.length - listed.length;
    if (rest) this.list.append(element("p", {}, `${rest.toLocaleString("en")} more: narrow the filters to see them.`));
    const place = listed.findIndex((item) => this.key(item) === this.chosen);
    if (listed.length) this.choose(place < 0 ? Math.max(0, listed.findIndex((item) => this.telling?.(item))) : place);
    else this.empty();
  }

  empty() {
    this.list.removeAttribute("aria-activedescendant");
    this.list.append(element("p", {}, "Nothing matches these filters."));
    this.pane.replaceChildren();
  }

  choose(place) {
    this.options[this.place]?.setAttribute("aria-selected", "false");
    this.place = place;
    const [item, option] = [this.found[place], this.options[place]];
    this.chosen = this.key(item);
    option.setAttribute("aria-selected", "true");
    this.list.setAttribute("aria-activedescendant", option.id);
    // Not scrollIntoView, which would scroll the page too.
    const [top, bottom] = [option.offsetTop - this.list.offsetTop, option.offsetTop - this.list.offsetTop + option.offsetHeight];
    if (top < this.list.scrollTop) this.list.scrollTop = top;
    else if (bottom > this.list.scrollTop + this.list.clientHeight) this.list.scrollTop = bottom - this.list.clientHeight;
    this.pane.replaceChildren(...this.detail(item, this.values()).filter(Boolean));
    remember(this.kind, { values: this.values(), chosen: this.chosen });
  }

  pressed(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const last = this.options.length - 1;
    const places = { ArrowDown: this.place + 1, ArrowUp: this.place - 1, PageDown: this.place + 10, PageUp: this.place - 10, Home: 0, End: last };
    const side = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key in places && last >= 0) this.choose(Math.min(last, Math.max(0, places[event.key])));
    else if (side && this.sideways) this.sideways(side);
    else return;
    event.preventDefault();
  }
}

function chooser(label, options) {
  const made = options.map(([value, text]) => element("option", { value }, text));
  return { label, control: element("select", {}, ...made) };
}

function numberField(label) {
  return { label, control: element("input", { type: "number", step: "any", autocomplete: "off" }) };
}

function searchField(label) {
  return { label, control: element("input", { type: "search", autocomplete: "off", spellcheck: false }) };
}
