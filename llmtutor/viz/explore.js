// Moves one `explore` box: the controls pick a state, the state replaces the view.
(() => {
  const root = document.getElementById("NAME");
  if (!root) return;
  const part = (id) => root.querySelector(`#NAME-${id}`);
  const states = JSON.parse(part("states").textContent);
  const view = part("view");
  const controls = [...root.querySelectorAll("[data-texts]")];
  const move = () => {
    let state = 0;
    for (const control of controls) {
      const texts = JSON.parse(control.dataset.texts);
      const step = control.type === "range" ? Number(control.value) : control.selectedIndex;
      state = state * texts.length + step;
      if (control.type === "range") {
        control.setAttribute("aria-valuetext", texts[step]);
        control.nextElementSibling.textContent = texts[step];
      }
    }
    view.style.minHeight = `${view.offsetHeight}px`; // the page below does not jump
    view.innerHTML = states[state];
  };
  for (const control of controls) control.addEventListener("input", move);
  part("note").remove();
})();
