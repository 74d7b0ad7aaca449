// The tokenizers of the book: text → ids and back, the same ids as in Python. Each cuts the text into
// words and a word into small parts, and joins neighbours for as long as it has a rank for two of them.
function createTokenizer({ kind, tokens: first, merges = "", special = [], ...own }) {
  const encoder = new TextEncoder();
  const pairs = merges ? merges.split("\n") : [];
  const tokens = [...first, ...pairs.map((pair) => pair.replace(" ", "")), ...special];
  const n = tokens.length - special.length; // the id of the first special token
  const ids = new Map(tokens.slice(0, n).map((name, id) => [name, id]));
  const bytesOf = tokens.map((name) => Uint8Array.from(name, (char) => ALPHABET.indexOf(char)));
  const spell = (text) => Array.from(encoder.encode(text), (byte) => ALPHABET[byte]);
  const idOf = (text) => ids.get(spell(text).join(""));
  const { words, start, rank, toIds } = { bpe, scores, chars }[kind]({ ids, pairs, spell, idOf, ...own });
  const named = new Map(special.map((_, i) => [decoder(false)(n + i), n + i]));
  const texts = [...named.keys()].sort((a, b) => b.length - a.length).map(escape);
  // $^ matches nothing.
  const divider = RegExp(`(${texts.join("|") || "$^"})`, "u");

  const ordinary = (text) => words(text).flatMap((word) => join(start(word), rank).flatMap(toIds));
  function encode(text) {
    if (!text.isWellFormed()) throw new Error("half a character");
    return text.split(divider).flatMap((part, i) => (i % 2 ? [named.get(part)] : ordinary(part)));
  }
  // Gives the text of one id after another; the beginning of a character waits for its end.
  function decoder(stream = true) {
    const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
    return (id) => utf8.decode(bytesOf[id], { stream });
  }
  const [names, alone] = [[], decoder(false)];
  const name = (id) => (names[id] ??= alone(id));
  return { encode, words, decoder, name, bytes: (id) => bytesOf[id].length };
}

// Join the neighbours of the lowest rank, of equal ones the first, until no two have a rank.
function join(parts, rank) {
  const ranks = parts.slice(1).map((part, i) => rank(parts[i], part));
  for (;;) {
    let best = -1;
    ranks.forEach((one, i) => {
      if (one !== undefined && (best < 0 || one < ranks[best])) best = i;
    });
    if (best < 0) return parts;
    parts.splice(best, 2, parts[best] + parts[best + 1]);
    ranks.splice(best, 1);
    if (best > 0) ranks[best - 1] = rank(parts[best - 1], parts[best]);
    if (best < ranks.length) ranks[best] = rank(parts[best], parts[best + 1]);
  }
}

// Byte pairs (chapter 01): words by GPT-2's pattern, their bytes, merges in the order they were learnt.
function bpe({ ids, pairs, spell, letters, numbers }) {
  const ranks = new Map(pairs.map((pair, rank) => [pair, rank]));
  const [S, L, N] = ["\\p{White_Space}", ranges(letters), ranges(numbers)];
  const word = `'(?:[stmd]|re|ve|ll)| ?[${L}]+| ?[${N}]+| ?[^${S}${L}${N}]+|[${S}]+(?![^${S}])|[${S}]+`;
  const pattern = RegExp(word, "gu");
  return {
    words: (text) => text.match(pattern) ?? [],
    start: spell,
    rank: (a, b) => ranks.get(`${a} ${b}`),
    toIds: (part) => [ids.get(part)],
  };
}

// Scored pieces (llama2.c): a space first, then the characters of each word; the best piece is joined first.
function scores({ values, firstByte, pieces, spell }) {
  const ids = new Map(Object.entries(pieces));
  const bytes = (part) => spell(part).map((char) => firstByte + ALPHABET.indexOf(char));
  return {
    words: (text) => (text ? ` ${text}`.split(/(?<=[^ ])(?= )/u) : []),
    start: (word) => [...word],
    rank: (a, b) => (ids.has(a + b) ? -values[ids.get(a + b)] : undefined),
    toIds: (part) => (ids.has(part) ? [ids.get(part)] : bytes(part)),
  };
}

// One id for each character.
function chars({ idOf }) {
  return {
    words: (text) => [...text],
    start: (char) => [char],
    rank: () => undefined,
    toIds(char) {
      const id = idOf(char);
      if (id === undefined) throw new Error(`no token for ${char}`);
      return [id];
    },
  };
}

// A printable character for each byte, as in GPT-2's files: itself, or one from U+0100 on.
const ALPHABET = [];
for (let byte = 0, moved = 256; byte < 256; byte++) {
  const shown = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  ALPHABET.push(String.fromCharCode(shown ? byte : moved++));
}

// "1t p …": how many code points are out, then in, and so on, as ranges for the inside of [].
function ranges(runs) {
  let at = 0;
  const borders = runs.split(" ").map((run) => (at += parseInt(run, 36)));
  const point = (number) => `\\u{${number.toString(16)}}`;
  return borders.flatMap((end, i) => (i % 2 ? `${point(borders[i - 1])}-${point(end - 1)}` : [])).join("");
}

const escape = (text) => text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
