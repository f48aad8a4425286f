"use strict";
// The worst misses: cards of `slices.js` in the places that the page holds for them, each with a slider.
(() => {
  const data = JSON.parse(document.getElementById("misses-data").textContent);
  const form = document.getElementById("look");
  const state = { window: "lung", outline: true, heat: false };
  const { cards, draw, element, goTo, makeCard } = makeSlices(data, state);

  for (const place of document.querySelectorAll(".hold")) {
    const i = Number(place.dataset.nodule), card = makeCard(i, place.dataset.told);
    const slider = element("input", "through");
    Object.assign(slider, { type: "range", min: 0, max: data.offsets[i].length - 1, value: card.slice });
    slider.tabIndex = -1; // keys move the picture itself
    slider.setAttribute("aria-hidden", "true");
    slider.addEventListener("input", () => goTo(card, Number(slider.value)));
    card.moved = () => { slider.value = card.slice; };
    place.append(card.frame, slider);
  }

  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("change", event => {
    const { name, value, type, checked } = event.target;
    state[name] = type === "checkbox" ? checked : value;
    for (const card of cards.values()) draw(card);
  });
  form.reset();
  if (form.elements.heat) state.heat = form.elements.heat.checked;
})();
