// What a network sees: all maps of each layer; pointing at a number shows what it sees and how it came about.

import { blocksOf, inspect, receptiveField } from "./explain.js";
import { cellStyle, element, GREEN, imagePicture, largest, magnify, mapsPicture, MOVES } from "./paint.js";

const GAP = 4, PADDING = 14; // pixels between maps, and around them
const SHOWN = 5; // of the parts of a sum
const KINDS = {
  image: "The image",
  conv: "Convolution",
  max_pool: "Max pooling",
  avg_pool: "Average pooling",
  linear: "Fully connected",
  add: "Residual add",
  batch_norm: "batch norm",
  relu: "ReLU",
};

export class Layers {
  /** `rows` will hold the maps, `panel` the explanation of one number. */
  constructor(rows, panel) {
    Object.assign(this, { rows, panel, blocks: [], chosen: null, pinned: false });
    this.body = panel.querySelector(".body");
    panel.querySelector("button").addEventListener("click", () => this.choose(null));
    new ResizeObserver(() => this.draw()).observe(rows);
    rows.addEventListener("keydown", (event) => event.key === "Escape" && this.choose(null));
  }

  /** Show another network, a Card. */
  show(card) {
    const [image] = Object.entries(card.entry.inputs);
    const first = { name: image[0], kind: "image", shape: image[1], inputs: [], field: { size: 1, jump: 1, start: 0 } };
    this.card = card;
    this.blocks = [{ layers: [first] }, ...blocksOf(card.entry.layers)].map((block) => this.makeRow(block));
    this.rows.replaceChildren(...this.blocks.map(({ row }) => row));
    this.choose(null);
  }

  /** Whether a layer reads the number that session 2 adds, and not the image. */
  readsNumber({ inputs }) {
    return this.card.entry.inputs[inputs[0]]?.length === 1;
  }

  makeRow(block) {
    const [first] = block.layers, [channels, height, width] = [...first.shape, 1, 1];
    const size = first.shape.length > 1 ? `${channels} × ${height} × ${width}` : `${channels}`;
    const kind = first.kernel ? `${KINDS[first.kind]} ${first.kernel} × ${first.kernel}` : KINDS[first.kind];
    const title = [kind, ...block.layers.slice(1).map(({ kind }) => KINDS[kind])].join(", ");
    const field = this.readsNumber(first) ? "the number that is added" : first.field ? `${first.field.size} × ${first.field.size} pixels` : "the whole image";
    const sees = first.kind === "image" ? "" : `sees ${field}`;
    const canvas = element("canvas", { tabindex: 0, role: "application", "aria-label": `${title}: maps, ${size}. Arrow keys choose a number.` });
    const made = { ...block, canvas, title, channels, height, width, name: block.layers.at(-1).name };
    canvas.addEventListener("pointermove", (event) => {
      if (event.pointerType === "mouse" && !this.pinned) this.choose(made, this.placeOf(made, event));
    });
    canvas.addEventListener("click", (event) => this.pin(made, this.placeOf(made, event)));
    canvas.addEventListener("keydown", (event) => event.key in MOVES && !(event.altKey || event.ctrlKey || event.metaKey) && this.move(made, event));
    const code = first.kind === "image" ? [] : [element("code", {}, first.name)];
    made.row = element("section", { class: "row" }, element("h3", {}, title, " ", ...code), element("p", {}, `${size} ${sees && `· a number ${sees}`}`), canvas);
    return made;
  }

  /** Draw everything again with the maps of the card's last image. */
  update() {
    this.draw();
    this.explain();
  }

  draw() {
    if (!this.card) return;
    for (const block of this.blocks) this.drawRow(block);
  }

  drawRow(block) {
    const { canvas, channels, height, width } = block;
    const wanted = height === 1 ? 16 : channels > 40 ? 44 : channels > 20 ? 60 : 84;
    const space = canvas.parentElement.clientWidth - 2 * PADDING + GAP;
    const columns = Math.max(1, Math.round(space / (wanted + GAP))); // as many as fill the row
    const side = Math.floor(space / columns) - GAP;
    const rows = Math.ceil(channels / columns);
    Object.assign(block, { side, columns });
    const [wide, high] = [Math.min(columns, channels), rows].map((count) => count * (side + GAP) - GAP), dense = Math.min(devicePixelRatio, 2);
    Object.assign(block, { wide, high });
    Object.assign(canvas, { width: wide * dense, height: high * dense });
    Object.assign(canvas.style, { width: `${wide}px`, height: `${high}px` });
    block.picture = new OffscreenCanvas(canvas.width, canvas.height);
    const context = block.picture.getContext("2d");
    context.scale(dense, dense);
    context.imageSmoothingEnabled = false;
    const map = this.mapOf(block), sheet = map && mapsPicture(map, largest(map.data));
    for (let c = 0; c < channels; c++) {
      const [left, top] = this.corner(block, c);
      if (map) context.drawImage(sheet, 0, c * height, width, height, left, top, side, side);
      else context.fillRect(left, top, side, side);
    }
    canvas.getContext("2d").scale(dense, dense);
    this.paint(block);
  }

  /** Put the maps of a row on the page, and the frames over them. */
  paint(block) {
    const context = block.canvas.getContext("2d");
    context.drawImage(block.picture, 0, 0, block.wide, block.high);
    this.mark(block, context);
  }

  /** The maps of a block as [channels, height, width]; of the image its pixels, not the normalised ones. */
  mapOf({ layers: [{ kind }], name, channels, height, width }) {
    if (!this.card.maps) return null;
    return { shape: [channels, height, width], data: kind === "image" ? this.card.image.data : this.card.maps.get(name).data };
  }

  corner({ columns, side }, channel) {
    return [(channel % columns) * (side + GAP), Math.floor(channel / columns) * (side + GAP)];
  }

  /** Frame the chosen number, the numbers that it is made from, and on the image what it sees. */
  mark(block, context) {
    if (!this.chosen) return;
    const { block: chosen, channel, y, x } = this.chosen, [first] = chosen.layers;
    const frame = (left, top, size, only) => {
      const unit = block.side / block.height, wide = Math.max(size * unit, 8); // a frame that can be seen
      const middle = [left, top].map((start) => (start + size / 2) * unit - wide / 2);
      for (let c = 0; c < block.channels; c++) {
        if (only !== undefined && c !== only) continue;
        const corner = this.corner(block, c);
        context.save();
        context.beginPath();
        context.rect(...corner, block.side, block.side);
        context.clip();
        context.strokeRect(corner[0] + middle[0] + 1, corner[1] + middle[1] + 1, wide - 2, wide - 2);
        context.restore();
      }
    };
    Object.assign(context, { strokeStyle: GREEN, lineWidth: 2 });
    if (block === chosen) frame(x, y, 1, channel);
    else if (block.layers[0].kind === "image") {
      if (this.readsNumber(first)) return;
      const seen = receptiveField(first, y, x) ?? { left: 0, top: 0, size: block.height };
      frame(seen.left, seen.top, seen.size);
    } else if (first.inputs.includes(block.name)) {
      const { kernel = 1, stride = 1, padding = 0 } = first;
      if (first.kind !== "linear") frame(x * stride - padding, y * stride - padding, kernel, first.kind === "conv" ? undefined : channel);
    }
  }

  /** The number under a pointer, {channel, y, x}, or null. */
  placeOf({ canvas, side, columns, channels, height }, { clientX, clientY }) {
    const { left, top } = canvas.getBoundingClientRect();
    const across = clientX - left, down = clientY - top, cell = side + GAP;
    const channel = Math.floor(down / cell) * columns + Math.floor(across / cell);
    const [x, y] = [across % cell, down % cell].map((rest) => Math.floor((rest * height) / side));
    return x >= height || y >= height || channel >= channels || channel < 0 ? null : { channel, y, x };
  }

  pin(block, place) {
    const again = this.pinned && this.chosen?.block === block && ["channel", "y", "x"].every((key) => this.chosen[key] === place?.[key]);
    this.choose(again ? null : block, place);
    this.pinned = Boolean(this.chosen);
  }

  /** Go to the next number; over the edge of a map lies the map beside it. */
  move(block, event) {
    event.preventDefault();
    const { channels, columns, height, width } = block;
    const from = this.chosen?.block === block ? this.chosen : { channel: 0, y: Math.floor(height / 2), x: Math.floor(width / 2) };
    const [right, down] = MOVES[event.key];
    const x = (from.channel % columns) * width + from.x + right, y = Math.floor(from.channel / columns) * height + from.y + down;
    const column = Math.floor(x / width), channel = Math.floor(y / height) * columns + column;
    if (x < 0 || y < 0 || column >= columns || channel >= channels) return;
    this.choose(block, { channel, y: y % height, x: x % width });
    this.pinned = true;
    this.panel.querySelector("[role=status]").textContent = this.body.querySelector("h3")?.textContent ?? "";
  }

  choose(block, place = null) {
    this.chosen = block && place && block.layers[0].kind !== "image" ? { block, ...place } : null;
    if (!this.chosen) this.pinned = false;
    for (const each of this.blocks) if (each.picture) this.paint(each);
    this.explain();
  }

  explain() {
    this.panel.classList.toggle("open", Boolean(this.chosen && this.card?.maps));
    if (!this.chosen || !this.card?.maps) return this.body.replaceChildren();
    const { block, channel, y, x } = this.chosen, [first] = block.layers;
    const { parts, steps } = inspect(block, this.card.tensors, this.card.maps, channel, y, x);
    const { outputs } = this.card.entry, classes = outputs.length === 1 && block === this.blocks.at(-1) && outputs[0].classes;
    const place = block.height > 1 ? `Map ${channel}, row ${y}, column ${x}` : `Number ${channel}${classes ? `, “${classes[channel]}”` : ""}`;
    const value = steps.at(-1).value;
    this.body.replaceChildren(
      element("h3", {}, `${place}: `, element("strong", {}, number(value))),
      element("p", { class: "where" }, block.title),
      ...(this.readsNumber(first) ? [] : [this.imageWith(receptiveField(first, y, x))]),
      ...this.partsList(first, parts),
      element("dl", { class: "steps" }, ...steps.flatMap((step, at) => explainStep(step, parts, steps[at - 1]))),
    );
  }

  /** The image with a frame around what the number sees. */
  imageWith(seen) {
    const canvas = element("canvas", { width: 168, height: 168, role: "img" }), { image } = this.card;
    const context = magnify(canvas, imagePicture(image)), unit = 168 / image.shape[1];
    Object.assign(context, { strokeStyle: GREEN, lineWidth: 3 });
    const { left, top, size } = seen ?? { left: 0, top: 0, size: image.shape[1] };
    context.strokeRect(left * unit, top * unit, size * unit, size * unit);
    const text = seen ? `It sees ${size} × ${size} pixels of the image.` : "It sees the whole image.";
    canvas.setAttribute("aria-label", text);
    return element("figure", {}, canvas, element("figcaption", {}, text));
  }

  partsList({ kind, inputs }, parts) {
    const shown = parts.slice(0, SHOWN), rest = parts.slice(SHOWN).reduce((sum, part) => sum + part.sum, 0);
    const patches = largest(shown.flatMap(({ patch }) => patch)), filters = largest(shown.flatMap(({ filter }) => filter ?? []));
    const what = kind === "linear" ? "number" : "map";
    const lines = shown.map(({ source, channel, patch, filter, kernel, sum }) =>
      element(
        "li",
        {},
        element("span", { class: "of" }, source ?? `${what} ${channel}`),
        grid(patch, kernel, patches),
        ...(filter ? ["×", grid(filter, kernel, filters), `= ${number(sum)}`] : []),
      ),
    );
    if (parts.length > SHOWN) lines.push(element("li", {}, `${parts.length - SHOWN} more ${what}s, which weigh less: ${number(rest)}`));
    const patch = inputs[0] in this.card.entry.inputs ? "Patch of the normalised image" : "Patch";
    const head = { conv: `${patch} × filter`, linear: "Input × weight" }[kind] ?? "What goes in";
    return [element("h4", {}, head), element("ol", { class: "parts" }, ...lines)];
  }
}

/** Numbers as a small table with colours. */
function grid(values, kernel, scale) {
  const cells = values.map((value) => element("span", { style: cellStyle(value, scale) }, value.toFixed(Math.abs(value) < 9.95 ? 2 : 1)));
  return element("span", { class: "grid", style: `--kernel: ${kernel}` }, ...cells);
}

const number = (value) => value.toFixed(3).replace("-", "−");

/** A line of the sum: what a layer of the block did. */
function explainStep(step, parts, before) {
  const from = before && number(before.value);
  const terms = {
    conv: () => `${parts.length > 1 ? `sum over ${parts.length} maps` : "sum"}${step.bias === undefined ? "" : ` + bias ${number(step.bias)}`}`,
    linear: () => `sum over ${parts.length} numbers${step.bias === undefined ? "" : ` + bias ${number(step.bias)}`}`,
    max_pool: () => "the largest",
    avg_pool: () => "the mean",
    add: () => "both added",
    batch_norm: () => `${number(step.weight)} × (${from} − ${number(step.mean)}) / √(${number(step.variance)} + ${step.eps}) + ${number(step.bias)}`,
    relu: () => `max(0, ${from})`,
  };
  return [element("dt", {}, KINDS[step.kind]), element("dd", {}, `${terms[step.kind]()} = `, element("strong", {}, number(step.value)))];
}
