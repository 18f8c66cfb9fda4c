// The filter of the page of all exhibits: hides rows, loads nothing, and keeps the choice in the address.
document.addEventListener("DOMContentLoaded", () => {
  const root = document.querySelector(".eff-exhibits");
  if (!root || !root.querySelector(".eff-filter")) return; // a chapter's list has no filter
  const controls = [...root.querySelectorAll("[data-filter]")];
  const rows = [...root.querySelectorAll("tbody tr")];
  const shown = root.querySelector("output");
  const fits = (row, key, value) => {
    if (key === "text") {
      const asId = value.toLowerCase().replace(/\btable\s+/, "tab-").replace(/\bfigure\s+/, "fig-");
      return row.textContent.toLowerCase().includes(asId);
    }
    return row.dataset[key].split("|").includes(value);
  };
  const apply = () => {
    const chosen = controls.filter((control) => control.value).map((control) => [control.dataset.filter, control.value]);
    for (const row of rows) row.hidden = !chosen.every(([key, value]) => fits(row, key, value));
    const left = rows.filter((row) => !row.hidden).length;
    shown.textContent = left ? `${left} of ${rows.length}` : "Nothing fits: choose fewer words.";
    const query = new URLSearchParams(chosen).toString();
    try {
      history.replaceState(null, "", (query ? `?${query}` : location.pathname) + location.hash);
    } catch {
      // some browsers forbid this for files
    }
  };
  const given = new URLSearchParams(location.search);
  for (const control of controls) {
    if (given.has(control.dataset.filter)) control.value = given.get(control.dataset.filter);
    control.addEventListener("input", apply);
  }
  apply();
});
