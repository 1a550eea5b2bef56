"use strict";
(() => {
  const root = document.documentElement;
  const said = document.getElementById("said");

  // Colours: the system's, until the button says otherwise. Some browsers keep no storage for files: then it lasts a visit.
  const theme = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const remember = (value) => { try { localStorage.setItem("paperbench-theme", value); } catch { /* no storage here */ } };
  const recall = () => { try { return localStorage.getItem("paperbench-theme"); } catch { return null; } };
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const press = () => theme.setAttribute("aria-pressed", String(isDark()));
  if (recall() === "dark" || recall() === "light") root.dataset.theme = recall();
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remember(root.dataset.theme);
    press();
  });
  system.addEventListener("change", press);
  press();

  // Tables: a heading sorts by the exact values. What is missing stays last, equal rows keep their order.
  const words = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  const compare = (a, b) => {
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? words.compare(a, b) : x - y;
  };
  const sort = (heading) => {
    const body = heading.closest("table").tBodies[0];
    const column = heading.cellIndex;
    const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    const value = (row) => row.cells[column].dataset.value;
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      return sign * compare(x, y);
    });
    for (const other of heading.parentElement.cells) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    body.append(...rows);
    said.textContent = `Sorted by ${heading.dataset.name}, ${heading.getAttribute("aria-sort")}`;
  };
  for (const button of document.querySelectorAll("thead button")) {
    button.addEventListener("click", () => sort(button.parentElement));
  }

  // Charts: a line under the pointer, and what each curve is nearest to it.
  for (const figure of document.querySelectorAll("figure.chart")) {
    const svg = figure.querySelector("svg.chart");
    const groups = [...figure.querySelectorAll(".hover-targets")].map((group) => ({
      color: group.classList[1],
      points: [...group.children].map((point) => ({ point, x: point.cx.baseVal.value, text: point.textContent })),
    }));
    if (!groups.length) continue;
    for (const group of groups) for (const { point } of group.points) point.firstElementChild.remove();
    const box = svg.viewBox.baseVal;
    const line = svg.appendChild(document.createElementNS(svg.namespaceURI, "path"));
    line.setAttribute("class", "cursor");
    const tip = figure.appendChild(document.createElement("div"));
    tip.className = "tip";
    tip.hidden = true;
    let near = [];
    const clear = () => {
      for (const { point } of near) point.classList.remove("near");
      near = [];
      line.removeAttribute("d");
      tip.hidden = true;
    };
    svg.addEventListener("pointerleave", clear);
    svg.addEventListener("pointermove", (event) => {
      clear();
      const place = svg.getBoundingClientRect();
      const x = ((event.clientX - place.left) / place.width) * box.width;
      const closest = groups.map(({ color, points }) => ({
        color,
        ...points.reduce((best, next) => (Math.abs(next.x - x) < Math.abs(best.x - x) ? next : best)),
      }));
      const anchor = closest.reduce((best, next) => (Math.abs(next.x - x) < Math.abs(best.x - x) ? next : best));
      near = closest.filter((entry) => Math.abs(entry.x - anchor.x) < 12).slice(0, 12);
      for (const { point } of near) point.classList.add("near");
      line.setAttribute("d", `M${anchor.x} 18V${box.height - 36}`);
      const heading = document.createElement("p");
      heading.append(Object.assign(document.createElement("b"), { textContent: anchor.text.split(": ")[0] }));
      const rows = near.map((entry) => {
        const row = document.createElement("p");
        row.className = entry.color;
        const [where, ...rest] = entry.text.split(": ");
        const other = where === heading.textContent ? "" : ` (${where})`;
        row.append(document.createElement("i"), rest.join(": ") + other);
        return row;
      });
      tip.replaceChildren(heading, ...rows);
      tip.hidden = false;
      const left = (anchor.x / box.width) * place.width;
      const width = tip.offsetWidth;
      tip.style.left = `${Math.max(0, left + 14 + width > place.width ? left - width - 14 : left + 14)}px`;
      tip.style.top = `${place.top - figure.getBoundingClientRect().top + 12}px`;
    });
  }

  // Pictures: at their full size.
  const box = document.getElementById("lightbox");
  for (const button of document.querySelectorAll(".enlarge")) {
    button.addEventListener("click", () => {
      const picture = button.querySelector("img");
      const shown = box.querySelector("img");
      shown.src = picture.src;
      shown.alt = picture.alt;
      box.querySelector("p").textContent = picture.alt;
      box.showModal();
    });
  }
  box.addEventListener("click", (event) => { if (event.target === box) box.close(); });
})();
