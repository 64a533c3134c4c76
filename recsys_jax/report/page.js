"use strict";

// The map of customers and products: drawn to its own size, told by pointer, by finger and by arrow keys.
(() => {
  const plane = document.getElementById("plane");
  if (!plane) return;
  const [data, words] = ["plane-data", "plane-words"].map((id) => JSON.parse(document.getElementById(id).textContent));
  const [tip, said] = ["plane-tip", "plane-said"].map((id) => document.getElementById(id));
  const number = new Intl.NumberFormat(document.documentElement.lang);
  const disc = "M1 0A1 1 0 1 1-1 0A1 1 0 1 1 1 0Z";
  const shapes = [
    "M-.9-.9H.9V.9H-.9Z", "M0-1.15 1.1.8H-1.1Z", "M0-1.3 1.3 0 0 1.3-1.3 0Z", "M-.4-1.2H.4V-.4H1.2V.4H.4V1.2H-.4V.4H-1.2V-.4H-.4Z",
    "M0 1.15 1.1-.8H-1.1Z", "M-.5-1.1 0-.6.5-1.1 1.1-.5.6 0 1.1.5.5 1.1 0 .6-.5 1.1-1.1.5-.6 0-1.1-.5Z",
    "M0-1.3.35-.4 1.25-.4.55.15.8 1.05 0 .5-.8 1.05-.55.15-1.25-.4-.35-.4Z", "M0-.7.7 0 0 .7-.7 0Z",
  ];

  const draw = (name, attributes, parent) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
    return parent.appendChild(made);
  };
  const boxes = [...document.querySelectorAll(".legend input")];
  const wanted = (side, one) => boxes.find((box) => box.dataset.side === side && +box.dataset.number === one).checked;
  boxes.forEach((box) => {
    const own = +box.dataset.number;
    const look = box.dataset.side === "g" ? { d: disc, class: `g${own}` } : { d: shapes[own], class: "product" };
    draw("path", { ...look, transform: "scale(6)" }, box.parentNode.querySelector("svg"));
  });

  const sum = (counts) => counts.reduce((total, [, n]) => total + n, 0);
  const people = data.customers.map(([x, y, counts]) => ({ x, y, counts, side: "g" }));
  const things = data.products.map(([x, y, counts, products, near]) => ({ x, y, counts, products, near, side: "k" }));
  const crowded = Math.min(1, 12 / Math.sqrt(people.length + things.length));
  const most = Math.max(1, ...people.map((one) => sum(one.counts)));
  let points = [];
  let here = null;
  let ring = null;

  const render = () => {
    const [width, height] = [plane.clientWidth, plane.clientHeight];
    const pad = 18;
    const room = Math.min(1, 0.6 + width / 2000);
    const radius = (n) => Math.max(2.5, room * Math.max(4.5 * crowded, Math.min(16, 5 * Math.sqrt(n / Math.max(1, most / 9)))));
    plane.setAttribute("viewBox", `0 0 ${width} ${height}`);
    plane.replaceChildren();
    points = [...people, ...things].map((one) => {
      const shown = one.counts.filter(([own]) => wanted(one.side, own));
      return { ...one, shown, px: pad + (one.x * (width - 2 * pad)) / 1000, py: pad + (one.y * (height - 2 * pad)) / 1000 };
    }).filter((one) => one.shown.length);
    // Those of the largest vectors first, so that no small one is hidden.
    points.sort((one, two) => (one.side === two.side ? sum(two.shown) - sum(one.shown) : one.side < two.side ? -1 : 1));
    points.forEach((one) => {
      let left = sum(one.shown);
      one.r = one.side === "g" ? radius(left) : Math.max(3, 6.5 * crowded * room);
      if (one.side === "k") {
        draw("path", { d: shapes[one.shown[0][0]], class: "product", transform: `translate(${one.px} ${one.py}) scale(${one.r})` }, plane);
        return;
      }
      // As rings around each other: each disc covers the middle of the one before.
      one.shown.forEach(([own, n]) => {
        const scale = one.r * Math.sqrt(left / sum(one.shown));
        draw("path", { d: disc, class: `g${own}`, transform: `translate(${one.px} ${one.py}) scale(${scale})` }, plane);
        left -= n;
      });
    });
    ring = draw("circle", { class: "here", r: 0 }, plane);
    tell(null);
  };

  const fact = (list, name, value) => {
    if (value === null || value === undefined || value === "") return;
    list.append(Object.assign(document.createElement("dt"), { textContent: name }), Object.assign(document.createElement("dd"), { textContent: value }));
  };
  const labelled = (entries, counts) => counts.map(([own, n]) => [entries[own][0] ?? words.rest, n]).filter(([name]) => name);

  const tell = (one) => {
    here = one;
    tip.hidden = one === null;
    tip.replaceChildren();
    ring.setAttribute("r", one === null ? 0 : one.r + 4);
    if (one === null) return;
    ring.setAttribute("cx", one.px);
    ring.setAttribute("cy", one.py);
    const list = document.createElement("dl");
    const title = document.createElement("b");
    if (one.side === "g") {
      title.textContent = `${words.customer}: ${number.format(sum(one.shown))}`;
      labelled(data.groups, one.shown).forEach(([name, n]) => fact(list, name, number.format(n)));
    } else {
      const [[name, brand, price]] = one.products;
      title.textContent = name;
      fact(list, words.brand, brand);
      fact(list, words.price, typeof price === "number" ? number.format(price) : price);
      fact(list, words.category, labelled(data.kinds, one.shown).map(([kind]) => kind).join(", "));
      fact(list, words.nearest, one.near);
      one.products.slice(1).forEach(([other]) => fact(list, "+", other));
      const more = sum(one.counts) - one.products.length;
      if (more > 0) fact(list, "+", words.more.replace("{n}", number.format(more)));
    }
    tip.append(title, list);
    const [width, height] = [plane.clientWidth, plane.clientHeight];
    tip.style.left = `${Math.max(0, Math.min(one.px + 14, width - tip.offsetWidth))}px`;
    const under = one.py + one.r + 10;
    tip.style.top = `${under + tip.offsetHeight > height ? Math.max(0, one.py - one.r - 10 - tip.offsetHeight) : under}px`;
    said.textContent = [title.textContent, ...[...list.children].map((child) => child.textContent)].join(", ");
  };

  const nearest = (x, y, within, allowed = () => true) => {
    let [found, best] = [null, within];
    points.forEach((one) => {
      const away = Math.hypot(one.px - x, one.py - y) - (allowed === always ? one.r : 0);
      if (away <= best && allowed(one)) [found, best] = [one, away];
    });
    return found;
  };
  const always = () => true;
  const pointed = (event) => {
    const box = plane.getBoundingClientRect();
    tell(nearest(event.clientX - box.left, event.clientY - box.top, 14, always));
  };
  plane.addEventListener("pointermove", pointed);
  plane.addEventListener("pointerdown", pointed);
  plane.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && tell(null));
  plane.addEventListener("blur", () => tell(null));
  plane.addEventListener("focus", () => {
    if (plane.matches(":focus-visible") && here === null) tell(nearest(plane.clientWidth / 2, plane.clientHeight / 2, Infinity));
  });
  // The same in a table, made once it is asked for.
  const table = document.getElementById("plane-table");
  const rows = () => things.flatMap((one) => one.products.map(([name, brand, price]) => {
    const kinds = labelled(data.kinds, one.counts).map(([kind]) => kind).join(", ");
    const cells = [name, brand, typeof price === "number" ? number.format(price) : price, kinds, ...(data.groups.length > 1 ? [one.near] : [])];
    const row = document.createElement("tr");
    row.append(...cells.map((text, place) => {
      const cell = document.createElement(place ? "td" : "th");
      if (!place) cell.scope = "row";
      if (place === 2) cell.className = "figure";
      cell.textContent = text ?? "";
      return cell;
    }));
    return row;
  }));
  table.addEventListener("toggle", () => table.querySelector("tbody").replaceChildren(...rows()), { once: true });

  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  plane.addEventListener("keydown", (event) => {
    if (event.key === "Escape") tell(null);
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    const from = here ?? { px: plane.clientWidth / 2, py: plane.clientHeight / 2 };
    const [dx, dy] = step;
    // What lies that way, more ahead than aside.
    const ahead = (one) => {
      const [along, aside] = [(one.px - from.px) * dx + (one.py - from.py) * dy, (one.px - from.px) * dy - (one.py - from.py) * dx];
      return one !== here && along > 0.5 && Math.abs(aside) <= along;
    };
    tell(nearest(from.px, from.py, Infinity, ahead) ?? here);
  });
  boxes.forEach((box) => box.addEventListener("change", render));
  new ResizeObserver(render).observe(plane);
  render();
})();

// On paper nothing can be opened.
addEventListener("beforeprint", () => document.querySelectorAll("details:not([open], .screen)").forEach((one) => one.setAttribute("open", "printed")));
addEventListener("afterprint", () => document.querySelectorAll('details[open="printed"]').forEach((one) => one.removeAttribute("open")));
