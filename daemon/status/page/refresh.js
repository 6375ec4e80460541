// Fetches this page again and exchanges what has changed in it, part by part.
(() => {
  "use strict";
  const EVERY = 5000;
  const WHILE_HIDDEN = 60000;
  const parts = () => document.querySelectorAll("[data-part]");
  const fresh = document.getElementById("fresh");

  function exchange(next) {
    for (const part of parts()) {
      const replacement = next.querySelector(`[data-part="${part.dataset.part}"]`);
      if (!replacement || replacement.isEqualNode(part)) continue;
      part.className = replacement.className;
      part.replaceChildren(...replacement.childNodes);
    }
    document.title = next.title;
  }

  async function refresh() {
    try {
      const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(EVERY) });
      if (!answer.ok) throw new Error(String(answer.status));
      exchange(new DOMParser().parseFromString(await answer.text(), "text/html"));
      fresh.classList.remove("stale");
    } catch {
      if (!fresh.classList.contains("stale")) fresh.prepend("no answer any more; ");
      fresh.classList.add("stale");
      document.title = "? priorityd";
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
