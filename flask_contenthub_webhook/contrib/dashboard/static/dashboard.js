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

const body = document.querySelector("tbody[data-live]");
if (body) live(body);
document.querySelectorAll("form[data-continue]").forEach(goOn);
document.querySelectorAll("[data-copy]").forEach(copies);
document.querySelectorAll("#f-range").forEach(custom);
