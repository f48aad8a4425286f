"use strict";
// The contact sheet: cards of `slices.js` that are filtered, sorted and turned over in pages.
(() => {
  const data = JSON.parse(document.getElementById("sheet-data").textContent);
  const grid = document.getElementById("cards");
  const form = document.getElementById("tools");
  const PER_PAGE = 48;
  const state = { window: "lung", outline: true, label: "", flag: "", text: "", sort: "order", page: 0 };
  const { cards, clear, draw, element, makeCard } = makeSlices(data, state);
  let found = [];

  // ---- cards ----
  function describe(i) {
    const { frame } = makeCard(i, `${data.id[i]}, ${data.label[i]}, ${data.diameter[i]} mm`);
    const box = element("article", "card"), share = data.occupancy[i], id = data.id[i];
    const first = element("p", "first"), second = element("p", "second");
    first.append(element("b", data.label[i], data.label[i]));
    first.append(element("span", "", data.diameter[i] === null ? "" : data.diameter[i].toFixed(1) + " mm"));
    const volume = data.volume[i] === null ? "no volume" : Math.round(data.volume[i]).toLocaleString("en") + " mm\u00b3";
    second.append(element("span", "", volume));
    second.append(element("span", "", share === null ? "no mask" : (100 * share).toPrecision(2) + " % mask"));
    const name = element("p", "id", short(id));
    name.title = `nodule ${id}\npatient ${data.patient[i]}`;
    box.append(frame, first, second, name);
    const raised = data.flags.filter((_, k) => data.raised[i] >> k & 1);
    if (raised.length) {
      const list = element("p", "flags");
      for (const [, text] of raised) list.append(element("span", "", text));
      box.append(list);
    }
    return box;
  }

  const short = id => id.replace(/^([0-9a-f]{8})[0-9a-f]{8}(-|$)/, "$1$2").replace(/-([0-9a-f]{6})[0-9a-f]{10}$/, "-$1");

  // ---- filter, sort, pages ----
  const KEYS = {
    largest: i => -(data.diameter[i] ?? -1), smallest: i => data.diameter[i] ?? 1e9,
    fullest: i => -(data.occupancy[i] ?? -1), emptiest: i => data.occupancy[i] ?? 2,
    dark: i => data.hu[i] ?? 1e5, bright: i => -(data.hu[i] ?? -1e5),
    label: i => ["malignant", "benign", "open"].indexOf(data.label[i]),
    flags: i => -data.flags.filter((_, k) => data.raised[i] >> k & 1).length,
  };

  function matches(i) {
    if (state.label && data.label[i] !== state.label) return false;
    if (state.flag === "any" && !data.raised[i]) return false;
    if (state.flag === "none" && data.raised[i]) return false;
    const bit = data.flags.findIndex(([key]) => key === state.flag);
    if (bit >= 0 && !(data.raised[i] >> bit & 1)) return false;
    return !state.text || data.id[i].includes(state.text) || data.patient[i].includes(state.text);
  }

  function show() {
    found = data.id.map((_, i) => i).filter(matches);
    const key = KEYS[state.sort];
    if (key) {
      const value = found.map(key), order = found.map((_, k) => k);
      found = order.sort((a, b) => value[a] - value[b] || a - b).map(k => found[k]);
    }
    const pages = Math.max(1, Math.ceil(found.length / PER_PAGE));
    state.page = Math.max(0, Math.min(state.page, pages - 1));
    const start = state.page * PER_PAGE, shown = found.slice(start, start + PER_PAGE);
    clear();
    grid.replaceChildren(...shown.map(describe));
    if (!shown.length) grid.append(element("p", "nothing", "No nodule matches."));
    const count = n => n.toLocaleString("en");
    const range = `${count(start + 1)} to ${count(start + shown.length)} of ${count(found.length)}`;
    for (const pager of document.querySelectorAll(".pager")) {
      pager.querySelector("output").textContent = pages > 1 ? range : `${count(found.length)} shown`;
      const [back, on] = pager.querySelectorAll("button");
      back.hidden = on.hidden = pages === 1;
      back.disabled = state.page === 0;
      on.disabled = state.page === pages - 1;
    }
    for (const button of document.querySelectorAll("[data-flag]"))
      button.setAttribute("aria-pressed", button.dataset.flag === state.flag);
  }

  form.addEventListener("submit", event => event.preventDefault());
  const changed = event => {
    const { name, value, type, checked } = event.target;
    state[name] = type === "checkbox" ? checked : value.trim();
    if (name === "window" || name === "outline") { for (const card of cards.values()) draw(card); return; }
    state.page = 0;
    show();
  };
  form.addEventListener("change", event => event.target.name !== "text" && changed(event));
  form.elements.text.addEventListener("input", changed);
  for (const pager of document.querySelectorAll(".pager")) {
    pager.addEventListener("click", event => {
      if (!event.target.dataset.step) return;
      state.page += Number(event.target.dataset.step);
      show();
      if (pager.dataset.place === "below") form.scrollIntoView({ block: "start" });
    });
  }
  for (const button of document.querySelectorAll("[data-flag]")) {
    button.addEventListener("click", () => {
      state.flag = state.flag === button.dataset.flag ? "" : button.dataset.flag;
      state.page = 0;
      form.elements.flag.value = state.flag;
      show();
      document.getElementById("crops").scrollIntoView({ block: "start" });
    });
  }
  form.reset();
  show();
})();
