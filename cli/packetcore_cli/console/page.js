"use strict";

// Everything shown comes from strangers: text is set as text, and no markup is made of it.

const COLUMNS = [
  { sort: "id", head: "id", kind: "number", of: (row) => row.id },
  { sort: "identity", head: "identity", kind: "identity", of: (row) => row.identity || "–" },
  { sort: "peer", head: "peer", kind: "peer", of: (row) => row.peer },
  { sort: "packets_in", head: "packets in/s", kind: "number", down: true, of: (row) => rate(row.rates[0]) },
  { sort: "packets_out", head: "packets out/s", kind: "number", down: true, of: (row) => rate(row.rates[1]) },
  { sort: "bytes_in", head: "bytes in/s", kind: "number", down: true, of: (row) => size(row.rates[2]) },
  { sort: "bytes_out", head: "bytes out/s", kind: "number", down: true, of: (row) => size(row.rates[3]) },
  { sort: "outstanding", head: "outstanding", kind: "number", down: true, of: (row) => size(row.outstanding) },
  { sort: "age", head: "age", kind: "number", of: (row) => duration(row.age) },
];
const POINTS = 300;
const STYLES = new Set(["bold", "dim", "red", "green", "blue", "cyan", "magenta", "yellow"]);
const SVG = "http://www.w3.org/2000/svg";

const $ = (id) => document.getElementById(id);
const wanted = { search: "", sort: "id", descending: false, page: 0 };
let history = [];
let isFramed = false;
let chosen = null;
let source = null;

function rate(value) {
  return value >= 1000 ? short(value) : value >= 10 || value === 0 ? value.toFixed(0) : value.toFixed(1);
}

function short(value, unit = "") {
  for (const [power, name] of [[1e9, " G"], [1e6, " M"], [1e3, " k"]]) {
    if (value >= power) return Number((value / power).toPrecision(3)) + name + unit;
  }
  return value.toFixed(0);
}

function size(bytes) {
  return short(bytes, "B");
}

function duration(seconds) {
  if (seconds === null) return "older";
  if (seconds < 60) return seconds.toFixed(0) + " s";
  if (seconds < 3600) return Math.floor(seconds / 60) + " min " + Math.floor(seconds % 60) + " s";
  const hours = Math.floor(seconds / 3600);
  return hours < 48 ? hours + " h " + Math.floor((seconds % 3600) / 60) + " min" : Math.floor(hours / 24) + " days";
}

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function drawn(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// The greatest value of an axis: 1, 2 or 5 times a power of ten.
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 5, 10].map((step) => step * power).find((top) => top >= value);
}

// What comes in is drawn upwards, what goes out downwards.
function drawChart(place, columns, text) {
  const width = place.clientWidth || 300, height = 150, left = 52, bottom = 18;
  const top = ceiling(Math.max(1, ...history.flatMap((point) => columns.map((column) => point[column]))));
  const x = (index) => left + ((width - left) * (POINTS - history.length + index)) / (POINTS - 1);
  const middle = (height - bottom + 6) / 2;
  const y = (value) => middle - ((middle - 6) * value) / top;
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  for (const value of [top, 0, -top]) {
    svg.append(drawn("line", { class: "grid", x1: left, x2: width, y1: y(value), y2: y(value) }));
    svg.append(drawn("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, text(Math.abs(value))));
  }
  svg.append(drawn("text", { x: left, y: height - 3 }, "5 min ago"));
  svg.append(drawn("text", { x: width, y: height - 3, "text-anchor": "end" }, "now"));
  const ways = [["in", 1], ["out", -1]];
  columns.forEach((column, number) => {
    const [name, sign] = ways[number];
    const points = history.map((point, index) => `${x(index).toFixed(1)},${y(sign * point[column]).toFixed(1)}`);
    if (!points.length) return;
    const ends = [`${x(0).toFixed(1)},${y(0)}`, `${x(history.length - 1).toFixed(1)},${y(0)}`];
    svg.append(drawn("polygon", { class: name, points: [ends[0], ...points, ends[1]].join(" ") }));
    svg.append(drawn("polyline", { class: name, points: points.join(" ") }));
  });
  const last = history.at(-1) || [];
  const told = ways.map(([name], number) => `${name} ${text(last[columns[number]] || 0)} a second`);
  svg.setAttribute("aria-label", told.join(", "));
  place.replaceChildren(svg);
}

function drawClosed(closed, meanings) {
  const most = Math.max(1, ...Object.values(closed));
  const parts = Object.entries(closed).flatMap(([reason, number]) => {
    const word = element("span", reason, "word");
    word.title = meanings[reason] || "";
    const svg = drawn("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" });
    svg.append(drawn("rect", { width: Math.max(0.5, (100 * number) / most), height: 10 }));
    return [word, svg, element("span", number.toLocaleString("en"), "number")];
  });
  $("closed").replaceChildren(...(parts.length ? parts : [element("p", "None yet.", "none")]));
}

function showTotals(totals) {
  $("sessions").textContent = totals.sessions.toLocaleString("en");
  $("opened").textContent = `${totals.opened.toLocaleString("en")} until now`;
  $("packets-in").textContent = rate(totals.rates[0]);
  $("packets-out").textContent = rate(totals.rates[1]);
  $("bytes-in").textContent = `${size(totals.rates[2])}/s`;
  $("bytes-out").textContent = `${size(totals.rates[3])}/s`;
  $("outstanding").textContent = size(totals.outstanding);
  $("malformed-count").textContent = totals.malformed.toLocaleString("en");
  $("refused").textContent = totals.refused.toLocaleString("en");
  $("how-old").textContent = totals.age >= 1.5 ? `figures of a session are up to ${totals.age.toFixed(0)} s old` : "";
  status(totals.answering ? "live" : "lost", totals.answering ? "live" : "the server does not answer");
  drawClosed(totals.closed, totals.meanings);
}

function status(state, text) {
  if ($("status").textContent === text) return;
  $("status").dataset.state = state;
  $("status").textContent = text;
}

function showSessions(list) {
  const body = $("list").tBodies[0];
  const there = new Map([...body.rows].map((row) => [row.dataset.id, row]));
  const rows = list.rows.map((row) => {
    const shown = there.get(String(row.id)) || newRow(row.id);
    shown.className = row.id === chosen ? "chosen" : "";
    COLUMNS.forEach((column, number) => {
      const text = String(column.of(row));
      if (shown.cells[number].textContent !== text) shown.cells[number].textContent = text;
    });
    return shown;
  });
  // A row that stays where it is keeps its focus.
  rows.forEach((row, number) => {
    if (body.rows[number] !== row) body.insertBefore(row, body.rows[number] || null);
  });
  while (body.rows.length > rows.length) body.deleteRow(-1);
  if (!rows.length) {
    const empty = body.insertRow().insertCell();
    empty.colSpan = COLUMNS.length + 1;
    empty.className = "none";
    empty.textContent = wanted.search ? "No session matches." : "No session is open.";
  }
  const first = list.page * list.size;
  $("place").textContent = rows.length
    ? `${(first + 1).toLocaleString("en")} to ${(first + rows.length).toLocaleString("en")} of ` +
      list.matched.toLocaleString("en")
    : "";
  $("before").disabled = list.page === 0;
  $("after").disabled = first + list.size >= list.matched;
  if (!rows.length && list.page > 0) turn(-list.page);
}

function newRow(id) {
  const row = document.createElement("tr");
  row.dataset.id = id;
  for (const column of COLUMNS) {
    const cell = row.insertCell();
    cell.className = column.kind;
    cell.dataset.label = column.head;
  }
  const does = row.insertCell();
  does.className = "does";
  const send = element("button", "Send…"), close = element("button", "Close");
  send.type = close.type = "button";
  send.addEventListener("click", () => choose(id));
  close.addEventListener("click", () => closeSession(id, close));
  does.append(send, " ", close);
  return row;
}

function showMalformed(all) {
  const parts = all.map((each) => {
    const article = element("article");
    const head = element("h3", `${each.reason}, ${each.size} `);
    const whose = each.session ? `session ${each.session} ${each.identity} ` : "a stranger ";
    head.append(element("span", `${whose}from ${each.peer}, ${new Date(each.time * 1000).toLocaleTimeString("en-GB")}`));
    const dump = element("pre");
    dump.tabIndex = 0;
    for (const line of each.lines) {
      for (const [text, style] of line) {
        const kinds = style.split(" ").filter((word) => STYLES.has(word)).map((word) => `s-${word}`);
        dump.append(element("span", text, kinds.join(" ")));
      }
      dump.append("\n");
    }
    article.append(head, dump);
    return article;
  });
  $("malformed").replaceChildren(...(parts.length ? parts : [element("p", "Nothing.", "none")]));
}

function show(told) {
  if ("title" in told) {
    isFramed = told.framed;
    history = [];
    $("title").textContent = told.title;
    document.title = told.title ? `packetcore ${told.title}` : "packetcore";
    for (const label of document.querySelectorAll("#send-form .header")) label.hidden = isFramed;
  }
  history = history.concat(told.points).slice(-POINTS);
  showTotals(told.totals);
  if (told.points.length || "title" in told) drawCharts();
  showSessions(told.sessions);
  if (told.malformed) showMalformed(told.malformed);
}

function drawCharts() {
  drawChart($("packets-chart"), [1, 2], rate);
  drawChart($("bytes-chart"), [3, 4], size);
}

function listen() {
  if (source) source.close();
  const query = new URLSearchParams({
    search: wanted.search, sort: wanted.sort, descending: wanted.descending ? "1" : "0", page: wanted.page,
  });
  source = new EventSource(`events?${query}`);
  source.onmessage = (event) => show(JSON.parse(event.data));
  source.onerror = () => {
    status("lost", "the console does not answer");
    // A browser gives up for good where the answer was an error, as when too many pages are open.
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
  };
}

function turn(by) {
  wanted.page = Math.max(0, wanted.page + by);
  listen();
}

function sortBy(sort) {
  const column = COLUMNS.find((each) => each.sort === sort);
  wanted.descending = wanted.sort === sort ? !wanted.descending : Boolean(column.down);
  wanted.sort = sort;
  wanted.page = 0;
  showSort();
  listen();
}

function showSort() {
  COLUMNS.forEach((column, number) => {
    const head = $("list").tHead.rows[0].cells[number];
    if (column.sort === wanted.sort) head.setAttribute("aria-sort", wanted.descending ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
  $("sort").value = wanted.sort;
}

async function post(path, asked) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(asked),
  });
  if (!answer.ok) return { error: (await answer.text()).trim() || answer.statusText };
  return answer.json();
}

async function closeSession(id, button) {
  button.disabled = true;
  const told = await post("close", { session: id }).catch((error) => ({ error: error.message }));
  if (told.error) button.disabled = false;
}

function choose(id) {
  chosen = id;
  $("send-title").textContent = `Send to session ${id}`;
  $("reply").replaceChildren();
  $("send").showModal();
  $("send-form").elements[isFramed ? "payload" : "id"].focus();
  for (const row of $("list").tBodies[0].rows) row.className = row.dataset.id === String(id) ? "chosen" : "";
}

function number(text) {
  const value = text.trim() === "" ? NaN : Number(text);
  return Number.isNaN(value) ? text : value;
}

async function sendPacket(event) {
  event.preventDefault();
  const fields = $("send-form").elements;
  const asked = { session: chosen, payload: fields.payload.value, form: fields.form.value };
  if (!isFramed) Object.assign(asked, { id: number(fields.id.value), type: number(fields.type.value), count: number(fields.count.value) });
  if (fields.wait.value.trim() !== "") asked.wait = number(fields.wait.value);
  $("reply").replaceChildren(element("p", asked.wait ? "waiting…" : "sending…", "none"));
  const told = await post("send", asked).catch((error) => ({ error: error.message }));
  if (told.error) {
    $("reply").replaceChildren(element("p", told.error, "error"));
  } else if (!told.reply) {
    $("reply").replaceChildren(element("p", "Sent."));
  } else {
    const { head, hex, text } = told.reply;
    $("reply").replaceChildren(element("p", `Reply after ${told.took} ms: ${head}`), element("pre", text), element("pre", hex, "s-dim"));
  }
}

for (const column of COLUMNS) {
  const head = element("th", undefined, column.kind), button = element("button", column.head);
  button.type = "button";
  button.addEventListener("click", () => sortBy(column.sort));
  head.append(button);
  $("list").tHead.rows[0].append(head);
  const option = element("option", column.head);
  option.value = column.sort;
  $("sort").append(option);
}
$("list").tHead.rows[0].append(element("th"));
$("sort").addEventListener("change", () => sortBy($("sort").value));
let typing = 0;
$("search").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => {
    wanted.search = $("search").value;
    wanted.page = 0;
    listen();
  }, 250);
});
$("before").addEventListener("click", () => turn(-1));
$("after").addEventListener("click", () => turn(1));
$("send-form").addEventListener("submit", sendPacket);
$("send-hide").addEventListener("click", () => $("send").close());
$("send").addEventListener("close", () => {
  chosen = null;
  for (const row of $("list").tBodies[0].rows) row.className = "";
});
addEventListener("resize", drawCharts);
showSort();
listen();
