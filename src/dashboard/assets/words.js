// What the page says. It says what the store proves, and no more.

export const $ = (id) => document.getElementById(id);
export const number = (n) => n.toLocaleString("en-US");
export const known = (n) => (typeof n === "number" ? number(n) : "–");
export const plural = (n, what) => `${number(n)} ${what}${n === 1 ? "" : "s"}`;
export const KINDS = ["source", "target"];

/** Makes an element with a class, which holds texts and other elements. */
export function element(tag, className, ...inside) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...inside);
  return made;
}

/** A long name without its middle: often only the beginning and the end tell two names apart. */
export function cut(name, most = 48) {
  if (name.length <= most) return name;
  const end = Math.floor((most - 1) / 2);
  return `${name.slice(0, most - 1 - end)}…${name.slice(-end)}`;
}

/** A cut name, of which the pointer shows the whole. */
export function short(name, most) {
  const made = element("span", "", cut(name, most));
  made.title = name;
  return made;
}

// ---- times, in UTC

export const at = (ms) => new Date(ms).toISOString();
export function clock(ms, bucket) {
  const time = at(ms).split("T")[1];
  return bucket % 60000 === 0 ? time.slice(0, 5) : time.slice(0, 8);
}
export const day = (ms) =>
  new Date(ms).toLocaleDateString("en-GB", { day: "numeric", month: "long", year: "numeric", timeZone: "UTC" });
export function moments(start, end, bucket) {
  const apart = at(start).slice(0, 10) !== at(end - 1).slice(0, 10);
  return apart
    ? `from ${day(start)}, ${clock(start, bucket)} to ${day(end)}, ${clock(end, bucket)} UTC`
    : `between ${clock(start, bucket)} and ${clock(end, bucket)} UTC on ${day(start)}`;
}

/** The clock time of an instant, with its day unless that is today. */
function moment(ms) {
  const today = at(ms).slice(0, 10) === at(Date.now()).slice(0, 10);
  return `${at(ms).slice(11, 19)} UTC${today ? "" : ` on ${day(ms)}`}`;
}

const UNITS = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];

/** A length of time in its largest whole unit. */
export function length(ms) {
  const seconds = Math.max(Math.floor(ms / 1000), 0);
  const [unit, name] = UNITS.find(([unit]) => seconds >= unit) || UNITS[3];
  return plural(Math.floor(seconds / unit), name);
}

/** The unit of time of a bucket, as in "records per minute". */
export function width(bucket) {
  const [unit, name] = UNITS.find(([unit]) => bucket % (unit * 1000) === 0) || [0.001, "millisecond"];
  const count = bucket / (unit * 1000);
  return count === 1 ? name : `${number(count)} ${name}s`;
}

/** A run that is at work gives a sign every five seconds. The clocks of its machine and of this page's may differ a little. */
const SILENCE_MS = 30000;
export const isSilent = (run, now) => now - Date.parse(run.at) > SILENCE_MS;

// ---- sentences

/** The commands that copy these topics into the store, from the brokers that the store or the name tells. */
function sinks(overview, names, more = "") {
  const of = new Map();
  for (const name of names) {
    const [topic, place] = name.split("@");
    const kind = KINDS.find((kind) => overview.pair[kind] === name);
    const told = (overview[kind] && overview[kind].bootstrap_server) || (place && place.includes(":") ? place : null);
    const brokers = told ? `-b ${told} ` : "";
    of.set(brokers, [...(of.get(brokers) || []), `--topic ${topic} `]);
  }
  const commands = [...of].map(([brokers, topics]) =>
    element("code", "", `replicator sink ${brokers}${topics.join("")}--store ${overview.store}${more}`));
  return commands.flatMap((command, n) => (n ? [" and ", command] : [command]));
}

/** The names of the topics of which this could be any. */
export const several = (overview, name) => overview.topics.filter((topic) => topic.startsWith(`${name}@`));

/** Sentences that say why the store does not prove what a topic holds now. */
function doubts(overview, kind) {
  const { ends } = overview[kind];
  const name = cut(overview.pair[kind]);
  if (!ends) return [`This store does not know how far it is behind ${name}`];
  const found = [];
  if (ends.behind_offsets) {
    found.push(`As of ${moment(ends.as_of_ms)} the store is ${plural(ends.behind_offsets, "offset")} behind ${name}`);
  }
  // A deleted copy in the target counts for nothing. Records that the source deleted may well be in the target.
  if (ends.trimmed && kind === "target") found.push(`${name} has deleted records that this store still holds`);
  return found;
}

/** After this long without news, the sink has probably ended. It reports about once a second. */
const STALE_MS = 60000;

/** How old the answer is, and how far the sink was behind each topic then. */
export function freshness(overview) {
  const held = KINDS.filter((kind) => overview[kind]);
  const items = held.map((kind) => {
    const { ends } = overview[kind];
    const name = short(overview.pair[kind], 32);
    if (!ends) return element("span", "stale", name, ": how far the sink is behind is not known");
    const age = overview.now_ms - ends.as_of_ms;
    const behind = ends.behind_offsets ? `sink behind by ${plural(ends.behind_offsets, "offset")}` : "sink at its end";
    const when = element("time", "", `${moment(ends.as_of_ms)}, ${length(age)} ago`);
    when.dateTime = at(ends.as_of_ms);
    return element("span", age > STALE_MS || ends.behind_offsets ? "stale" : "", name, ": ", behind, " as of ", when);
  });
  const isOld = (kind) => !overview[kind].ends || overview.now_ms - overview[kind].ends.as_of_ms > STALE_MS;
  const old = held.filter(isOld).map((kind) => overview.pair[kind]);
  if (old.length > 0) {
    items.push(element("span", "", "This keeps the page up to date: ", ...sinks(overview, [...new Set(old)], " --follow")));
  }
  return items;
}

/** Whether the source may hold records that the store has not read yet. Then nobody knows what only the target holds. */
export const isOpen = ({ source }) => !source.ends || source.ends.behind_offsets > 0;

/** Says how many records the target has beyond those of the source. */
function more(overview) {
  const { extra, doubled, pair } = overview;
  const [from, to] = KINDS.map((kind) => cut(pair[kind]));
  if (!extra && !doubled) return "";
  if (doubled === null) return `. ${to} has ${number(extra)} more in other places`;
  const only = isOpen(overview) ? `${number(extra)} that this store has not seen in ${from}` : `${number(extra)} that only ${to} has`;
  const parts = [extra ? only : "", doubled ? `${number(doubled)} doubled` : ""];
  return `. ${to} has more: ${parts.filter(Boolean).join(" and ")}`;
}

/** A sign, a headline, its details, and the window's title. */
export function verdict(overview, isZoomed) {
  const { source, target, missing, gaps, bucket_ms: bucket, compared, in_source: count, pair } = overview;
  const [from, to] = KINDS.map((kind) => cut(pair[kind]));
  const absent = [...new Set(KINDS.filter((kind) => !overview[kind]).map((kind) => pair[kind]))];
  const unclear = absent.filter((name) => several(overview, name).length > 0);
  if (unclear.length > 0) {
    return {
      sign: "unknown", headline: `This store holds several topics ${unclear.map((name) => cut(name)).join(" and ")}`,
      detail: [`So this page cannot say what is missing. Choose above: ${unclear.flatMap((name) => several(overview, name)).join(", ")}`],
      title: "not chosen",
    };
  }
  if (absent.length > 0) {
    return {
      sign: "unknown",
      headline: `${absent.map((name) => cut(name)).join(" and ")} ${absent.length > 1 ? "are" : "is"} not in this store`,
      detail: ["So this page cannot say what is missing. Copy it there with ", ...sinks(overview, absent)], title: "not in the store",
    };
  }
  if (missing === null) {
    return {
      sign: "unknown", headline: `${from} is compared with itself`,
      detail: ["So this page cannot say what is missing. Choose two topics above. The store tells topics of one name in two " +
        "clusters apart, once a sink has copied both"],
      title: "one topic",
    };
  }
  const partial = isZoomed || count !== source.records;
  const here = partial ? "In the part shown, " : "";
  const when = KINDS.map((kind) => overview[kind].ends).filter(Boolean).map((ends) => ends.as_of_ms);
  const asOf = when.length === 2 ? `as of ${moment(Math.min(...when))}, ` : "";
  const doubtful = KINDS.flatMap((kind) => doubts(overview, kind));
  const untold = KINDS.some((kind) => !overview[kind].ends);
  const all = `${plural(count, "record")} of ${from}${bucket ? `, ${moments(overview.start_ms, overview.end_ms, bucket)}` : ""}`;
  if (missing > 0) {
    const widest = gaps.reduce((a, b) => (b.missing > a.missing ? b : a));
    const where = gaps.length === 1 ? moments(widest.start_ms, widest.end_ms, bucket)
      : `in ${gaps.length} gaps; the largest, of ${number(widest.missing)}, is ${moments(widest.start_ms, widest.end_ms, bucket)}`;
    // If the store is behind the target, the target may hold these records. If it is behind the source, more may be missing.
    const open = !target.ends || target.ends.behind_offsets > 0;
    const least = compared === "counts" || doubtful.length > 0 ? "at least " : "";
    const lacks = open ? `${here ? "this" : "This"} store has no copy in ${to} of ${plural(missing, "record")}`
      : `${to} lacks ${least}${plural(missing, "record")}`;
    return {
      sign: open ? "unknown" : "bad", headline: here + lacks,
      detail: [`${asOf}of ${number(count)} in ${from}, ${where}`, more(overview), ...doubtful.map((doubt) => `. ${doubt}`)],
      title: open ? "not known" : `${number(missing)} missing`,
    };
  }
  if (doubtful.length > 0) {
    const rest = doubtful.slice(1).map((doubt) => `${doubt}. `);
    const held = count === 0 ? `${here || "So far, "}the store has no record of ${from}`
      : `${to} lacks none of the records that the store holds${partial ? " in the part shown" : ""}: ${all}`;
    const again = untold ? [". To find out, run this again: ", ...sinks(overview, [pair.source, pair.target])] : [];
    return { sign: "unknown", headline: doubtful[0], detail: [...rest, held, more(overview), ...again], title: "not known" };
  }
  if (count === 0) {
    const elsewhere = source.first_ms === null ? "" : `it has records ${moments(source.first_ms, source.last_ms + 1, 1)}`;
    return { sign: "unknown", headline: `${here}${from} has no record`, detail: [asOf + elsewhere], title: "no record" };
  }
  if (compared === "counts") {
    return {
      sign: "even", headline: `${here}${to} holds at least as many records as ${from} in each ${width(bucket)}`,
      detail: [`${asOf}${all}. This store counts records, and does not compare them: `, element("code", "", "replicator verify"),
        " does", more(overview)],
      title: "as many",
    };
  }
  return {
    sign: "good", headline: `${here}${to} holds every record of ${from}`,
    detail: [`${asOf}${all}; compared by key, timestamp and value`, more(overview)], title: partial ? "whole here" : "whole",
  };
}
