"use strict";
// The contact sheet. Strips lie as base64 text in script elements that no browser runs; a strip is
// decoded when its card comes near the view (near, so that a printed page is whole), and forgotten when
// the card leaves the page.
(() => {
  const data = JSON.parse(document.getElementById("sheet-data").textContent);
  const grid = document.getElementById("cards");
  const form = document.getElementById("tools");
  const P = data.pixels, PER_PAGE = 48;
  const WINDOWS = { lung: [-600, 1500], soft: [40, 400] };
  const state = { window: "lung", outline: true, label: "", flag: "", text: "", sort: "order", page: 0 };
  const cards = new Map(); // canvas -> card, of this page
  let found = [];

  // Hounsfield units of each of the 256 tones, then grey of each tone in a window.
  const huOf = Array.from({ length: 256 }, (_, tone) => {
    const k = Math.min(data.tone.findIndex((t, i) => i && tone <= t), data.tone.length - 1) - 1;
    const share = (tone - data.tone[k]) / (data.tone[k + 1] - data.tone[k]);
    return data.toneHu[k] + share * (data.toneHu[k + 1] - data.toneHu[k]);
  });
  const grey = Object.fromEntries(Object.entries(WINDOWS).map(([name, [center, width]]) =>
    [name, Uint8ClampedArray.from(huOf, hu => 255 * (hu - center + width / 2) / width)]));

  const element = (name, className, text) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const signed = mm => (mm > 0 ? "+" : mm < 0 ? "\u2212" : "") + Math.abs(mm).toFixed(1) + " mm";

  // ---- decoding ----
  const loaded = new Promise(done => document.readyState === "loading"
    ? document.addEventListener("DOMContentLoaded", done, { once: true }) : done());

  async function bytesOf(base64, type) {
    const raw = Uint8Array.from(atob(base64), c => c.charCodeAt(0));
    const how = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
    const bitmap = await createImageBitmap(new Blob([raw], { type }), how);
    const canvas = element("canvas");
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    bitmap.close();
    const rgba = context.getImageData(0, 0, canvas.width, canvas.height).data;
    return Uint8Array.from({ length: rgba.length / 4 }, (_, i) => rgba[4 * i]);
  }

  async function decode(card) {
    let block = document.getElementById("n" + card.index);
    if (!block) {
      await loaded;
      block = document.getElementById("n" + card.index);
    }
    const [image, mask] = block.textContent.split(" ");
    [card.image, card.mask] = await Promise.all(
      [bytesOf(image, "image/webp"), mask ? bytesOf(mask, "image/png") : null]);
    draw(card);
  }

  // ---- drawing ----
  const small = element("canvas");
  small.width = small.height = P;
  const smallContext = small.getContext("2d");
  const pixels = smallContext.createImageData(P, P);

  function draw(card) {
    if (!card.image) return;
    const { canvas } = card, side = Math.round(canvas.clientWidth * (window.devicePixelRatio || 1));
    if (!side) return;
    if (canvas.width !== side) canvas.width = canvas.height = side;
    const table = grey[state.window], from = card.slice * P * P;
    for (let i = 0; i < P * P; i++) {
      pixels.data[4 * i] = pixels.data[4 * i + 1] = pixels.data[4 * i + 2] = table[card.image[from + i]];
      pixels.data[4 * i + 3] = 255;
    }
    smallContext.putImageData(pixels, 0, 0);
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(small, 0, 0, side, side);
    if (state.outline && card.mask) {
      const path = outline(card.mask.subarray(from, from + P * P), side / P), thick = side / 200;
      context.lineCap = "round";
      for (const [colour, width] of [["rgba(0,0,0,.55)", 3.2], ["#ffb000", 1.6]]) {
        context.strokeStyle = colour;
        context.lineWidth = width * Math.max(1, thick);
        context.stroke(path);
      }
    }
    const mm = data.offsets[card.index][card.slice];
    card.where.textContent = signed(mm);
    canvas.setAttribute("aria-valuenow", card.slice + 1);
    canvas.setAttribute("aria-valuetext", "slice at " + signed(mm));
    card.bar.style.top = 100 * card.slice / data.offsets[card.index].length + "%";
    card.bar.style.height = 100 / data.offsets[card.index].length + "%";
    canvas.dataset.drawn = state.window + card.slice + state.outline;
  }

  // Marching squares: corners 8 4 / 1 2, edges top 0, right 1, bottom 2, left 3.
  const CROSSED = { 1: [[3, 2]], 2: [[2, 1]], 3: [[3, 1]], 4: [[0, 1]], 5: [[3, 0], [2, 1]], 6: [[0, 2]],
    7: [[3, 0]], 8: [[3, 0]], 9: [[0, 2]], 10: [[0, 1], [3, 2]], 11: [[0, 1]], 12: [[3, 1]], 13: [[2, 1]],
    14: [[3, 2]] };
  const EDGE = [[0.5, 0], [1, 0.5], [0.5, 1], [0, 0.5]];

  function outline(mask, scale) {
    const path = new Path2D();
    const at = (x, y) => x >= 0 && y >= 0 && x < P && y < P && mask[y * P + x] > 127 ? 1 : 0;
    for (let y = -1; y < P; y++) for (let x = -1; x < P; x++) {
      const kind = 8 * at(x, y) + 4 * at(x + 1, y) + 2 * at(x + 1, y + 1) + at(x, y + 1);
      for (const [a, b] of CROSSED[kind] || []) {
        path.moveTo((x + 0.5 + EDGE[a][0]) * scale, (y + 0.5 + EDGE[a][1]) * scale);
        path.lineTo((x + 0.5 + EDGE[b][0]) * scale, (y + 0.5 + EDGE[b][1]) * scale);
      }
    }
    return path;
  }

  // ---- cards ----
  const seen = new IntersectionObserver(entries => {
    for (const entry of entries) {
      const card = cards.get(entry.target);
      if (!entry.isIntersecting || !card) continue;
      seen.unobserve(entry.target);
      decode(card).catch(error => { card.where.textContent = "cannot be shown"; console.error(error); });
    }
  }, { rootMargin: "3000px" });
  const sized = new ResizeObserver(entries => {
    for (const entry of entries) if (cards.has(entry.target)) draw(cards.get(entry.target));
  });

  function move(card, slices) {
    const last = data.offsets[card.index].length - 1;
    card.slice = Math.max(0, Math.min(last, card.slice + slices));
    draw(card);
  }

  function makeCard(i) {
    const canvas = element("canvas"), box = element("article", "card");
    const frame = element("div", "frame"), where = element("span", "where");
    const track = element("span", "track"), mark = element("span");
    const card = { index: i, canvas, where, bar: mark, slice: data.offsets[i].length >> 1 };
    const share = data.occupancy[i], id = data.id[i];
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "slider");
    canvas.setAttribute("aria-orientation", "vertical");
    canvas.setAttribute("aria-valuemin", 1);
    canvas.setAttribute("aria-valuemax", data.offsets[i].length);
    canvas.setAttribute("aria-valuenow", card.slice + 1);
    canvas.setAttribute("aria-label", `${id}, ${data.label[i]}, ${data.diameter[i]} mm`);
    track.append(mark);
    frame.append(canvas, where, track);
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
    listen(card);
    cards.set(canvas, card);
    seen.observe(canvas);
    sized.observe(canvas);
    return box;
  }

  const short = id => id.replace(/^([0-9a-f]{8})[0-9a-f]{8}(-|$)/, "$1$2").replace(/-([0-9a-f]{6})[0-9a-f]{10}$/, "-$1");

  function listen(card) {
    const { canvas } = card;
    let from = null, turned = 0;
    canvas.addEventListener("wheel", event => {
      if (document.activeElement !== canvas || event.ctrlKey) return; // else the page scrolls
      event.preventDefault();
      turned += event.deltaMode ? 40 * event.deltaY : event.deltaY;
      const steps = Math.trunc(turned / 40);
      if (steps) { turned -= 40 * steps; move(card, Math.sign(steps)); }
    }, { passive: false });
    canvas.addEventListener("pointerdown", event => {
      from = event.clientX;
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", event => {
      if (from === null) return;
      const steps = Math.trunc((event.clientX - from) / 10);
      if (steps) { from += 10 * steps; move(card, steps); }
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { from = null; });
    canvas.addEventListener("keydown", event => {
      const all = data.offsets[card.index].length;
      const slices = { ArrowUp: -1, ArrowDown: 1, PageUp: -4, PageDown: 4, Home: -all, End: all }[event.key];
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (slices) { event.preventDefault(); move(card, slices); }
      if (step) {
        const every = [...grid.querySelectorAll("canvas")];
        const next = every[every.indexOf(canvas) + step];
        if (next) { event.preventDefault(); next.focus(); }
      }
    });
  }

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
    for (const canvas of cards.keys()) { seen.unobserve(canvas); sized.unobserve(canvas); }
    cards.clear();
    grid.replaceChildren(...shown.map(makeCard));
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
