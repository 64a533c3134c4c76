"use strict";

// The customer tower of a trained model, its scores, boosts and reasons, and the widgets to try them.
// recsys_jax/report/panel.py says what the data holds. Sums are of 64 bits here, so that what is computed is what Python
// computes, to the rounding of its 32.
(() => {
  const bytes = (text) => Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
  const floats = (text) => new Float32Array(bytes(text).buffer);
  const norm = (vector) => Math.hypot(...vector);
  const dot = (a, b) => a.reduce((total, x, at) => total + x * b[at], 0);
  const has = (rule, row) => ((rule.products[row >> 3] >> (row & 7)) & 1) === 1;

  // What is stated, by column: null for nothing, the number of an option, a list of such, or a number.
  class Model {
    constructor(data) {
      Object.assign(this, data);
      for (const name of ["start", "kernel", "bias", "vectors", "popularity", "centre"]) {
        this[name] = data[name] && floats(data[name]);
      }
      this.popular = data.popular.map((one) => ({ ...one, adds: floats(one.adds) }));
      this.rules = data.rules.map((one) => ({ ...one, products: bytes(one.products) }));
      this.features = data.fields.flatMap((field, column) =>
        field.features.map((one) => {
          const arrays = ["adds", "average", "curve", "line"].filter((name) => name in one);
          return { ...one, field, column, ...Object.fromEntries(arrays.map((name) => [name, floats(one[name])])) };
        }),
      );
      this.width = this.centre.length;
    }

    vectorOf(row) {
      return this.vectors.subarray(row * this.width, (row + 1) * this.width);
    }

    // What a feature adds to the sums with which the paths begin: of several values the deep path has the mean.
    part(feature, stated) {
      const { kind, options } = feature.field;
      if (kind === "number" && stated !== null) return this.along(feature, stated);
      const rows = stated === null || stated.length === 0 ? [options.length] : [stated].flat();
      return Float64Array.from(this.start, (_, at) => {
        const sum = rows.reduce((total, row) => total + feature.adds[row * this.start.length + at], 0);
        return at < this.wide ? sum : sum / rows.length;
      });
    }

    // The same of a number: in the wide path along a curve, constant beyond its knots; in the deep one in proportion.
    along({ scale, clip: [low, high], mean, deviation, knots, curve, line }, number) {
      const clipped = Math.min(Math.max(number / scale, low ?? -Infinity), high ?? Infinity);
      const x = Math.fround((clipped - mean) / deviation);
      const within = Math.min(Math.max(x, knots[0]), knots.at(-1));
      const place = Math.min(knots.findLastIndex((knot) => knot <= within), knots.length - 2);
      const share = (within - knots[place]) / (knots[place + 1] - knots[place]);
      return Float64Array.from(this.start, (_, at) => {
        if (at >= this.wide) return x * line[at - this.wide];
        const [from, to] = [curve[place * this.wide + at], curve[(place + 1) * this.wide + at]];
        return from + share * (to - from);
      });
    }

    // The customer's vector, as far as it meets those of products; in a wide path alone, `reach` may be another's.
    vector(sums, reach) {
      const y = [...sums.subarray(0, this.wide)];
      if (this.kernel) {
        const hidden = sums.subarray(this.wide).map((x) => Math.max(x, 0));
        const out = Float64Array.from(this.bias, (x, at) =>
          hidden.reduce((total, one, from) => total + one * this.kernel[from * this.bias.length + at], x),
        );
        const least = Math.max(norm(out), 1e-12);
        y.push(...out.map((x) => (this.scale * x) / least));
      }
      const divisor = reach ?? (this.radius ? Math.max(this.radius, norm(y)) : 1);
      return Float64Array.from(y, (x) => x / divisor);
    }

    // The parts of all features, and the sums.
    read(stated) {
      const parts = this.features.map((feature) => this.part(feature, stated[feature.column]));
      const sums = Float64Array.from(this.start, (x, at) => parts.reduce((total, part) => total + part[at], x));
      return [parts, sums];
    }

    // The boost rules whose conditions the customer meets.
    met(stated) {
      const meets = ({ kind, rules }, number, value) => {
        if (!(number in rules)) return true;
        if (value === null) return false;
        if (kind !== "number") return [value].flat().some((option) => rules[number].includes(option));
        return rules[number].every(([low, high]) => value >= (low ?? -Infinity) && value <= (high ?? Infinity));
      };
      return this.rules.filter((_, number) => this.fields.every((field, at) => meets(field, number, stated[at])));
    }

    // Of each product its score, what popularity adds, what each rule adds, and their sum, which is the order.
    standing(stated, boosted = true) {
      const customer = this.vector(this.read(stated)[1]);
      const met = boosted ? this.met(stated) : [];
      return this.products.map((product, row) => {
        const cosine = dot(this.vectorOf(row), customer);
        const boosts = new Map();
        for (const { name, add } of met.filter((rule) => has(rule, row))) boosts.set(name, (boosts.get(name) ?? 0) + add);
        const boost = [...boosts.values()].reduce((total, add) => total + add, 0);
        const popularity = this.popularity[row];
        const score = Math.min(Math.max((1 + cosine) / 2, 0), 1);
        return { row, product, score, popularity, boost, boosts, value: cosine / 2 + popularity + boost };
      });
    }

    // Why products stand where they do: of each row what adds how much to it, the largest first, in log-odds where
    // scores are such. An attribute's part is the change against the average customer's value.
    reasons(stated, rows, boosted = true) {
      const [parts, sums] = this.read(stated);
      const reach = this.kernel ? undefined : Math.max(this.radius, norm(sums));
      const customer = this.vector(sums);
      const usual = this.vector(this.features.reduce((total, { average }) => total.map((x, at) => x + average[at]), Float64Array.from(this.start)), reach);
      const rest = customer.map((x, at) => x - usual[at]);
      const moves = this.fields.map(() => new Float64Array(this.width));
      this.features.forEach(({ column, average }, number) => {
        const other = this.vector(sums.map((x, at) => x - parts[number][at] + average[at]), reach);
        other.forEach((x, at) => {
          moves[column][at] += customer[at] - x;
          rest[at] -= customer[at] - x;
        });
      });
      const met = boosted ? this.met(stated) : [];
      return rows.map((row) => {
        const relative = Float64Array.from(this.vectorOf(row), (x, at) => (x - this.centre[at]) / 2);
        return [
          ...moves.map((move, column) => ({ kind: "attribute", name: this.fields[column].name, column, adds: dot(move, relative) })),
          ...this.popular.map(({ name, label, isPrice, adds }, at) => ({ kind: "popularity", name, label, isPrice, value: this.products[row][5 + at], adds: adds[row] })),
          ...met.filter((rule) => has(rule, row)).map(({ name, add }) => ({ kind: "boost", name, adds: add })),
          { kind: "average", name: "", adds: dot(usual, relative) },
          { kind: "rest", name: "", adds: dot(rest, relative) },
        ]
          .map((one) => ({ ...one, adds: one.adds / this.divisor }))
          .filter((one) => one.adds)
          .sort((a, b) => Math.abs(b.adds) - Math.abs(a.adds));
      });
    }
  }

  // The best first; ties go to the lower index.
  const ordered = (standing) => [...standing].sort((a, b) => b.value - a.value || a.row - b.row);

  const node = (name, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };

  // A text with {fields}, filled in one pass: what stands in a product's name is no field.
  const fill = (text, values) => text.replace(/{(\w+)}/g, (_, name) => values[name]);

  // What stands under a widget that has not all values.
  const hint = (field, words) => {
    const text = fill(words.frequent, { count: field.options.length, total: field.total });
    return node("p", { className: "try-hint", hidden: field.options.length === field.total }, text);
  };

  // Widgets: an element, what it states (undefined where that is not allowed, and then it says why), and a usual value.

  const choice = (field, id, words) => {
    const options = field.options.map((text, at) => node("option", { value: at }, text));
    if (field.open) options.unshift(node("option", { value: "" }, words.unstated));
    const control = node("select", { id }, ...options);
    const title = node("label", { htmlFor: id }, field.label);
    return {
      element: node("div", { className: "try-field" }, title, control, hint(field, words)),
      stated: () => (control.value === "" ? null : Number(control.value)),
      restart: () => (control.value = field.usual ?? ""),
    };
  };

  const choices = (field, id, words) => {
    const boxes = field.options.map(() => node("input", { type: "checkbox" }));
    const lines = boxes.map((box, at) => node("label", {}, box, node("span", {}, field.options[at])));
    const error = problem(id);
    const element = node("fieldset", { className: "try-field" }, node("legend", {}, field.label));
    element.append(node("div", { className: "try-boxes" }, ...lines), hint(field, words), error);
    element.setAttribute("aria-describedby", error.id);
    return {
      element,
      stated: () => {
        const chosen = [...boxes.keys()].filter((at) => boxes[at].checked);
        return says(error, chosen.length || field.open ? "" : words.choose_one) ? undefined : chosen;
      },
      restart: () => boxes.forEach((box, at) => (box.checked = field.usual?.includes(at) ?? false)),
    };
  };

  const number = (field, id, words, format) => {
    const [low, high] = field.bounds;
    const shown = { low: format(low), high: format(high) };
    const [upTo, from] = [high === null ? words.number : words.number_to, high === null ? words.number_from : words.number_from_to];
    const allowed = fill(low === null ? upTo : from, shown);
    const control = node("input", { type: "number", id, step: field.step, inputMode: "decimal" });
    const limits = { min: low, max: high, placeholder: field.open ? words.unstated : null };
    Object.entries(limits).forEach(([name, value]) => value !== null && (control[name] = value));
    const error = problem(id);
    control.setAttribute("aria-describedby", error.id);
    return {
      element: node("div", { className: "try-field" }, node("label", { htmlFor: id }, field.label), control, error),
      stated: () => {
        const found = control.valueAsNumber; // NaN where there is none
        const nothing = field.open && Number.isNaN(found) && !control.validity.badInput;
        const within = Math.abs(found) < 1e12 && found >= (low ?? -Infinity) && found <= (high ?? Infinity);
        control.setAttribute("aria-invalid", !(nothing || within));
        return says(error, nothing || within ? "" : allowed) ? undefined : nothing ? null : found;
      },
      restart: () => (control.value = field.usual ?? ""),
    };
  };

  const OWN = ({ kind }) => kind !== "boost";

  const WIDGETS = { one: choice, several: choices, number };

  const problem = (id) => node("p", { className: "try-problem", id: `${id}-problem`, hidden: true });

  const says = (error, why) => {
    error.textContent = why;
    error.hidden = !why;
    return why !== "";
  };

  // Fills the element with the widgets and the list, which follows them.
  const mount = (root, data, words, language) => {
    const model = new Model(data);
    const format = (least, most, signDisplay = "auto", useGrouping = true) => {
      const digits = { minimumFractionDigits: least, maximumFractionDigits: most };
      const made = new Intl.NumberFormat(language, { ...digits, signDisplay, useGrouping });
      return (value) => made.format(value).replace("-", "−");
    };
    const [plain, fixed, signed] = [format(0, 6), format(3, 3), format(3, 3, "exceptZero")];
    const short = format(2, 2, "exceptZero");
    const ofCustomer = format(0, 6, "auto", false); // a year of birth is no 1,977
    const ofProduct = format(0, 6, "auto", "min2"); // nor one of publication; but 57,900
    const nameOf = ([id, name]) => String(name ?? id);
    const [leftOut, opened] = [new Set(), new Set([0])]; // rows of products; places in the list whose reasons are shown
    let stated, length;

    const longest = Math.min(data.products.length, 100);
    const count = { kind: "number", label: words.length, bounds: [1, longest], usual: Math.min(10, longest), step: 1 };
    const widgets = [...data.fields, count].map((field, at) => WIDGETS[field.kind](field, `try-${at}`, words, ofCustomer));
    const elements = widgets.map((one) => one.element);
    const restart = node("button", { type: "button" }, words.restart);
    const status = node("p", { className: "try-status" });
    status.setAttribute("role", "status");
    const list = node("ol", { className: "try-list" });
    list.setAttribute("role", "list"); // which some browsers forget where no numbers are drawn
    const gone = node("p", { className: "try-gone" });
    const head = node("div", { className: "try-head" }, status, elements.at(-1));
    const boosted = node("input", { type: "checkbox", defaultChecked: true });
    const toggle = node("label", { className: "try-rules", hidden: !data.rules.length }, boosted, words.rules);
    root.append(
      node("form", { className: "try-customer", noValidate: true }, ...elements.slice(0, -1), toggle, restart),
      node("div", { className: "try-found" }, head, list, gone),
    );

    // What a reason is, in words.
    const wordsOf = ({ kind, name, label, column, value, isPrice, adds }) => {
      const often = adds > 0 ? words.popular : words.seldom;
      if (kind === "boost") return fill(words.rule, { name });
      if (kind === "rest") return words.rest;
      if (kind === "average") return words.average;
      if (kind === "popularity") {
        const told = typeof value === "number" ? (isPrice ? plain : ofProduct)(value) : (value ?? words.unstated);
        return name ? fill(words.often_of, { label, value: told, often }) : often;
      }
      return `${data.fields[column].label} ${said(data.fields[column], stated[column])}`;
    };

    const said = ({ kind, options, assumed }, value) => {
      if (value === null || value.length === 0) return assumed === null ? words.unstated : fill(words.assumed, { value: assumed });
      return kind === "number" ? ofCustomer(value) : [value].flat().map((at) => options[at]).join(", ");
    };

    // The largest reasons in words, the shop's rules aside, and all of them as bars when opened; `most` fills one side.
    const why = (place, reasons, most) => {
      const bar = (text, adds) => {
        const share = Math.min((50 * Math.abs(adds)) / most, 50);
        const kinds = { "try-minus": adds < 0, "try-beyond": Math.abs(adds) > most };
        const filled = node("span", { className: Object.keys(kinds).filter((one) => kinds[one]).join(" ") });
        filled.style.left = `${adds < 0 ? 50 - share : 50}%`;
        filled.style.width = `${share}%`;
        return [node("dt", {}, text), node("dd", {}, node("span", { className: "try-track" }, filled), node("b", {}, short(adds)))];
      };
      const shown = reasons.filter(({ adds }) => Math.abs(adds) >= 0.005);
      const first = shown.filter(OWN).slice(0, 3).map((one) => node("span", {}, `${wordsOf(one)} ${short(one.adds)}`));
      const summary = first.length ? first.flatMap((one, at) => (at ? [" · ", one] : [one])) : [words.nothing];
      const bars = shown.flatMap((one) => bar(wordsOf(one), one.adds));
      const details = node("details", { className: "try-why", open: opened.has(place) });
      const head = node("summary", {}, ...summary);
      // At once, and as it was before the click: a toggle comes later, when the list may be a new one.
      head.addEventListener("click", () => opened[details.open ? "delete" : "add"](place));
      details.append(head, node("dl", {}, ...bars));
      return details;
    };

    const line = (one, place, reasons) => {
      const [, , brand, category, price] = one.product;
      const cost = typeof price === "number" ? plain(price) : price;
      const about = [brand, category, cost].filter((text) => text !== null).join(" · ");
      const out = node("button", { type: "button", className: "try-out", title: words.leave_out }, "×");
      out.setAttribute("aria-label", fill(words.leave_out_name, { name: nameOf(one.product) }));
      out.addEventListener("click", () => {
        leftOut.add(one.row);
        show();
        const buttons = root.querySelectorAll(".try-out, .try-gone button");
        buttons[Math.min(place, buttons.length - 1)].focus();
      });
      const parts = [[words.score, fixed(one.score)]];
      if (one.popularity) parts.push([words.popularity, signed(one.popularity)]);
      for (const [name, add] of one.boosts) parts.push([name, signed(add), "try-boost"]);
      const numbers = parts.map(([name, value, kind = ""]) =>
        node("span", { className: kind }, node("span", {}, `${name} `), node("b", {}, value)),
      );
      return node(
        "li",
        {},
        node("div", { className: "try-product" }, node("b", {}, nameOf(one.product)), node("span", {}, about)),
        out,
        node("div", { className: "try-parts" }, ...numbers),
        reasons,
      );
    };

    const back = (row) => {
      const name = nameOf(data.products[row]);
      const button = node("button", { type: "button", title: words.bring_back }, name);
      button.setAttribute("aria-label", fill(words.bring_back_name, { name }));
      button.addEventListener("click", () => {
        leftOut.delete(row);
        show();
        (gone.querySelector("button") ?? restart).focus();
      });
      return button;
    };

    const show = () => {
      const found = widgets.map((one) => one.stated());
      root.classList.toggle("try-stale", found.includes(undefined));
      if (!found.includes(undefined)) [stated, length] = [found.slice(0, -1), Math.floor(found.at(-1))];
      if (stated === undefined) return;
      const all = ordered(model.standing(stated, boosted.checked));
      const left = all.filter((one) => !leftOut.has(one.row)).slice(0, length);
      const reasons = model.reasons(stated, left.map((one) => one.row), boosted.checked);
      const most = Math.max(1e-9, ...reasons.flat().filter(OWN).map(({ adds }) => Math.abs(adds)));
      list.replaceChildren(...left.map((one, place) => line(one, place, why(place, reasons[place], most))));
      status.textContent = fill(words.found, { count: plain(left.length), total: plain(all.length) });
      gone.replaceChildren(...(leftOut.size ? [`${words.left_out} `, ...[...leftOut].map(back)] : []));
    };

    root.addEventListener("submit", (event) => event.preventDefault());
    root.addEventListener("input", show);
    restart.addEventListener("click", () => {
      leftOut.clear();
      boosted.checked = true;
      widgets.forEach((one) => one.restart());
      show();
    });
    restart.click();
  };

  globalThis.recsysPanel = { Model, ordered };
  if (typeof document === "undefined") return;
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const root = document.getElementById("panel");
  if (root) mount(root, read("panel-data"), read("panel-words"), document.documentElement.lang);
})();
