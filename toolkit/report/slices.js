"use strict";
// Slices of nodules on canvases, for every page that shows some: strips are decoded, windowed, outlined,
// overlaid, and gone through by wheel, drag and keys. Strips lie as base64 text in script elements that no
// browser runs; a strip is decoded when its card comes near the view (near, so that a printed page is whole).
//
// data: pixels, tone, toneHu, offsets (mm of each slice, a list a nodule).
// state: window, outline, heat (whether shown); drawn again by draw(card) when it changes.
const makeSlices = (data, state) => {
  const P = data.pixels;
  const WINDOWS = { lung: [-600, 1500], soft: [40, 400] };
  const HEAT = [255, 45, 110], MOST_HEAT = 0.6;
  const cards = new Map(); // canvas -> card, of those on the page

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
    const [image, mask, heat] = block.textContent.split(" ");
    [card.image, card.mask, card.heat] = await Promise.all([bytesOf(image, "image/webp"),
      mask ? bytesOf(mask, "image/png") : null, heat ? bytesOf(heat, "image/webp") : null]);
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
    const heat = state.heat && card.heat;
    for (let i = 0; i < P * P; i++) {
      const light = table[card.image[from + i]], hot = heat ? MOST_HEAT * card.heat[from + i] / 255 : 0;
      for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = light + hot * (HEAT[c] - light);
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
    canvas.dataset.drawn = state.window + card.slice + state.outline + (heat ? "heat" : "");
    if (card.moved) card.moved();
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

  function goTo(card, slice) {
    card.slice = Math.max(0, Math.min(data.offsets[card.index].length - 1, slice));
    draw(card);
  }
  const move = (card, slices) => goTo(card, card.slice + slices);

  function clear() {
    for (const canvas of cards.keys()) { seen.unobserve(canvas); sized.unobserve(canvas); }
    cards.clear();
  }

  // A card for nodule i; card.frame goes onto the page.
  function makeCard(i, label) {
    const canvas = element("canvas"), frame = element("div", "frame"), where = element("span", "where");
    const track = element("span", "track"), mark = element("span");
    const card = { index: i, canvas, frame, where, bar: mark, slice: data.offsets[i].length >> 1 };
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "slider");
    canvas.setAttribute("aria-orientation", "vertical");
    canvas.setAttribute("aria-valuemin", 1);
    canvas.setAttribute("aria-valuemax", data.offsets[i].length);
    canvas.setAttribute("aria-valuenow", card.slice + 1);
    canvas.setAttribute("aria-label", label);
    track.append(mark);
    frame.append(canvas, where, track);
    listen(card);
    cards.set(canvas, card);
    seen.observe(canvas);
    sized.observe(canvas);
    return card;
  }

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
        const every = [...cards.keys()], beside = every[every.indexOf(canvas) + step];
        if (beside) { event.preventDefault(); beside.focus(); }
      }
    });
  }

  return { cards, clear, draw, element, goTo, makeCard };
};
