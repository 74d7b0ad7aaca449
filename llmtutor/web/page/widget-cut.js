// Cut: a text in tokens and ids, as one types, beside a second vocabulary. No model is needed.
LLMTutor.widgets.cut = async (body, options, { load }) => {
  const { attempt, choice, element, field, status, text, tokens, whenIdle } = LLMTutor.kit;
  await Promise.all([load("engine"), load("tokenizers")]);
  const [tools, shelf] = [LLMTutor.engine(), LLMTutor.tokenizers];
  const open = new Map();
  async function tokenizer(name) {
    if (!open.has(name)) {
      if (shelf[name].script) await load(shelf[name].script);
      open.set(name, tools.createTokenizer(shelf[name].values ?? (await tools.unpackJson(shelf[name].packed))));
    }
    return open.get(name);
  }

  const names = Object.entries(shelf).map(([name, { title }]) => [name, title]);
  const [said, written] = [status(), text(options.text ?? "To be, or not to be: that is the question.")];
  const sides = [options.first ?? "book", options.second ?? names.at(-1)[0]].map((chosen) => {
    const select = choice(names, chosen);
    const [count, told] = [element("p", { className: "lt-count" }), element("p", { className: "lt-told" })];
    const row = tokens("Tokens", (i) => (told.textContent = row.words[i]));
    return { select, count, told, row };
  });

  async function show({ select, count, told, row }) {
    const [cutter, given] = [await tokenizer(select.value), written.value];
    const ids = cutter.encode(given);
    const bytes = new TextEncoder().encode(given).length;
    row.replaceChildren();
    row.words = ids.map((id, i) => `Token ${i + 1}: id ${id}, ${cutter.bytes(id)} bytes`);
    ids.forEach((id, i) => row.add(cutter.name(id), { title: row.words[i] }).append(element("small", {}, ` ${id}`)));
    const ratio = ids.length ? `, ${(bytes / ids.length).toFixed(2)} bytes each` : "";
    count.textContent = `${ids.length} tokens${ratio}`;
    told.textContent = "";
  }
  const update = () => Promise.all(sides.map(show)).then(() => (said.textContent = ""));
  written.addEventListener("input", whenIdle(update, said, 60));
  for (const side of sides) side.select.addEventListener("change", () => attempt(update, said));
  body.append(
    field("A text", written),
    ...sides.map(({ select, count, told, row }, i) =>
      element("div", { className: "lt-side" }, field(i ? "Beside it" : "Vocabulary", select), count, row, told),
    ),
    said,
  );
  await update();
};
