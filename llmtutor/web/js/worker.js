// What a page can ask of a model. Every answer is a message with the number of the question; the parts
// of a long one come first. A newer question ends an older one.
let [model, tokenizer, latest] = [null, null, 0];

const answers = {
  async load({ data, kernel }) {
    tokenizer = createTokenizer(data.tokenizer);
    model = await createModel(data, kernel);
    return { sizes: model.sizes };
  },

  // Go on from a text; each token comes as a part, with the ten likeliest of its place.
  async write({ text, count, seed, ...knobs }, part, goesOn) {
    const ids = tokenizer.encode(text).slice(1 - model.sizes.max_seq_len);
    if (!ids.length) throw new Error("write a prompt first");
    const [random, decode, pause] = [seeded(seed), tokenizer.decoder(), pauses()];
    let [logits, parts, due] = [read(ids), [], 0];
    const end = Math.min(model.sizes.max_seq_len, ids.length + count);
    while (ids.length < end && goesOn()) {
      const probs = filtered(logits, knobs);
      const id = draw(probs, random);
      parts.push({ id, text: decode(id), rivals: likeliest(plain(logits), 10, probs) });
      ids.push(id);
      if (ids.length < end) logits = model.forward(id, ids.length - 1);
      if (performance.now() < due) continue;
      part(parts.splice(0));
      await pause();
      due = performance.now() + 16;
    }
    part(parts);
    return { full: ids.length === model.sizes.max_seq_len };
  },

  // The logits behind a text, for whoever checks them.
  logits: ({ text }) => [...read(tokenizer.encode(text))],

  // Bits of surprise at each token of a text; before the first there is nothing to predict from.
  surprise({ text }) {
    let probs = null;
    return encoded(text).map((token, i) => {
      const p = probs?.[token.id];
      const found = probs && { bits: -Math.log2(p), rank: probs.filter((q) => q > p).length + 1 };
      const rivals = probs && likeliest(probs, 5);
      probs = plain(model.forward(token.id, i));
      return { ...token, ...found, rivals };
    });
  },

  // weights[layer][head][i] are those of token i, over the tokens 0 … i.
  look({ text }) {
    const weights = Array.from({ length: model.sizes.n_layers }, () => []);
    const tokens = encoded(text);
    const heads = model.sizes.n_heads;
    tokens.forEach(({ id }, i) => {
      let n = 0;
      const look = (layer, row) => (weights[layer][n++ % heads] ??= []).push([...row]);
      model.forward(id, i, { last: false, look });
    });
    return { tokens, weights };
  },

  // What the head would say after each block: guesses[i][layer] of the token after token i.
  inside({ text }) {
    const tokens = encoded(text);
    const guesses = tokens.map(({ id }, i) => {
      const found = [];
      const inside = () => found.push(likeliest(plain(model.predict()), 3));
      model.forward(id, i, { last: false, inside });
      return found;
    });
    return { tokens, guesses };
  },
};

// Logits behind the last of the ids.
function read(ids) {
  let logits = null;
  ids.forEach((id, i) => (logits = model.forward(id, i, { last: i === ids.length - 1 })));
  return logits;
}

function encoded(text) {
  const ids = tokenizer.encode(text);
  if (ids.length > model.sizes.max_seq_len)
    throw new Error(`${ids.length} tokens; the model reads ${model.sizes.max_seq_len}`);
  return ids.map((id) => ({ id, text: tokenizer.name(id), bytes: tokenizer.bytes(id) }));
}

// The likeliest tokens; `kept` says which of them the knobs have left.
const likeliest = (probs, count, kept = probs) =>
  top(probs, count).map((id) => ({ id, text: tokenizer.name(id), p: probs[id], kept: kept[id] > 0 }));

// Let messages in between two tokens; a timer would wait four milliseconds.
function pauses() {
  const { port1, port2 } = new MessageChannel();
  return () => new Promise((resolve) => ((port1.onmessage = resolve), port2.postMessage(0)));
}

// Answer what comes to a worker.
function serve(scope) {
  scope.onmessage = async ({ data: { number, kind, options } }) => {
    latest = number;
    const part = (value) => scope.postMessage({ number, part: value });
    try {
      const value = await answers[kind]?.(options, part, () => latest === number);
      scope.postMessage({ number, value: value ?? null });
    } catch (error) {
      scope.postMessage({ number, error: error.message });
    }
  };
}
