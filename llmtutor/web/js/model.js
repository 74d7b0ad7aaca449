// A decoder as chapter 09 builds it: embedding, blocks of attention and SwiGLU, norm, logits. One token
// goes through at a time, and each layer's keys and values are kept.
async function createModel({ sizes, parts, weights }, kernel) {
  const { vocab_size, max_seq_len, d_model, n_layers, n_heads, n_kv_heads, head_dim, d_ff } = sizes;
  const [qWidth, kvWidth, half] = [n_heads * head_dim, n_kv_heads * head_dim, head_dim / 2];
  const data = await unpack(weights);

  // All numbers lie in one memory, which the kernel shares: a name stands for the place of the first.
  let used = 4;
  const room = (count) => (used += count) - count;
  const matrix = (rows, cols) => ({ at: room(rows * cols), rows, cols });
  const layer = () => ({
    norm_1: room(d_model),
    query: matrix(qWidth, d_model),
    key: matrix(kvWidth, d_model),
    value: matrix(kvWidth, d_model),
    query_norm: sizes.qk_norm && room(head_dim),
    key_norm: sizes.qk_norm && room(head_dim),
    output: matrix(d_model, qWidth),
    norm_2: room(d_model),
    gate: matrix(d_ff, d_model),
    up: matrix(d_ff, d_model),
    down: matrix(d_model, d_ff),
  });
  const embedding = matrix(vocab_size, d_model);
  const layers = Array.from({ length: n_layers }, layer);
  const norm = room(d_model);
  const head = sizes.tie_weights ? embedding : matrix(vocab_size, d_model);
  const weightsEnd = used;
  const [x, h, q, heads, branch] = [d_model, d_model, qWidth, qWidth, d_model].map(room);
  const [kv, gate, up, logits] = [kvWidth, d_ff, d_ff, vocab_size].map(room);
  const scores = room(max_seq_len);
  for (const one of layers) one.keys = room(kvWidth * max_seq_len);
  for (const one of layers) one.values = room(kvWidth * max_seq_len);

  const { buffer, matvec } = await multiplication(kernel, 4 * used);
  const F = new Float32Array(buffer);
  const times = (to, m, from) => matvec(to, m.at, from, m.rows, m.cols, m.cols);
  fill(F.subarray(4, weightsEnd), data, parts);

  const speeds = Array.from({ length: half }, (_, i) => sizes.rope_base ** (-i / half));

  // x / √(mean(x²) + eps) · weight
  function rmsNorm(to, from, weight, width) {
    let total = 0;
    for (let i = 0; i < width; i++) total += F[from + i] ** 2;
    const scale = 1 / Math.sqrt(total / width + sizes.eps);
    for (let i = 0; i < width; i++) F[to + i] = F[from + i] * scale * F[weight + i];
  }

  // The heads of queries or keys: normed where the model does so, then turned by their position.
  // Component i turns with component i + head_dim / 2.
  function prepare(at, count, weight, { cos, sin }) {
    for (let start = at; start < at + count * head_dim; start += head_dim) {
      if (weight) rmsNorm(start, start, weight, head_dim);
      for (let i = 0; i < half; i++) {
        const [a, b] = [F[start + i], F[start + half + i]];
        F[start + i] = a * cos[i] - b * sin[i];
        F[start + half + i] = a * sin[i] + b * cos[i];
      }
    }
  }

  function attend(one, position, turns, look) {
    rmsNorm(h, x, one.norm_1, d_model);
    times(q, one.query, h);
    prepare(q, n_heads, one.query_norm, turns);
    times(kv, one.key, h);
    prepare(kv, n_kv_heads, one.key_norm, turns);
    for (let g = 0; g < n_kv_heads; g++) {
      const from = kv + g * head_dim;
      F.copyWithin(one.keys + (g * max_seq_len + position) * head_dim, from, from + head_dim);
    }
    times(kv, one.value, h);
    // Values lie by component, so that a weighted sum over tokens is a product with a matrix again.
    for (let i = 0; i < kvWidth; i++) F[one.values + i * max_seq_len + position] = F[kv + i];
    for (let n = 0; n < n_heads; n++) {
      const g = Math.floor(n / (n_heads / n_kv_heads)) * head_dim * max_seq_len;
      matvec(scores, one.keys + g, q + n * head_dim, position + 1, head_dim, head_dim);
      softmax(F, Math.sqrt(head_dim), scores, scores + position + 1);
      look?.(F.slice(scores, scores + position + 1));
      matvec(heads + n * head_dim, one.values + g, scores, head_dim, position + 1, max_seq_len);
    }
    times(branch, one.output, heads);
    add();
  }

  function feed(one) {
    rmsNorm(h, x, one.norm_2, d_model);
    times(gate, one.gate, h);
    times(up, one.up, h);
    for (let i = 0; i < d_ff; i++) F[gate + i] *= F[up + i] / (1 + Math.exp(-F[gate + i]));
    times(branch, one.down, gate);
    add();
  }

  function add() {
    for (let i = 0; i < d_model; i++) F[x + i] += F[branch + i];
  }

  // What the head makes of the stream as it stands: at the end the model's logits.
  function predict() {
    rmsNorm(h, x, norm, d_model);
    times(logits, head, h);
    return F.slice(logits, logits + vocab_size);
  }

  // One token at its place, which is below max_seq_len. `look(layer, weights)` is told of every head, `inside(layer)` after every
  // block. Without `last` nothing is predicted.
  function forward(id, position, { last = true, look, inside } = {}) {
    F.copyWithin(x, embedding.at + id * d_model, embedding.at + (id + 1) * d_model);
    const angles = speeds.map((speed) => position * speed);
    const turns = { cos: angles.map(Math.cos), sin: angles.map(Math.sin) };
    layers.forEach((one, i) => {
      attend(one, position, turns, look && ((weights) => look(i, weights)));
      feed(one);
      inside?.(i);
    });
    return last ? predict() : null;
  }
  return { forward, predict, sizes };
}

const unpackJson = async (text) => JSON.parse(new TextDecoder().decode(await unpack(text)));

// base64 of deflated bytes; `fromBase64` is quick where the browser has it.
async function unpack(text) {
  let bytes = Uint8Array.fromBase64?.(text);
  if (!bytes) {
    const binary = atob(text);
    bytes = new Uint8Array(binary.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  }
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

// The file has all float32 numbers first, then those of int8. `shapes` says what follows each other in
// memory: [n, 0] is n numbers as they are, [rows, cols] a matrix of int8 with a scale for each row.
function fill(F, data, parts) {
  const floats = new Float32Array(data, 0, parts.floats);
  const small = new Int8Array(data, 4 * parts.floats);
  let [at, f, s] = [0, 0, 0];
  for (const [rows, cols] of parts.shapes) {
    if (cols === 0) {
      F.set(floats.subarray(f, (f += rows)), at);
      at += rows;
    }
    for (let row = 0; cols > 0 && row < rows; row++) {
      const scale = floats[f++];
      for (let col = 0; col < cols; col++) F[at++] = small[s++] * scale;
    }
  }
}

// The memory and the product: through the kernel, or by loops where the browser has no SIMD.
async function multiplication(kernel, bytes) {
  try {
    const memory = new WebAssembly.Memory({ initial: Math.ceil(bytes / 65536) });
    const { instance } = await WebAssembly.instantiate(kernel, { js: { memory } });
    const run = instance.exports.matvec;
    const matvec = (y, w, x, rows, cols, stride) => run(4 * y, 4 * w, 4 * x, rows, cols, 4 * stride);
    return { buffer: memory.buffer, matvec };
  } catch {
    const F = new Float32Array(bytes / 4);
    const matvec = (y, w, x, rows, cols, stride) => {
      for (let row = 0; row < rows; row++, w += stride) {
        let total = 0;
        for (let col = 0; col < cols; col++) total += F[w + col] * F[x + col];
        F[y + row] = total;
      }
    };
    return { buffer: F.buffer, matvec };
  }
}

// In place, from `at` up to `end`: exp(x / divisor), divided by their sum.
function softmax(x, divisor = 1, at = 0, end = x.length) {
  let [top, total] = [-Infinity, 0];
  for (let i = at; i < end; i++) if (x[i] > top) top = x[i];
  for (let i = at; i < end; i++) total += x[i] = Math.exp((x[i] - top) / divisor);
  for (let i = at; i < end; i++) x[i] /= total;
  return x;
}
