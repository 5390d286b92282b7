"use strict";
// From events to things that can be drawn. A thing has a class (what switches it on and off), a time or a span, and
// the lanes it is on; `things[n]` is the thing that event n is a part of.

const data = JSON.parse(document.getElementById("data").textContent);

function newLane(host, index) {
  return { host, index, life: [], leads: [], tasks: [], rows: 0, captions: 0, persons: 0, state: "off" };
}

function buildModel(data) {
  const lanes = data.lanes.map(newLane);
  const model = {
    from: data.from_us, to: Math.max(data.to_us, data.from_us + 1), lanes, byHost: new Map(lanes.map((lane) => [lane.host, lane])),
    events: data.events, things: [], faults: [], messages: [], persons: [], notes: [], marks: [], broken: [],
    labels: new Map(), open: { faults: new Map(), tasks: new Map() },
  };
  data.events.forEach((event, n) => {
    const take = TAKE[event.what.kind];
    model.things[n] = take ? take(model, event.at_us, event.what, n) : null;
  });
  lanes.forEach((lane) => { cut(lane, "life", model.to); cut(lane, "leads", model.to); lane.rows = pack(lane.tasks); });
  for (const fault of model.faults) fault.row = -1;
  placeCaptions(model);
  rankLabels(model);
  return model;
}

// Ends the last span of a lane's line.
function cut(lane, line, at) {
  const last = lane[line].at(-1);
  if (last && last.to === null) last.to = at;
}

function live(lane, at, state, n, killed) {
  cut(lane, "life", at);
  const thing = { cls: "life", lane, from: at, to: null, state, killed, n };
  lane.life.push(thing);
  lane.state = state;
  return thing;
}

function mark(model, lane, at, shape, n) {
  model.marks.push({ cls: "life", lane, at, shape, n });
}

const TAKE = {
  up(model, at, what, n) {
    const lane = model.byHost.get(what.host);
    mark(model, lane, at, "up", n);
    return live(lane, at, "up", n);
  },
  down(model, at, what, n) {
    const lane = model.byHost.get(what.host);
    cut(lane, "leads", at);
    mark(model, lane, at, what.killed ? "killed" : "stopped", n);
    return live(lane, at, "down", n, what.killed);
  },
  held(model, at, what, n) {
    const lane = model.byHost.get(what.host);
    return lane.state === "down" ? lane.life.at(-1) : live(lane, at, what.held ? "held" : "up", n);
  },
  leads(model, at, what, n) {
    const lane = model.byHost.get(what.host);
    const now = lane.leads.at(-1);
    if (now && now.to === null && now.term === what.term) return now;
    cut(lane, "leads", at);
    const thing = { cls: "leaders", lane, from: at, to: null, term: what.term, n };
    lane.leads.push(thing);
    return thing;
  },
  follows(model, at, what) {
    const lane = model.byHost.get(what.host);
    cut(lane, "leads", at);
    return lane.leads.at(-1) || null;
  },
  message(model, at, what, n) {
    const thing = {
      cls: "messages", label: what.label, at, to: what.arrived_us, lost: what.arrived_us === null, bytes: what.bytes,
      a: model.byHost.get(what.from), b: model.byHost.get(what.to), n,
    };
    model.messages.push(thing);
    const label = model.labels.get(what.label) || { name: what.label, count: 0, lost: 0 };
    label.count += 1;
    label.lost += thing.lost ? 1 : 0;
    model.labels.set(what.label, label);
    thing.kind = label;
    return thing;
  },
  fault(model, at, what, n) {
    const touched = what.hosts.map((host) => model.byHost.get(host)).sort((a, b) => a.index - b.index);
    const all = touched.length === 0 || touched.length === model.lanes.length;
    const thing = { cls: "faults", from: at, to: model.to, mended: null, text: what.text, lanes: all ? model.lanes : touched, all, n };
    model.open.faults.set(what.id, thing);
    model.faults.push(thing);
    return thing;
  },
  mended(model, at, what) {
    const thing = model.open.faults.get(what.id);
    if (thing) { thing.to = at; thing.mended = at; }
    return thing || null;
  },
  task(model, at, what, n) {
    const lane = model.byHost.get(what.host);
    const key = `${what.host} ${what.task}`;
    let thing = model.open.tasks.get(key);
    if (!thing || thing.gone || (thing.started !== null && ["prepared", "started"].includes(what.step))) {
      thing = { cls: "tasks", lane, task: what.task, from: at, to: model.to, started: null, ended: null, gone: false, steps: [], n };
      model.open.tasks.set(key, thing);
      lane.tasks.push(thing);
    }
    thing.steps.push({ at, step: what.step });
    if (what.step === "started") thing.started = at;
    else if (what.step !== "prepared" && thing.ended === null) thing.ended = at;
    if (what.step === "removed") { thing.to = at; thing.gone = true; }
    return thing;
  },
  person(model, at, what, n) {
    const lane = model.byHost.get(what.host);
    const thing = { cls: "persons", lane, at, text: what.text, answer: what.answer, n };
    lane.persons += 1;
    model.persons.push(thing);
    return thing;
  },
  broken(model, at, what, n) {
    const thing = { cls: "broken", at, judge: what.judge, text: what.text, n };
    model.broken.push(thing);
    return thing;
  },
  note(model, at, what, n) {
    const thing = { cls: "notes", lane: what.host === null ? null : model.byHost.get(what.host), at, text: what.text, n };
    model.notes.push(thing);
    return thing;
  },
};

// Gives each span the first row that is free; says how many rows there are.
function pack(spans) {
  const ends = [];
  for (const span of spans) {
    let row = ends.findIndex((end) => end < span.from);
    if (row < 0) row = ends.length;
    ends[row] = span.to;
    span.row = row;
  }
  return ends.length;
}

// A fault's caption stands over the first lane of every run of lanes it touches; over all, if it touches all.
function placeCaptions(model) {
  const CAPTIONS_MAX = 4;
  model.captions = Math.min(CAPTIONS_MAX, pack(model.faults.filter((fault) => fault.all)));
  for (const fault of model.faults) {
    fault.groups = [];
    for (const lane of fault.lanes) {
      const group = fault.groups.at(-1);
      if (group && group.last.index + 1 === lane.index) group.last = lane;
      else fault.groups.push({ first: lane, last: lane, fault, from: fault.from, to: fault.to, row: 0 });
    }
  }
  for (const lane of model.lanes) {
    const groups = model.faults.filter((fault) => !fault.all).flatMap((fault) => fault.groups).filter((group) => group.first === lane);
    lane.captions = Math.min(CAPTIONS_MAX, pack(groups));
    lane.groups = groups;
  }
}

// Kinds of messages of which there is one a second or more are the background; each kind gets a colour.
function rankLabels(model) {
  const transits = model.messages.filter((m) => !m.lost).map((m) => m.to - m.at).sort((a, b) => a - b);
  model.transit = transits[transits.length >> 1] || 1000;
  model.slowest = transits.at(-1) || 1000;
  const many = Math.max(60, (model.to - model.from) / 1e6);
  const frequent = (label) => label.name === "packet" || label.count > many;
  [...model.labels.values()].sort((a, b) => a.name < b.name ? -1 : 1).forEach((label, index) => {
    label.frequent = frequent(label);
    label.colour = index;
  });
}

const model = buildModel(data);
