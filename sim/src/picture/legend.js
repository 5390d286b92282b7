// The legend, which switches things on and off.

const SWATCHES = {
  life: '<path d="M1 7H8" stroke="var(--up)" stroke-width="2.5"/>' +
    '<path d="M9 7H17" stroke="var(--held)" stroke-width="3" stroke-dasharray="2 3"/>' +
    '<path d="M18 7H26" stroke="var(--down)" stroke-width="1.5" stroke-dasharray="4 2"/>',
  leaders: '<rect y="1" width="26" height="12" opacity=".5" fill="#5b8def"/><path d="M0 7H26" stroke="var(--up)" stroke-width="2.5"/>',
  faults: '<rect width="26" height="14" fill="var(--fault)" opacity=".25"/><path d="M.5 0V14M25.5 0V14" stroke="var(--fault)"/>',
  tasks: '<path d="M0 7H26" stroke="var(--dim)"/><rect x="6" y="2" width="14" height="10" fill="#7fae9a"/>',
  persons: '<circle cx="7" cy="7" r="5.5" fill="var(--done)"/><circle cx="19" cy="7" r="5.5" fill="var(--refused)"/>',
  notes: '<path d="M13 2L18 7L13 12L8 7Z" fill="var(--note)"/>',
  broken: '<path d="M13 0V14" stroke="var(--broken)" stroke-width="2.5"/>',
  lost: '<path d="M2 12L13 6" stroke="var(--broken)"/><path d="M10 3L16 9M16 3L10 9" stroke="var(--broken)" stroke-width="1.6"/>',
  faint: '<path d="M2 1L6 13M8 1L12 13M14 1L18 13M20 1L24 13" stroke="var(--dim)" opacity=".5"/>',
};
const SWITCHES = [
  ["leaders", "leads", "l"], ["tasks", "container", "c"], ["faults", "fault", "f"], ["persons", "person ✓ done ✗ refused ? unknown", "p"],
  ["notes", "notes", "n"], ["messages", "messages", "m"], ["faint", "frequent ones faint", "h"],
];

function swatch(inner) {
  const made = element("span", "");
  made.innerHTML = `<svg viewBox="0 0 26 14" aria-hidden="true">${inner}</svg>`;
  return made;
}

function buildLegend() {
  const key = (inner, text) => { const made = swatch(inner); made.append(text); return made; };
  const labels = [...model.labels.values()].sort((a, b) => a.colour - b.colour);
  $("legend").replaceChildren(
    key(SWATCHES.life, "up, still, down"), key(SWATCHES.broken, "broken"), ...SWITCHES.map(toggle),
    key(SWATCHES.lost, "lost"), element("hr", ""), ...labels.map(labelToggle),
  );
}

function check(on, change, children) {
  const input = element("input", "");
  input.type = "checkbox";
  input.checked = on;
  input.onchange = () => { change(input.checked); buildLegend(); redraw(); };
  const made = element("label", "", [input, ...children]);
  if (!on) made.className = "off";
  return made;
}

function toggle([name, text, key]) {
  const inner = SWATCHES[name] || '<path d="M2 1L22 13" stroke="var(--ink)"/><path d="M24 14L17 13L20 8Z" fill="var(--ink)"/>';
  return check(shown[name], (on) => { shown[name] = on; }, [swatch(inner), text, element("kbd", key)]);
}

function labelToggle(label) {
  const line = swatch(`<path d="M2 7H24" stroke="var(--c)" stroke-width="2.5" ${isFaint(label) ? 'opacity=".45" stroke-dasharray="2 2"' : ""}/>`);
  line.style.setProperty("--c", labelColour(label));
  const change = (on) => (on ? shown.labels.add(label.name) : shown.labels.delete(label.name));
  const made = check(shown.labels.has(label.name), change, [line, label.name, element("small", `${label.count}${label.lost ? `, ${label.lost} lost` : ""}`)]);
  made.title = "Double click: only this kind, or all again";
  made.ondblclick = () => only(label.name);
  return made;
}

function only(name) {
  const alone = shown.labels.size === 1 && shown.labels.has(name);
  shown.labels = new Set(alone ? model.labels.keys() : [name]);
  buildLegend();
  redraw();
}
