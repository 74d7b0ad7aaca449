// Write: the model goes on from a prompt, one token after another; each opens what else was likely.
LLMTutor.widgets.write = async (body, options, { openModel, name }) => {
  const { attempt, bar, button, element, field, number, slider, status, table, text, tokens, visible } = LLMTutor.kit;
  const ALL = 200; // top-k: the end of the slider leaves every token in
  const given = Object.fromEntries(new URLSearchParams(location.hash.split(`#${name}?`)[1] ?? ""));
  const start = { prompt: "O Romeo, Romeo!", temperature: 0.8, topK: 40, topP: 1, seed: 1, ...options, ...given };
  const model = await openModel(options.model ?? "staircase");
  const knobs = {
    prompt: text(start.prompt),
    temperature: slider(0, 1.5, 0.1, start.temperature),
    topK: slider(1, ALL, 1, start.topK),
    topP: slider(0.1, 1, 0.05, start.topP),
    seed: number(start.seed),
  };
  const [said, rivals] = [status(), element("div", { className: "lt-panel", "aria-live": "polite" })];
  let written = [];
  const output = tokens("What the model wrote", (i) => {
    const { text: chosen, rivals: rows } = written[i];
    rivals.replaceChildren(
      table(
        `The ten likeliest in place of “${visible(chosen)}”`,
        ["token", "probability", ""],
        rows.map((one) => [visible(one.text), bar(one.p), one.kept ? "" : "ruled out"]),
      ),
    );
    rivals.scrollIntoView({ block: "nearest" });
  });
  const values = () => Object.fromEntries(Object.entries(knobs).map(([key, { value }]) => [key, value]));

  async function write() {
    const { prompt, ...numbers } = values();
    const settings = Object.fromEntries(Object.entries(numbers).map(([key, value]) => [key, Number(value)]));
    if (settings.topK === ALL) settings.topK = null;
    written = [];
    output.replaceChildren();
    rivals.replaceChildren();
    said.textContent = "Writing …";
    buttons.stop.disabled = false;
    const begun = performance.now();
    const { full } = await model.ask("write", { text: prompt, count: 200, ...settings }, (token) => {
      written.push(token);
      output.add(token.text);
    });
    buttons.stop.disabled = true;
    const speed = written.length / ((performance.now() - begun) / 1000);
    const end = full ? "; its window is full" : "";
    said.textContent = `${written.length} tokens, ${speed.toFixed(0)} a second${end}. Pick one to see its rivals.`;
  }

  async function share() {
    const link = `${location.href.split("#")[0]}#${name}?${new URLSearchParams(values())}`;
    history.replaceState(null, "", link);
    try {
      await navigator.clipboard.writeText(link);
      said.textContent = "The link with these settings is copied.";
    } catch {
      said.textContent = "The link with these settings stands in the address bar.";
    }
  }

  const run = () => attempt(write, said);
  const buttons = {
    write: button("Write", run, "lt-main"),
    stop: button("Stop", () => model.ask("stop")),
    again: button("Again, other dice", () => {
      knobs.seed.value = Number(knobs.seed.value) + 1;
      run();
    }),
    share: button("Copy link", share),
  };
  buttons.stop.disabled = true;
  body.append(
    field("Prompt", knobs.prompt),
    element(
      "div",
      { className: "lt-fields" },
      field("Temperature", knobs.temperature, (value) => (Number(value) ? value : "0: the likeliest")),
      field("Top-k", knobs.topK, (value) => (Number(value) === ALL ? "all" : `the ${value} likeliest`)),
      field("Top-p", knobs.topP, (value) => (Number(value) === 1 ? "1: all" : value)),
      field("Seed of the dice", knobs.seed),
    ),
    element("p", { className: "lt-buttons" }, ...Object.values(buttons)),
    said,
    output,
    rivals,
  );
  if (given.prompt !== undefined) run();
};
