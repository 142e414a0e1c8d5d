// The HTML report: its data is in the page.
(function () {
  "use strict";

  document.querySelectorAll("table").forEach(components.makeSortable);
  components.enableFilter();
  components.showCharts(JSON.parse(document.getElementById("data").textContent), true);
})();
