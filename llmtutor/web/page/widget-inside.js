// Inside: what the model would say if it stopped after each block (the logit lens, nostalgebraist 2020).
LLMTutor.widgets.inside = async (body, options, { openModel }) => {
  const { attempt, bar, element, field, percent, status, table, text, tokens, visible, whenIdle } = LLMTutor.kit;
  const model = await openModel(options.model ?? "staircase");
  const written = text(options.text ?? "To be, or not to be");
  const [said, panel] = [status(), element("div", { "aria-live": "polite" })];
  let found = { tokens: [], guesses: [] };
  const row = tokens("Tokens; pick the one behind which the model guesses", (i) => {
    const next = found.tokens[i + 1];
    const truth = next ? `In the text comes “${visible(next.text)}”.` : "Here the text ends.";
    const rows = found.guesses[i].map((three, block) => [
      `block ${block + 1}`,
      ...three.map(({ text: token, p }, i) =>
        element("span", {}, element("code", {}, visible(token)), " ", i ? percent(p) : bar(p)),
      ),
    ]);
    panel.replaceChildren(
      table(`Behind “${visible(found.tokens[i].text)}”. ${truth}`, ["after", "first guess", "second", "third"], rows),
    );
  });

  async function read() {
    found = await model.ask("inside", { text: written.value });
    if (!found.tokens.length) throw new Error("Write a word or two.");
    row.replaceChildren();
    for (const one of found.tokens) row.add(one.text);
    said.textContent = "";
    row.choose(found.tokens.length - 1);
  }
  written.addEventListener("input", whenIdle(read, said));
  body.append(field("Your text", written), row, said, panel);
  await attempt(read, said);
};
