// The small map of the whole window.

function drawMap() {
  const g = map.getContext("2d");
  const [width, height] = [map.clientWidth, map.clientHeight];
  const at = (time) => GUTTER + ((Math.max(time, model.from) - model.from) / (model.to - model.from)) * (width - GUTTER);
  g.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
  g.fillStyle = colours.panel;
  g.fillRect(0, 0, width, height);
  g.fillStyle = colours.fault;
  g.globalAlpha = 0.25;
  for (const fault of model.faults) g.fillRect(at(fault.from), 0, Math.max(1, at(fault.to) - at(fault.from)), height);
  g.globalAlpha = 1;
  histogram(g, at, width, height);
  g.fillStyle = colours.broken;
  for (const broken of model.broken) g.fillRect(at(broken.at) - 1, 0, 2, height);
  g.strokeStyle = g.fillStyle = colours.ink;
  g.lineWidth = 1.5;
  g.strokeRect(at(view.from) + 0.75, 1, Math.max(3, at(view.to) - at(view.from) - 1.5), height - 2);
  g.font = SMALL;
  g.textBaseline = "middle";
  g.fillText("messages", 10, height / 2 - 7);
  g.fillStyle = colours.broken;
  g.fillText("lost", 10, height / 2 + 7);
}

function histogram(g, at, width, height) {
  const STEP = 3;
  const [sent, lost] = [[], []];
  for (const message of model.messages) {
    const bin = Math.floor(at(message.at) / STEP);
    sent[bin] = (sent[bin] || 0) + 1;
    if (message.lost) lost[bin] = (lost[bin] || 0) + 1;
  }
  const most = sent.reduce((a, b) => Math.max(a, b || 0), 1);
  const bars = (counts) => counts.forEach((n, bin) => g.fillRect(bin * STEP, height - (n / most) * (height - 6), STEP - 1, height));
  g.fillStyle = colours.dim;
  bars(sent);
  g.fillStyle = colours.broken;
  bars(lost);
}

function mapTime(event) {
  const box = map.getBoundingClientRect();
  return model.from + ((event.clientX - box.left - GUTTER) / (box.width - GUTTER)) * (model.to - model.from);
}
