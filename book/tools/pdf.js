// What pdf.py does on the open document before it is printed. Each part returns what it did, in words.
({
  // Formulas are drawn and fonts are there.
  async ready() {
    if (window.MathJax?.startup?.promise) await MathJax.startup.promise;
    await Promise.all([...document.images].map((image) => image.decode().catch(() => null)));
    await document.fonts.ready;
    const bare = [...document.querySelectorAll(".math")].filter(
      (element) => !element.querySelector("mjx-container"),
    );
    const wrong = document.querySelectorAll("mjx-merror").length;
    const gone = [...document.images].filter((image) => !image.naturalWidth);
    return [
      ...bare.map((element) => `formula not drawn: ${element.textContent.slice(0, 80)}`),
      ...(wrong ? [`${wrong} formulas in error`] : []),
      ...gone.map((image) => `picture not there: ${image.src.slice(-80)}`),
    ];
  },

  // Formulas and tables wider than the page are made as much smaller as they need.
  fit() {
    const made = [];
    for (const box of document.querySelectorAll("div.math, table")) {
      const room = box.parentElement.clientWidth;
      const inner = box.querySelector("mjx-container") ?? box;
      const width = Math.max(inner.scrollWidth, inner.getBoundingClientRect().width);
      if (!room || width <= room + 1) continue;
      const size = parseFloat(getComputedStyle(box).fontSize);
      box.style.fontSize = `${(size * room * 0.985) / width}px`;
      made.push(`${box.tagName.toLowerCase()} ${Math.round((100 * room) / width)} %`);
    }
    return made;
  },

  // Letters that no font has are replaced by a frame with their number, U+611B.
  letters() {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 40;
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    const picture = (letter, font) => {
      pen.clearRect(0, 0, 40, 40);
      pen.font = `24px ${font}`;
      pen.fillText(letter, 4, 30);
      return pen.getImageData(0, 0, 40, 40).data.join();
    };
    const known = new Map();
    const missing = (letter, font) => {
      const key = letter + font;
      if (!known.has(key)) {
        const empty = ["\u{10FFFD}", "\u{E0FFF}"].map((nothing) => picture(nothing, font));
        known.set(key, empty.includes(picture(letter, font)));
      }
      return known.get(key);
    };
    const made = new Set();
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const texts = [];
    while (walker.nextNode()) texts.push(walker.currentNode);
    for (const text of texts) {
      const parent = text.parentElement;
      if (!/[^\u0000-\u024F]/.test(text.data) || parent.closest("style, script, mjx-container"))
        continue;
      const font = getComputedStyle(parent).fontFamily;
      const pieces = [...text.data].map((letter) =>
        letter > "\u024F" && /[\p{L}\p{S}\p{P}\p{N}]/u.test(letter) && missing(letter, font)
          ? { number: letter.codePointAt(0).toString(16).toUpperCase().padStart(4, "0"), letter }
          : letter,
      );
      if (pieces.every((piece) => typeof piece === "string")) continue;
      const svg = parent.namespaceURI.endsWith("svg");
      const whole = document.createDocumentFragment();
      for (const piece of pieces) {
        if (typeof piece === "string") whole.append(piece);
        else {
          const name = `U+${piece.number}`;
          const frame = document.createElement("span");
          frame.className = "lt-letter";
          frame.textContent = name;
          whole.append(svg ? name : frame);
          made.add(`${piece.letter} ${name}`);
        }
      }
      text.replaceWith(whole);
    }
    return [...made];
  },

  // References that say on which page a place is get the numbers that are known now.
  number(pages) {
    for (const link of document.querySelectorAll("a.lt-on")) {
      const name = decodeURIComponent(link.hash.slice(1));
      if (name in pages) link.querySelector("span").textContent = pages[name];
    }
    return [];
  },

  // What still sticks out of the page to the right.
  cut() {
    const room = document.documentElement.clientWidth;
    const found = [...document.querySelectorAll("main *")].filter((element) => {
      const box = element.getBoundingClientRect();
      return box.width && box.right > room + 2 && !element.closest("mjx-assistive-mml, svg *");
    });
    return found
      .filter((element) => !found.includes(element.parentElement))
      .map((element) => {
        const page = element.closest(".lt-page")?.id;
        const by = Math.round(element.getBoundingClientRect().right - room);
        return `${page}: ${element.tagName.toLowerCase()}.${element.className} is ${by} px too wide`;
      });
  },
})
