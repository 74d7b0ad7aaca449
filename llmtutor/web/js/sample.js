// From logits to one token, by the knobs of chapter 21 and in its order: temperature, top-k, top-p.

// The plain distribution that the model gives.
const plain = (logits) => softmax(Float64Array.from(logits));

// The distribution that is drawn from. A temperature of 0 leaves the likeliest token alone.
function filtered(logits, { temperature = 1, topK = null, topP = 1 }) {
  const probs = Float64Array.from(logits);
  if (temperature === 0) {
    const [best] = top(logits, 1);
    probs.fill(0)[best] = 1;
    return probs;
  }
  const smallest = topK === null ? -Infinity : logits[top(logits, topK).at(-1)];
  for (let id = 0; id < probs.length; id++) if (probs[id] < smallest) probs[id] = -Infinity;
  softmax(probs, temperature);
  if (topP >= 1) return probs;
  let before = 0;
  for (const id of [...probs.keys()].sort((a, b) => probs[b] - probs[a])) {
    const p = probs[id];
    if (before >= topP) probs[id] = 0;
    before += p;
  }
  const kept = probs.reduce((a, b) => a + b);
  return probs.map((p) => p / kept);
}

// So many ids from the likeliest down, of equal ones the first.
function top(values, count) {
  const found = [];
  for (let id = 0; id < values.length; id++) {
    let place = found.length;
    if (place === count && values[id] <= values[found[--place]]) continue;
    for (; place > 0 && values[found[place - 1]] < values[id]; place--) found[place] = found[place - 1];
    found[place] = id;
  }
  return found;
}

function draw(probs, random) {
  let left = random() * probs.reduce((a, b) => a + b);
  for (let id = 0; id < probs.length; id++) if ((left -= probs[id]) < 0) return id;
  return 0;
}

// Numbers in [0, 1) that a seed decides (mulberry32): the same text for the same link.
function seeded(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z = (z + Math.imul(z ^ (z >>> 7), z | 61)) ^ z;
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  };
}
