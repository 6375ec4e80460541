// Fetches this page again and replaces only what has changed, so that open details, the focus and the scroll position
// stay. If the daemon does not answer, the page may be out of date: it turns grey and says since when.
(() => {
  "use strict";
  const EVERY = 5000;
  const WHILE_HIDDEN = 60000;
  const PARTS = ["top", "main", "foot"];
  const gone = document.getElementById("gone");

  // Makes a node equal to another one, with as few changes as possible.
  function follow(node, next) {
    if (node.isEqualNode(next)) return;
    if (node.nodeName !== next.nodeName || node.id !== next.id) {
      node.replaceWith(next);
    } else if (node.nodeType !== Node.ELEMENT_NODE) {
      node.data = next.data;
    } else {
      followAttributes(node, next);
      const [children, wanted] = [[...node.childNodes], [...next.childNodes]];
      wanted.forEach((child, index) => (index < children.length ? follow(children[index], child) : node.append(child)));
      children.slice(wanted.length).forEach((child) => child.remove());
    }
  }

  function followAttributes(node, next) {
    for (const name of node.getAttributeNames()) {
      // Open details stay open.
      if (!next.hasAttribute(name) && name !== "open") node.removeAttribute(name);
    }
    for (const name of next.getAttributeNames()) {
      if (node.getAttribute(name) !== next.getAttribute(name)) node.setAttribute(name, next.getAttribute(name));
    }
  }

  function greyOver(on) {
    document.body.classList.toggle("unknown", on);
    if (gone.hidden === !on) return;
    gone.hidden = !on;
    const since = document.querySelector("#top time").textContent;
    gone.textContent = on ? `The daemon has not answered since ${since}. The page shows the state at that time.` : "";
    if (on) document.title = document.title.replace(/^./, "?");
  }

  async function refresh() {
    try {
      const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(EVERY) });
      if (!answer.ok) throw new Error(String(answer.status));
      const next = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const id of PARTS) follow(document.getElementById(id), next.getElementById(id));
      document.title = next.title;
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
