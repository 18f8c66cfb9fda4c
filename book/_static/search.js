// From the file system a page cannot read another, so the search shows titles there, without lines of text, and says so.
if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS !== "undefined") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
  document.addEventListener("DOMContentLoaded", () => {
    const found = document.getElementById("search-results");
    if (!found) return;
    const note = document.createElement("p");
    note.textContent =
      "Opened as a file, the search shows titles only; with effbook book serve it shows the lines that fit, too.";
    found.before(note);
  });
}
