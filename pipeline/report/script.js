"use strict";
// Filters the gallery and lets the matrices be explored. Everything else stands without it.
// Text from outside enters the page by textContent, value and setAttribute only.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const label = (c) => data.names[c];
  const plural = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
  const percent = (share) => `${(100 * share).toFixed(1)}\u202f%`;
  for (const element of document.querySelectorAll(".scripted, .unscripted")) {
    element.hidden = element.matches(".unscripted");
  }

  // --- the gallery ---
  const gallery = byId("gallery");
  const selects = gallery ? ["by-head", "by-true", "by-predicted"].map(byId) : [];
  const swatches = [...document.querySelectorAll(".tabs label")].map((tab) => tab.className);
  const pictures = data.images.map(([, picture]) => picture && `data:image/jpeg;base64,${picture}`);
  document.querySelectorAll("img[data-image]").forEach((img) => { pictures[img.dataset.image] = img.src; });
  let cards = [];

  const card = ([image, mistakes]) => {
    const shot = byId("shot").content.firstElementChild.cloneNode(true);
    const img = shot.querySelector("img");
    img.src = pictures[image];
    img.alt = shot.querySelector("small").textContent = data.images[image][0];
    shot.querySelector("b").textContent = label(mistakes[0][2]);
    for (const [head, , , predicted, probability] of mistakes) {
      const line = document.createElement("li");
      const [swatch, sign, share] = ["i", "span", "small"].map((tag) => document.createElement(tag));
      swatch.className = `swatch ${swatches[head]}`;
      swatch.title = data.heads[head];
      sign.textContent = label(predicted);
      share.textContent = percent(probability);
      line.append(swatch, sign, " ", share);
      if (selects[0].value === "" && data.heads.length > 1) {
        const who = document.createElement("small");
        who.textContent = `by ${data.heads[head]}`;
        line.append(" ", who);
      }
      shot.querySelector("ul").append(line);
    }
    return shot;
  };

  const count = () => {
    const shown = cards.slice(0, gallery.children.length).reduce((sum, [, of]) => sum + of.length, 0);
    const [head, truth, predicted] = selects.map((select) => select.value);
    const left = data.omitted.reduce((sum, n, k) => sum + (head === "" || Number(head) === k ? n : 0), 0);
    const wanted = cards.reduce((sum, [, of]) => sum + of.length, 0);
    let text = `${shown.toLocaleString("en")} of ${wanted.toLocaleString("en")} shown`;
    if (wanted > cards.length) text += `, on ${plural(cards.length, "image")}`;
    if (head !== "") text += `, those of ${data.heads[head]}`;
    if (truth !== "") text += `, true ${data.one} ${label(truth)}`;
    if (predicted !== "") text += `, taken for ${label(predicted)}`;
    if (left) text += `. Not on this page: ${plural(left, "less confident mistake")}${head === "" ? "" : " of this head"}, of any ${data.one}`;
    byId("count").textContent = `${text}.`;
    byId("more").hidden = gallery.children.length >= cards.length;
    byId("clear").disabled = selects.every((select) => select.value === "");
  };

  const more = () => {
    const from = gallery.children.length;
    gallery.append(...cards.slice(from, from + data.page).map(card));
    count();
    return gallery.children[from];
  };

  const filter = () => {
    const wanted = selects.map((select) => select.value);
    const found = new Map();
    for (const mistake of data.mistakes) {
      const [head, image, truth, predicted] = mistake;
      if ([head, truth, predicted].some((value, k) => wanted[k] !== "" && String(value) !== wanted[k])) continue;
      if (!found.has(image)) found.set(image, []);
      found.get(image).push(mistake);
    }
    cards = [...found];
    gallery.replaceChildren();
    more();
  };

  const show = (...cell) => {
    if (!gallery) return;
    selects.forEach((select, k) => {
      select.value = String(cell[k]);
      // All mistakes of this cell were left out: no option, and an empty gallery says so.
      if (select.selectedIndex < 0) select.append(new Option(label(cell[k]), cell[k], true, true));
    });
    filter();
    const title = byId("mistakes-title");
    title.focus({ preventScroll: true });
    title.scrollIntoView();
  };

  if (gallery) {
    selects.forEach((select) => select.addEventListener("change", filter));
    byId("clear").addEventListener("click", () => {
      selects.forEach((select) => { select.value = ""; });
      filter();
      selects[0].focus(); // the button has just become disabled
    });
    byId("more").addEventListener("click", () => {
      const first = more();
      first.tabIndex = -1;
      first.focus({ preventScroll: true });
    });
    filter();
  }

  document.querySelectorAll("a[data-cell]").forEach((link) => link.addEventListener("click", (event) => {
    event.preventDefault();
    show(...link.dataset.cell.split(","));
  }));

  // --- the matrices: one tab stop each, arrow keys between mistakes ---
  document.querySelectorAll(".panel[data-head]").forEach((panel) => {
    const head = Number(panel.dataset.head);
    const svg = panel.querySelector("svg");
    const readout = panel.querySelector(".readout");
    const rows = [...svg.querySelectorAll(".cells > g")];
    const cells = rows.flatMap((row, y) => [...row.children].map((rect) => {
      const x = Number(rect.getAttribute("x"));
      return { rect, x, y, hit: rect.classList.contains("hit") };
    }));
    const byRect = new Map(cells.map((cell) => [cell.rect, cell]));
    const wrong = cells.filter((cell) => !cell.hit);
    const describe = ({ rect, x, y }) => {
      const numbers = rect.textContent.slice(rect.textContent.lastIndexOf(": ") + 2);
      return `${label(data.order[y])} → ${label(data.order[x])}: ${numbers}`;
    };
    const open = ({ x, y }) => show(head, data.order[y], data.order[x]);
    let current = null;
    const stop = (cell) => {
      current?.rect.removeAttribute("tabindex");
      current = cell;
      cell.rect.setAttribute("tabindex", "0");
      cell.rect.setAttribute("role", "button");
      cell.rect.setAttribute("aria-label", describe(cell));
    };
    const go = (cell) => {
      if (!cell) return;
      stop(cell);
      cell.rect.focus();
    };
    // The nearest mistake of the nearest row above or below that has one.
    const vertical = (step) => {
      for (let y = current.y + step; y >= 0 && y < rows.length; y += step) {
        const row = wrong.filter((cell) => cell.y === y);
        if (row.length) return row.reduce((a, b) => (Math.abs(b.x - current.x) < Math.abs(a.x - current.x) ? b : a));
      }
      return null;
    };
    const keys = {
      ArrowRight: () => wrong[wrong.indexOf(current) + 1],
      ArrowLeft: () => wrong[wrong.indexOf(current) - 1],
      ArrowDown: () => vertical(1),
      ArrowUp: () => vertical(-1),
      Home: () => wrong[0],
      End: () => wrong[wrong.length - 1],
    };
    if (!wrong.length) return;
    svg.setAttribute("role", "group"); // an image would hide its cells from screen readers
    stop(wrong.reduce((a, b) => (Number(b.rect.getAttribute("opacity")) > Number(a.rect.getAttribute("opacity")) ? b : a)));
    // Not on the svg: one that listens for focus becomes a tab stop of its own in Chromium.
    for (const [type, said] of [["pointerover", true], ["focusin", true], ["pointerout", false]]) {
      panel.addEventListener(type, ({ target }) => {
        const cell = byRect.get(target.closest("rect"));
        if (cell) readout.textContent = said ? describe(cell) : "";
      });
    }
    svg.addEventListener("click", ({ target }) => {
      const cell = byRect.get(target.closest("rect"));
      if (!cell || cell.hit) return;
      stop(cell);
      open(cell);
    });
    svg.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "Enter" || event.key === " ") open(current);
      else if (event.key in keys) go(keys[event.key]());
      else return;
      event.preventDefault();
    });
  });
})();
