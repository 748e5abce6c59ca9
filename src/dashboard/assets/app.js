"use strict";
// The page of `replicator dashboard`. It inserts everything from a record as text, never as markup.

const PAUSE_MS = 2000;
const $ = (id) => document.getElementById(id);
const number = (n) => n.toLocaleString("en-US");
const plural = (n, what) => `${number(n)} ${what}${n === 1 ? "" : "s"}`;

/** Makes an element with a class, which holds texts and other elements. */
function element(tag, className, ...inside) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...inside);
  return made;
}

// ---- what is shown: it is kept in the address, so that a visitor can send it to somebody

const query = new URLSearchParams(location.search);
const look = {
  source: query.get("source") || "topicA",
  target: query.get("target") || "topicB",
  start: query.get("start"),
  end: query.get("end"),
};

/** Whether the visitor named a topic. If not, the page may choose the pair that was last filled. */
let isChosen = query.has("source") || query.has("target");

function asked(more = {}) {
  const given = Object.entries({ ...look, ...more }).filter(([, value]) => value !== null && value !== undefined);
  return new URLSearchParams(given).toString();
}

const zoomed = () => look.start !== null || look.end !== null;

function zoom(start, end) {
  look.start = start === null ? null : String(Math.floor(start));
  look.end = end === null ? null : String(Math.ceil(end));
  history.replaceState(null, "", `?${asked()}`);
  refresh();
}

// ---- times, in UTC

const at = (ms) => new Date(ms).toISOString();
function clock(ms, bucket) {
  const [, time] = at(ms).split("T");
  return bucket % 60000 === 0 ? time.slice(0, 5) : time.slice(0, 8);
}
const day = (ms) =>
  new Date(ms).toLocaleDateString("en-GB", { day: "numeric", month: "long", year: "numeric", timeZone: "UTC" });
function moments(start, end, bucket) {
  const apart = at(start).slice(0, 10) !== at(end - 1).slice(0, 10);
  return apart
    ? `from ${day(start)}, ${clock(start, bucket)} to ${day(end)}, ${clock(end, bucket)} UTC`
    : `between ${clock(start, bucket)} and ${clock(end, bucket)} UTC on ${day(start)}`;
}

// ---- theme

function theme(name) {
  document.documentElement.dataset.theme = name;
  $("theme").textContent = name === "dark" ? "Light" : "Dark";
  drop();
}
function startTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  try { chosen = localStorage.getItem("theme"); } catch { /* kept for this visit only */ }
  theme(chosen || (dark.matches ? "dark" : "light"));
  dark.addEventListener("change", () => { if (!chosen) { theme(dark.matches ? "dark" : "light"); draw(); } });
  $("theme").addEventListener("click", () => {
    chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("theme", chosen); } catch { /* as above */ }
    theme(chosen);
    draw();
  });
}
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// ---- charts

let overview = null;
const plots = { timeline: null, missing: null };

function drop() {
  for (const name of Object.keys(plots)) {
    if (plots[name]) plots[name].destroy();
    plots[name] = null;
  }
}

/** Shades the gaps, behind everything else. */
function shade(plot) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.fillStyle = colour("wash");
  for (const gap of overview.gaps || []) {
    const from = Math.max(plot.valToPos(gap.start_ms / 1000, "x", true), bbox.left);
    const to = Math.min(plot.valToPos(gap.end_ms / 1000, "x", true), bbox.left + bbox.width);
    if (to > from) ctx.fillRect(from, bbox.top, to - from, bbox.height);
  }
  ctx.restore();
}

function chart(name, height, series) {
  const axis = { stroke: colour("soft"), grid: { stroke: colour("grid"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  const stepped = uPlot.paths.stepped({ align: 1 });
  return new uPlot({
    width: $(name).clientWidth,
    height,
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    legend: { show: false },
    cursor: { drag: { x: true, y: false, setScale: false }, sync: { key: "time" }, points: { show: false } },
    scales: { x: { time: true }, y: { range: (_, __, most) => [0, Math.max(most * 1.08, 1)] } },
    axes: [{ ...axis, size: 28, values: uPlot24 }, { ...axis, size: 56, values: (_, ticks) => ticks.map((t) => (Number.isInteger(t) ? number(t) : "")) }],
    series: [{}, ...series.map((one) => ({ points: { show: false }, paths: stepped, ...one }))],
    hooks: {
      drawClear: [shade],
      setSelect: [(plot) => {
        const { left, width } = plot.select;
        if (width < 4) return;
        zoom(plot.posToVal(left, "x") * 1000, plot.posToVal(left + width, "x") * 1000);
      }],
      setCursor: [(plot) => legend(plot.cursor.idx)],
    },
  }, [[], ...series.map(() => [])], $(name));
}

/** Ticks as 13:00, with the date at the beginning of a day. */
function uPlot24(_, ticks) {
  return ticks.map((seconds) => {
    const [date, time] = at(seconds * 1000).split("T");
    return time.startsWith("00:00:00") ? date.slice(5) : time.slice(0, seconds % 60 ? 8 : 5);
  });
}

function draw() {
  if (!overview || $("board").hidden) return;
  if (!plots.timeline) {
    plots.timeline = chart("timeline", 270, [
      { fill: colour("target"), stroke: colour("target"), width: 0 },
      { stroke: colour("source"), width: 1.5 },
    ]);
    plots.missing = chart("missing", 100, [{ fill: colour("missing"), stroke: colour("missing"), width: 0 }]);
  }
  const places = [...(overview.source_counts || overview.target_counts)];
  const times = places.map((_, n) => (overview.start_ms + n * overview.bucket_ms) / 1000);
  times.push((overview.start_ms + times.length * overview.bucket_ms) / 1000);
  // Unknown counts are not drawn. A line at 0 would be a statement.
  const whole = (counts) => (counts ? [...counts, counts[counts.length - 1]] : times.map(() => null));
  plots.timeline.setData([times, whole(overview.target_counts), whole(overview.source_counts)]);
  plots.missing.setData([times, whole(overview.missing_counts)]);
  legend(null);
}

const width = (bucket) =>
  ({ 60000: "minute", 3600000: "hour", 86400000: "day" }[bucket] || `${bucket / 1000} s`);

function legend(index) {
  if (!overview) return;
  const places = (overview.source_counts || overview.target_counts).length;
  const shown = index !== null && index !== undefined && index < places;
  const part = (kind, name, counts) =>
    element("span", "", element("i", kind), shown ? `${name} ${counts ? number(counts[index]) : "–"}` : name);
  const when = shown ? clock(overview.start_ms + index * overview.bucket_ms, overview.bucket_ms) : `per ${width(overview.bucket_ms)}`;
  $("legend").replaceChildren(
    part("source", look.source, overview.source_counts),
    part("target", look.target, overview.target_counts),
    part("missing", "missing", overview.missing_counts),
    element("span", "", when),
  );
}

// ---- words and numbers

const KINDS = ["source", "target"];

/** The clock time of an instant, with its day unless that is today. */
function moment(ms) {
  const today = at(ms).slice(0, 10) === at(Date.now()).slice(0, 10);
  return `${at(ms).slice(11, 19)} UTC${today ? "" : ` on ${day(ms)}`}`;
}

/** The commands that copy these topics into the store. A name may end with the brokers that hold the topic. */
function sinks(names) {
  const of = new Map();
  for (const name of names) {
    const [topic, place] = name.split("@");
    const brokers = place && place.includes(":") ? `-b ${place} ` : "";
    of.set(brokers, [...(of.get(brokers) || []), `--topic ${topic} `]);
  }
  const commands = [...of].map(([brokers, topics]) =>
    element("code", "", `replicator sink ${brokers}${topics.join("")}--store ${overview.store}`));
  return commands.flatMap((command, n) => (n ? [" and ", command] : [command]));
}

/** The names of the topics of which this could be any. */
const several = (name) => overview.topics.filter((topic) => topic.startsWith(`${name}@`));

/** Sentences that say why the store does not prove what a topic holds now. */
function doubts(kind) {
  const { ends } = overview[kind];
  const name = look[kind];
  if (!ends) return [`This store does not know how far it is behind ${name}`];
  const found = [];
  if (ends.behind_offsets) {
    found.push(`As of ${moment(ends.as_of_ms)} the store is ${plural(ends.behind_offsets, "offset")} behind ${name}`);
  }
  // A deleted copy in the target counts for nothing. Records that the source deleted may well be in the target.
  if (ends.trimmed && kind === "target") found.push(`${name} has deleted records that this store still holds`);
  return found;
}

/** Says what the store proves, and no more: a sign, a headline, its details, and the window's title. */
function verdict() {
  const { source, target, missing, gaps, bucket_ms: bucket, compared, in_source: count } = overview;
  const absent = [...new Set(KINDS.filter((kind) => !overview[kind]).map((kind) => look[kind]))];
  const unclear = absent.filter((name) => several(name).length > 0);
  if (unclear.length > 0) {
    return {
      sign: "unknown", headline: `This store holds several topics ${unclear.join(" and ")}`,
      detail: [`So this page cannot say what is missing. Choose above: ${unclear.flatMap(several).join(", ")}`],
      title: "not chosen",
    };
  }
  if (absent.length > 0) {
    return {
      sign: "unknown", headline: `${absent.join(" and ")} ${absent.length > 1 ? "are" : "is"} not in this store`,
      detail: ["So this page cannot say what is missing. Copy it there with ", ...sinks(absent)], title: "not in the store",
    };
  }
  if (missing === null) {
    return {
      sign: "unknown", headline: `${look.source} is compared with itself`,
      detail: ["So this page cannot say what is missing. Choose two topics above. The store tells topics of one name in two " +
        "clusters apart, once a sink has copied both"],
      title: "one topic",
    };
  }
  const partial = zoomed() || count !== source.records;
  const here = partial ? "In the part shown, " : "";
  const when = KINDS.map((kind) => overview[kind].ends).filter(Boolean).map((ends) => ends.as_of_ms);
  const asOf = when.length === 2 ? `as of ${moment(Math.min(...when))}, ` : "";
  const doubtful = KINDS.flatMap(doubts);
  const untold = KINDS.some((kind) => !overview[kind].ends);
  const all = `${plural(count, "record")} of ${look.source}${bucket ? `, ${moments(overview.start_ms, overview.end_ms, bucket)}` : ""}`;
  if (missing > 0) {
    const widest = gaps.reduce((a, b) => (b.missing > a.missing ? b : a));
    const where = gaps.length === 1 ? moments(widest.start_ms, widest.end_ms, bucket)
      : `in ${gaps.length} gaps; the largest, of ${number(widest.missing)}, is ${moments(widest.start_ms, widest.end_ms, bucket)}`;
    // If the store is behind the target, the target may hold these records. If it is behind the source, more may be missing.
    const open = !target.ends || target.ends.behind_offsets > 0;
    const least = compared === "counts" || doubtful.length > 0 ? "at least " : "";
    const lacks = open ? `${here ? "this" : "This"} store has no copy in ${look.target} of ${plural(missing, "record")}`
      : `${look.target} lacks ${least}${plural(missing, "record")}`;
    return {
      sign: open ? "unknown" : "bad", headline: here + lacks,
      detail: [`${asOf}of ${number(count)} in ${look.source}, ${where}`, ...doubtful.map((doubt) => `. ${doubt}`)],
      title: open ? "not known" : `${number(missing)} missing`,
    };
  }
  if (doubtful.length > 0) {
    const rest = doubtful.slice(1).map((doubt) => `${doubt}. `);
    const held = count === 0 ? `${here || "So far, "}the store has no record of ${look.source}`
      : `${look.target} lacks none of the records that the store holds${partial ? " in the part shown" : ""}: ${all}`;
    const more = untold ? [". To find out, run this again: ", ...sinks([look.source, look.target])] : [];
    return { sign: "unknown", headline: doubtful[0], detail: [...rest, held, ...more], title: "not known" };
  }
  if (count === 0) {
    const elsewhere = source.first_ms === null ? "" : `it has records ${moments(source.first_ms, source.last_ms + 1, 1)}`;
    return { sign: "unknown", headline: `${here}${look.source} has no record`, detail: [asOf + elsewhere], title: "no record" };
  }
  if (compared === "counts") {
    return {
      sign: "even", headline: `${here}${look.target} holds at least as many records as ${look.source} in each ${width(bucket)}`,
      detail: [`${asOf}${all}. This store counts records, and does not compare them: `, element("code", "", "replicator verify"), " does"],
      title: "as many",
    };
  }
  return {
    sign: "good", headline: `${here}${look.target} holds every record of ${look.source}`,
    detail: [`${asOf}${all}; compared by key, timestamp and value`], title: partial ? "whole here" : "whole",
  };
}

function tell() {
  const { source, target, missing, gaps } = overview;
  const { sign, headline, detail, title } = verdict();
  $("sign").className = `sign ${sign}`;
  // A screen reader reads it aloud when it changes.
  if ($("headline").textContent !== headline) $("headline").textContent = headline;
  $("detail").replaceChildren(...detail);
  document.title = `${title} · replicator`;
  const figure = (value, label, bad) => element("div", bad ? "figure bad" : "figure", element("b", "", value), element("span", "", label));
  const known = (n) => (typeof n === "number" ? number(n) : "–");
  const last = overview.receipts[0];
  $("figures").replaceChildren(
    figure(known(source && source.records), `in ${look.source}`),
    figure(known(target && target.records), `in ${look.target}`),
    figure(known(missing), zoomed() ? "missing here" : "missing", missing > 0),
    figure(last ? known(last.written) : "–", last ? "written by the last run" : "no run yet"),
  );
  $("missing-in").textContent = look.target;
  $("timeline").setAttribute("aria-label", `Records of ${look.source} and ${look.target} over time. ${headline}. ${$("detail").textContent}`);
  $("missing").setAttribute("aria-label", missing === null ? "The missing records are not known."
    : `Missing records over time: ${number(missing)} in ${plural(gaps.length, "gap")}.`);
  $("gap").disabled = !gaps || gaps.length === 0;
  $("whole").disabled = !zoomed();
}

function runs() {
  const table = $("runs");
  $("no-runs").hidden = overview.receipts.length > 0;
  table.hidden = overview.receipts.length === 0;
  const heads = [["When", ""], ["Window", ""], ["Topics", ""], ["Read", "number"], ["Already there", "number"], ["Written", "number"], ["Took", "number"], ["Result", ""]];
  const head = element("tr", "", ...heads.map(([text, kind]) => element("th", kind, text)));
  const cell = (inside, kind) => element("td", kind || "", inside);
  const short = (instant) => (typeof instant === "string" ? instant.replace("T", " ").replace(/(:00)?(\.000)?Z$/, "") : "–");
  const pair = (run) => {
    const shown = run.shown || {};
    const name = (kind) => shown[kind] || run[kind] + (run[`${kind}_bootstrap_server`] ? `@${run[`${kind}_bootstrap_server`]}` : "");
    const text = `${name("source")} → ${name("target")}`;
    if (!shown.source || !shown.target) return text;
    const link = element("a", "", text);
    link.href = `?${new URLSearchParams({ source: shown.source, target: shown.target })}`;
    return link;
  };
  const row = (run) => {
    const edges = run.window || {};
    const count = (n) => (typeof n === "number" ? number(n) : "–");
    return element("tr", "",
      cell(short(run.at).slice(0, 19)),
      cell(`${short(edges.start)} – ${short(edges.end).slice(11) || "–"}`),
      cell(pair(run)),
      cell(count(run.read), "number"),
      cell(count(run.already_in_target), "number"),
      cell(count(run.written), "number"),
      cell(typeof run.elapsed_ms === "number" ? `${(run.elapsed_ms / 1000).toFixed(1)} s` : "–", "number"),
      cell(run.complete ? "complete" : "not complete"));
  };
  table.replaceChildren(element("thead", "", head), element("tbody", "", ...overview.receipts.map(row)));
}

const chosen = [null, null];

function breakdowns(found) {
  const cards = found.breakdowns.map((breakdown, index) => {
    const select = element("select", "");
    for (const field of found.fields) {
      const option = element("option", "", field);
      option.value = field;
      option.selected = field === breakdown.field;
      select.append(option);
    }
    select.setAttribute("aria-label", "Field of the breakdown");
    select.addEventListener("change", () => { chosen[index] = select.value; shown.breakdown = ""; refresh(); });
    const most = Math.max(...breakdown.values.map((v) => Math.max(v.source, v.target)), 1);
    const rows = breakdown.values.map((v) => {
      const lacks = v.target === null ? 0 : Math.max(v.source - v.target, 0);
      const count = element("span", "count", v.target === null ? "–" : number(v.target));
      if (lacks) count.append(" ", element("b", "", `−${number(lacks)}`));
      const label = element("span", "value", v.value);
      label.title = v.value;
      return element("div", "row", label, v.target === null ? element("span", "") : bars(v.source / most, v.target / most), count);
    });
    return element("section", "card", element("div", "bar", element("h2", "", "By "), select), ...rows);
  });
  // Redrawing would close a list that somebody has just opened.
  if (!document.activeElement || !$("breakdowns").contains(document.activeElement)) $("breakdowns").replaceChildren(...cards);
}

function bars(source, target) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 100 1");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  for (const [kind, share] of [["of-source", source], ["of-target", target]]) {
    const rect = document.createElementNS(space, "rect");
    rect.setAttribute("class", kind);
    rect.setAttribute("width", (share * 100).toFixed(2));
    rect.setAttribute("height", "1");
    svg.append(rect);
  }
  return element("div", "track", svg);
}

function topics() {
  for (const end of ["source", "target"]) {
    const select = $(end);
    if (document.activeElement === select) continue;
    const names = [...new Set([look[end], ...overview.topics])].sort();
    select.replaceChildren(...names.map((name) => {
      const option = element("option", "", name);
      option.value = name;
      option.selected = name === look[end];
      return option;
    }));
  }
}

// ---- the loop

const shown = { overview: "", breakdown: "", at: 0 };
let turn = 0;

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store" });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error || answer.statusText);
  return body;
}

async function refresh() {
  const mine = ++turn;
  try {
    const found = await ask(`/api/overview?${asked()}`);
    if (mine !== turn) return;
    live(true, "live");
    const last = found.receipts.find((run) => run.shown && run.shown.source && run.shown.target);
    if (!isChosen && !found.source && !found.target && last) {
      Object.assign(look, last.shown);
      isChosen = true;
      refresh();
      return;
    }
    // If only the time has changed, leave the charts alone: somebody's pointer may be on them.
    const now = JSON.stringify(found, (key, value) => (key === "as_of_ms" ? undefined : value));
    if (now === shown.overview && shown.breakdown) {
      overview = found;
      if (!$("board").hidden) tell();
      return;
    }
    shown.overview = now;
    overview = found;
    const empty = !found.source && !found.target;
    $("board").hidden = empty;
    $("empty").hidden = !empty;
    topics();
    for (const [kind, text] of [["store", found.store], ["source", look.source], ["target", look.target]]) {
      document.querySelectorAll(`span.${kind}`).forEach((span) => { span.textContent = text; });
    }
    if (empty) {
      document.title = "replicator";
      const unclear = [...new Set(KINDS.map((kind) => look[kind]))].filter((name) => several(name).length > 0);
      const mustChoose = unclear.length > 0 || (!isChosen && found.topics.length > 0);
      const held = found.topics.length > 0 ? ` It holds ${found.topics.join(", ")}.` : "";
      $("how").hidden = mustChoose;
      $("empty-headline").textContent = mustChoose ? "Choose two topics" : "Nothing to show yet";
      $("why-empty").textContent = unclear.length > 0
        ? `The store ${found.store} holds several topics ${unclear.join(" and ")}: ${unclear.flatMap(several).join(", ")}.`
        : `The store ${found.store} holds no record of ${look.source} or ${look.target}.${held}`;
      return;
    }
    tell();
    runs();
    draw();
    // A breakdown reads the values of all records, so it is not asked for at every new record.
    if (shown.breakdown && Date.now() - shown.at < 5 * PAUSE_MS) return;
    shown.at = Date.now();
    const broken = await ask(`/api/breakdown?${asked({ field: chosen.map((c) => c || "").join("\n") })}`);
    if (mine === turn && JSON.stringify(broken) !== shown.breakdown) {
      shown.breakdown = JSON.stringify(broken);
      breakdowns(broken);
    }
  } catch (error) {
    if (mine === turn) live(false, `no answer: ${error.message}`);
  }
}

function live(on, text) {
  $("live").className = on ? "live" : "live off";
  if ($("live").textContent !== text) $("live").textContent = text;
}

async function follow() {
  if (!document.hidden) await refresh();
  setTimeout(follow, PAUSE_MS);
}

startTheme();
for (const end of ["source", "target"]) {
  $(end).addEventListener("change", (event) => { isChosen = true; look[end] = event.target.value; $(end).blur(); zoom(null, null); });
}
$("whole").addEventListener("click", () => zoom(null, null));
$("gap").addEventListener("click", () => {
  const [first, last] = [overview.gaps[0], overview.gaps[overview.gaps.length - 1]];
  const margin = Math.max((last.end_ms - first.start_ms) / 8, overview.bucket_ms);
  zoom(Math.max(first.start_ms - margin, overview.start_ms), Math.min(last.end_ms + margin, overview.end_ms));
});
new ResizeObserver(() => {
  for (const [name, plot] of Object.entries(plots)) {
    if (plot && $(name).clientWidth) plot.setSize({ width: $(name).clientWidth, height: plot.height });
  }
}).observe(document.body);
follow();
