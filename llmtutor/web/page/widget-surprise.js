// Surprise: each token of the reader's text in the colour of its bits; bits per byte below.
LLMTutor.widgets.surprise = async (body, options, { openModel }) => {
  const { attempt, bar, element, field, status, table, text, tokens, visible, whenIdle } = LLMTutor.kit;
  const model = await openModel(options.model ?? "staircase");
  const written = text(options.text ?? "Good night, good night! Parting is such sweet sorrow.");
  const [said, panel] = [status(), element("div", { "aria-live": "polite" })];
  let found = [];
  const row = tokens("Tokens by surprise", (i) => {
    const { text: token, bits, rank, rivals } = found[i];
    if (bits === undefined) return panel.replaceChildren("Nothing comes before the first token: it is not predicted.");
    const caption = `“${visible(token)}”: ${bits.toFixed(1)} bits, number ${rank} of what was expected`;
    panel.replaceChildren(table(caption, ["expected", "probability"], rivals.map((r) => [visible(r.text), bar(r.p)])));
  });

  async function read() {
    found = await model.ask("surprise", { text: written.value });
    row.replaceChildren();
    panel.replaceChildren();
    for (const { text: token, bits } of found) {
      const label = bits === undefined ? "not predicted" : `${bits.toFixed(1)} bits`;
      const one = row.add(token, { "aria-label": `${token}: ${label}`, title: label });
      one.style.setProperty("--heat", Math.min((bits ?? 0) / 12, 1));
    }
    const scored = found.filter(({ bits }) => bits !== undefined);
    const [bits, bytes] = ["bits", "bytes"].map((key) => scored.reduce((sum, one) => sum + one[key], 0));
    said.textContent = bytes
      ? `${bits.toFixed(1)} bits for ${bytes} bytes: ${(bits / bytes).toFixed(2)} bits per byte, the first token left out.`
      : "Write a few words more.";
  }
  written.addEventListener("input", whenIdle(read, said));
  body.append(field("Your text", written), row, legend(), said, panel);
  await attempt(read, said);

  function legend() {
    const steps = [0, 3, 6, 9, 12].map((bits) => {
      const one = element("span", { className: "lt-token" }, ` ${bits}${bits === 12 ? " or more" : ""} `);
      one.style.setProperty("--heat", bits / 12);
      return one;
    });
    return element("p", { className: "lt-legend" }, "Bits: ", ...steps);
  }
};
