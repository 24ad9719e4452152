// What the pages can do besides, where scripts run: everything is readable without this file.

const LIVE_INTERVAL_MS = 2000;

for (const hidden of document.querySelectorAll(".needs-script")) {
  hidden.hidden = false;
}

const details = () => document.querySelectorAll(".waterfall details");
document.getElementById("open-all")?.addEventListener("click", () => {
  for (const one of details()) one.open = true;
});
document.getElementById("close-all")?.addEventListener("click", () => {
  for (const one of details()) one.open = false;
});

// A link to a span opens it.
function openTarget() {
  const target = document.getElementById(location.hash.slice(1));
  target?.querySelector("details")?.setAttribute("open", "");
}
addEventListener("hashchange", openTarget);
openTarget();

// "live": the list is fetched again and put in place of the old one.
const live = document.getElementById("live");
let timer;
async function refresh() {
  clearTimeout(timer);
  if (!live.checked) return;
  try {
    const answer = await fetch(location.href);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const found = page.getElementById("found");
    if (found && live.checked) document.getElementById("found").replaceWith(found);
  } catch (error) {
    console.warn("the console did not answer, trying again", error);
  }
  timer = setTimeout(refresh, LIVE_INTERVAL_MS);
}
live?.addEventListener("change", refresh);
