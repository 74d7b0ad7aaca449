// What the widgets share: elements, fields with labels, a row of tokens that the arrow keys walk along.
(() => {
  // element("p", { className: "x", onclick: f }, "text", child)
  function element(tag, properties = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name.includes("-") || name === "role") made.setAttribute(name, value);
      else made[name] = value;
    }
    made.append(...children);
    return made;
  }

  let fields = 0;
  // A control under its label; `show(value)` is what is written beside a slider.
  function field(label, control, show = null) {
    control.id ||= `lt-field-${++fields}`;
    const children = [element("label", { htmlFor: control.id }, label), control];
    if (show) {
      const shown = element("output", { htmlFor: control.id });
      const write = () => {
        shown.textContent = show(control.value);
        control.setAttribute("aria-valuetext", shown.textContent);
      };
      control.addEventListener("input", write);
      write();
      children.push(shown);
    }
    return element("div", { className: "lt-field" }, ...children);
  }

  const slider = (min, max, step, value) =>
    Object.assign(element("input", { type: "range" }), { min, max, step, value });
  const number = (value, min = 0) => Object.assign(element("input", { type: "number" }), { min, value });
  const text = (value, rows = 2) => element("textarea", { value, rows, spellcheck: false });
  const choice = (options, value) =>
    element(
      "select",
      {},
      ...options.map(([own, label]) => new Option(label, own, false, String(own) === String(value))),
    );
  const button = (label, onclick, className = "") =>
    element("button", { type: "button", onclick, className }, label);

  // White space that can be seen.
  const visible = (token) => token.replaceAll("\n", "↵").replaceAll("\t", "→").replace(/^ | $/g, "·");

  // Tokens in a row. Tab reaches one of them; arrow keys go on from there, Enter and Space pick.
  // `pick(i)` is called for the one that is chosen; `tokens.add(text, properties)` adds one.
  function tokens(label, pick) {
    const row = element("div", { className: "lt-tokens", role: "group", "aria-label": label });
    const focus = (one) => {
      row.querySelector('[tabindex="0"]')?.setAttribute("tabindex", "-1");
      one.setAttribute("tabindex", "0");
    };
    function choose(one) {
      row.querySelector('[aria-pressed="true"]')?.setAttribute("aria-pressed", "false");
      one.setAttribute("aria-pressed", "true");
      focus(one);
      pick([...row.children].indexOf(one));
    }
    row.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const all = [...row.children];
      const ends = { Home: all[0], End: all.at(-1) };
      const next = step ? all[all.indexOf(document.activeElement) + step] : ends[event.key];
      if (!next) return;
      event.preventDefault();
      focus(next);
      next.focus();
    });
    row.add = (words, properties = {}) => {
      const one = element("button", {
        type: "button",
        className: "lt-token",
        textContent: visible(words) || "�",
        "aria-pressed": "false",
        tabindex: row.children.length ? "-1" : "0",
        ...properties,
      });
      one.setAttribute("tabindex", row.children.length ? "-1" : "0");
      one.addEventListener("click", () => choose(one));
      row.append(one, words.includes("\n") ? "\n" : "");
      return one;
    };
    row.choose = (i) => choose(row.children[i]);
    return row;
  }

  // [["token", "p"], …] as a table; the first cell of a row names it.
  function table(caption, head, rows) {
    const cells = (row) => row.map((cell, i) => element(i ? "td" : "th", i ? {} : { scope: "row" }, cell));
    return element(
      "table",
      { className: "lt-table" },
      element("caption", {}, caption),
      element("thead", {}, element("tr", {}, ...head.map((name) => element("th", { scope: "col" }, name)))),
      element("tbody", {}, ...rows.map((row) => element("tr", {}, ...cells(row)))),
    );
  }

  // A share of 1 as a bar with its number.
  function bar(share) {
    const inner = element("span", { className: "lt-bar" });
    inner.style.width = `${(60 * share).toFixed(1)}%`;
    return element("span", { className: "lt-share" }, inner, percent(share));
  }
  const percent = (share) => (share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`);

  // Call `act` when typing pauses; the last call wins. `act` may fail: what it says goes to `status`.
  function whenIdle(act, status, wait = 250) {
    let timer = null;
    return () => {
      clearTimeout(timer);
      timer = setTimeout(() => attempt(act, status), wait);
    };
  }
  async function attempt(act, status) {
    try {
      await act();
    } catch (error) {
      status.textContent = error.message;
    }
  }
  const status = () => element("p", { className: "lt-status", role: "status" });

  LLMTutor.kit = {
    ...{ attempt, bar, button, choice, element, field, number, percent, slider, status, table, text },
    ...{ tokens, visible, whenIdle },
  };
})();
