// What a page does beside being read: times in the reader's zone, keys, copying, events as they come.
// Text from records is only ever set as text.

const two = (number) => String(number).padStart(2, "0");
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "local time";

function day(at) {
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
}

function clock(at) {
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

function utc(at) {
  return `${at.toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

// What nobody can see is written out: controls, and marks that turn the direction of writing.
function visible(text) {
  return String(text).replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, (mark) => {
    const code = mark.charCodeAt(0);
    return code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
  });
}

// -- times --------------------------------------------------------------------------------------------------

function relative(distance) {
  const seconds = Math.floor(Math.abs(distance) / 1000);
  if (seconds < 1) return "now";
  const [number, unit] =
    seconds < 90 ? [seconds, "s"]
    : seconds < 90 * 60 ? [Math.floor(seconds / 60), "min"]
    : seconds < 48 * 3600 ? [Math.floor(seconds / 3600), "h"]
    : [Math.floor(seconds / 86400), "d"];
  return distance > 0 ? `in ${number} ${unit}` : `${number} ${unit} ago`;
}

function localize(root) {
  const today = day(new Date());
  for (const time of root.querySelectorAll("time[data-at]")) {
    const at = new Date(Number(time.dataset.at));
    if (Number.isNaN(at.getTime())) continue;
    // What is today needs no date: the eye finds the hour.
    const text = day(at) === today ? clock(at) : `${day(at)} ${clock(at)}`;
    if (time.textContent !== text) time.textContent = text;
    time.title = utc(at);
  }
  for (const time of root.querySelectorAll("time[data-time]")) {
    const at = new Date(Number(time.dataset.time));
    time.textContent = clock(at);
    time.title = utc(at);
  }
  for (const label of root.querySelectorAll("[data-zone-name]")) label.textContent = `Here: ${zone}`;
  for (const label of root.querySelectorAll("[data-zone]")) label.textContent = `Times are in ${zone}; UTC on hover.`;
  let last = "";
  for (const heading of root.querySelectorAll("[data-day]")) {
    // Days of the reader begin at other hours than days of UTC.
    const its = day(new Date(Number(heading.dataset.day)));
    heading.hidden = its === last;
    last = its;
    heading.textContent = new Date(Number(heading.dataset.day)).toLocaleDateString(undefined, {
      weekday: "long", day: "numeric", month: "long", year: "numeric",
    });
  }
  for (const heading of root.querySelectorAll("[data-clock]")) {
    const at = new Date(Number(heading.dataset.clock));
    heading.textContent = `${two(at.getHours())}:${two(at.getMinutes())}`;
  }
}

function tick() {
  const now = Date.now();
  for (const time of document.querySelectorAll("time[data-relative]")) {
    const text = relative(Number(time.dataset.relative) - now);
    if (time.textContent !== text) time.textContent = text;
  }
}

// -- the switch for dark and light --------------------------------------------------------------------------

function dark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function nameTheme() {
  for (const button of document.querySelectorAll('[data-action="theme"]')) button.textContent = dark() ? "Light" : "Dark";
}

function switchTheme() {
  const chosen = dark() ? "light" : "dark";
  document.documentElement.dataset.theme = chosen;
  try {
    localStorage.setItem("theme", chosen);
  } catch {
    // It holds for this page.
  }
  nameTheme();
}

// -- copying ------------------------------------------------------------------------------------------------

async function copy(button) {
  const code = button.parentElement.querySelector("code");
  let told = "Copied";
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {
    // Without a secure origin there is no clipboard: it is selected, for the reader to copy.
    getSelection().selectAllChildren(code);
    told = "Selected";
  }
  button.textContent = told;
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

// -- events as they come ------------------------------------------------------------------------------------

const MOST_ROWS = 300;
const stream = { source: null, held: false, waiting: [] };

function cell(row, kind, ...parts) {
  const td = row.insertCell();
  if (kind) td.className = kind;
  td.append(...parts.filter((part) => part !== null));
  return td;
}

function span(kind, text) {
  const made = document.createElement("span");
  made.className = kind;
  made.textContent = visible(text);
  return made;
}

function lengthOf(ms) {
  if (ms < 1000) return `${ms} ms`;
  if (ms < 10000) return `${(ms / 1000).toFixed(1)} s`;
  return relative(-ms).replace(" ago", "");
}

function link(event) {
  const made = document.createElement("a");
  if (event.id !== undefined) {
    made.className = "name";
    made.href = `/schedules/${encodeURIComponent(event.id)}?${new URLSearchParams({ request_topic: event.request_topic })}`;
    made.textContent = visible(event.id) || "(empty id)";
  } else {
    made.className = "name code";
    made.href = `/where?${new URLSearchParams({ q: event.schedule_id })}`;
    made.textContent = visible(event.schedule_id);
  }
  return made;
}

function actorOf(event) {
  if (event.actor === undefined) return [""];
  const name = document.createElement("strong");
  name.textContent = visible(event.actor);
  if (!event.actor_verified) return [name];
  const mark = span("state state-verified", "verified");
  mark.title = "A console wrote this for that caller: its audit log has the source.";
  return [name, " ", mark];
}

function rowOf(event) {
  const row = document.createElement("tr");
  row.className = "fresh";
  const time = document.createElement("time");
  time.dataset.at = event.at_ms;
  time.dateTime = new Date(event.at_ms).toISOString();
  cell(row, "moment", time);
  cell(row, "", span(`state event-${event.type}`, event.type));
  cell(row, "", event.schedule_id === undefined ? null : link(event), event.key === undefined ? null : span("sub", `key ${event.key}`));
  cell(row, "wide", visible(event.destination ?? event.definition?.destination ?? ""));
  cell(row, event.lateness_ms > 1000 ? "number bad" : "number", event.lateness_ms === undefined ? "" : lengthOf(event.lateness_ms));
  cell(row, "wide", ...actorOf(event), event.note ? span("sub", `“${event.note}”`) : null, event.detail ? span("sub", event.detail) : null);
  localize(row);
  return row;
}

function show(body, events) {
  for (const event of events) body.prepend(rowOf(event));
  while (body.rows.length > MOST_ROWS) body.deleteRow(-1);
  document.querySelector("[data-none]")?.remove();
}

function follow() {
  const body = document.querySelector("[data-stream]");
  if (!body) return;
  const state = document.querySelector("[data-live-state]");
  const say = (text, kind) => {
    if (state.textContent !== text) state.textContent = text;
    state.className = `live-state ${kind}`;
  };
  say("Connecting…", "");
  stream.source = new EventSource(body.dataset.stream);
  stream.source.onopen = () => say("Live", "on");
  stream.source.onerror = () => say(stream.source.readyState === EventSource.CLOSED ? "Ended; reload to go on." : "Interrupted; it goes on by itself.", "off");
  const took = (message) => {
    let event;
    try {
      event = JSON.parse(message.data);
    } catch {
      return;
    }
    if (stream.held) {
      stream.waiting.push(event);
      if (stream.waiting.length > MOST_ROWS) stream.waiting.shift();
      say(`Paused, ${stream.waiting.length} came meanwhile`, "off");
    } else {
      show(body, [event]);
    }
  };
  const types = body.closest("main").querySelectorAll('select[name="type"] option[value=""] ~ option');
  for (const option of types) stream.source.addEventListener(option.value, took);
  const button = document.querySelector('[data-action="hold"]');
  button.hidden = false;
  button.addEventListener("click", () => {
    stream.held = !stream.held;
    button.textContent = stream.held ? "Go on" : "Pause";
    if (!stream.held) show(body, stream.waiting.splice(0));
    say(stream.held ? "Paused" : "Live", stream.held ? "off" : "on");
  });
  addEventListener("pagehide", () => stream.source.close());
}

// -- keys ---------------------------------------------------------------------------------------------------

const PLACES = { o: "/", s: "/schedules", p: "/pending", a: "/agenda", e: "/live", d: "/dead-letters", n: "/operations" };
let going = 0;

function step(by) {
  const links = [...document.querySelectorAll("[data-rows] tbody tr a.name")];
  if (!links.length) return;
  const at = links.indexOf(document.activeElement);
  links[at < 0 ? (by > 0 ? 0 : links.length - 1) : Math.min(links.length - 1, Math.max(0, at + by))].focus();
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (event.target.closest("input, textarea, select, [contenteditable]")) return;
  if (document.querySelector("dialog[open]")) return;
  if (Date.now() - going < 1500 && PLACES[event.key]) {
    location.assign(PLACES[event.key]);
    return;
  }
  going = 0;
  const acts = {
    "/": () => document.getElementById("search").focus(),
    "?": () => document.getElementById("keys").showModal(),
    g: () => { going = Date.now(); },
    t: switchTheme,
    j: () => step(1),
    k: () => step(-1),
  };
  if (acts[event.key]) {
    acts[event.key]();
    event.preventDefault();
  }
}

// -- the first page renews itself ----------------------------------------------------------------------------

const SILENT_MS = 15000;
let renewed = performance.now();

function renew() {
  const now = document.getElementById("now");
  // What has ended changes no more.
  if (!now || "still" in now.dataset || document.visibilityState !== "visible") return;
  now.dispatchEvent(new Event("refresh"));
  const silence = performance.now() - renewed;
  const told = document.querySelector("[data-silent]");
  told.hidden = silence < SILENT_MS;
  // A reader of screens is told once, not every five seconds.
  if (told.hidden) told.textContent = "";
  else if (!told.textContent) told.textContent = "The console does not answer. What is shown below is old; it is asked again by itself.";
}

// -- many at once ---------------------------------------------------------------------------------------------

function picked(event) {
  const form = event.target.closest("form.many");
  if (!form) return;
  const boxes = [...form.querySelectorAll('input[name="pick"]')];
  const all = form.querySelector("[data-pick-all]");
  if (event.target === all) for (const box of boxes) box.checked = all.checked;
  const count = boxes.filter((box) => box.checked).length;
  all.checked = count === boxes.length;
  all.indeterminate = count > 0 && count < boxes.length;
  form.querySelector("[data-picked]").textContent = count ? ` (${count})` : "";
  if (event.target === all || event.target.name === "pick") form.querySelector('input[name="which"][value="picked"]').checked = true;
}

// -- all of it ----------------------------------------------------------------------------------------------

function ready() {
  for (const button of document.querySelectorAll('[data-action]:not([data-action="hold"])')) button.hidden = false;
  for (const all of document.querySelectorAll("[data-pick-all]")) all.hidden = false;
  nameTheme();
  localize(document);
  tick();
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-action]");
  if (button?.dataset.action === "theme") switchTheme();
  if (button?.dataset.action === "keys") document.getElementById("keys").showModal();
  if (button?.dataset.action === "copy") copy(button);
});
document.addEventListener("change", picked);
document.addEventListener("keydown", pressed);
document.addEventListener("htmx:after:swap", ready);
document.addEventListener("htmx:after:swap", () => { renewed = performance.now(); });
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState !== "visible") return;
  // Nobody looked: what is old is not the console's fault.
  renewed = performance.now();
  renew();
});
setInterval(renew, document.querySelector("[data-waiting]") ? 1000 : 5000);
document.addEventListener("htmx:after:swap", ready);
setInterval(tick, 1000);
ready();
follow();
