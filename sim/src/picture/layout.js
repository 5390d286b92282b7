// What is in view, what is switched on, and where things are.

const GUTTER = 96;
const AXIS = 24;
const CAPTION = 15;
const TRAFFIC = 15;
const FONT = '12px system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif';
const SMALL = FONT.replace("12px", "11px");

const view = { from: model.from, to: model.to, width: 800, height: 500, scroll: 0, hits: [] };
const shown = {
  life: true, broken: true, leaders: true, tasks: true, faults: true, persons: true, notes: false,
  messages: true, faint: true, labels: new Set(),
};
const PLAIN_COLOURS = [
  "bg", "panel", "edge", "ink", "dim", "grid", "up", "down", "held", "fault", "broken", "done", "refused", "unknown", "note",
];
const colours = {};

function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of PLAIN_COLOURS) colours[name] = style.getPropertyValue(`--${name}`).trim();
  for (const name of ["terms", "tasks", "labels"]) colours[name] = style.getPropertyValue(`--${name}`).trim().split(" ");
}

const x = (at) => GUTTER + ((at - view.from) / (view.to - view.from)) * (view.width - GUTTER);
const timeAt = (px) => view.from + ((px - GUTTER) / (view.width - GUTTER)) * (view.to - view.from);
const inView = (from, to) => to >= view.from && from <= view.to;
const labelColour = (label) => colours.labels[label.colour % colours.labels.length];

function hash(text) {
  let sum = 7;
  for (const c of text) sum = (sum * 31 + c.codePointAt(0)) >>> 0;
  return sum;
}

// Tasks of one service share a colour: what stands before the last dot, or all of it.
function taskColour(task) {
  const dot = task.lastIndexOf(".");
  return colours.tasks[hash(dot > 0 ? task.slice(0, dot) : task) % colours.tasks.length];
}

const verdictRows = () => Math.min(3, model.broken.length);

// Where each lane is, from the top of the sheet: `y` its line, `top` and `bottom` its band.
function layOut(available) {
  const head = AXIS + verdictRows() * CAPTION + (shown.faults ? model.captions * CAPTION : 0) + 4;
  const traffic = shown.messages ? TRAFFIC : 0;
  const captions = (lane) => (shown.faults ? lane.captions : 0) + (shown.persons && lane.persons ? 1 : 0);
  const fixed = (lane) => captions(lane) * CAPTION + 26 + traffic;
  const rows = (lane) => shown.tasks ? lane.rows : 0;
  const sum = (of) => model.lanes.reduce((total, lane) => total + of(lane), 0);
  const room = available - head - sum(fixed) - 22 * model.lanes.length;
  view.row = Math.max(7, Math.min(15, Math.floor(room / Math.max(1, sum(rows)))));
  const spare = Math.max(0, room - view.row * sum(rows)) / Math.max(1, model.lanes.length);
  let top = head;
  for (const lane of model.lanes) {
    lane.top = top;
    lane.y = top + fixed(lane) - 10 - traffic;
    lane.rowsAt = lane.y + 12 + traffic;
    lane.bottom = lane.rowsAt + rows(lane) * view.row + 20 + spare;
    top = lane.bottom;
  }
  view.lanesTop = head;
  view.sheet = Math.max(available, top + 2);
}

function ticks() {
  const step = niceStep((view.to - view.from) / Math.max(2, (view.width - GUTTER) / 110));
  const digits = Math.max(0, Math.min(6, Math.ceil(6 - Math.log10(step) - 1e-9)));
  const first = Math.ceil(view.from / step);
  const count = Math.max(0, Math.floor(view.to / step) - first + 1);
  return Array.from({ length: count }, (_, n) => ({ at: (first + n) * step, words: `${(((first + n) * step) / 1e6).toFixed(digits)} s` }));
}

function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return Math.max(1, power * [1, 2, 5, 10].find((n) => n * power >= least));
}
