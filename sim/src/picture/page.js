// What the reader does: move, zoom, switch, point, read the list.

const $ = (id) => document.getElementById(id);
const [stage, sheet, base, over, map, list, rows, tip] = ["stage", "sheet", "base", "over", "map", "list", "rows", "tip"].map($);
const ROW = 20;
const SPAN_MIN = 50;
const state = { pointer: null, thing: null, drag: null, row: -1, listed: [], pending: false, find: "" };

// ---- drawing, once a frame at most

function redraw() {
  if (state.pending) return;
  state.pending = true;
  requestAnimationFrame(() => {
    state.pending = false;
    state.thing = null;
    tip.hidden = true;
    resize();
    drawScene(base.getContext("2d"));
    drawOver();
    drawMap();
    fillList();
  });
}

function resize() {
  view.width = stage.clientWidth;
  view.height = stage.clientHeight;
  layOut(view.height);
  sheet.style.height = `${view.sheet}px`;
  document.documentElement.style.setProperty("--back", `${-view.height}px`);
  for (const canvas of [base, over]) sized(canvas, view.width, view.height);
  sized(map, map.clientWidth, map.clientHeight);
  view.scroll = stage.scrollTop;
}

function sized(canvas, width, height) {
  const [w, h] = [Math.round(width * devicePixelRatio), Math.round(height * devicePixelRatio)];
  if (canvas.width !== w || canvas.height !== h) {
    Object.assign(canvas, { width: w, height: h });
    if (canvas !== map) Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
  }
}

// The pointer's line, what every host does there, and the thing that is pointed at.
function drawOver() {
  const g = over.getContext("2d");
  g.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
  g.clearRect(0, 0, view.width, view.height);
  g.font = SMALL;
  g.textBaseline = "middle";
  const listed = state.row >= 0 ? state.listed[state.row] : undefined;
  const at = state.pointer ? timeAt(state.pointer.x) : listed === undefined ? null : model.events[listed].at_us;
  g.translate(0, -view.scroll);
  if (at !== null && at >= view.from && at <= view.to) drawMoment(g, at);
  if (state.drag && state.drag.part) drawPart(g);
  const thing = state.thing || (listed === undefined ? null : model.things[listed]);
  if (thing) halo(g, thing);
}

function drawMoment(g, at) {
  g.fillStyle = colours.dim;
  g.globalAlpha = 0.7;
  g.fillRect(x(at), AXIS - 4, 1, view.sheet);
  g.globalAlpha = 1;
  const broke = model.broken[0];
  const words = `${seconds(at)} s${broke ? `  (${at < broke.at ? "−" : "+"}${span(Math.abs(broke.at - at))})` : ""}`;
  const width = g.measureText(words).width;
  const left = Math.min(view.width - width - 6, Math.max(GUTTER, x(at) - width / 2));
  g.fillStyle = colours.ink;
  g.fillRect(left - 5, view.scroll, width + 10, 17);
  g.fillStyle = colours.bg;
  g.fillText(words, left, view.scroll + 9);
  g.fillStyle = colours.dim;
  for (const lane of model.lanes) momentWords(lane, at).forEach((line, index) => g.fillText(line, 10, lane.y + 16 + index * 13));
}

function momentWords(lane, at) {
  const there = (thing) => thing.from <= at && at < thing.to;
  const life = lane.life.find(there);
  const lead = lane.leads.find(there);
  const runs = (task) => task.started !== null && task.started <= at && at < (task.ended === null ? task.to : task.ended);
  const running = lane.tasks.filter(runs).length;
  const is = life ? lifeWords(life) : "not started";
  return [lead ? `leads, term ${lead.term}` : is, running ? `${running} running` : ""];
}

function drawPart(g) {
  const [left, right] = [state.drag.x, state.pointer.x].sort((a, b) => a - b);
  g.fillStyle = colours.ink;
  g.globalAlpha = 0.15;
  g.fillRect(left, AXIS, right - left, view.sheet);
  g.globalAlpha = 1;
  g.fillText(span(timeAt(right) - timeAt(left)), left + 4, AXIS + 10);
}

function halo(g, thing) {
  g.strokeStyle = colours.ink;
  g.lineWidth = 2;
  for (const place of view.hits) {
    if (place.thing !== thing) continue;
    if (place.line) {
      g.lineWidth = 3;
      stroke(g, place.x0, place.y0, place.x1, place.y1);
      g.beginPath(); g.arc(place.x0, place.y0, 3, 0, 7); g.stroke();
    } else g.strokeRect(place.x0 - 1.5, place.y0 - 1.5, place.x1 - place.x0 + 3, place.y1 - place.y0 + 3);
  }
}

// ---- moving along time

function show(from, to) {
  const whole = model.to - model.from;
  const length = Math.min(whole, Math.max(SPAN_MIN, to - from));
  view.from = Math.min(Math.max(model.from, from), model.to - length);
  view.to = view.from + length;
  redraw();
}

function zoom(factor, at = (view.from + view.to) / 2) {
  const length = Math.min(model.to - model.from, Math.max(SPAN_MIN, (view.to - view.from) * factor));
  const part = (at - view.from) / (view.to - view.from);
  show(at - part * length, at + (1 - part) * length);
}

const pan = (part) => { const by = (view.to - view.from) * part; show(view.from + by, view.to + by); };

function centre(at) {
  const half = (view.to - view.from) / 2;
  show(at - half, at + half);
}

function goToBroken(broken = model.broken[0]) {
  if (!broken) return;
  const half = Math.min((view.to - view.from) / 2, 1e6);
  show(broken.at - half * 1.4, broken.at + half * 0.6);
}

// ---- pointing

function thingsAt(px, py) {
  const y = py + view.scroll;
  const found = [];
  for (let i = view.hits.length - 1; i >= 0; i -= 1) {
    const { thing, x0, y0, x1, y1, line } = view.hits[i];
    const far = line ? distance(px, y, x0, y0, x1, y1) : (px < x0 || px > x1 || y < y0 || y > y1 ? 99 : 0);
    if (far < 5 && !found.some((other) => other.thing === thing)) found.push({ thing, far, order: thing.count ? ORDER.bundle : ORDER[thing.cls] });
  }
  return found.sort((a, b) => a.order - b.order || a.far - b.far).map((place) => place.thing);
}

const ORDER = { broken: 0, persons: 1, notes: 1, messages: 2, leaders: 3, tasks: 3, traffic: 3, life: 4, bundle: 5, faults: 6 };

function distance(px, py, x0, y0, x1, y1) {
  const [dx, dy] = [x1 - x0, y1 - y0];
  const part = Math.max(0, Math.min(1, ((px - x0) * dx + (py - y0) * dy) / (dx * dx + dy * dy || 1)));
  return Math.hypot(px - x0 - part * dx, py - y0 - part * dy);
}

function point(event) {
  const box = over.getBoundingClientRect();
  state.pointer = { x: event.clientX - box.left, y: event.clientY - box.top };
  const things = state.pointer.x < GUTTER ? [] : thingsAt(state.pointer.x, state.pointer.y);
  if (state.pointer.x < GUTTER) state.pointer = null;
  state.thing = things[0] || null;
  tell(things, event);
  if (state.thing && state.thing.n !== undefined) reveal(state.listed.indexOf(state.thing.n));
  drawOver();
}

const TIP_MAX = 7;

function tell(things, event) {
  tip.hidden = things.length === 0;
  tip.replaceChildren(...things.slice(0, TIP_MAX).map((thing) => {
    const [title, details] = thingWords(thing);
    const entry = element("div", "", [element("b", title), element("small", details)]);
    return entry;
  }));
  if (things.length > TIP_MAX) tip.append(element("small", `and ${things.length - TIP_MAX} more here`));
  const left = event.clientX + 16 + tip.offsetWidth > innerWidth ? event.clientX - tip.offsetWidth - 12 : event.clientX + 16;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 6))}px`;
}

function element(name, text, children = []) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

// ---- wiring

const KEYS = {
  "+": () => zoom(0.6), "=": () => zoom(0.6), "-": () => zoom(1 / 0.6), "0": () => show(model.from, model.to),
  ArrowLeft: () => pan(-0.2), ArrowRight: () => pan(0.2), b: () => goToBroken(), j: () => step(1), k: () => step(-1),
  d: () => scheme(!document.documentElement.classList.contains("dark")),
  "/": () => $("find").focus(), Escape: () => { state.row = -1; drawRows(); drawOver(); },
};
for (const [name, , key] of SWITCHES) KEYS[key] = () => { shown[name] = !shown[name]; buildLegend(); redraw(); };

function scheme(dark) {
  document.documentElement.classList.toggle("dark", dark);
  readColours();
  buildLegend();
  redraw();
}

function wire() {
  over.addEventListener("wheel", (event) => {
    if (event.offsetX < GUTTER) return;
    event.preventDefault();
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) pan((event.deltaX || event.deltaY) / 1500);
    else zoom(Math.exp(event.deltaY * 0.0016), timeAt(event.offsetX));
  }, { passive: false });
  over.onpointerdown = (event) => {
    over.setPointerCapture(event.pointerId);
    state.drag = { x: event.offsetX, from: view.from, to: view.to, part: event.shiftKey };
    over.classList.toggle("moving", !event.shiftKey);
  };
  over.onpointermove = (event) => {
    if (state.drag && !state.drag.part) {
      const by = ((state.drag.x - event.offsetX) / (view.width - GUTTER)) * (view.to - view.from);
      show(state.drag.from + by, state.drag.to + by);
    }
    point(event);
  };
  over.onpointerup = () => {
    const { drag, pointer } = state;
    state.drag = null;
    over.classList.remove("moving");
    if (!drag || !drag.part || !pointer || Math.abs(pointer.x - drag.x) < 4) return;
    show(timeAt(Math.min(drag.x, pointer.x)), timeAt(Math.max(drag.x, pointer.x)));
  };
  over.onpointerleave = () => { state.pointer = state.thing = null; tip.hidden = true; drawOver(); };
  over.ondblclick = (event) => zoom(0.25, timeAt(event.offsetX));
  map.onpointerdown = (event) => { map.setPointerCapture(event.pointerId); centre(mapTime(event)); };
  map.onpointermove = (event) => { if (event.buttons) centre(mapTime(event)); };
  stage.onscroll = redraw;
  list.onscroll = drawRows;
  $("find").oninput = () => find($("find").value);
  $("scheme").onclick = KEYS.d;
  $("copy").onclick = () => {
    getSelection().selectAllChildren($("command"));
    navigator.clipboard?.writeText($("command").textContent).catch(() => {});
  };
  addEventListener("keydown", (event) => {
    if (event.target === $("find")) {
      if (event.key === "Escape") { find(""); event.target.blur(); }
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
    event.preventDefault();
    KEYS[event.key]();
  });
  new ResizeObserver(redraw).observe(stage);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (event) => scheme(event.matches));
}

function buildVerdicts() {
  $("verdicts").replaceChildren(...model.broken.slice(0, 4).map((broken) => {
    const made = element("button", "", [element("b", `${broken.judge} `), `at ${seconds(broken.at)} s: ${broken.text}`]);
    made.title = broken.text;
    made.onclick = () => goToBroken(broken);
    return made;
  }));
}

shown.labels = new Set(model.labels.keys());
buildVerdicts();
wire();
scheme(matchMedia("(prefers-color-scheme: dark)").matches);
