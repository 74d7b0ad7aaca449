// What a model costs, by arithmetic on its sizes alone: the numbers of `llmtutor.model.accounting`.
// `sizes` are those of llmtutor/web/cost_sizes.py: 0 is "none" or "what follows"; true is 1.
(() => {
  const headWidth = ({ head_dim, d_model, n_heads }) => head_dim || d_model / n_heads;

  // Attention with heads. Queries have n_heads · head_dim components, keys and values n_kv_heads · head_dim
  // each. Four matrices: from the stream to queries, keys and values, and from the heads back to it.
  // A query meets a token in its score and in its value, each time with head_dim products a head.
  // Of each token the cache keeps keys and values.
  function headAttention(sizes) {
    const { d_model, n_heads, n_kv_heads, bias, output_bias, qk_norm, sinks } = sizes;
    const width = headWidth(sizes);
    const [q, kv] = [n_heads * width, (n_kv_heads || n_heads) * width];
    const biases = bias * (q + 2 * kv) + output_bias * d_model;
    const gains = { none: 0, head: 2 * width, heads: q + kv }[qk_norm];
    const others = biases + gains + sinks * n_heads;
    return { matrices: 2 * d_model * (q + kv), others, met: 2 * q, kept: 2 * kv };
  }

  // Latent attention. One matrix makes the latent (kv_rank) and the shared key (rope_dim), two more the
  // keys and values of all heads from the latent, one leads back to the stream. Queries come from the
  // stream by one matrix, or by two with q_rank numbers between them. Each latent has a norm.
  // A query meets the latent itself: kv_rank + rope_dim products a head in the score, kv_rank in the value.
  // The cache keeps latent and shared key, however many heads there are.
  function latentAttention({ d_model, n_heads, kv_rank, q_rank, nope_dim, rope_dim, v_dim }) {
    const queries = n_heads * (nope_dim + rope_dim);
    const row = kv_rank + rope_dim;
    const up = kv_rank * n_heads * (nope_dim + v_dim);
    const toQueries = q_rank ? d_model * q_rank + q_rank * queries : d_model * queries;
    const matrices = d_model * row + up + n_heads * v_dim * d_model + toQueries;
    return { matrices, others: kv_rank + q_rank, met: n_heads * (row + kv_rank), kept: row };
  }

  const attention = (sizes) => (sizes.attention === "latent" ? latentAttention : headAttention)(sizes);

  // Tokens that the last one sees, added up over the blocks. Behind a window these are the last ones, but
  // each full_every-th block sees all. Latent attention has no windows.
  function seenInAll({ attention, n_layers, window, full_every }, seq) {
    const near = attention === "latent" || !window ? seq : Math.min(seq, window);
    const full = full_every ? Math.floor(n_layers / full_every) : 0;
    return full * seq + (n_layers - full) * near;
  }

  // A feed-forward layer: a matrix up, one down, and one more where there is a gate.
  function layer({ d_model, gated, ffn_bias }, width) {
    const up = 1 + gated;
    const matrices = (up + 1) * d_model * width;
    return { matrices, all: matrices + (width && ffn_bias * (up * width + d_model)) };
  }

  // All blocks. Of the experts, a router scores each for a token, which then uses its top_k; the shared
  // ones, one layer as wide as all of them, serve every token.
  function feedForward(sizes) {
    const { d_model, d_expert, n_experts, n_shared, top_k, router_bias } = sizes;
    const nDense = sizes.ffn === "dense" ? sizes.n_layers : sizes.n_dense;
    const sparse = sizes.n_layers - nDense;
    const [dense, one, shared] = [sizes.d_ff, d_expert, n_shared * d_expert].map((d) => layer(sizes, d));
    const router = d_model * n_experts;
    const always = router + router_bias * n_experts + shared.all;
    return {
      all: nDense * dense.all + sparse * (always + n_experts * one.all),
      idle: sparse * (n_experts - top_k) * one.all,
      used: nDense * dense.matrices + sparse * (router + shared.matrices + top_k * one.matrices),
    };
  }

  // Where they sit. A token looks up one row of the embedding, which still counts whole as used by it.
  function parameters(sizes) {
    const { d_model, n_layers } = sizes;
    const { matrices, others } = attention(sizes);
    const { all, idle } = feedForward(sizes);
    const embedding = sizes.vocab_size * d_model;
    const found = {
      embedding,
      position: sizes.learned_positions * sizes.max_seq_len * d_model,
      attention: n_layers * (matrices + others),
      ffn: all,
      norms: (n_layers * sizes.norms + sizes.last_norm) * d_model * (1 + sizes.norm_bias),
      head: !sizes.tie_weights * embedding,
    };
    const total = Object.values(found).reduce((a, b) => a + b);
    return { ...found, idle, total, active: total - idle };
  }

  // For one token behind seq − 1 others: each entry of a matrix costs a product and a sum, and so does each
  // product where a query meets a token. The last matrix gives the logits, tied or not.
  function tokenFlops(sizes, seq) {
    const { matrices, met } = attention(sizes);
    const inMatrices = sizes.n_layers * matrices + feedForward(sizes).used + sizes.vocab_size * sizes.d_model;
    return 2 * (inMatrices + met * seenInAll(sizes, seq));
  }

  // Of one text of seq tokens: what a block keeps of a token, for all tokens that it will see again.
  const cacheBytes = (sizes, seq, itemsize) => attention(sizes).kept * seenInAll(sizes, seq) * itemsize;

  // Numbers of so many bits; the scales that go with 8 and 4 bits are not counted.
  const weightBytes = (count, bits) => Math.ceil((count * bits) / 8);

  // AdamW in float32: weight, gradient and two moments, four bytes each. Activations come on top.
  const trainingBytes = (count) => 16 * count;

  // The numbers that count in such a model, each with its least value.
  function acting({ attention, ffn, learned_positions, window, n_dense }) {
    const latent = { kv_rank: 1, q_rank: 0, nope_dim: 1, rope_dim: 2, v_dim: 1 };
    const heads = { n_kv_heads: 0, head_dim: 0, window: 0, ...(window && { full_every: 0 }) };
    return {
      ...{ d_model: 1, n_layers: 1, vocab_size: 1, n_heads: 1 },
      ...(learned_positions && { max_seq_len: 1 }),
      ...(attention === "latent" ? latent : heads),
      ...(ffn === "experts" && { n_experts: 1, top_k: 1, d_expert: 1, n_shared: 0, n_dense: 0 }),
      ...((ffn === "dense" || n_dense) && { d_ff: 1 }),
    };
  }

  // What cannot be built: the name of a size, and a sentence; else null.
  function problem(sizes, seq) {
    for (const [name, least] of Object.entries(acting(sizes)))
      if (!Number.isSafeInteger(sizes[name]) || sizes[name] < least)
        return { name, words: `${name} must be a whole number of at least ${least}.` };
    const { d_model, n_heads, n_kv_heads, n_experts, n_layers, max_seq_len, nope_dim, rope_dim } = sizes;
    const [width, learned] = [headWidth(sizes), sizes.learned_positions];
    const atMost = (name, most) => [name, sizes[name] > most, `must be at most ${most}.`];
    const rank = (name, dim) => atMost(name, Math.min(d_model, n_heads * (nope_dim + dim)));
    const even = "must be even: RoPE turns pairs.";
    const rules = {
      heads: [
        ["n_heads", width % 1, `must divide d_model = ${d_model} where head_dim is 0.`],
        ["n_kv_heads", n_heads % (n_kv_heads || 1), `must divide n_heads = ${n_heads}: groups are equal.`],
        ["head_dim", !learned && width % 2, `is ${width}; it ${even}`],
      ],
      latent: [["rope_dim", rope_dim % 2, even], rank("kv_rank", sizes.v_dim), rank("q_rank", rope_dim)],
      dense: [],
      experts: [atMost("top_k", n_experts), atMost("n_dense", n_layers - 1)],
    };
    const table = ["context", learned && seq > max_seq_len, `must be at most ${max_seq_len}.`];
    const broken = [...rules[sizes.attention], ...rules[sizes.ffn], table].find(([, is]) => is);
    if (broken) return { name: broken[0], words: `${broken[0]} ${broken[2]}` };
    const most = Math.max(16 * parameters(sizes).total, tokenFlops(sizes, seq), cacheBytes(sizes, seq, 4));
    return most < 2 ** 53 ? null : { name: "d_model", words: "Too large to be counted exactly." };
  }

  globalThis.LLMTutor ??= {};
  LLMTutor.costs = { acting, cacheBytes, parameters, problem, tokenFlops, trainingBytes, weightBytes };
})();
