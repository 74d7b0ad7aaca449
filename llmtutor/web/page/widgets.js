// On every page with a widget: a button in each, and nothing else until somebody presses it. What a
// widget needs is loaded by scripts, which also works in a page that was opened as a file.
(() => {
  const LLMTutor = (globalThis.LLMTutor ??= {});
  LLMTutor.widgets = {};
  const home = document.currentScript.src.replace(/[^/]*$/, "");
  const loaded = new Map();

  function load(name) {
    if (!loaded.has(name)) {
      const arrival = new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.onload = resolve;
        script.onerror = () => {
          loaded.delete(name);
          reject(new Error(`${name}.js is not there: is the page whole?`));
        };
        script.src = `${home}${name}.js`;
        document.head.append(script);
      });
      loaded.set(name, arrival);
    }
    return loaded.get(name);
  }

  // A model in a worker of its own. `ask(kind, options, part)` promises the answer, and calls `part`
  // with each piece of it that comes before.
  async function openModel(name) {
    await Promise.all([load("engine"), load(name)]);
    const url = URL.createObjectURL(new Blob([`(${LLMTutor.engine})().serve(self)`], { type: "text/javascript" }));
    const worker = new Worker(url);
    const waiting = new Map();
    let asked = 0;
    worker.onmessage = ({ data: { number, part, value, error } }) => {
      const question = waiting.get(number);
      if (part !== undefined) return part.forEach((one) => question.part?.(one));
      waiting.delete(number);
      if (error === undefined) question.resolve(value);
      else question.reject(new Error(error));
    };
    const ask = (kind, options = {}, part = null) =>
      new Promise((resolve, reject) => {
        waiting.set(++asked, { resolve, reject, part });
        worker.postMessage({ number: asked, kind, options });
      });
    const kernel = Uint8Array.from(atob(LLMTutor.kernel), (char) => char.charCodeAt(0));
    const { sizes } = await ask("load", { data: LLMTutor.models[name], kernel });
    return { ask, sizes };
  }

  async function start(box) {
    const { widget, options } = box.dataset;
    const note = box.querySelector(".lt-note");
    box.querySelector(".lt-start").disabled = true;
    note.textContent = "Loading …";
    try {
      await Promise.all([load("kit"), load(`widget-${widget}`)]);
      const body = document.createElement("div");
      await LLMTutor.widgets[widget](body, JSON.parse(options), { load, openModel, name: box.id });
      box.replaceChildren(body);
      body.querySelector("textarea, input, select, button")?.focus();
      box.dataset.open = "";
    } catch (error) {
      box.querySelector(".lt-start").disabled = false;
      note.textContent = `It could not start: ${error.message}`;
    }
  }

  function prepare(box) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "lt-start";
    button.textContent = box.dataset.invitation;
    button.addEventListener("click", () => start(box));
    const note = document.createElement("span");
    note.className = "lt-note";
    note.setAttribute("role", "status");
    const line = document.createElement("p");
    line.append(button, " ", note);
    box.prepend(line);
    // A link that somebody shared opens its widget.
    if (location.hash.startsWith(`#${box.id}?`)) start(box).then(() => box.scrollIntoView());
  }

  const begin = () => document.querySelectorAll(".lt-widget").forEach(prepare);
  LLMTutor.load = load;
  LLMTutor.openModel = openModel;
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();
