// The figures, the list of gaps, the partitions, the runs and the breakdowns.

import { $, at, cut, element, isOpen, isSilent, known, number, plural, short } from "./words.js";

/** How many rows of a long list are shown at first. On a narrow screen a row is several lines. */
const first = () => (innerWidth > 760 ? 12 : 4);
/** The lists that a visitor has opened to their end. */
const opened = new Set();

// ---- commands

/** Copies a text. Without TLS, browsers give pages of another machine no clipboard, but the older way still works. */
async function copy(text, button) {
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = element("textarea", "");
    area.value = text;
    document.body.append(area);
    area.select();
    done = document.execCommand("copy");
    area.remove();
  }
  const before = button.textContent;
  button.textContent = done ? "Copied" : "Not copied";
  setTimeout(() => { button.textContent = before; }, 1500);
}

function copyButton(command, text) {
  const button = element("button", "copy", text);
  button.type = "button";
  button.title = command;
  button.addEventListener("click", () => copy(command, button));
  return button;
}

/** The command that fills the gap, or all of them, and what to know before it runs. */
export function remedy({ command, gaps, missing, missing_copies: copies, pair, source, target }) {
  $("fill").hidden = !command;
  if (!command) return;
  $("fill-title").textContent = gaps.length === 1 ? "Fill this gap" : `Fill these ${number(gaps.length)} gaps with one command`;
  const old = $("fill-command").querySelector("code");
  if (!old || old.textContent !== command) {
    // A line does not end within a word of the command.
    const words = command.split(" ").flatMap((word) => [element("span", "word", word), " "]).slice(0, -1);
    $("fill-command").replaceChildren(element("code", "", ...words), copyButton(command, "Copy"));
  }
  const notes = [`It writes only what ${cut(pair.target)} lacks, so it is safe to run it again. The same command with `,
    element("code", "", "replicator plan"), " shows what it would do, and writes nothing."];
  const unknown = [[source, pair.source], [target, pair.target]].filter(([topic]) => !topic.bootstrap_server);
  if (unknown.length > 0) {
    notes.push(` This store does not know the brokers of ${unknown.map(([, name]) => cut(name)).join(" and ")}: name them with `,
      element("code", "", "--bootstrap-server"), ".");
  }
  if (copies > 0) {
    notes.push(` ${number(copies)} of the ${number(missing)} are further copies of records that ${cut(pair.target)} holds: the ` +
      "command does not write those, because one copy of a key is enough.");
  }
  $("fill-notes").replaceChildren(...notes);
}

// ---- figures

/** The sum that leads from the source's records to those of the target. */
export function figures(overview, isZoomed) {
  const { source, target, in_source: from, in_target: to, missing, extra, doubled, pair, compared } = overview;
  const here = isZoomed ? " here" : "";
  const figure = (sign, value, label, kind) => element("div", `figure ${value > 0 ? kind : ""}`,
    element("b", "", sign ? element("i", "", sign) : "", known(value)), element("span", "", ...label, here));
  const name = (kind) => short(pair[kind], 24);
  const cards = [figure("", source && from, ["in ", name("source")], "")];
  if (compared) {
    cards.push(figure("−", missing, ["missing in ", name("target")], "bad"));
    const only = isOpen(overview) ? ["not seen in ", name("source")] : ["only in ", name("target")];
    cards.push(figure("+", extra, compared === "counts" ? ["more in ", name("target")] : only, "more"));
    if (compared !== "counts") cards.push(figure("+", doubled, ["doubled in ", name("target")], "more"));
  }
  cards.push(figure(compared ? "=" : "", target && to, ["in ", name("target")], ""));
  $("figures").replaceChildren(...cards);
}

// ---- tables

/** Fills a table. On a narrow screen each row is a list, so each cell knows its head. A head is a text and a class. */
function table(id, heads, rows, all = rows.length) {
  const head = element("tr", "", ...heads.map(([text, kind]) => element("th", kind, text)));
  const cell = (inside, n) => {
    const made = element("td", heads[n][1], ...(Array.isArray(inside) ? inside : [inside]));
    made.dataset.head = heads[n][0];
    return made;
  };
  const line = (cells) => element("tr", "", ...cells.map(cell));
  const shown = opened.has(id) ? rows : rows.slice(0, first());
  $(id).replaceChildren(element("thead", "", head), element("tbody", "", ...shown.map(line)));
  const more = $(`${id}-more`);
  more.hidden = shown.length === all;
  more.textContent = `Show all ${number(all)}`;
  more.onclick = () => {
    opened.add(id);
    table(id, heads, rows, all);
  };
}

/** From the first second to the last, each with its day if they differ. */
function stretch(first, last) {
  const [from, to] = [first, last].map((ms) => at(ms).slice(0, 19).replace("T", " "));
  if (from === to) return from;
  return `${from} – ${from.slice(0, 10) === to.slice(0, 10) ? to.slice(11) : to}`;
}

export function gaps({ gaps: found, pair, compared }, show) {
  $("gaps-card").hidden = !found || found.length === 0;
  if ($("gaps-card").hidden) return;
  $("gaps-count").textContent = plural(found.length, "gap");
  const heads = [[compared === "counts" ? "Between (UTC)" : "First and last missing (UTC)", "title"], ["Missing", "number"],
    [`In ${cut(pair.source, 24)}`, "number"], ["By partition", "wrap"], ["", "actions"]];
  const row = (gap) => {
    const look = element("button", "", "Show");
    look.type = "button";
    look.addEventListener("click", () => show(gap, gap));
    const by = (gap.per_partition || []).map((count, n) => [n, count]).filter(([, count]) => count > 0);
    const few = by.slice(0, 6).map(([n, count]) => `${n}: ${number(count)}`).join(", ") + (by.length > 6 ? `, and ${by.length - 6} more` : "");
    return [stretch(gap.first_ms, gap.last_ms), number(gap.missing), number(gap.in_source), few || "–",
      [look, copyButton(gap.command, "Copy command")]];
  };
  table("gaps", heads, found.map(row));
}

export function partitions(overview) {
  const { partitions: found, pair, compared } = overview;
  $("partitions-card").hidden = found.length === 0;
  const counts = [["in_source", `In ${cut(pair.source, 24)}`], ["in_target", `In ${cut(pair.target, 24)}`]];
  if (compared === "records") counts.push(["missing", "Missing"], ["extra", isOpen(overview) ? "Not seen there" : `Only in ${cut(pair.target, 24)}`], ["doubled", "Doubled"]);
  const heads = [["Partition", "number"], ...counts.map(([, text]) => [text, "number"])];
  const value = (row, name) => {
    const made = element("span", "", known(row[name]));
    if (name === "missing" && row.missing > 0) made.className = "bad";
    if ((name === "extra" || name === "doubled") && row[name] > 0) made.className = "more";
    return made;
  };
  table("partitions", heads, found.map((row) => [String(row.partition), ...counts.map(([name]) => value(row, name))]));
}

export function runs({ receipts, receipts_of_others: others, has_earlier_receipts: earlier, store, now_ms: now }) {
  $("no-runs").hidden = receipts.length > 0 || earlier;
  $("runs").hidden = receipts.length === 0;
  const notes = [];
  if (others > 0) notes.push(`${plural(others, "run")} of other topics ${others === 1 ? "is" : "are"} not shown.`);
  if (earlier) notes.push(`Only the last ${number(receipts.length + others)} or more runs of this store were looked through.`);
  $("other-runs").textContent = notes.join(" ");
  document.querySelectorAll("span.store").forEach((span) => { span.textContent = store; });
  const text = (instant) => (typeof instant === "string" ? instant.replace("T", " ").replace(/(\.\d+)?Z$/, "") : "…");
  const window = ({ start, end } = {}) => (start || end
    ? `${text(start)} – ${start && end && start.slice(0, 10) === end.slice(0, 10) ? text(end).slice(11) : text(end)}` : "–");
  const isRunning = (run) => run.status === "running";
  const result = (run) => {
    if (isRunning(run)) {
      const place = run.host ? ` on ${run.host}` : "";
      return isSilent(run, now) ? element("span", "bad", `no sign since ${text(run.at)}${place}: killed, or cut off from this store`)
        : element("span", "running", `running${place}`);
    }
    if (run.error) return element("span", "bad", `${run.status || "failed"}: ${run.error.message}`);
    if (run.done_before) return `nothing was left to do since ${text(run.done_before.at)}`;
    return run.complete ? "complete" : element("span", "bad", "not complete");
  };
  const took = (run) => (typeof run.elapsed_ms === "number" ? `${(run.elapsed_ms / 1000).toFixed(1)} s` : "–");
  const when = (run) => (isRunning(run) ? `since ${text(run.started)}` : text(run.at));
  const heads = [["Ended (UTC)", "title"], ["Window (UTC)", "window"], ["Read", "number"], ["Already there", "number"], ["Written", "number"],
    ["Took", "number"], ["Result", "wrap"]];
  table("runs", heads, receipts.map((run) => [when(run), window(run.window), known(run.read), known(run.already_in_target),
    known(run.written), took(run), result(run)]));
}

// ---- breakdowns

export function breakdowns(found, choose) {
  const cards = found.breakdowns.map((breakdown, index) => {
    const select = element("select", "");
    for (const field of found.fields) {
      const option = element("option", "", cut(field, 32));
      option.value = field;
      option.selected = field === breakdown.field;
      select.append(option);
    }
    select.setAttribute("aria-label", "Field of the breakdown");
    select.addEventListener("change", () => { select.blur(); choose(index, select.value); });
    const most = Math.max(...breakdown.values.map((v) => Math.max(v.source, v.target)), 1);
    const rows = breakdown.values.map((v) => {
      const lacks = v.target === null ? 0 : Math.max(v.source - v.target, 0);
      const count = element("span", "count", known(v.target));
      if (lacks) count.append(" ", element("b", "", `−${number(lacks)}`));
      const label = short(v.value, 36);
      label.className = "value";
      return element("div", "row", label, v.target === null ? element("span", "") : bars(v.source / most, v.target / most), count);
    });
    return element("section", "card", element("div", "bar", element("h2", "", "By "), select), ...rows);
  });
  $("breakdowns").replaceChildren(...cards);
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
