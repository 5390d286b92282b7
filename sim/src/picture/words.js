// Words for times and for things.

function seconds(us, digits = 6) {
  return (us / 1e6).toFixed(digits);
}

function span(us) {
  if (us < 1000) return `${Math.round(us)} µs`;
  if (us < 1e6) return `${(us / 1e3).toFixed(us < 1e4 ? 2 : 1)} ms`;
  return `${(us / 1e6).toFixed(us < 1e7 ? 3 : 2)} s`;
}

const EVENT_WORDS = {
  up: (w) => `h${w.host} starts`,
  down: (w) => `h${w.host} ${w.killed ? "is killed" : "stopped"}`,
  held: (w) => `h${w.host} ${w.held ? "stands still" : "goes on"}`,
  message: (w, at) => `h${w.from} → h${w.to} ${w.label} ${w.arrived_us === null ? "LOST" : span(w.arrived_us - at)}`,
  fault: (w) => `fault: ${w.text}`,
  mended: (w, at, thing) => `mended: ${thing ? thing.text : "a fault from before"}`,
  leads: (w) => `h${w.host} leads in term ${w.term}`,
  follows: (w) => `h${w.host} leads no longer`,
  task: (w) => `h${w.host} ${w.task} ${w.step}`,
  person: (w) => `person at h${w.host}: ${w.text}: ${w.answer}`,
  broken: (w) => `BROKEN ${w.judge}: ${w.text}`,
  note: (w) => `${w.host === null ? "" : `h${w.host} `}${w.text}`,
};

function eventWords(event, thing) {
  const words = EVENT_WORDS[event.what.kind];
  return words ? words(event.what, event.at_us, thing) : JSON.stringify(event.what);
}

function fromTo(thing, open) {
  const from = thing.from < model.from ? "from before the window" : seconds(thing.from);
  return `${from} to ${open ? "the end" : `${seconds(thing.to)} (${span(thing.to - thing.from)})`}`;
}

function lifeWords(part) {
  if (part.state === "down") return part.killed ? "is killed" : "is stopped";
  return part.state === "held" ? "stands still" : "is up";
}

// A title and a line of details for the thing under the pointer.
const THING_WORDS = {
  life: (t) => [`h${t.lane.host} ${lifeWords(t)}`, fromTo(t, t.to >= model.to)],
  leaders: (t) => [`h${t.lane.host} leads in term ${t.term}`, fromTo(t, t.to >= model.to)],
  faults: (t) => [t.text, `${fromTo(t, t.mended === null)} · ${t.all ? "all hosts" : t.lanes.map((lane) => `h${lane.host}`).join(" ")}`],
  tasks: (t) => [`${t.task} on h${t.lane.host}`, t.steps.map((s) => `${s.step} ${seconds(s.at)}`).join(" · ")],
  persons: (t) => [`${t.text}: ${t.answer}`, `${seconds(t.at)} · asked through h${t.lane.host}`],
  notes: (t) => [t.text, `${seconds(t.at)}${t.lane ? ` · h${t.lane.host}` : ""}`],
  broken: (t) => [`${t.judge}: ${t.text}`, `${seconds(t.at)} · broken`],
  messages: (t) => [`${t.label} h${t.a.host} → h${t.b.host}`,
    t.lost ? `sent ${seconds(t.at)} · LOST · ${t.bytes} bytes` : `${seconds(t.at)} → ${seconds(t.to)} · ${span(t.to - t.at)} · ${t.bytes} bytes`],
  traffic: (t) => [`h${t.lane.host} hears ${t.heard} messages${t.lost ? `, ${t.lost} for it LOST` : ""}`,
    `within ${span(t.to - t.from)} from ${seconds(Math.max(t.from, model.from))}`],
  bundle: (t) => [`${t.count} messages h${t.a.host} → h${t.b.host}${t.lost ? `, ${t.lost} LOST` : ""}`,
    `${seconds(t.at, 3)} to ${seconds(t.last, 3)} · ${t.bytes} bytes · ${counts(t.labels)}`],
};

function counts(labels) {
  return [...labels].sort((a, b) => b[1] - a[1]).map(([name, n]) => `${n} ${name}`).join(", ");
}

function thingWords(thing) {
  return THING_WORDS[thing.count ? "bundle" : thing.cls](thing);
}
