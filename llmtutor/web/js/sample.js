// From logits to one token, by the knobs of chapter 21 and in its order: temperature, top-k, top-p.

// The plain distribution that the model gives.
const plain = (logits) => softmax(Float64Array.from(logits));

// The distribution that is drawn from. A temperature of 0 leaves the likeliest token alone.
function filtered(logits, { temperature = 1, topK = null, topP = 1 }) {
  if (temperature === 0) {
    const best = logits.indexOf(logits.reduce((a, b) => Math.max(a, b)));
    return Float64Array.from(logits, (_, id) => (id === best ? 1 : 0));
  }
  let scaled = Float64Array.from(logits, (logit) => logit / temperature);
  if (topK !== null && topK < scaled.length) {
    const smallest = scaled[top(scaled, topK).at(-1)];
    scaled = scaled.map((logit) => (logit < smallest ? -Infinity : logit));
  }
  const probs = softmax(scaled);
  if (topP >= 1) return probs;
  let before = 0;
  for (const id of top(probs, probs.length)) {
    const p = probs[id];
    if (before >= topP) probs[id] = 0;
    before += p;
  }
  const kept = probs.reduce((a, b) => a + b);
  return probs.map((p) => p / kept);
}

// So many ids from the likeliest down, of equal ones the first.
function top(values, count) {
  const better = (a, b) => values[b] - values[a] || a - b;
  const found = [];
  let floor = -Infinity;
  values.forEach((value, id) => {
    if (value <= floor || found.push(id) < 2 * count) return;
    found.sort(better).length = count;
    floor = values[found[count - 1]];
  });
  return found.sort(better).slice(0, count);
}

function draw(probs, random) {
  let left = random() * probs.reduce((a, b) => a + b);
  return Math.max(probs.findIndex((p) => (left -= p) < 0), 0);
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
