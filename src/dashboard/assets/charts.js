// The two charts over time, and how a pointer, a finger or a key changes their part of it.

import { $, at, clock, cut, element, known, number, width } from "./words.js";

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/** The widths that a bucket can have, in milliseconds: as the server has them. */
const WIDTHS = [1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 10800, 21600, 86400, 604800].map((s) => s * 1000);
/** The least pixels of a bucket. With fewer, the outline of one topic would hide the area of the other. */
const BUCKET_PIXELS = 2;
/** The shortest part of the time that is shown, in milliseconds. */
const SHORTEST_MS = 10000;

const plots = { timeline: null, missing: null };
let overview = null;
/** The counts as they are drawn, in buckets that may be wider than the server's. */
let drawn = null;
/** `zoom(start, end)` shows a part, and all of it for nulls. `undo()` shows what was shown before. `range()` is shown now. */
let act = null;
/** The plot on which the pointer is. Both plots hear of each drag. */
let held = null;

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

export function drop() {
  for (const name of Object.keys(plots)) {
    if (plots[name]) plots[name].destroy();
    plots[name] = null;
  }
}

/** Puts buckets together until each has enough pixels. */
function fold(pixels) {
  const { start_ms: start, end_ms: end, bucket_ms: bucket } = overview;
  const isWide = (of) => of % bucket === 0 && ((end - start) / of) * BUCKET_PIXELS <= pixels;
  const of = WIDTHS.find(isWide) || bucket;
  const place = (n) => Math.floor((start + n * bucket) / of) - Math.floor(start / of);
  const counts = (counts) => {
    if (!counts) return null;
    const folded = new Array(place(counts.length - 1) + 1).fill(0);
    counts.forEach((count, n) => { folded[place(n)] += count; });
    return folded;
  };
  const found = {};
  for (const name of ["source", "target", "missing", "surplus"]) found[name] = counts(overview[`${name}_counts`]);
  const length = (found.source || found.target).length;
  const times = Array.from({ length }, (_, n) => Math.max(start, (Math.floor(start / of) + n) * of));
  return { ...found, times, end, bucket: of };
}

/** Shades the gaps, behind everything else. */
function shade(plot) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.fillStyle = colour("wash");
  for (const gap of overview.gaps || []) {
    const from = Math.max(plot.valToPos(gap.start_ms / 1000, "x", true), bbox.left);
    const to = Math.min(plot.valToPos(gap.end_ms / 1000, "x", true), bbox.left + bbox.width);
    if (to > from) ctx.fillRect(from, bbox.top, Math.max(to - from, 1), bbox.height);
  }
  ctx.restore();
}

/** Ticks as 13:00, with the date under the first one and under the first one of each day. */
export function ticks(_, all) {
  let before = "";
  return all.map((seconds) => {
    const [date, time] = at(Math.round(seconds * 1000)).split("T");
    const shown = time.slice(0, seconds % 60 ? 8 : 5);
    if (date === before) return shown;
    const year = before ? "" : ` ${date.slice(0, 4)} UTC`;
    before = date;
    return `${shown}\n${Number(date.slice(8))} ${MONTHS[Number(date.slice(5, 7)) - 1]}${year}`;
  });
}

function chart(name, height, unit, series) {
  const font = "12px system-ui, sans-serif";
  const axis = { stroke: colour("soft"), grid: { stroke: colour("grid"), width: 1 }, ticks: { show: false }, font, labelFont: font };
  const stepped = uPlot.paths.stepped({ align: 1 });
  const made = new uPlot({
    width: $(name).clientWidth,
    height,
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    legend: { show: false },
    cursor: {
      drag: { x: true, y: false, setScale: false }, sync: { key: "time" }, points: { show: false },
      bind: { dblclick: () => () => { act.undo(); return null; } },
    },
    scales: { x: { time: true }, y: { range: (_, least, most) => [Math.min(least * 1.08, 0), Math.max(most * 1.08, 1)] } },
    axes: [
      { ...axis, size: 44, space: 52, values: ticks },
      {
        ...axis, size: 56, label: () => `${unit}${width(drawn.bucket)}`, labelSize: 16,
        values: (_, all) => all.map((t) => (Number.isInteger(t) ? number(Math.abs(t)) : "")),
      },
    ],
    series: [{}, ...series.map((one) => ({ points: { show: false }, paths: stepped, width: 0, ...one }))],
    hooks: {
      drawClear: [shade],
      setSelect: [(plot) => { if (plot === held) take(plot, plot.select.left, plot.select.left + plot.select.width); }],
      setCursor: [(plot) => legend(plot.cursor.idx)],
    },
  }, [[], ...series.map(() => [])], $(name));
  made.over.addEventListener("mousedown", () => { held = made; });
  listen(made);
  return made;
}

/** Looks closer at what lies between two places of a plot, in pixels. */
function take(plot, left, right) {
  plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
  held = null;
  if (right - left < 4) return;
  act.zoom(plot.posToVal(left, "x") * 1000, plot.posToVal(right, "x") * 1000);
}

/** One finger selects, as a mouse does. Two fingers spread the time or press it together. */
function listen(plot) {
  const fingers = new Map();
  const x = (event) => event.clientX - plot.over.getBoundingClientRect().left;
  const select = () => {
    const [[from, to]] = [...fingers.values()];
    plot.setSelect({ left: Math.min(from, to), top: 0, width: Math.abs(to - from), height: plot.over.clientHeight }, false);
  };
  const clear = () => {
    fingers.clear();
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
  };
  plot.over.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "mouse") fingers.set(event.pointerId, [x(event), x(event)]);
  });
  plot.over.addEventListener("pointermove", (event) => {
    const finger = fingers.get(event.pointerId);
    if (!finger) return;
    finger[1] = x(event);
    if (fingers.size === 1) select();
  });
  plot.over.addEventListener("pointerup", (event) => {
    if (!fingers.has(event.pointerId)) return;
    const [[from, to], other] = [...fingers.values()];
    clear();
    if (!other) {
      // A tap moves a little.
      if (Math.abs(to - from) > 10) take(plot, Math.min(from, to), Math.max(from, to));
      return;
    }
    const time = (at) => plot.posToVal(at, "x") * 1000;
    const spread = other[1] - to;
    if (Math.abs(spread) < 10 || (spread < 0) !== (other[0] - from < 0)) return;
    const slope = (time(other[0]) - time(from)) / spread;
    const start = time(from) - slope * to;
    show(start, start + slope * plot.over.clientWidth);
  });
  // The browser scrolls the page.
  plot.over.addEventListener("pointercancel", clear);
}

/** Shows this part of the time, but not less than the shortest part, and not beyond all records. */
function show(start, end, isMove = false) {
  const held = ["source", "target"].map((kind) => overview[kind]).filter((topic) => topic && topic.first_ms !== null);
  const first = Math.min(...held.map((topic) => topic.first_ms));
  const last = Math.max(...held.map((topic) => topic.last_ms)) + 1;
  const wanted = Math.max(end - start, SHORTEST_MS);
  if (wanted >= last - first) return act.zoom(null, null);
  const begin = Math.min(Math.max(Math.floor((start + end - wanted) / 2), first), last - wanted);
  return act.zoom(begin, begin + wanted, isMove);
}

/** What a key does to the part that is shown: its new beginning and end, as shares of the present part. */
const KEYS = { "+": [0.25, 0.75], "=": [0.25, 0.75], "-": [-0.5, 1.5], ArrowLeft: [-0.25, 0.75], ArrowRight: [0.25, 1.25] };

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || !overview) return;
  const [start, end] = act.range();
  if (event.key === "0" || event.key === "Home") act.zoom(null, null);
  else if (KEYS[event.key]) {
    const [from, to] = KEYS[event.key].map((share) => start + Math.trunc(share * (end - start)));
    show(from, to, event.key.startsWith("Arrow"));
  } else return;
  event.preventDefault();
}

export function draw(found) {
  overview = found;
  if ($("board").hidden) return;
  drawn = fold(Math.max($("timeline").clientWidth - 80, 100));
  if (!plots.timeline) {
    plots.timeline = chart("timeline", 270, "records per ", [
      { fill: colour("source"), stroke: colour("source") },
      { fill: colour("target"), stroke: colour("target") },
    ]);
    plots.missing = chart("missing", 140, "per ", [
      { fill: colour("missing"), stroke: colour("missing") },
      { fill: colour("more"), stroke: colour("more") },
    ]);
  }
  const times = [...drawn.times, drawn.end].map((ms) => ms / 1000);
  // Unknown counts are not drawn. A line at 0 would be a statement.
  const whole = (counts, sign = 1) =>
    (counts ? [...counts, counts[counts.length - 1]].map((count) => sign * count) : times.map(() => null));
  plots.timeline.setData([times, whole(drawn.source), whole(drawn.target)]);
  plots.missing.setData([times, whole(drawn.missing), whole(drawn.surplus, -1)]);
  legend(null);
}

function legend(index) {
  if (!drawn) return;
  const shown = index !== null && index !== undefined && index < drawn.times.length;
  const part = (kind, name, counts) => {
    const made = element("span", "", element("i", kind), shown ? `${cut(name, 24)} ${known(counts && counts[index])}` : cut(name, 24));
    made.title = name;
    return made;
  };
  const ms = drawn.times[Math.min(index || 0, drawn.times.length - 1)];
  const when = shown ? `${clock(ms, drawn.bucket)} UTC on ${at(ms).slice(0, 10)}` : `per ${width(drawn.bucket)}`;
  $("legend").replaceChildren(
    part("source", overview.pair.source, drawn.source),
    part("target", overview.pair.target, drawn.target),
    element("span", "", when),
  );
  const parts = [part("missing", `missing in ${overview.pair.target}`, drawn.missing)];
  if (drawn.surplus && drawn.surplus.some((count) => count > 0)) {
    parts.push(part("more", `more in ${overview.pair.target}`, drawn.surplus));
  }
  $("missing-legend").replaceChildren(...parts);
}

export function start(actions) {
  act = actions;
  for (const name of Object.keys(plots)) $(name).addEventListener("keydown", key);
  let before = 0;
  new ResizeObserver(() => {
    const now = $("timeline").clientWidth;
    if (!now || now === before || !plots.timeline) return;
    before = now;
    for (const [name, plot] of Object.entries(plots)) plot.setSize({ width: now, height: plot.height });
    draw(overview);
  }).observe(document.body);
}
