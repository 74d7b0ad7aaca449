// Look: whom a token attends to, in any head of any layer, on the reader's text.
LLMTutor.widgets.look = async (body, options, { openModel }) => {
  const { attempt, choice, element, field, percent, status, text, tokens, visible, whenIdle } = LLMTutor.kit;
  const LONGEST = 40;
  const model = await openModel(options.model ?? "staircase");
  const upTo = (count) => Array.from({ length: count }, (_, i) => [i, String(i + 1)]);
  const layer = choice(upTo(model.sizes.n_layers), options.layer ?? 0);
  const head = choice(upTo(model.sizes.n_heads), options.head ?? 0);
  const written = text(options.text ?? "The king is dead. Long live the king!");
  const [said, map] = [status(), element("div", { className: "lt-map", role: "img" })];
  let [found, chosen] = [null, 0];
  const row = tokens("Tokens; pick the one that looks", (i) => {
    chosen = i;
    paint();
  });

  function paint() {
    const weights = found.weights[layer.value][head.value];
    const own = weights[chosen];
    [...row.children].forEach((one, i) => one.style.setProperty("--heat", own[i] ?? 0));
    const names = found.tokens.map((one) => visible(one.text));
    const order = [...own.keys()].sort((a, b) => own[b] - own[a]).slice(0, 3);
    const words = order.map((i) => `${names[i]} ${percent(own[i])}`).join(", ");
    said.textContent = `“${names[chosen]}” looks at: ${words}`;
    map.style.setProperty("--columns", names.length);
    map.setAttribute("aria-label", `All weights of this head, a row for each of ${names.length} tokens. ${said.textContent}`);
    map.replaceChildren(
      ...weights.flatMap((line, i) => {
        const cells = line.map((weight, j) => {
          const cell = element("span", { title: `${names[i]} → ${names[j]}: ${percent(weight)}` });
          if (i === chosen) cell.className = "lt-own";
          cell.style.setProperty("--heat", weight);
          return cell;
        });
        const label = element("small", {}, names[i]);
        label.style.gridColumn = `${i + 2} / -1`;
        return [...cells, label];
      }),
    );
  }

  async function read() {
    const answer = await model.ask("look", { text: written.value });
    if (answer.tokens.length > LONGEST || !answer.tokens.length)
      throw new Error(`${answer.tokens.length} tokens: take 1 to ${LONGEST}`);
    found = answer;
    row.replaceChildren();
    for (const one of found.tokens) row.add(one.text);
    row.choose(found.tokens.length - 1);
  }
  written.addEventListener("input", whenIdle(read, said));
  for (const select of [layer, head]) select.addEventListener("change", paint);
  body.append(
    field("Your text", written),
    element("div", { className: "lt-fields" }, field("Layer", layer), field("Head", head)),
    row,
    said,
    map,
  );
  await attempt(read, said);
};
