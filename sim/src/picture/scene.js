// The picture but for the messages. Each thing drawn leaves its place in `hits`.

function hit(thing, x0, y0, x1, y1, line = false) {
  view.hits.push({ thing, x0, y0, x1, y1, line });
}

// The text, shortened to a width.
function fit(g, text, width) {
  if (g.measureText(text).width <= width) return text;
  let [low, high] = [0, text.length];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (g.measureText(`${text.slice(0, middle)}…`).width <= width) low = middle;
    else high = middle - 1;
  }
  return low > 1 ? `${text.slice(0, low)}…` : "";
}

function tag(g, text, left, y, ink, room) {
  const words = fit(g, text, room);
  if (words === "") return 0;
  const width = g.measureText(words).width;
  g.globalAlpha = 0.85;
  g.fillStyle = colours.bg;
  g.fillRect(left - 2, y - 7, width + 4, 14);
  g.globalAlpha = 1;
  g.fillStyle = ink;
  g.fillText(words, left, y);
  return width;
}

function drawGrid(g) {
  g.fillStyle = colours.grid;
  for (const { at } of ticks()) g.fillRect(Math.round(x(at)), AXIS - 5, 1, view.sheet);
}

// The times, which stay on top when the lanes are scrolled.
function drawAxis(g) {
  g.fillStyle = colours.bg;
  g.fillRect(0, view.scroll, view.width, AXIS - 5);
  g.fillStyle = colours.dim;
  g.textAlign = "center";
  for (const { at, words } of ticks()) {
    if (x(at) > GUTTER + 20 && x(at) < view.width - 24) g.fillText(words, x(at), view.scroll + 9);
  }
  g.textAlign = "left";
}

function drawBands(g) {
  for (const fault of model.faults) {
    if (!inView(fault.from, fault.to)) continue;
    const [left, right] = [Math.max(GUTTER, x(fault.from)), Math.min(view.width, x(fault.to))];
    for (const group of fault.groups) {
      const [top, bottom] = [group.first.top, group.last.bottom];
      g.fillStyle = colours.fault;
      g.globalAlpha = 0.13;
      g.fillRect(left, top, Math.max(1.5, right - left), bottom - top);
      g.globalAlpha = 0.75;
      if (fault.from >= view.from) g.fillRect(left, top, 1, bottom - top);
      if (fault.mended !== null && fault.to <= view.to) g.fillRect(right - 1, top, 1, bottom - top);
      g.globalAlpha = 1;
      hit(fault, left, top, Math.max(right, left + 3), bottom);
    }
  }
}

// Captions are drawn from left to right; one may reach beyond its fault until the next in its row begins.
function drawCaptions(g, spans, top, words) {
  const rows = new Map();
  for (const span of spans) rows.set(span.row, [...(rows.get(span.row) || []), span]);
  for (const [row, all] of rows) {
    if (row > 3) continue;
    all.forEach((span, index) => {
      const next = all[index + 1];
      const left = Math.max(GUTTER + 3, x(span.from) + 3);
      if (x(span.from) > view.width || (span.to < view.from)) return;
      const end = Math.min(view.width, next ? Math.max(x(next.from) - 3, 0) : view.width);
      const y = top + row * CAPTION + CAPTION / 2 + 1;
      const width = tag(g, words(span), left, y, colours.fault, end - left - 2);
      if (width > 0) hit(span.fault || span, left, y - 7, left + width, y + 7);
    });
  }
}

function drawFaultCaptions(g) {
  drawCaptions(g, model.faults.filter((fault) => fault.all), AXIS + verdictRows() * CAPTION, (fault) => `⚡ ${fault.text}`);
  for (const lane of model.lanes) drawCaptions(g, lane.groups, lane.top, (group) => `⚡ ${group.fault.text}`);
}

function drawLeaders(g, lane) {
  for (const lead of lane.leads) {
    if (!inView(lead.from, lead.to)) continue;
    const [left, right] = [Math.max(GUTTER, x(lead.from)), Math.min(view.width, x(lead.to))];
    g.fillStyle = colours.terms[lead.term % colours.terms.length];
    g.globalAlpha = 0.45;
    g.fillRect(left, lane.y - 8, Math.max(2, right - left), 16);
    g.globalAlpha = 1;
    if (lead.from >= view.from) g.fillRect(left, lane.y - 8, 3, 16);
    hit(lead, left, lane.y - 8, Math.max(right, left + 3), lane.y + 8);
  }
}

// After the messages, so that the words stay legible.
function drawTerms(g, lane) {
  for (const lead of lane.leads) {
    if (!inView(lead.from, lead.to)) continue;
    const [left, right] = [Math.max(GUTTER, x(lead.from)), Math.min(view.width, x(lead.to))];
    const words = [`leads, term ${lead.term}`, `t${lead.term}`].find((text) => g.measureText(text).width < right - left - 12);
    if (words) tag(g, words, left + 7, lane.y, colours.ink, right - left);
  }
}

const LINES = { up: { width: 2.5, dash: [] }, held: { width: 3, dash: [2, 4] }, down: { width: 1.5, dash: [7, 5] } };

function drawLife(g, lane) {
  for (const part of lane.life) {
    if (!inView(part.from, part.to)) continue;
    const [left, right] = [Math.max(GUTTER, x(part.from)), Math.min(view.width, x(part.to))];
    g.strokeStyle = colours[part.state];
    g.lineWidth = LINES[part.state].width;
    g.setLineDash(LINES[part.state].dash);
    stroke(g, left, lane.y, right, lane.y);
    g.setLineDash([]);
    hit(part, left, lane.y - 4, right, lane.y + 4);
  }
}

function stroke(g, x0, y0, x1, y1) {
  g.beginPath();
  g.moveTo(x0, y0);
  g.lineTo(x1, y1);
  g.stroke();
}

function drawCross(g, cx, cy, size) {
  stroke(g, cx - size, cy - size, cx + size, cy + size);
  stroke(g, cx - size, cy + size, cx + size, cy - size);
}

function drawMarks(g) {
  for (const it of model.marks) {
    if (!inView(it.at, it.at)) continue;
    const [cx, cy] = [x(it.at), it.lane.y];
    g.lineWidth = 2;
    g.strokeStyle = it.shape === "up" ? colours.up : colours.held;
    g.fillStyle = it.shape === "up" ? colours.up : colours.bg;
    if (it.shape === "killed") drawCross(g, cx, cy, 5);
    else if (it.shape === "stopped") { g.fillRect(cx - 4, cy - 4, 8, 8); g.strokeRect(cx - 4, cy - 4, 8, 8); }
    else { g.beginPath(); g.moveTo(cx, cy - 6); g.lineTo(cx + 7, cy); g.lineTo(cx, cy + 6); g.fill(); }
    hit(model.things[it.n], cx - 6, cy - 6, cx + 6, cy + 6);
  }
}

function drawTasks(g, lane) {
  const high = view.row - 2;
  for (const task of lane.tasks) {
    if (!inView(task.from, task.to)) continue;
    const y = lane.rowsAt + task.row * view.row;
    const cut = (at) => Math.min(view.width, Math.max(GUTTER, x(at)));
    const runs = task.started === null ? null : [cut(task.started), cut(task.ended === null ? task.to : task.ended)];
    g.fillStyle = colours.dim;
    g.globalAlpha = 0.6;
    g.fillRect(cut(task.from), y + high / 2, Math.max(1, cut(task.to) - cut(task.from)), 1);
    g.globalAlpha = 1;
    if (runs) drawRun(g, task, y, high, runs);
    hit(task, cut(task.from), y, Math.max(cut(task.to), cut(task.from) + 3), y + high);
  }
}

function drawRun(g, task, y, high, [left, right]) {
  g.fillStyle = taskColour(task.task);
  g.fillRect(left, y, Math.max(2, right - left), high);
  const crashed = task.steps.some((step) => step.step === "exited");
  if (task.ended !== null && inView(task.ended, task.ended)) {
    g.fillStyle = crashed ? colours.broken : colours.ink;
    g.fillRect(right - 2, y, 2, high);
  }
  if (high >= 9 && right - left > 24) {
    g.fillStyle = colours.ink;
    g.font = SMALL;
    g.fillText(fit(g, task.task, right - left - 8), left + 4, y + high / 2 + 0.5);
    g.font = FONT;
  }
}

const SIGNS = { done: "✓", refused: "✗", unknown: "?" };

function drawPersons(g) {
  const byLane = new Map();
  for (const it of model.persons) if (inView(it.at, it.at)) byLane.set(it.lane, [...(byLane.get(it.lane) || []), it]);
  for (const [lane, all] of byLane) {
    all.forEach((it, index) => {
      const [cx, cy] = [x(it.at), lane.y - 19];
      const colour = colours[it.answer] || colours.note;
      g.strokeStyle = g.fillStyle = colour;
      g.globalAlpha = 0.6;
      g.fillRect(cx - 0.5, cy + 5, 1, 13);
      g.globalAlpha = 1;
      g.beginPath();
      g.arc(cx, cy, 6.5, 0, 7);
      g.fill();
      g.fillStyle = colours.bg;
      g.textAlign = "center";
      g.fillText(SIGNS[it.answer] || "·", cx, cy + 0.5);
      g.textAlign = "left";
      const next = all[index + 1] ? x(all[index + 1].at) - 10 : view.width;
      const room = Math.min(next, view.width) - cx - 11;
      if (room > 60) tag(g, it.text, cx + 10, cy, colour, room);
      hit(it, cx - 8, cy - 8, cx + 8, cy + 16);
    });
  }
}

function drawNotes(g) {
  g.fillStyle = colours.note;
  for (const it of model.notes) {
    if (!inView(it.at, it.at)) continue;
    const [cx, cy] = [x(it.at), it.lane ? it.lane.y + 8 : AXIS - 3];
    g.beginPath();
    g.moveTo(cx, cy - 4); g.lineTo(cx + 3.5, cy); g.lineTo(cx, cy + 4); g.lineTo(cx - 3.5, cy);
    g.fill();
    hit(it, cx - 4, cy - 4, cx + 4, cy + 4);
  }
}

function drawBroken(g) {
  model.broken.forEach((it, index) => {
    if (!inView(it.at, it.at)) return;
    const cx = x(it.at);
    g.fillStyle = colours.broken;
    g.fillRect(cx - 1, AXIS - 6, 2, view.sheet);
    hit(it, cx - 4, AXIS, cx + 4, view.sheet);
    if (index >= 3) return;
    const more = index === 2 && model.broken.length > 3 ? ` (and ${model.broken.length - 3} more)` : "";
    const words = `${it.judge}: ${it.text}${more}`;
    g.font = `600 ${FONT}`;
    const width = g.measureText(words).width;
    const onLeft = cx + 6 + width > view.width && cx - GUTTER > view.width - cx;
    const room = onLeft ? cx - GUTTER - 8 : view.width - cx - 10;
    const left = onLeft ? cx - 6 - Math.min(width, room) : cx + 6;
    tag(g, words, left, AXIS + index * CAPTION + 8, colours.broken, room);
    g.font = FONT;
  });
}

function drawGutter(g) {
  g.fillStyle = colours.panel;
  g.fillRect(0, AXIS - 4, GUTTER, view.sheet);
  for (const lane of model.lanes) {
    g.fillStyle = colours.edge;
    g.fillRect(0, lane.top, view.width, 1);
    g.fillStyle = colours.ink;
    g.font = `600 ${FONT.replace("12px", "14px")}`;
    g.fillText(`h${lane.host}`, 10, lane.y);
    g.font = FONT;
  }
}

function within(g, draw) {
  g.save();
  g.beginPath();
  g.rect(GUTTER, 0, view.width - GUTTER, view.sheet);
  g.clip();
  draw(g);
  g.restore();
}

function drawScene(g) {
  view.hits = [];
  g.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
  g.fillStyle = colours.bg;
  g.fillRect(0, 0, view.width, view.height);
  g.translate(0, -view.scroll);
  g.font = FONT;
  g.textBaseline = "middle";
  within(g, () => {
    if (shown.faults) drawBands(g);
    drawGrid(g);
    if (shown.messages) drawMessages(g, true);
    if (shown.messages) drawTraffic(g);
    for (const lane of model.lanes) {
      if (shown.leaders) drawLeaders(g, lane);
      if (shown.tasks) drawTasks(g, lane);
      drawLife(g, lane);
    }
    if (shown.messages) drawMessages(g, false);
    if (shown.leaders) model.lanes.forEach((lane) => drawTerms(g, lane));
    if (shown.notes) drawNotes(g);
    drawMarks(g);
    if (shown.persons) drawPersons(g);
    if (shown.faults) drawFaultCaptions(g);
  });
  drawGutter(g);
  if (shown.broken) within(g, drawBroken);
  drawAxis(g);
}
