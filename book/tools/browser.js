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

  // A page that scrolls sideways, with the first element that sticks out of it.
  overflow() {
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

  // Controls of viz.explore that change nothing: each is moved away and back again.
  explore() {
    const found = [];
    for (const box of document.querySelectorAll(".lt-explore")) {
      const name = box.id;
      const picture = box.querySelector(".lt-view");
      const controls = picture ? [...box.querySelectorAll("input, select")] : [];
      if (!controls.length) found.push(`explore ${name}: no picture or no control`);
      for (const control of controls) {
        const start = control.value;
        const before = picture.innerHTML;
        const set = (value) => {
          control.value = value;
          for (const kind of ["input", "change"])
            control.dispatchEvent(new Event(kind, { bubbles: true }));
        };
        const values = control.options
          ? [...control.options].map((option) => option.value)
          : [control.min || "0", control.max || "100"];
        const moves = values.some((value) => {
          set(value);
          return picture.innerHTML !== before;
        });
        if (!moves) found.push(`explore ${name}: ${control.id} changes nothing`);
        set(start);
        if (picture.innerHTML !== before)
          found.push(`explore ${name}: ${control.id} does not come back`);
      }
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
