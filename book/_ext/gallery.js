"use strict";
// The gallery: two lists show two models beside each other; without them all are shown.
for (const gallery of document.querySelectorAll(".lt-gallery")) {
  const form = gallery.querySelector("form");
  const lists = [...form.querySelectorAll("select")];
  const models = gallery.querySelector(".lt-models");
  const cards = [...models.children];
  const show = (names) => {
    for (const card of cards) card.hidden = !names.includes(card.dataset.model);
    for (const name of names) models.append(cards.find((card) => card.dataset.model === name));
  };
  const pick = () => show(lists.map((list) => list.value));
  const first = JSON.parse(gallery.dataset.first);
  lists.forEach((list, i) => {
    list.value = first[i];
    list.addEventListener("change", pick);
  });
  form.querySelector("button").addEventListener("click", () => show(cards.map((c) => c.dataset.model)));
  form.hidden = false;
  pick();
}
