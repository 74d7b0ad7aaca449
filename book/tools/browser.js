// What browser.py looks at on an open page. Each check returns a list of problems in words.
({
  // Formulas that MathJax could not read or has not drawn.
  math() {
    const wrong = [...document.querySelectorAll("mjx-merror")];
    const bare = [...document.querySelectorAll(".math")].filter(
      (element) => !element.querySelector("mjx-container"),
    );
    return [
      ...wrong.map((element) => `formula in error: ${element.textContent}`),
      ...bare.map((element) => `formula not drawn: ${element.textContent.slice(0, 80)}`),
    ];
  },

  // Pictures that are not there, or pressed out of their proportions.
  pictures() {
    return [...document.querySelectorAll("article img")].flatMap((image) => {
      const style = getComputedStyle(image);
      const width = image.clientWidth - parseFloat(style.paddingLeft) * 2;
      const height = image.clientHeight - parseFloat(style.paddingTop) * 2;
      if (!image.naturalWidth || !width) return [`picture not drawn: ${image.src.slice(-60)}`];
      const bent = (width / height) * (image.naturalHeight / image.naturalWidth);
      return Math.abs(bent - 1) < 0.03 ? [] : [`picture out of proportion: ${image.alt}`];
    });
  },

  // Drawings without words for those who do not see them, with letters outside of their shape or
  // too pale on it.
  drawings() {
    const found = [];
    const rgb = (color) => color.match(/[\d.]+/g).slice(0, 3).map(Number);
    const luminance = (color) => {
      const [r, g, b] = rgb(color).map((v) => {
        const c = v / 255;
        return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
      });
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const contrast = (a, b) => {
      const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
      return (high + 0.05) / (low + 0.05);
    };
    const behind = (element) => {
      for (let above = element; above; above = above.parentElement) {
        const color = getComputedStyle(above).backgroundColor;
        if (!/^rgba\(.*, 0\)$|^transparent$/.test(color)) return color;
      }
      return "rgb(255, 255, 255)";
    };
    for (const svg of document.querySelectorAll("svg.lt-drawing")) {
      const name = svg.querySelector(":scope > title")?.textContent.trim();
      if (!name || !svg.querySelector(":scope > desc")?.textContent.trim())
        found.push(`drawing without title or description: ${name}`);
      const whole = svg.getBoundingClientRect();
      if (!whole.width) continue;
      const shapes = [...svg.querySelectorAll("rect, circle, polygon:not(.lt-head)")].filter(
        (shape) => getComputedStyle(shape).fill !== "none",
      );
      for (const text of svg.querySelectorAll("text")) {
        const at = text.getBoundingClientRect();
        const [x, y] = [(at.left + at.right) / 2, (at.top + at.bottom) / 2];
        const under = shapes.filter((shape) => {
          const box = shape.getBoundingClientRect();
          const before = shape.compareDocumentPosition(text) & Node.DOCUMENT_POSITION_FOLLOWING;
          return before && box.left <= x && x <= box.right && box.top <= y && y <= box.bottom;
        });
        const shape = under.at(-1);
        const box = shape ? shape.getBoundingClientRect() : whole;
        if (at.left < box.left - 1 || at.right > box.right + 1)
          found.push(`letters stick out of their shape in ${name}: ${text.textContent}`);
        const ground = shape ? getComputedStyle(shape).fill : behind(svg);
        if (contrast(getComputedStyle(text).fill, ground) < 4.5)
          found.push(`letters too pale in ${name}: ${text.textContent}`);
      }
    }
    return found;
  },

  // A page that scrolls sideways with all folds open, and the first element that sticks out of it.
  overflow() {
    for (const fold of document.querySelectorAll("details")) fold.open = true;
    const root = document.documentElement;
    if (root.scrollWidth <= root.clientWidth) return [];
    const clipped = (element) => {
      for (let above = element.parentElement; above && above !== document.body; ) {
        if (getComputedStyle(above).overflowX !== "visible") return true;
        above = above.parentElement;
      }
      return false;
    };
    const wide = [...document.body.querySelectorAll("*")].find(
      (element) =>
        element.getBoundingClientRect().right > root.clientWidth + 1 && !clipped(element),
    );
    const name = wide ? `${wide.tagName.toLowerCase()}.${wide.className}` : "unknown element";
    return [`page scrolls sideways at ${root.clientWidth} px: ${name}`];
  },

  // Lines of code that are cut at the edge of their box, with all folds open.
  code() {
    for (const fold of document.querySelectorAll("details")) fold.open = true;
    return [...document.querySelectorAll("div.highlight pre")]
      .filter((box) => !box.closest(".cell_output") && box.clientWidth)
      .filter((box) => box.scrollWidth > box.clientWidth + 1)
      .map((box) => {
        const longest = box.textContent.split("\n").sort((a, b) => b.length - a.length)[0];
        return `code wider than its box: ${longest.trim()}`;
      });
  },

  // Controls of viz.explore that change nothing, whatever the other controls of the box say, and
  // boxes that do not come back to where they started.
  explore() {
    const steps = (control) =>
      control.options
        ? [...control.options].map((option) => option.value)
        : [control.min || "0", control.max || "100"];
    const set = (control, value) => {
      control.value = value;
      for (const kind of ["input", "change"])
        control.dispatchEvent(new Event(kind, { bubbles: true }));
    };
    const found = [];
    for (const box of document.querySelectorAll(".lt-explore")) {
      const picture = box.querySelector(".lt-view");
      const controls = picture ? [...box.querySelectorAll("input, select")] : [];
      if (!controls.length) found.push(`explore ${box.id}: no picture or no control`);
      const start = controls.map((control) => control.value);
      const before = picture?.innerHTML;
      const back = () => controls.forEach((control, place) => set(control, start[place]));
      const moves = (control) => {
        const seen = steps(control).map((value) => {
          set(control, value);
          return picture.innerHTML;
        });
        return new Set(seen).size > 1;
      };
      for (const control of controls) {
        const others = controls.filter((other) => other !== control);
        const settings = others.flatMap((other) => steps(other).map((value) => [other, value]));
        const moved =
          moves(control) ||
          settings.some(([other, value]) => {
            set(other, value);
            return moves(control);
          });
        if (!moved) found.push(`explore ${box.id}: ${control.id} changes nothing`);
        back();
      }
      if (picture?.innerHTML !== before) found.push(`explore ${box.id}: does not come back`);
    }
    return found;
  },

  // Violations that axe (loaded by browser.py) calls serious or critical, with all folds open.
  async axe() {
    for (const fold of document.querySelectorAll("details")) fold.open = true;
    const { violations } = await axe.run(document, { resultTypes: ["violations"] });
    return violations
      .filter(({ impact }) => ["serious", "critical"].includes(impact))
      .map(({ id, impact, nodes }) => {
        const places = nodes.slice(0, 3).map((node) => node.html.slice(0, 160));
        return `axe ${id} (${impact}): ${places.join(" | ")}`;
      });
  },
})
