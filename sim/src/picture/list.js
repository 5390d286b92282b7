// The list of the events in view.

const CLASS_OF = {
  up: "life", down: "life", held: "life", leads: "leaders", follows: "leaders", message: "messages", fault: "faults",
  mended: "faults", task: "tasks", person: "persons", broken: "broken", note: "notes",
};

function isListed(n) {
  const { at_us: at, what } = model.events[n];
  if (at < view.from || at > view.to || !shown[CLASS_OF[what.kind]]) return false;
  if (what.kind === "message" && !shown.labels.has(what.label)) return false;
  if (what.kind === "message" && state.find === "" && isFaint(model.labels.get(what.label))) return false;
  return state.find === "" || eventWords(model.events[n], model.things[n]).toLowerCase().includes(state.find);
}

function find(words) {
  $("find").value = words;
  state.find = words.toLowerCase();
  list.scrollTop = 0;
  redraw();
}

function fillList() {
  const chosen = state.listed[state.row];
  state.listed = [];
  for (let n = 0; n < model.events.length; n += 1) if (isListed(n)) state.listed.push(n);
  state.row = chosen === undefined ? -1 : state.listed.indexOf(chosen);
  $("count").textContent = `${state.listed.length}`;
  drawRows();
}

function drawRows() {
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 5);
  const last = Math.min(state.listed.length, first + Math.ceil(list.clientHeight / ROW) + 10);
  rows.style.height = `${state.listed.length * ROW}px`;
  const made = [];
  for (let index = first; index < last; index += 1) made.push(listRow(index));
  rows.replaceChildren(...made);
}

function listRow(index) {
  const event = model.events[state.listed[index]];
  const dot = element("i", "");
  dot.style.background = eventColour(event.what);
  const words = eventWords(event, model.things[state.listed[index]]);
  const row = element("div", "", [element("time", seconds(event.at_us)), dot, element("span", words)]);
  row.className = `row${index === state.row ? " at" : ""}${event.what.kind === "broken" ? " broken" : ""}`;
  row.title = words;
  row.style.top = `${index * ROW}px`;
  row.onclick = () => { state.row = index; centre(event.at_us); };
  row.onmouseenter = () => {
    state.row = index;
    state.pointer = null;
    rows.querySelector(".at")?.classList.remove("at");
    row.classList.add("at");
    drawOver();
  };
  return row;
}

function eventColour(what) {
  switch (what.kind) {
    case "message": return what.arrived_us === null ? colours.broken : labelColour(model.labels.get(what.label));
    case "fault": case "mended": return colours.fault;
    case "leads": return colours.terms[what.term % colours.terms.length];
    case "task": return taskColour(what.task);
    case "person": return colours[what.answer] || colours.note;
    case "broken": return colours.broken;
    case "up": return colours.up;
    case "down": case "held": return colours.held;
    default: return colours.dim;
  }
}

function reveal(index) {
  if (index < 0 || index === state.row) return;
  state.row = index;
  const top = index * ROW;
  if (top < list.scrollTop || top > list.scrollTop + list.clientHeight - ROW) list.scrollTop = top - list.clientHeight / 2;
  drawRows();
}

function step(by) {
  const next = state.row < 0 ? 0 : Math.min(state.listed.length - 1, Math.max(0, state.row + by));
  state.pointer = state.thing = null;
  tip.hidden = true;
  reveal(next);
  drawOver();
}
