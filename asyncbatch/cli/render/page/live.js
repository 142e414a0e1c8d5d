// The live page: its parts come as events. A part is HTML of our server, in which each text of the data is
// escaped; a parsed document runs no script, and the policy of the page forbids all but ours.
(function () {
  "use strict";

  const RETRY_SECONDS = 5;  // after a refusal; the browser itself tries again after a lost connection
  const status = document.getElementById("connection");
  const name = document.title;
  const data = {};  // of the charts
  let run = null, isOver = false;

  function say(text, isBad) {
    if (status.textContent !== text) status.textContent = text;
    status.classList.toggle("note", isBad);
  }

  // Parts of the page

  // Change `old` into `fresh` where they differ: focus, scrolling, and open details stay.
  function merge(old, fresh) {
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
      old.replaceWith(fresh);
      return;
    }
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    switch (old.nodeName) {
      case "TABLE": mergeTable(old, fresh); break;
      case "FORM": mergeOptions(old.querySelector("select"), fresh.querySelector("select")); break;
      default:
        mergeAttributes(old, fresh);
        mergeChildren(old, fresh);
    }
  }

  function mergeAttributes(old, fresh) {
    for (const { name, value } of [...fresh.attributes]) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    for (const { name } of [...old.attributes]) {
      if (name !== "open" && !fresh.hasAttribute(name)) old.removeAttribute(name);
    }
  }

  function mergeChildren(old, fresh) {
    const children = [...fresh.childNodes], known = [...old.childNodes];
    children.forEach((child, index) => {
      if (index < known.length) merge(known[index], child);
      else old.append(child);
    });
    for (const rest of known.slice(children.length)) rest.remove();
  }

  // The order of the user stays. Rows that are there already stay, with their open details.
  function mergeTable(old, fresh) {
    const heads = (table) => [...table.tHead.rows[0].cells].map((head) => head.textContent).join("\n");
    if (heads(old) !== heads(fresh)) {
      old.replaceWith(fresh);
      return;
    }
    merge(old.caption, fresh.caption);
    const known = new Map([...old.tBodies[0].rows].map((row) => [row.textContent, row]));
    const rows = [...fresh.tBodies[0].rows].map((row) => {
      const same = known.get(row.textContent);
      known.delete(row.textContent);
      return same || row;
    });
    if (rows.length === old.tBodies[0].rows.length && known.size === 0) return;
    old.tBodies[0].replaceChildren(...rows);
    components.sortRows(old);
  }

  function mergeOptions(old, fresh) {
    const chosen = old.value;
    if (old.options.length === fresh.options.length) return;
    old.replaceChildren(...fresh.options);
    old.value = chosen;
  }

  function showPart({ name: part, html }) {
    const place = document.querySelector(`[data-part="${part}"]`);
    mergeChildren(place, new DOMParser().parseFromString(html, "text/html").body);
    for (const table of place.querySelectorAll("table")) {
      if (!table.querySelector("thead button")) components.makeSortable(table);
    }
    if (part === "failures") {
      const form = document.getElementById("filter");
      if (form && form.hidden) components.enableFilter();
      else components.filterRows();
    }
  }

  // Events

  const handlers = {
    hello(message) {
      if (run !== null && run !== message.run) {  // another run, on the same port
        location.reload();
        return;
      }
      run = message.run;
      say("Connected: this page follows the run.", false);
    },
    section: showPart,
    progress(message) {
      data.report = message.report;
      const { fraction } = message;
      const percent = fraction === null ? "" : `${fraction >= 1 ? 100 : Math.min(99, Math.round(fraction * 100))}% `;
      document.title = percent + name;
    },
    charts(message) {
      Object.assign(data, message);
      components.showCharts(data, isOver);
    },
    end(message) {
      isOver = true;
      data.report = message.report;
      components.showCharts(data, true);
      document.title = `${name}: ${message.report.status}`;
      say("The run has ended. This page shows its report, and changes no more.", false);
    },
  };

  function connect() {
    const source = new EventSource(`events${location.search}`);
    for (const [kind, handle] of Object.entries(handlers)) {
      source.addEventListener(kind, (event) => {
        handle(JSON.parse(event.data));
        if (isOver) source.close();
      });
    }
    source.addEventListener("error", () => {
      if (isOver) return;
      const time = new Date().toISOString().slice(11, 19);
      if (!status.textContent.startsWith("Connection lost")) {
        say(`Connection lost at ${time} UTC: the page shows that moment, and tries to connect again.`, true);
      }
      if (source.readyState === EventSource.CLOSED) setTimeout(connect, RETRY_SECONDS * 1000);
    });
  }

  say("Connecting…", false);
  connect();
})();
