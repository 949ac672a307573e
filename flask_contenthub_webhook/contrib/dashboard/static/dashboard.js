// What the pages can do beyond links and forms; everything works without it.
"use strict";

const EVERY = 5000;
const MOST_ROWS = 200;
const AT_ONCE = 50; // what the server gives of them

// --- new deliveries appear on the first page of the list -----------------------------------------------------

function live(body) {
  const status = document.getElementById("live");
  const pause = document.getElementById("pause");
  let timer = 0;

  function say(words) {
    if (status.textContent !== words) status.textContent = words;
  }

  async function look() {
    const address = new URL(body.dataset.live, location.href);
    address.searchParams.set("after", body.dataset.newest);
    try {
      const answer = await fetch(address, { credentials: "same-origin", headers: { Accept: "text/html" } });
      if (answer.status === 200) {
        add(new DOMParser().parseFromString(await answer.text(), "text/html"));
      } else if (answer.status !== 204) {
        say(`The server answered ${answer.status}; still looking.`);
      }
    } catch {
      say("The server does not answer; still looking.");
    }
  }

  function add(found) {
    const rows = [...found.querySelectorAll("tr[data-id]")].map((row) => document.adoptNode(row));
    if (!rows.length) return;
    body.dataset.newest = rows[0].dataset.id;
    body.prepend(...rows);
    rows.forEach(inOwnZone);
    while (body.rows.length > MOST_ROWS) body.deleteRow(-1);
    document.getElementById("empty")?.remove();
    if (rows.length === AT_ONCE) say(`${rows.length} new deliveries, and there may be more: refresh.`);
    else say(rows.length === 1 ? "1 new delivery." : `${rows.length} new deliveries.`);
  }

  function run() {
    clearTimeout(timer);
    if (document.hidden || pause.getAttribute("aria-pressed") === "true") return;
    timer = setTimeout(async () => { await look(); run(); }, EVERY);
  }

  pause.hidden = false;
  pause.addEventListener("click", () => {
    const paused = pause.getAttribute("aria-pressed") !== "true";
    pause.setAttribute("aria-pressed", String(paused));
    say(paused ? "Paused." : "Newest first; new ones appear by themselves.");
    run();
  });
  document.addEventListener("visibilitychange", run);
  say("Newest first; new ones appear by themselves.");
  run();
}

// --- a bulk replay goes on by itself, until it is stopped ----------------------------------------------------

function goOn(form) {
  const stop = form.querySelector("[data-stop]");
  const timer = setTimeout(() => form.requestSubmit(), 600);
  stop.hidden = false;
  stop.addEventListener("click", () => { clearTimeout(timer); stop.hidden = true; });
}

// --- a long history is counted to its beginning, in parts -----------------------------------------------------

const since = (numbers) => numbers.querySelector(".covers time")?.dateTime;

async function countFurther(numbers) {
  for (let link; (link = numbers.querySelector("[data-further]")); ) {
    const answer = await fetch(link.href, { credentials: "same-origin", headers: { Accept: "text/html" } });
    const found = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("numbers");
    const isStuck = !found || (found.querySelector("[data-further]") && since(found) === since(numbers));
    if (isStuck || numbers.contains(document.activeElement)) return; // the link stays
    const table = numbers.querySelector("details");
    if (table?.open && found.querySelector("details")) found.querySelector("details").open = true;
    numbers.replaceChildren(...document.adoptNode(found).childNodes);
    inOwnZone(numbers);
  }
}

// --- copying, where the browser allows it --------------------------------------------------------------------

function copies(button) {
  if (!navigator.clipboard) return;
  button.hidden = false;
  button.addEventListener("click", async () => {
    const text = document.getElementById(button.dataset.copy).textContent;
    const said = button.parentElement.querySelector(".copied");
    try {
      await navigator.clipboard.writeText(text);
      said.textContent = "Copied.";
    } catch {
      said.textContent = "The browser did not allow it; mark the text and copy it.";
    }
  });
}

// --- the two times of a custom range are shown where they count ------------------------------------------------

function custom(range) {
  const fields = range.form.querySelectorAll(".custom");
  const show = () => fields.forEach((field) => { field.hidden = range.value !== "custom"; });
  range.addEventListener("change", show);
  show();
}

// --- times are shown in the reader's zone, and ages grow ------------------------------------------------------

function inOwnZone(part) {
  part.querySelectorAll("time[datetime]").forEach((time) => {
    const at = new Date(time.dateTime);
    const utc = time.textContent;
    if (Number.isNaN(at.getTime()) || time.title) return;
    time.title = `${utc} UTC`;
    const local = new Date(at.getTime() - at.getTimezoneOffset() * 60000);
    time.textContent = local.toISOString().replace("T", " ").slice(0, utc.length);
  });
}

function ownZone() {
  inOwnZone(document);
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const said = document.getElementById("zone");
  if (said && zone && zone !== "UTC") said.textContent = `Times are in ${zone}; chart and filters are in UTC.`;
}

function lasting(seconds) {
  if (seconds < 1) return "now";
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const [unit, size] = units.find(([, each]) => seconds >= each);
  return `${Math.floor(seconds / size)} ${unit}`;
}

function age() {
  const now = Date.now() / 1000 + ahead;
  document.querySelectorAll(".ago[data-at]").forEach((element) => {
    const seconds = now - Number(element.dataset.at);
    const words = lasting(Math.abs(seconds));
    element.textContent = words === "now" ? words : seconds >= 0 ? `${words} ago` : `in ${words}`;
  });
}

const ahead = Number(document.documentElement.dataset.now) - Date.now() / 1000 || 0; // the server's clock counts
ownZone();
setInterval(age, 15000);

const body = document.querySelector("tbody[data-live]");
if (body) live(body);
document.querySelectorAll("form[data-continue]").forEach(goOn);
document.querySelectorAll("#numbers").forEach((numbers) => countFurther(numbers).catch(() => {})); // the link stays
document.querySelectorAll("[data-copy]").forEach(copies);
document.querySelectorAll("#f-range").forEach(custom);
