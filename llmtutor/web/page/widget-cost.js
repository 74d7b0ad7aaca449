// Cost: sizes move, and with them what a model costs. Options: `start`, a model; `show`, what a chapter
// teaches ("transformer", "gqa", "mla" or "moe"), whose sizes stand first; `seq`, tokens of the text.
(LLMTutor.widgets ??= {}).cost = async (body, options, { load, name: id }) => {
  const { bar, button, choice, element, field, number, slider, status, table, whenIdle } = LLMTutor.kit;
  await Promise.all([load("costs"), load("cost-data")]);
  const { costs, costData } = LLMTutor;
  const { models, sizes: SIZES, first, parts, rows, units } = costData;
  const given = Object.fromEntries(new URLSearchParams(location.hash.split(`#${id}?`)[1] ?? ""));

  const named = (values) => Object.entries(values).map(([name, value]) => [value, name]);
  const knobs = {
    start: choice(Object.keys(models).map((one) => [one, one]), given.start ?? options.start ?? "llama3-8b"),
    seq: slider(6, 20, 1, 13),
    cache: choice(named(costData.caches), given.cache ?? 2),
    weights: choice(named(costData.weights), given.weights ?? 16),
  };
  const controls = {};
  for (const [name, [, step]] of Object.entries(SIZES))
    controls[name] = Array.isArray(step) ? choice(step) : Object.assign(number(0), { step });
  const tokens = (count) => `${count.toLocaleString("en")} tokens`;
  const label = (name) => element("span", {}, `${SIZES[name][0]} `, element("code", {}, name));
  const place = (name) => field(label(name), controls[name]);
  const places = Object.fromEntries(Object.keys(SIZES).map((name) => [name, place(name)]));
  const [said, results] = [status(), element("div", { className: "lt-costs" })];
  let [exact, wanted] = [false, Number(given.seq) || options.seq || 8192];

  const model = () => models[knobs.start.value];
  const seq = () => 2 ** knobs.seq.value;
  // What stands in a control, as the model has it: a number, yes or no, or a word.
  function value(name) {
    const written = controls[name].value;
    const kind = typeof model()[name];
    if (kind === "number") return written === "" ? NaN : Number(written);
    return kind === "boolean" ? written === "true" : written;
  }
  const sizes = () => {
    const moved = Object.keys(SIZES).map((name) => [name, value(name)]);
    return { ...model(), ...Object.fromEntries(moved) };
  };

  // Heads of keys and values to choose from: what divides those of queries, and the chosen, which may not.
  function offer(chosen) {
    const heads = Math.min(Number(controls.n_heads.value), 1024);
    const divisors = Array.from({ length: heads }, (_, i) => i + 1).filter((one) => heads % one === 0);
    const all = [...new Set([...divisors, Number(chosen)])].filter(Boolean).sort((a, b) => a - b);
    const made = choice([[0, "as many as of queries"], ...all.map((one) => [one, one])], chosen);
    const had = controls.n_kv_heads;
    if (made.textContent !== had.textContent) had.replaceChildren(...made.children);
  }

  // Sizes into the controls; a word that is not to choose from changes nothing.
  function set(values) {
    for (const [name, control] of Object.entries(controls)) {
      const wanted = String(values[name] ?? control.value);
      if (name === "n_kv_heads") offer(wanted);
      const known = [...(control.options ?? [{ value: wanted }])].some((one) => one.value === wanted);
      if (known) control.value = wanted;
    }
  }

  // A model's own sizes but for those that were moved; its text may be shorter than what is wanted.
  function begin(moved = {}, longest = Math.min(wanted, model().max_seq_len)) {
    const before = wanted;
    knobs.seq.value = Math.floor(Math.log2(longest));
    set({ ...model(), ...moved });
    knobs.seq.dispatchEvent(new Event("input", { bubbles: true }));
    wanted = before;
  }

  function readable(count, kind) {
    const [unit, size] = units[kind].find(([, size]) => count >= size) ?? units[kind].at(-1);
    if (exact) return count.toLocaleString("en") + units[kind].at(-1)[0];
    return Number((count / size).toPrecision(3)).toLocaleString("en") + unit;
  }

  function counted(of) {
    if (costs.problem(of, seq())) return null;
    const { total, active } = costs.parameters(of);
    return [
      readable(total, "counts"),
      readable(active, "counts"),
      readable(costs.tokenFlops(of, seq()), "flops"),
      readable(costs.cacheBytes(of, seq(), Number(knobs.cache.value)), "bytes"),
      readable(costs.weightBytes(total, Number(knobs.weights.value)), "bytes"),
      readable(costs.trainingBytes(total), "bytes"),
    ];
  }

  function where(of) {
    const found = costs.parameters(of);
    const counts = { ...found, ffn: found.ffn - found.idle };
    return Object.entries(parts)
      .filter(([part]) => counts[part])
      .map(([part, words]) => [words, bar(counts[part] / found.total), readable(counts[part], "counts")]);
  }

  // A sentence for those who listen, when moving pauses.
  const say = whenIdle(
    () => {
      const [of, now] = [sizes(), counted(sizes())];
      const most = model().max_seq_len;
      const long = seq() > most ? ` ${knobs.start.value} was made for ${tokens(most)}.` : "";
      said.textContent = now
        ? `${now[0]} parameters, ${now[3]} of cache for ${tokens(seq())}.${long}`
        : costs.problem(of, seq()).words;
    },
    said,
    600,
  );

  function show() {
    offer(controls.n_kv_heads.value);
    const [of, wrong] = [sizes(), costs.problem(sizes(), seq())];
    const acts = costs.acting(of);
    for (const [name, control] of Object.entries(controls)) {
      places[name].hidden = typeof of[name] === "number" && !(name in acts);
      control.setAttribute("aria-invalid", wrong?.name === name);
    }
    const [now, before] = [counted(of), counted(model())];
    const types = { "KV cache": knobs.cache, weights: knobs.weights };
    const typed = (row) => (types[row] ? `${row}, ${types[row].selectedOptions[0].text}` : row);
    results.replaceChildren(
      table(
        `What it costs, with a text of ${tokens(seq())}`,
        ["cost", "now", knobs.start.value],
        rows.map((row, i) => [typed(row), now?.[i] ?? "–", before?.[i] ?? "–"]),
      ),
      now ? table("Where the parameters sit now", ["part", "share", "parameters"], where(of)) : "",
    );
    say();
  }

  async function share() {
    const moved = Object.entries(sizes()).filter(([name, own]) => own !== model()[name]);
    const { start, cache, weights } = knobs;
    const all = { start: start.value, seq: seq(), cache: cache.value, weights: weights.value };
    const words = new URLSearchParams({ ...all, ...Object.fromEntries(moved) });
    const link = `${location.href.split("#")[0]}#${id}?${words}`;
    history.replaceState(null, "", link);
    await navigator.clipboard?.writeText(link).catch(() => null);
    said.textContent = "The link with these sizes stands in the address bar.";
  }

  function toggle() {
    exact = !exact;
    buttons.exact.setAttribute("aria-pressed", exact);
    show();
  }
  const buttons = {
    again: button("Back to its sizes", () => begin()),
    exact: button("Exact numbers", toggle),
    share: button("Copy link", share),
  };
  buttons.exact.setAttribute("aria-pressed", false);
  knobs.start.addEventListener("change", () => begin());
  knobs.seq.addEventListener("input", () => (wanted = seq()));
  body.addEventListener("input", show);
  const near = first[options.show ?? "transformer"];
  const far = Object.keys(SIZES).filter((name) => !near.includes(name));
  const general = [
    field("Begin with", knobs.start),
    field("Length of the text", knobs.seq, (k) => tokens(2 ** k)),
    field("A number in the cache", knobs.cache),
    field("A weight", knobs.weights),
  ];
  const grid = (fields) => element("div", { className: "lt-fields lt-sizes" }, ...fields);
  const those = (names) => grid(names.map((name) => places[name]));
  body.append(
    grid(general),
    those(near),
    element("details", {}, element("summary", {}, "All other sizes"), those(far)),
    element("p", { className: "lt-buttons" }, ...Object.values(buttons)),
    said,
    results,
    element("p", { className: "lt-legend" }, costData.legend),
  );
  begin(given, Number(given.seq) || options.seq);
};
