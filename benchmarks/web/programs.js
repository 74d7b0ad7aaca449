// Programs that write the same text in one page, for benchmarks/web.py. `programs.open` loads one with a
// model, `programs.run` lets it write: `count` tokens after a prompt, greedily, in one thread.
import * as ort from "./ort.wasm.min.mjs";
import { Wllama } from "./wllama.js";

ort.env.wasm.numThreads = 1;

// The engine of the book as its pages load it; `simd: false` gives it a kernel that does not compile.
async function ours(name, { text, count }, { simd = true } = {}) {
  await LLMTutor.load("engine");
  const kernel = LLMTutor.kernel;
  if (!simd) LLMTutor.kernel = btoa("no kernel");
  const model = await LLMTutor.openModel(name);
  LLMTutor.kernel = kernel;
  return async () => {
    const ids = [];
    await model.ask("write", { text, count, seed: 1, temperature: 0 }, ({ id }) => ids.push(id));
    return ids;
  };
}

const session = (file) => ort.InferenceSession.create(file, { executionProviders: ["wasm"] });
const int64 = (ids) => new ort.Tensor("int64", BigInt64Array.from(ids, BigInt), [1, ids.length]);

function likeliest({ data, dims }) {
  const last = data.subarray(-dims.at(-1));
  let best = 0;
  for (let id = 1; id < last.length; id++) if (last[id] > last[best]) best = id;
  return best;
}

// Keys and values come out of each step and go into the next one.
async function onnxCached(file, { ids, count, pastShape }) {
  const step = await session(file);
  const names = step.inputNames.filter((name) => name !== "ids");
  const none = new ort.Tensor("float32", new Float32Array(), pastShape);
  return async () => {
    const written = [];
    let past = Object.fromEntries(names.map((name) => [name, none]));
    for (let next = ids; written.length < count; next = [written.at(-1)]) {
      const found = await step.run({ ids: int64(next), ...past });
      written.push(likeliest(found.logits));
      past = Object.fromEntries(names.map((name) => [name, found[name.replace("past_", "")]]));
    }
    return written;
  };
}

// The whole text goes in for every token.
async function onnxWhole(file, { ids, count }) {
  const whole = await session(file);
  return async () => {
    const all = [...ids];
    while (all.length < ids.length + count) {
      const { logits } = await whole.run({ ids: int64(all) });
      all.push(likeliest(logits));
    }
    return all.slice(ids.length);
  };
}

// Gives no ids unless it is asked for probabilities, so the text is what a timed run is checked by.
async function wllama(file, { text, count, length }) {
  const quiet = { ...console, debug() {}, log() {} };
  const program = new Wllama({ default: "wllama.wasm" }, { suppressNativeLog: true, logger: quiet });
  const blob = await (await fetch(file)).blob();
  const cache = { cache_type_k: "f32", cache_type_v: "f32" };
  const sizes = { n_threads: 1, n_parallel: 1, n_ctx: length, n_gpu_layers: 0 };
  await program.loadModel([blob], { ...sizes, ...cache });
  const asked = { prompt: text, max_tokens: count, temperature: 0, ignore_eos: true, cache_prompt: false };
  return async (more) => {
    const [{ text, logprobs }] = (await program.createCompletion({ ...asked, ...more })).choices;
    return logprobs ? logprobs.content.map(({ id }) => id) : text;
  };
}

globalThis.programs = {
  kinds: { ours, onnxCached, onnxWhole, wllama },
  opened: {},
  async open(name, kind, file, work, options) {
    this.opened[name] = await this.kinds[kind](file, work, options);
  },
  async run(name, more = {}) {
    const start = performance.now();
    const written = await this.opened[name](more);
    return [(performance.now() - start) / 1000, written];
  },
};
