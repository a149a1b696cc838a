// Everything that comes from the agent is set as text, never as markup: tenants choose the names of
// their commands and cgroups.
"use strict";

const POLL_MS = 2000;
/* Of a line: at most, and as many as its width has room for at least. */
const POINTS = 60;
const FEWEST_POINTS = 12;
const MAX_EVENTS = 100;
const MAX_ROWS = 100;
const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/* Numbers */

const rateFormat =
  new Intl.NumberFormat("en", { maximumSignificantDigits: 3, notation: "compact" });
const countFormat = new Intl.NumberFormat("en");

function rateText(rate) {
  return rate === null ? "–" : rateFormat.format(rate);
}

function timeText(ns) {
  if (!Number.isFinite(ns)) return "–";
  for (const [unit, size] of [["s", 1e9], ["ms", 1e6], ["µs", 1e3]]) {
    if (ns >= size) return `${(ns / size).toPrecision(3)} ${unit}`;
  }
  return `${ns} ns`;
}

function bytesText(rate) {
  if (rate === null) return "–";
  let unit = 0;
  const units = ["B", "kB", "MB", "GB"];
  while (rate >= 1000 && unit + 1 < units.length) { rate /= 1000; unit += 1; }
  return `${rateFormat.format(rate)} ${units[unit]}`;
}

const FAILURES = ["refused", "timed_out", "unreachable", "aborted", "unsent", "denied"];
const failures = (counters) => FAILURES.reduce((sum, name) => sum + (counters[name] ?? 0), 0);
const answers = (counts) => counts.packet + counts.shim;

/* The rate of a counter, with its last values as a line. */
class Rate {
  constructor(name, kind = "") {
    this.points = [];
    this.last = null;
    this.name = name;
    this.svg = document.createElementNS(SVG, "svg");
    this.svg.setAttribute("preserveAspectRatio", "none");
    this.svg.setAttribute("role", "img");
    if (kind) this.svg.setAttribute("class", kind);
    this.area = this.svg.appendChild(document.createElementNS(SVG, "polygon"));
    this.line = this.svg.appendChild(document.createElementNS(SVG, "polyline"));
  }

  /* `null` after the first value, and after the agent has restarted. */
  add(value, at) {
    const { last } = this;
    if (last && at === last.at) return this.rate;
    this.last = { value, at };
    this.rate = last && value >= last.value ? (value - last.value) * 1000 / (at - last.at) : null;
    this.points.push(this.rate ?? 0);
    if (this.points.length > POINTS) this.points.shift();
    this.draw();
    return this.rate;
  }

  draw() {
    const most = Math.max(...this.points);
    const width = Math.max(this.points.length, FEWEST_POINTS);
    const from = width - this.points.length;
    this.svg.setAttribute("viewBox", `0 0 ${width - 1} 20`);
    const height = (point) => (most > 0 ? 19 - 18 * point / most : 19).toFixed(1);
    const line = this.points.map((point, index) => `${from + index},${height(point)}`).join(" ");
    this.line.setAttribute("points", line);
    this.area.setAttribute("points", `${from},20 ${line} ${width - 1},20`);
    const now = rateText(this.points.at(-1));
    this.svg.setAttribute("aria-label", `${this.name}: ${now} a second, at most ${rateText(most)}`);
  }
}

/* Tables: one row for each key, changed in place. */
class Table {
  constructor(id, makeRow) {
    this.body = document.querySelector(`#${id} tbody`);
    this.labels = [...document.querySelectorAll(`#${id} thead th`)].map((th) => th.textContent);
    this.more = byId(`${id}-more`);
    this.makeRow = makeRow;
    this.rows = new Map();
  }

  /* `items`: pairs of a key and a value; `total`: how many there are. */
  show(items, total) {
    const shown = items.slice(0, MAX_ROWS);
    const keys = new Set(shown.map(([key]) => key));
    for (const [key, row] of this.rows) {
      if (!keys.has(key)) { row.node.remove(); this.rows.delete(key); }
    }
    shown.forEach(([key, value], index) => {
      let row = this.rows.get(key);
      if (!row) { row = this.makeRow(this.labels); this.rows.set(key, row); }
      row.update(value);
      if (this.body.children[index] !== row.node) {
        this.body.insertBefore(row.node, this.body.children[index] ?? null);
      }
    });
    this.more.hidden = total <= shown.length;
    setText(this.more, `${countFormat.format(total - shown.length)} more are not shown.`);
  }
}

function cells(labels, numbers) {
  const made = labels.map((label, index) => {
    const head = index === 0;
    const attributes = head ? { role: "rowheader", scope: "row" }
      : { role: "cell", "data-label": label };
    if (numbers.includes(index)) attributes.class = "number";
    return element(head ? "th" : "td", attributes, element("span"));
  });
  const node = element("tr", { role: "row" }, ...made);
  return { node, spans: made.map((cell) => cell.firstChild) };
}

function setState(span, [text, kind, title = ""]) {
  setText(span, text);
  span.className = `dot ${kind}`;
  span.title = title;
}

function routeState(route) {
  if (!route.live) return ["waiting", "warn", "not answered yet"];
  if (route.eligible + route.ejected === 0) return ["no backend", "bad"];
  const backends = `${route.eligible}/${route.eligible + route.ejected}`;
  if (route.eligible === 0) return [`live, ${backends} healthy`, "bad"];
  if (route.ejected > 0) return [`live, ${backends} healthy`, "warn"];
  if (!route.fresh) return ["live, addresses are old", "warn", "the resolver fails"];
  return [`live, ${backends} healthy`, "good"];
}

function routeRow(labels) {
  const { node, spans } = cells(labels, [2, 3, 4, 5]);
  const rates = [new Rate("connects"), new Rate("failed", "fails"), new Rate("answers")];
  spans[2].before(rates[0].svg);
  return {
    node,
    update({ route, at }) {
      setText(spans[0], route.source);
      setState(spans[1], routeState(route));
      const { counters } = route;
      [counters.started, failures(counters), answers(route.answers)].forEach((count, index) => {
        setText(spans[2 + index], rateText(rates[index].add(count, at)));
      });
      setText(spans[5], timeText(counters.connect_ns / counters.established));
    },
  };
}

function backendState({ backend }) {
  if (backend.state === "eligible") {
    const some = backend.ejections?.length ?? 0;
    return some ? [`healthy, avoided by ${plural(some, "client")}`, "warn"] : ["healthy", "good"];
  }
  const cause = backend.cause === "reset" ? "resets" : "connects fail";
  const left = Math.ceil((backend.retry_in_ms ?? 0) / 1000);
  return [`ejected for ${left} s: ${cause}`, "bad"];
}

function backendRow(labels) {
  const { node, spans } = cells(labels, [3, 4, 5]);
  const rates = [new Rate("connects"), new Rate("failed", "fails")];
  spans[3].before(rates[0].svg);
  return {
    node,
    update(item) {
      const counters = item.backend.counters ?? {};
      setText(spans[0], item.backend.address);
      setText(spans[1], item.source);
      setState(spans[2], backendState(item));
      [counters.started ?? 0, failures(counters)].forEach((count, index) => {
        setText(spans[3 + index], rateText(rates[index].add(count, item.at)));
      });
      setText(spans[5], timeText(counters.connect_ns / counters.established));
    },
  };
}

/* Rates of all routes */

const TOTALS = [
  ["Connects/s", (total) => total.counters.started, rateText],
  ["Failed/s", (total) => failures(total.counters), rateText, "fails"],
  ["Names answered/s", (total) => answers(total.answers), rateText],
  ["Bytes/s of closed connections",
    (total) => total.counters.rx_bytes + total.counters.tx_bytes, bytesText],
].map(([name, count, text, kind]) => {
  const value = element("span", { class: "value" }, "–");
  const rate = new Rate(name, kind);
  const title = element("div", { class: "name" }, name);
  byId("rates").append(element("li", {}, title, value, rate.svg));
  return { update: (total, at) => setText(value, text(rate.add(count(total), at))) };
});

/* Status */

const routes = new Table("routes", routeRow);
const backends = new Table("backends", backendRow);
let status = null;

const STATES = {
  ok: ["ok", "good"],
  degraded: ["degraded", "warn"],
  not_ready: ["not ready", "warn"],
  silent: ["the agent does not answer", "bad"],
};

function showState([text, kind]) {
  setText(byId("state"), text);
  byId("state").className = `state ${kind}`;
}

function plural(count, noun) {
  return `${countFormat.format(count)} ${noun}${count === 1 ? "" : "s"}`;
}

function showSummary() {
  setText(byId("host"), status.host);
  document.title = `${STATES[status.state][0]}: redirector ${status.host}`;
  showState(STATES[status.state]);
  const parts = [plural(status.route_count, "route"), plural(status.cgroups, "cgroup"),
    `${plural(status.names, "name")} answered`, `version ${status.agent_version}`];
  const { sampling_ratio: ratio, lost } = status.events;
  if (ratio > 1) parts.push(`one of ${ratio} successes is an event`);
  if (lost > 0) parts.push(`${plural(lost, "event")} lost`);
  setText(byId("summary"), parts.join(" · "));
}

function showProblems() {
  const items = status.problems.map(({ source, message, remedy, degrades }) => {
    const text = source && !message.includes(source) ? `${source}: ${message}` : message;
    const item = element("li", { class: degrades ? "worst" : "" }, text);
    if (remedy) item.append(element("p", { class: "remedy" }, remedy));
    return item;
  });
  for (const reason of status.reasons) {
    items.push(element("li", { class: "worst" }, `not ready: ${reason}`));
  }
  const hidden = status.problem_count - status.problems.length;
  if (hidden > 0) items.push(element("li", {}, `${plural(hidden, "problem")} more`));
  byId("problem-list").replaceChildren(...items);
  byId("problems").hidden = items.length === 0;
}

function showTables() {
  if (!status) return;
  const wanted = byId("find").value.trim().toLowerCase();
  const at = Date.parse(status.at);
  const found = status.routes.filter((route) => route.source.includes(wanted)
    || route.backends.some((backend) => backend.address.includes(wanted)));
  const total = wanted ? found.length : status.route_count;
  routes.show(found.map((route) => [route.source, { route, at }]), total);
  const items = found.flatMap(({ source, backends: all }) =>
    all.map((backend) => ({ source, backend, at })));
  const order = ({ backend }) => (backend.state === "ejected" ? 0 : 1);
  items.sort((a, b) => order(a) - order(b));
  const all = found.reduce((sum, route) => sum + route.eligible + route.ejected, 0);
  backends.show(items.map((item) => [`${item.source} ${item.backend.address}`, item]), all);
}

async function poll() {
  try {
    const answer = await fetch("status.json", { signal: AbortSignal.timeout(10000) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    status = await answer.json();
    document.body.classList.remove("lost-contact");
    showSummary();
    showProblems();
    TOTALS.forEach((total) => total.update(status.total, Date.parse(status.at)));
    showTables();
  } catch {
    document.body.classList.add("lost-contact");
    showState(["no connection to the agent", "bad"]);
  }
  setTimeout(poll, document.hidden ? 5 * POLL_MS : POLL_MS);
}

/* Events */

const EVENT_LABELS = ["Time", "Result", "Route", "Backend", "Took", "Client"];
let events = [];
let isDrawn = true;

function eventTime(at) {
  return new Date(at).toLocaleTimeString("en-GB", { hour12: false });
}

function clientParts(event) {
  if (event.interface) return [`guest at ${event.interface}`, ""];
  const place = event.pod ? `${event.pod.namespace}/${event.pod.name}` : event.cgroup ?? "";
  const command = event.command ?? "";
  const pid = event.pid ? ` (${event.pid})` : "";
  return [command + pid, place];
}

function resultKind(result) {
  if (result === "established" || result === "closed") return "good";
  return result === "passed" ? "warn" : "bad";
}

function eventRow(event) {
  if ("lost" in event) {
    const text = `${plural(event.lost, "event")} lost here`;
    return element("tr", { role: "row" }, element("td", { role: "cell", colspan: "6" }, text));
  }
  const [client, place] = clientParts(event);
  const words = event.result.replaceAll("_", " ");
  const result = element("span", { class: `dot ${resultKind(event.result)}` }, words);
  if (event.reason) result.append(`: ${event.reason.replaceAll("_", " ")}`);
  const who = element("span", {}, client);
  if (place) who.append(element("br"), element("span", { class: "small" }, place));
  const target = `${event.source ?? event.vip}:${event.vip_port}`;
  const took = timeText(event.elapsed_ns);
  const values = [eventTime(event.at), result, target, event.backend ?? "–", took, who];
  const eventCells = values.map((value, index) => {
    const attributes = { role: "cell", "data-label": EVENT_LABELS[index] };
    if (value === took) attributes.class = "number";
    return element("td", attributes, value === result || value === who ? value
      : element("span", {}, value));
  });
  return element("tr", { role: "row" }, ...eventCells);
}

function drawEvents() {
  isDrawn = true;
  if (byId("pause").checked) return;
  const wanted = byId("failed").checked
    ? events.filter((event) => "lost" in event || resultKind(event.result) !== "good") : events;
  const none = byId("events-none");
  none.hidden = wanted.length > 0;
  setText(none, events.length ? "No failure among the last events." : "No connect yet.");
  const rows = wanted.slice(0, MAX_EVENTS).map(eventRow);
  document.querySelector("#events tbody").replaceChildren(...rows);
}

function drawEventsSoon() {
  if (isDrawn) { isDrawn = false; setTimeout(drawEvents, 250); }
}

function follow() {
  const stream = new EventSource("events");
  stream.onopen = () => { events = []; setText(byId("stream"), "live"); drawEventsSoon(); };
  stream.onmessage = (message) => {
    const event = JSON.parse(message.data);
    events.unshift(event);
    // More than are shown: some are failures only.
    if (events.length > 4 * MAX_EVENTS) events.length = 4 * MAX_EVENTS;
    drawEventsSoon();
  };
  stream.onerror = () => {
    setText(byId("stream"), "not live, trying again");
    if (stream.readyState === EventSource.CLOSED) setTimeout(follow, 10000);
  };
}

byId("find").addEventListener("input", showTables);
byId("failed").addEventListener("change", drawEvents);
byId("pause").addEventListener("change", drawEvents);
poll();
follow();
