"use strict";
// Asks once a second how things are. Whatever others have written is shown as text, never as HTML.

const $ = (selector) => document.querySelector(selector);
const rows = new Map(); // by device: its row, and what was shown last

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function ago(since) {
  const seconds = Math.max(0, Math.round(Date.now() / 1000 - since));
  return seconds < 60 ? `${seconds} s` : seconds < 3600 ? `${Math.floor(seconds / 60)} min` : `${Math.floor(seconds / 3600)} h`;
}

function clock(at) {
  return element("time", new Date(at * 1000).toLocaleTimeString());
}

function showState(text, kind) {
  $("#state").textContent = text;
  $("#state").className = kind;
}

function showWorkers(workers, total) {
  $("#workers").replaceChildren(...workers.map((worker) => {
    const card = element("div", undefined, worker.alive ? "worker" : "worker gone");
    const bar = element("div", undefined, "bar");
    const fill = element("i");
    fill.style.width = `${total ? (100 * worker.devices) / total : 0}%`;
    bar.append(fill);
    card.append(
      element("strong", worker.alive ? `${worker.name}: ${worker.devices} devices` : `${worker.name}: gone`),
      bar,
      element("small", worker.alive ? `pid ${worker.pid} - try: kill -9 ${worker.pid}` : `was pid ${worker.pid}`),
    );
    return card;
  }));
}

function rowOf(device) {
  const row = element("tr");
  const name = element("button", device.id);
  name.type = "button";
  name.addEventListener("click", () => {
    $("#command").elements.device.value = device.id;
    $("#command").scrollIntoView({ block: "nearest", behavior: "smooth" });
  });
  const first = element("td");
  first.append(name);
  row.append(first, element("td"), element("td"));
  return { row, at: undefined, since: undefined };
}

function showDevices(devices) {
  const there = new Set(devices.map((device) => device.id));
  for (const [id, shown] of rows) {
    if (!there.has(id)) {
      shown.row.remove();
      rows.delete(id);
    }
  }
  const isNew = devices.some((device) => !rows.has(device.id));
  for (const device of devices) {
    const shown = rows.get(device.id) ?? rowOf(device);
    rows.set(device.id, shown);
    if (shown.at !== undefined && shown.since !== device.since) {
      shown.row.className = "";
      void shown.row.offsetWidth; // so that the animation begins anew
      shown.row.className = "moved";
    }
    shown.at = device.at;
    shown.since = device.since;
    shown.row.cells[1].textContent = device.at;
    shown.row.cells[2].textContent = ago(device.since);
  }
  if (isNew) {
    const names = [...rows.keys()].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    $("#table").replaceChildren(...names.map((name) => rows.get(name).row));
    $("#devices").replaceChildren(...names.map((name) => element("option", name)));
  }
  $("#count").textContent = devices.length;
  filter();
}

function filter() {
  const wanted = $("#filter").value.trim().toLowerCase();
  for (const [id, shown] of rows) shown.row.hidden = !`${id} ${shown.at}`.toLowerCase().includes(wanted);
}

function showNews(news) {
  $("#news").replaceChildren(...news.map(({ at, text }) => {
    const line = element("li");
    line.append(clock(at), ` ${text}`);
    return line;
  }));
}

async function look() {
  try {
    const told = await (await fetch("fleet.json")).json();
    if (told.broker) showState("the broker is here", "good");
    else showState("the broker is away: what is shown is what was known", "bad");
    showWorkers(told.workers, told.devices.length);
    showDevices(told.devices);
    showNews(told.news);
  } catch {
    showState("the web service does not answer", "bad");
  }
  setTimeout(look, 1000);
}

async function post(path, said, show) {
  const line = element("li");
  line.append(clock(Date.now() / 1000), ` ${Object.values(said).join(": ")} … `);
  document.querySelectorAll("#replies .hint").forEach((hint) => hint.remove());
  $("#replies").prepend(line);
  try {
    const headers = { "Content-Type": "application/json" };
    const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(said) });
    const told = await answer.json();
    line.append(answer.ok ? element("span", show(told), "good") : element("span", told.error, "bad"));
  } catch {
    line.append(element("span", "the web service does not answer", "bad"));
  }
}

function onSubmit(selector, path, show) {
  $(selector).addEventListener("submit", (event) => {
    event.preventDefault();
    post(path, Object.fromEntries(new FormData(event.target)), show);
  });
}

onSubmit("#command", "command", (told) => `${told.reply} (${(told.seconds * 1000).toFixed(1)} ms)`);
onSubmit("#broadcast", "broadcast", () => "sent; \"status\" tells who has heard it");
$("#filter").addEventListener("input", filter);
look();
