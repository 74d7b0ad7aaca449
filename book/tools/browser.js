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
