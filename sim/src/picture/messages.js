// Messages: arrows while they are few, bundles where they are many. The frequent kinds are the background.

const ARROWS_MAX = 1500;
const HEADS_MAX = 700;
const WORDS_MAX = 80;

// The kinds in the background, or the others.
function visibleMessages(background) {
  const first = lowerBound(model.messages, view.from - model.slowest);
  const visible = [];
  for (let i = first; i < model.messages.length && model.messages[i].at <= view.to; i += 1) {
    const message = model.messages[i];
    const wanted = shown.labels.has(message.label) && isFaint(message.kind) === background;
    if (wanted && inView(message.at, message.lost ? message.at : message.to)) visible.push(message);
  }
  return visible;
}

const isFaint = (label) => shown.faint && label.frequent;

function lowerBound(sorted, at) {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle].at < at) low = middle + 1;
    else high = middle;
  }
  return low;
}

// The ends on the lanes; a lost message gets as far as most in a bit more than half of their time.
function arrow(message) {
  const [y0, y1] = [message.a.y, message.b.y];
  if (!message.lost) return [x(message.at), y0, x(message.to), y1];
  return [x(message.at), y0, x(message.at + model.transit * 0.55), y0 + (y1 - y0) * 0.55];
}

function drawMessages(g, background) {
  const visible = visibleMessages(background);
  if (visible.length > (background ? ARROWS_MAX / 3 : ARROWS_MAX)) drawBundles(g, bundles(visible), background);
  else drawArrows(g, visible, background);
}

function drawArrows(g, visible, background) {
  const heads = visible.length < HEADS_MAX;
  const strength = Math.max(0.25, Math.min(0.75, 60 / (visible.length + 1)));
  g.lineWidth = background ? 1 : 1.4;
  for (const message of visible) {
    const [x0, y0, x1, y1] = arrow(message);
    g.strokeStyle = g.fillStyle = message.lost ? colours.broken : labelColour(message.kind);
    g.globalAlpha = background ? strength : Math.max(strength, 0.8);
    if (message.a === message.b) loop(g, x0, y0, x1);
    else stroke(g, x0, y0, x1, y1);
    if (message.lost) drawCross(g, x1, y1, 3.5);
    else if (heads) head(g, x0, y0, x1, y1);
    hit(message, x0, y0, x1, y1, true);
  }
  g.globalAlpha = 1;
  if (visible.length < WORDS_MAX) visible.forEach((message) => words(g, message));
}

function loop(g, x0, y, x1) {
  g.beginPath();
  g.ellipse((x0 + x1) / 2, y, Math.max(3, (x1 - x0) / 2), 7, 0, Math.PI, 0);
  g.stroke();
}

function head(g, x0, y0, x1, y1) {
  const angle = Math.atan2(y1 - y0, x1 - x0);
  const corner = (turn) => g.lineTo(x1 - 7 * Math.cos(angle + turn), y1 - 7 * Math.sin(angle + turn));
  g.beginPath();
  g.moveTo(x1, y1);
  corner(0.4);
  corner(-0.4);
  g.fill();
}

// The kind along the arrow, where there is room for it.
function words(g, message) {
  const [x0, y0, x1, y1] = arrow(message);
  g.font = SMALL;
  const text = message.lost ? `${message.label} lost` : message.label;
  const [wide, long] = [g.measureText(text).width, Math.hypot(x1 - x0, y1 - y0)];
  if (long > wide + 24 && Math.abs(x1 - x0) > 14) {
    g.save();
    g.translate(x0 + (x1 - x0) * 0.5, y0 + (y1 - y0) * 0.5);
    g.rotate(Math.atan((y1 - y0) / (x1 - x0)));
    g.textAlign = "center";
    g.globalAlpha = 0.8;
    g.fillStyle = colours.bg;
    g.fillRect(-wide / 2 - 2, -13, wide + 4, 12);
    g.globalAlpha = 1;
    g.fillStyle = message.lost ? colours.broken : labelColour(message.kind);
    g.fillText(text, 0, -6);
    g.restore();
  }
  g.font = FONT;
}

// One for each pair of hosts and piece of time; the pieces stay where they are while the picture moves.
function bundles(visible) {
  const piece = 2 ** Math.round(Math.log2(((view.to - view.from) / (view.width - GUTTER)) * 12));
  const all = new Map();
  for (const message of visible) {
    const key = (Math.floor(message.at / piece) * 1024 + message.a.index) * 1024 + message.b.index;
    let bundle = all.get(key);
    if (!bundle) {
      const { a, b, at, kind } = message;
      bundle = { cls: "messages", a, b, at, last: at, kind, count: 0, lost: 0, bytes: 0, labels: new Map() };
      all.set(key, bundle);
    }
    bundle.count += 1;
    bundle.lost += message.lost ? 1 : 0;
    bundle.bytes += message.bytes;
    bundle.last = message.at;
    bundle.labels.set(message.label, (bundle.labels.get(message.label) || 0) + 1);
  }
  return all.values();
}

function drawBundles(g, all, background) {
  for (const bundle of all) {
    const [x0, x1] = [x(bundle.at), x(bundle.last + model.transit)];
    const passed = bundle.count - bundle.lost;
    g.strokeStyle = passed ? labelColour(bundle.kind) : colours.broken;
    const much = Math.log2(1 + bundle.count);
    g.globalAlpha = background ? Math.min(0.12, 0.035 * (1 + much)) : Math.min(0.6, 0.15 * (1 + much));
    g.lineWidth = background ? 1 : Math.min(4, 0.75 + much * 0.4);
    stroke(g, x0, bundle.a.y, x1, bundle.b.y);
    hit(bundle, x0, bundle.a.y, x1, bundle.b.y, true);
  }
  g.globalAlpha = 1;
}

// Under each line, how much the host hears, and in red what was for it and got lost.
function drawTraffic(g) {
  const bins = traffic();
  const most = Math.max(4, ...bins.map((bin) => bin.heard + bin.lost));
  const high = (n) => (n === 0 ? 0 : Math.max(1.5, (n / most) * (TRAFFIC - 2)));
  for (const bin of bins) {
    const [left, width] = [Math.max(GUTTER, x(bin.from)), Math.max(1, x(bin.to) - x(bin.from) - 1)];
    const bottom = bin.lane.y + 9 + TRAFFIC - 2;
    g.fillStyle = colours.dim;
    g.globalAlpha = 0.55;
    g.fillRect(left, bottom - high(bin.heard), width, high(bin.heard));
    g.fillStyle = colours.broken;
    g.globalAlpha = 0.9;
    g.fillRect(left, bottom - high(bin.heard) - high(bin.lost), width, high(bin.lost));
    hit(bin, left, bottom - TRAFFIC + 2, left + width, bottom);
  }
  g.globalAlpha = 1;
}

// Of each lane and piece of time.
function traffic() {
  const piece = 2 ** Math.round(Math.log2(((view.to - view.from) / (view.width - GUTTER)) * 6));
  const bins = new Map();
  for (const message of [...visibleMessages(true), ...visibleMessages(false)]) {
    const at = Math.floor((message.lost ? message.at : message.to) / piece);
    const key = at * 1024 + message.b.index;
    const bin = bins.get(key) || { cls: "traffic", lane: message.b, from: at * piece, to: (at + 1) * piece, heard: 0, lost: 0 };
    bin[message.lost ? "lost" : "heard"] += 1;
    bins.set(key, bin);
  }
  return [...bins.values()];
}
