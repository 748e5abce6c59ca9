// The page of `replicator dashboard`: what is shown, and when it is asked for. The page inserts everything from a record as
// text, never as markup.

import * as charts from "./charts.js";
import * as tables from "./tables.js";
import { $, KINDS, cut, freshness, isSilent, number, plural, several, verdict } from "./words.js";

const PAUSE_MS = 2000;

// ---- what is shown: it is kept in the address, so that a visitor can send it to somebody, and go back

const look = {};

/** Why these two topics are shown, if the page has chosen them. */
let chosen = null;
/** The fields of the breakdowns that the visitor has chosen. */
let fields = ["", ""];

function read() {
  const query = new URLSearchParams(location.search);
  const before = `${look.source} ${look.target}`;
  for (const name of KINDS) look[name] = query.get(name) || "";
  for (const name of ["start", "end"]) look[name] = query.get(name);
  if (before !== `${look.source} ${look.target}`) fields = ["", ""];
}

function asked(more = {}) {
  const given = Object.entries({ ...look, ...more }).filter(([, value]) => value !== null && value !== "");
  return new URLSearchParams(given).toString();
}

/** The part that is shown, or that the visitor has just asked for. */
const range = () => [Number(look.start ?? overview.start_ms), Number(look.end ?? overview.end_ms)];
const isZoomed = () => look.start !== null || look.end !== null;
/** How many steps a visitor can go back on this page. */
const steps = () => (history.state && history.state.steps) || 0;

/** A move along the time is no step of its own: nobody wants to go back through all of them. */
function go(change, isMove = false) {
  const before = asked();
  Object.assign(look, change);
  if (asked() === before) return;
  if (isMove) history.replaceState(history.state, "", `?${asked()}`);
  else history.pushState({ steps: steps() + 1 }, "", `?${asked()}`);
  refresh();
}

const edge = (ms, round) => (ms === null ? null : String(round(ms)));
const zoom = (start, end, isMove) => go({ start: edge(start, Math.floor), end: edge(end, Math.ceil) }, isMove);

/** Shows what was shown before, as the browser's own button does. */
function undo() {
  if (!isZoomed()) return;
  if (steps() > 0) history.back();
  else zoom(null, null);
}

/** Shows all from one gap to another, with some time around them. */
function show(first, last) {
  const margin = Math.max((last.end_ms - first.start_ms) / 8, overview.bucket_ms);
  zoom(first.start_ms - margin, last.end_ms + margin);
}

function choose(pair) {
  chosen = null;
  fields = ["", ""];
  go({ ...pair, start: null, end: null });
}

// ---- theme

function theme(name) {
  document.documentElement.dataset.theme = name;
  $("theme").textContent = name === "dark" ? "Light" : "Dark";
  charts.drop();
  if (overview) charts.draw(overview);
}
function startTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let kept = null;
  try { kept = localStorage.getItem("theme"); } catch { /* kept for this visit only */ }
  theme(kept || (dark.matches ? "dark" : "light"));
  dark.addEventListener("change", () => { if (!kept) theme(dark.matches ? "dark" : "light"); });
  $("theme").addEventListener("click", () => {
    kept = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("theme", kept); } catch { /* as above */ }
    theme(kept);
  });
}

// ---- what the server answers

let overview = null;

/** Everything that also changes with the time alone. */
function tell() {
  const { sign, headline, detail, title } = verdict(overview, isZoomed());
  $("sign").className = `sign ${sign}`;
  // A screen reader reads it aloud when it changes.
  if ($("headline").textContent !== headline) $("headline").textContent = headline;
  $("headline").title = KINDS.map((kind) => overview.pair[kind]).join(" → ");
  $("detail").replaceChildren(...detail);
  document.title = `${title} · replicator`;
  const why = chosen === "only_two"
    ? ["These are the only two topics of the store, and the one with more records is taken for the source. ⇄ turns them round."] : [];
  $("fresh").replaceChildren(...freshness(overview), ...why);
  const { gaps, missing, pair } = overview;
  $("timeline").setAttribute("aria-label",
    `Records of ${pair.source} and ${pair.target} over time. ${headline}. ${$("detail").textContent}`);
  $("missing").setAttribute("aria-label", missing === null ? "The missing records are not known."
    : `Missing records over time: ${number(missing)} in ${plural(gaps.length, "gap")}.`);
  drawRuns();
  $("gap").textContent = gaps && gaps.length > 1 ? "Show the gaps" : "Show the gap";
  $("gap").disabled = !gaps || gaps.length === 0;
  $("whole").disabled = !isZoomed();
  $("back").disabled = !isZoomed();
}

/** A run that is at work changes all the time. But the table is left alone while it says the same: somebody may mark a text. */
function drawRuns() {
  const { receipts, receipts_of_others: others, now_ms: now } = overview;
  const said = JSON.stringify([receipts.map((run) => (run.status === "running" ? [{ ...run, at: "" }, isSilent(run, now)] : run)), others]);
  if (said === shown.runs) return;
  shown.runs = said;
  tables.runs(overview);
}

function topics() {
  for (const end of KINDS) {
    const select = $(end);
    if (document.activeElement === select) continue;
    const name = overview.pair[end];
    const names = [...overview.topics].sort();
    const isHeld = names.includes(name);
    select.replaceChildren(...(isHeld ? names : [name, ...names]).map((one) => {
      const option = document.createElement("option");
      option.textContent = isHeld || one !== name ? cut(one) : `${cut(one, 30)} (not here)`;
      option.value = one;
      option.selected = one === name;
      return option;
    }));
    select.title = name;
  }
}

function nothing() {
  document.title = "replicator";
  const { pair, store, topics: held } = overview;
  const unclear = [...new Set(KINDS.map((kind) => pair[kind]))].filter((name) => several(overview, name).length > 0);
  const mustChoose = unclear.length > 0 || (pair.chosen === "unknown" && held.length > 0);
  const holds = held.length > 0 ? ` It holds ${held.join(", ")}.` : "";
  $("how").hidden = mustChoose;
  $("empty-headline").textContent = mustChoose ? "Choose two topics" : "Nothing to show yet";
  $("why-empty").textContent = unclear.length > 0
    ? `The store ${store} holds several topics ${unclear.join(" and ")}: ${unclear.flatMap((name) => several(overview, name)).join(", ")}.`
    : `The store ${store} holds no record of ${pair.source} or ${pair.target}.${holds}`;
}

function draw() {
  const isEmpty = !overview.source && !overview.target;
  $("board").hidden = isEmpty;
  $("empty").hidden = !isEmpty;
  topics();
  for (const [kind, text] of [["store", overview.store], ["source", overview.pair.source], ["target", overview.pair.target]]) {
    document.querySelectorAll(`span.${kind}`).forEach((span) => { span.textContent = text; });
  }
  if (isEmpty) return nothing();
  tell();
  tables.remedy(overview);
  tables.figures(overview, isZoomed());
  tables.gaps(overview, show);
  tables.partitions(overview);
  return charts.draw(overview);
}

// ---- the loop

const shown = { overview: "", runs: "" };
/** The breakdowns on the page: what was asked for, of which records, and when. */
const broken = { of: "", asked: "", overview: "", at: 0, took: 0 };
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
    if (!look.source && !look.target && (found.source || found.target)) {
      // From now on, the page shows these two, whatever runs or topics come.
      chosen = found.pair.chosen;
      Object.assign(look, { source: found.pair.source, target: found.pair.target });
      history.replaceState(history.state, "", `?${asked()}`);
    }
    // If only the time has changed, leave the charts alone: somebody's pointer may be on them.
    const now = JSON.stringify(found, (key, value) => (["as_of_ms", "now_ms", "chosen", "receipts"].includes(key) ? undefined : value));
    overview = found;
    if (now !== shown.overview) {
      shown.overview = now;
      draw();
    } else if (!$("board").hidden) {
      tell();
    }
    if (!$("board").hidden) await breakDown(mine);
  } catch (error) {
    if (mine === turn) live(false, `no answer: ${error.message}`);
  }
}

/** A breakdown reads the values of all records, so it is not asked for at every new record: most of the store's time is for
 * the other questions. */
async function breakDown(mine) {
  const query = asked({ field: fields.join("\n") });
  const isOther = asked() !== broken.of;
  if (isOther) $("breakdowns").replaceChildren();
  const pause = Math.max(5 * PAUSE_MS, 10 * broken.took);
  const isOld = shown.overview !== broken.overview && Date.now() - broken.at >= pause;
  if (query === broken.asked && !isOld) return;
  const before = shown.overview;
  const begun = Date.now();
  const found = await ask(`/api/breakdown?${query}`);
  if (mine !== turn) return;
  // Redrawing would close a list that somebody has just opened.
  if (!isOther && $("breakdowns").contains(document.activeElement)) return;
  Object.assign(broken, { of: asked(), asked: query, overview: before, at: Date.now(), took: Date.now() - begun });
  tables.breakdowns(found, (index, field) => {
    fields[index] = field;
    refresh();
  });
}

function live(on, text) {
  $("live").className = on ? "live" : "live off";
  if ($("live").textContent !== text) $("live").textContent = text;
}

async function follow() {
  if (!document.hidden) await refresh();
  setTimeout(follow, PAUSE_MS);
}

read();
charts.start({ zoom, undo, range });
startTheme();
for (const end of KINDS) {
  $(end).addEventListener("change", (event) => {
    const pair = { source: $("source").value, target: $("target").value };
    event.target.blur();
    choose(pair);
  });
}
$("swap").addEventListener("click", () => choose({ source: $("target").value, target: $("source").value }));
$("whole").addEventListener("click", () => zoom(null, null));
$("back").addEventListener("click", undo);
$("gap").addEventListener("click", () => show(overview.gaps[0], overview.gaps[overview.gaps.length - 1]));
document.addEventListener("keydown", (event) => { if (event.key === "Escape" && event.target.tagName !== "SELECT") undo(); });
addEventListener("popstate", () => { read(); refresh(); });
follow();
