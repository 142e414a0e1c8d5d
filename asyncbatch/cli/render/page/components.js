// The components of the HTML report and of the live page: charts, and tables that are ordered and
// filtered. They write texts with textContent only, so that no text of the data can become markup.
const components = (function () {
  "use strict";

  // The report object, and the values of the charts: series, files, windows.
  let data = null;

  function element(name, attributes, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
    for (const child of children) made.append(child);
    return made;
  }

  // Numbers

  const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
  const precise = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
  const small = new Intl.NumberFormat("en", { maximumSignificantDigits: 2 });

  function count(value) {
    if (value !== 0 && Math.abs(value) < 10) return small.format(value);
    return Math.abs(value) < 10000 ? precise.format(value) : compact.format(value);
  }

  function size(bytes) {
    const units = ["B", "kB", "MB", "GB", "TB"];
    let power = 0;
    while (Math.abs(bytes) >= 999.5 && power < 4) { bytes /= 1000; power += 1; }
    return `${power ? precise.format(bytes) : Math.round(bytes)} ${units[power]}`;
  }

  function duration(seconds) {
    if (seconds === 0) return "0 s";
    if (seconds < 0.001) return `${small.format(seconds * 1e6)} \u00b5s`;
    if (seconds < 1) return `${small.format(seconds * 1000)} ms`;
    if (seconds < 120) return `${precise.format(seconds)} s`;
    const minutes = Math.floor(seconds / 60), rest = Math.round(seconds % 60);
    const pad = (number) => String(number).padStart(2, "0");
    if (minutes < 60) return `${minutes}:${pad(rest)}`;
    // An axis has no room for more hours, as of the lag behind an old log.
    if (minutes >= 6000) return `${precise.format(seconds / 86400)} d`;
    return `${Math.floor(minutes / 60)}:${pad(minutes % 60)}:${pad(rest)}`;
  }

  const utc = (seconds) => new Date(seconds * 1000).toISOString().replace("T", " ").replace(/\.000Z$|Z$/, " UTC");

  // A time in UTC, as exact as marks that are `step` seconds apart need it.
  function clock(seconds, step) {
    const [day, time] = new Date(seconds * 1000).toISOString().split("T");
    return step >= 86400 ? day : time.slice(0, step < 1 ? 12 : step < 60 ? 8 : 5);
  }

  // Charts

  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const FONT = "13px system-ui, sans-serif";
  const charts = new Map();  // by their titles, in the order in which they are shown
  let shownTitles = [];

  function axis(values, more) {
    return {
      stroke: color("--muted"), font: FONT, ticks: { stroke: color("--grid") },
      grid: { stroke: color("--grid") }, values: (_, splits) => splits.map(values), ...more,
    };
  }

  // A figure with a title, a summary, a plot, the value below the pointer, and the values as a table.
  // One with the same title is changed. `chart.draw` makes a new plot; one with the same shape gets
  // its `columns` only, so that a pointer on it is not disturbed.
  function showFigure(title, summary, heads, chart, extra) {
    const figure = charts.get(title) || addFigure(title, heads);
    Object.assign(figure, chart);
    if (figure.summary.textContent !== summary) {
      figure.summary.textContent = summary;
      figure.plot.setAttribute("aria-label", `${title}. ${summary}`);
    }
    figure.extra.replaceChildren(...(extra ? [extra] : []));
    const list = document.getElementById("chart-list"), at = list.children[shownTitles.length];
    if (at !== figure.box) list.insertBefore(figure.box, at || null);
    shownTitles.push(title);
    fillTable(figure);
    drawFigure(figure);
    return figure;
  }

  function addFigure(title, heads) {
    const plot = element("div", { class: "plot", role: "img" });
    const readout = element("p", { class: "readout", "aria-hidden": "true" });
    const details = element("details", {}, element("summary", {}, `${title}: data`));
    const summary = element("p"), extra = element("div");
    const caption = element("figcaption", {}, element("h3", {}, title), summary, extra);
    const box = element("figure", {}, caption, plot, readout, details);
    const figure = { title, heads, box, plot, summary, extra, details, made: null };
    figure.say = (text) => { readout.textContent = text; };
    details.addEventListener("toggle", () => fillTable(figure));
    charts.set(title, figure);
    return figure;
  }

  // The table is made when it is opened: most are not.
  function fillTable({ title, heads, details, rows }) {
    if (!details.open) return;
    const made = dataTable(title, heads, rows()), known = details.querySelector(".scroll");
    if (known) known.querySelector("tbody").replaceWith(made.querySelector("tbody"));
    else details.append(made);
  }

  function dataTable(title, heads, rows) {
    const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)));
    const body = element("tbody", {}, ...rows.map((row) =>
      element("tr", {}, ...row.map((text) => element("td", {}, text)))));
    const made = element("table", {}, element("caption", {}, title), element("thead", {}, head), body);
    return element("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": `${title}, table` }, made);
  }

  function drawFigure(figure) {
    if (figure.made && figure.shape === figure.madeShape) {
      figure.made.setData(figure.columns);
      return;
    }
    if (figure.made) figure.made.destroy();
    figure.made = new uPlot(figure.draw(figure.plot.clientWidth, figure.say), figure.columns, figure.plot);
    figure.madeShape = figure.shape;
  }

  function drawAgain() {
    for (const figure of charts.values()) {
      figure.madeShape = null;
      drawFigure(figure);
    }
  }

  function options(width, axes, series, scales, onCursor) {
    return {
      width, height: 220, padding: [12, 32, 0, 0], legend: { show: false }, axes, series, scales,
      cursor: { y: false, points: { size: 7 } },
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      hooks: { setCursor: [onCursor] },
    };
  }

  // A line of values over time, from the start of the run or (`isClock`) in UTC.
  function addLine(title, unit, xs, ys, format, { isClock = false, bars = false, summary } = {}) {
    const known = ys.filter((value) => value !== null);
    if (!known.some((value) => value !== 0)) return;
    const highest = known.reduce((a, b) => Math.max(a, b));
    const formatX = isClock ? utc : duration;
    const text = (value) => (value === null || value === undefined ? "" : `${format(value)}${unit}`);
    const rows = () => xs.map((x, index) => [formatX(x), text(ys[index])]);
    const draw = (width, say) => {
      const stroke = color("--chart-1");
      const show = (plot) => plot.data[1].length < 60;
      const line = { stroke, width: 2, fill: `${stroke}26`, points: { show, size: 5 } };
      if (bars) Object.assign(line, { paths: uPlot.paths.bars({ size: [0.8, 60] }), points: { show: false }, fill: stroke });
      const xAxis = isClock
        ? axis(null, { grid: { show: false }, values: (_, splits, __, ___, step) => splits.map((at) => clock(at, step)) })
        : axis(duration, { incrs: [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200, 86400, 172800, 604800, 2592000, 31536000] });
      const range = (_, __, top) => [0, (top || 1) * 1.08];
      return options(
        width, [xAxis, axis((value) => text(value), { size: 84 })], [{}, line],
        { x: { time: isClock }, y: { range } },
        (plot) => {
          const index = plot.cursor.idx;
          say(index === null || index === undefined ? "" : `${formatX(plot.data[0][index])}: ${text(plot.data[1][index])}`);
        },
      );
    };
    showFigure(title, summary || `At most ${text(highest)}.`, [isClock ? "start" : "time", title],
      { rows, draw, columns: [xs, ys], shape: "line" });
  }

  // The growth per second of a count between two points.
  function rates(seconds, counts) {
    return counts.map((value, index) => {
      const before = index ? index - 1 : 0;
      const span = seconds[index] - seconds[before];
      return span > 0 ? (value - counts[before]) / span : null;
    });
  }

  function addRate(title, unit, name, format) {
    const { seconds, [name]: counts } = data.series;
    const last = counts.length - 1;
    const values = rates(seconds, counts);
    const highest = values.reduce((a, b) => Math.max(a, b || 0), 0);
    const mean = (counts[last] - counts[0]) / (seconds[last] || 1);
    const summary = `${format(mean)}${unit} on average, at most ${format(highest)}${unit}.`;
    addLine(title, unit, seconds, values, format, { summary });
  }

  function addOverTime() {
    const series = data.series;
    if (!series || !series.seconds || series.seconds.length < 4) return;
    if (series.events) {
      addRate("Events a second", "/s", "events", count);
      addRate("Late events a second", "/s", "late", count);
      addRate("Rejected events a second", "/s", "rejected", count);
      addLine("Lag of the watermark", "", series.seconds, series.lag_s, duration);
    } else {
      const isFiles = ((data.report || {}).sources || []).every((source) => source.type === "files");
      addRate(isFiles ? "Files a second" : "Inputs a second", "/s", "files", count);
      addRate("Records a second", "/s", "records", count);
    }
    addRate("Bytes a second", "/s", "bytes", size);
    addLine("Memory of all processes", "", series.seconds, series.memory_bytes, size);
  }

  function addWindows() {
    if (!data.windows || data.windows.start.length < 2) return;
    const { start, windows, events } = data.windows;
    const all = { isClock: true, bars: true };
    const total = (values) => values.reduce((a, b) => a + b, 0);
    const summary = (values, noun) => `${count(total(values))} ${noun}, by the start of their windows, in UTC.`;
    addLine("Events in windows", "", start, events, count, { ...all, summary: summary(events, "events") });
    if (windows.some((value) => value !== windows[0])) {
      addLine("Windows, one for each key", "", start, windows, count, { ...all, summary: summary(windows, "windows") });
    }
  }

  const STATUSES = [["success", "--chart-1"], ["partial", "--chart-3"], ["failed", "--chart-2"]];

  // Sizes against durations, both on a logarithmic scale.
  function addScatter() {
    if (!data.files || data.files.file.length < 3) return;
    const { file, bytes, elapsed_ms: elapsed, status } = data.files;
    const log = (value) => Math.log10(value);
    const order = file.map((_, index) => index).sort((a, b) => bytes[a] - bytes[b] || elapsed[a] - elapsed[b]);
    const xs = order.map((index) => log(Math.max(bytes[index], 1)));
    const ys = order.map((index) => log(Math.max(elapsed[index], 0.001)));
    const present = STATUSES.filter(([name]) => status.includes(name));
    const columns = present.map(([name]) => ys.map((y, place) => (status[order[place]] === name ? y : null)));
    const legend = element("ul", { class: "legend" }, ...present.map(([name]) =>
      element("li", { class: name }, element("span", { "aria-hidden": "true" }), name)));
    const total = data.report.files.total;
    const summary = file.length < total
      ? `A sample of ${file.length.toLocaleString("en")} of ${total.toLocaleString("en")}; both scales are logarithmic.`
      : "Both scales are logarithmic.";
    const describe = (index) => [file[index], size(bytes[index]), duration(elapsed[index] / 1000), status[index]];
    const rows = () => order.map(describe);
    const padded = (_, low, high) => [low - 0.15, high === low ? high + 1 : high + 0.15];
    const draw = (width, say) => {
      const series = present.map(([name, variable]) => ({
        stroke: color(variable), paths: () => null,
        points: { show: true, size: 6, fill: `${color(variable)}99`, paths: SHAPES[name] },
      }));
      const axes = [
        axis((power) => size(10 ** power), { incrs: powers(xs), space: 70 }),
        axis((power) => duration(10 ** power / 1000), { size: 84, incrs: powers(ys) }),
      ];
      const built = options(width, axes, [{}, ...series], { x: { time: false, range: padded }, y: { range: padded } }, (plot) => {
        const { left, top } = plot.cursor;
        let nearest = -1, least = 30 * 30;
        if (left >= 0) {
          for (let place = 0; place < xs.length; place += 1) {
            const dx = plot.valToPos(xs[place], "x") - left, dy = plot.valToPos(ys[place], "y") - top;
            if (dx * dx + dy * dy < least) { least = dx * dx + dy * dy; nearest = place; }
          }
        }
        say(nearest < 0 ? "" : describe(order[nearest]).join(", "));
      });
      built.cursor = { x: false, y: false, points: { show: false } };
      built.height = 320;
      return built;
    };
    // Each drawing is of other files: the shape is new.
    const chart = { rows, draw, columns: [xs, ...columns], shape: data.files };
    const figure = showFigure("Sizes and durations", summary, ["file", "size", "duration", "status"], chart, present.length > 1 ? legend : null);
    figure.box.classList.add("wide");
  }

  // The distances between the marks of a logarithmic scale: whole powers of ten, if there are enough.
  function powers(values) {
    const least = values.reduce((a, b) => Math.min(a, b)), most = values.reduce((a, b) => Math.max(a, b));
    return most - least > 2 ? [1, 2, 3] : [0.25, 0.5, 1];
  }

  // The points of a status have a shape of their own: color alone does not tell them apart.
  function shapes(draw) {
    return (plot, index, first, last) => {
      const fill = new Path2D(), ratio = window.devicePixelRatio || 1;
      for (let place = first; place <= last; place += 1) {
        const y = plot.data[index][place];
        if (y === null || y === undefined) continue;
        draw(fill, plot.valToPos(plot.data[0][place], "x", true), plot.valToPos(y, "y", true), 3 * ratio);
      }
      return { stroke: fill, fill, clip: null, flags: 3 };
    };
  }

  const SHAPES = {
    success: shapes((path, x, y, r) => { path.moveTo(x + r, y); path.arc(x, y, r, 0, 2 * Math.PI); }),
    partial: shapes((path, x, y, r) => path.rect(x - r, y - r, 2 * r, 2 * r)),
    failed: shapes((path, x, y, r) => {
      path.moveTo(x, y - 1.3 * r); path.lineTo(x + 1.3 * r, y + r); path.lineTo(x - 1.3 * r, y + r); path.closePath();
    }),
  };

  // Show the charts of `newData`, which may have more values than before. `isOver`: there will be no more.
  function showCharts(newData, isOver) {
    const isFirst = data === null, list = document.getElementById("chart-list");
    data = newData;
    shownTitles = [];
    addOverTime();
    addWindows();
    addScatter();
    for (const [title, { box, made }] of charts) {
      if (shownTitles.includes(title)) continue;
      made.destroy();
      box.remove();
      charts.delete(title);
    }
    const note = list.querySelector(":scope > p");
    if (shownTitles.length) {
      if (note) note.remove();
    } else {
      const text = isOver
        ? "There is too little to draw: the work was short, it had very few inputs, or this is a merged report."
        : "There is nothing to draw yet.";
      if (note) note.textContent = text;
      else list.append(element("p", {}, text));
    }
    if (isFirst) followLooks(list);
  }

  // Draw again when colors change, and fit the charts to the width of the page.
  function followLooks(list) {
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAgain);
    let waiting = 0;
    new ResizeObserver(() => {
      cancelAnimationFrame(waiting);
      waiting = requestAnimationFrame(() => {
        for (const { plot, made } of charts.values()) {
          if (plot.clientWidth && plot.clientWidth !== made.width) made.setSize({ width: plot.clientWidth, height: made.height });
        }
      });
    }).observe(list);
  }

  // Tables

  const collator = new Intl.Collator("en", { numeric: true });

  function cellKey(row, column) {
    const cell = row.cells[column];
    return cell.dataset.order === undefined ? cell.textContent : Number(cell.dataset.order);
  }

  function compare(one, other) {
    if (one === "" || other === "") return 0;
    return typeof one === "number" && typeof other === "number" ? one - other : collator.compare(one, other);
  }

  function sortRows(table) {
    const heads = [...table.tHead.rows[0].cells];
    const column = heads.findIndex((head) => head.hasAttribute("aria-sort"));
    if (column < 0) return;
    const direction = heads[column].getAttribute("aria-sort") === "ascending" ? 1 : -1;
    const keyed = [...table.tBodies[0].rows].map((row) => [cellKey(row, column), row]);
    // An empty cell comes last in both directions.
    keyed.sort(([a], [b]) => (a === "") - (b === "") || direction * compare(a, b));
    table.tBodies[0].append(...keyed.map(([, row]) => row));
  }

  function makeSortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    for (const head of heads) {
      const button = element("button", { type: "button" }, head.textContent);
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const order = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", order);
        sortRows(table);
      });
    }
  }

  // Hide the rows that do not fit the filter.
  function filterRows() {
    if (!document.getElementById("filter")) return;
    const kind = document.getElementById("filter-kind").value;
    const wanted = document.getElementById("filter-text").value.trim().toLowerCase();
    const [messages, failures] = ["messages", "each-failure"].map((name) => {
      const rows = [...document.getElementById(name).tBodies[0].rows];
      let visible = 0;
      for (const row of rows) {
        const content = texts.get(row) || row.textContent.toLowerCase();
        texts.set(row, content);
        const isHidden = !content.includes(wanted) || (kind !== "" && row.dataset.key !== kind);
        if (row.hidden !== isHidden) row.hidden = isHidden;
        visible += isHidden ? 0 : 1;
      }
      return `${visible.toLocaleString("en")} of ${rows.length.toLocaleString("en")}`;
    });
    document.getElementById("filter-status").textContent =
      `Showing ${messages} messages and ${failures} listed failures.`;
  }

  const texts = new WeakMap();  // of the rows of failures, in lower case

  function enableFilter() {
    const form = document.getElementById("filter");
    if (!form) return;
    form.hidden = false;
    form.addEventListener("input", filterRows);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => requestAnimationFrame(filterRows));
    filterRows();
  }

  return { enableFilter, filterRows, makeSortable, showCharts, sortRows };
})();
