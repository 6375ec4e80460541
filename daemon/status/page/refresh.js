// Fetches this page again and exchanges what has changed in it, part by part. When nobody answers, what is shown is
// no longer known to be so: it is greyed over, and says since when.
(() => {
  "use strict";
  const EVERY = 5000;
  const WHILE_HIDDEN = 60000;
  const parts = () => document.querySelectorAll("[data-part]");
  const gone = document.getElementById("gone");
  let answeredAt = new Date();

  function exchange(next) {
    for (const part of parts()) {
      const replacement = next.querySelector(`[data-part="${part.dataset.part}"]`);
      if (!replacement || replacement.isEqualNode(part)) continue;
      part.className = replacement.className;
      part.replaceChildren(...replacement.childNodes);
    }
    document.title = next.title;
  }

  function greyOver(on) {
    document.body.classList.toggle("unknown", on);
    if (gone.hidden === !on) return;
    gone.hidden = !on;
    const since = answeredAt.toISOString().slice(11, 19);
    gone.textContent = on ? `The daemon has not answered since ${since} UTC. What is below is as it was then.` : "";
    if (on) document.title = "? priorityd";
  }

  async function refresh() {
    try {
      const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(EVERY) });
      if (!answer.ok) throw new Error(String(answer.status));
      exchange(new DOMParser().parseFromString(await answer.text(), "text/html"));
      answeredAt = new Date();
      greyOver(false);
    } catch {
      greyOver(true);
    }
    schedule();
  }

  let timer;
  function schedule() {
    clearTimeout(timer);
    timer = setTimeout(refresh, document.hidden ? WHILE_HIDDEN : EVERY);
  }
  document.addEventListener("visibilitychange", () => (document.hidden ? schedule() : refresh()));
  schedule();
})();
