// One network beside the drawing: what it reads, how sure it is, and where it looks.

import { forward, softmax } from "./forward.js";
import { heatMap } from "./explain.js";
import { element, paintHeat } from "./paint.js";
import { normalise } from "./prepare.js";

const percent = (share) => `${(100 * share).toFixed(share > 0.9995 || share < 0.0005 ? 0 : 1)} %`;

export class Card {
  /** `entry` describes the network, `tensors` are its weights, `images` says how its data set is normalised; `page` is the address of its session. */
  constructor(root, entry, tensors, images, page) {
    Object.assign(this, { root, entry, tensors, images, pinned: null, pointed: null });
    this.answer = element("p", { class: "answer" });
    this.heat = element("canvas", { width: 224, height: 224, class: "heat", role: "img" });
    this.heat.getContext("2d", { willReadFrequently: true });
    this.heatText = element("figcaption");
    this.groups = entry.outputs.filter(({ classes }) => classes).map((output) => this.makeBars(output));
    const facts = element("p", { class: "facts" }, `${entry.parameters.toLocaleString("en")} parameters. `);
    if (entry.accuracy) {
      facts.append(`These weights are right for ${(100 * entry.accuracy).toFixed(2)} % of the ${entry.tested.toLocaleString("en")} test images of ${entry.dataset}. `);
      facts.append(element("a", { href: page }, "Its session"));
    }
    this.time = element("span", { class: "time" });
    const look = element("div", { class: "look" }, element("h3", {}, "Where it looks"), element("figure", {}, this.heat, this.heatText));
    const named = this.groups.length > 1; // session 2 has two answers
    const says = element("div", {}, this.answer, ...this.groups.flatMap(({ output, element: bars }) => [named ? element("h3", {}, `The ${output.name}`) : "", bars]));
    root.replaceChildren(element("h2", {}, entry.title), facts, element("div", { class: "columns" }, says, look), this.time);
  }

  /** A bar for each class of an output; pointing at one shows where the network looks for it. */
  makeBars(output) {
    const from = this.entry.outputs.slice(0, this.entry.outputs.indexOf(output)).reduce((sum, { classes }) => sum + (classes?.length ?? 1), 0);
    const bars = output.classes.map((name, at) => {
      const bar = element("span", { class: "bar" }), share = element("span", { class: "share" });
      const point = (score) => () => this.point(score);
      const events = { pointerenter: point(from + at), pointerleave: point(null), focus: point(from + at), blur: point(null) };
      const button = element(
        "button",
        { type: "button", "aria-pressed": "false", ...events, click: () => this.pin(from + at) },
        ...[element("span", { class: "name" }, name), element("span", { class: "track" }, bar), share],
      );
      return { button, bar, share };
    });
    const longest = Math.max(...output.classes.map((name) => name.length));
    const many = output.classes.length > 12 ? " many" : "";
    const list = element("div", { class: `bars${many}`, role: "group", "aria-label": `Probabilities, ${output.name}`, style: `--names: ${longest + 0.5}ch` }, ...bars.map(({ button }) => button));
    return { output, from, bars, element: list };
  }

  point(score) {
    this.pointed = score;
    this.showHeat();
  }

  /** Keep looking at a class; at the same one again: follow the answer. */
  pin(score) {
    this.pinned = this.pinned === score ? null : score;
    this.showHeat();
  }

  /** Judge an image {shape, data} with numbers from 0 to 1, or null for none, and the number that session 2 adds. */
  update(image, digit) {
    this.image = image;
    this.root.classList.toggle("empty", !image);
    if (!image) {
      this.maps = null;
      this.answer.textContent = "Draw something.";
      return;
    }
    const { mean, std } = this.images[this.entry.dataset];
    const [imageName, digitName] = Object.keys(this.entry.inputs);
    const inputs = { [imageName]: normalise(image, mean, std) };
    if (digitName) inputs[digitName] = { shape: [1], data: Float32Array.of(digit) };
    const start = performance.now();
    this.maps = forward(this.entry.layers, this.tensors, inputs);
    this.time.textContent = `Computed in ${(performance.now() - start).toFixed(1)} ms on this device.`;
    this.scores = [...this.maps.values()].at(-1).data;
    this.best = this.groups.map(({ output, from, bars }) => {
      const shares = softmax(this.scores.subarray(from, from + output.classes.length));
      shares.forEach((share, at) => {
        bars[at].bar.style.setProperty("--share", share);
        bars[at].share.textContent = percent(share);
      });
      const best = shares.indexOf(Math.max(...shares));
      bars.forEach(({ button }, at) => button.classList.toggle("best", at === best));
      return { name: output.classes[best], share: shares[best], score: from + best };
    });
    this.answer.replaceChildren(...this.sentence(digit));
    this.showHeat();
  }

  /** The answer: the class, or for session 2 a sum. */
  sentence(digit) {
    const [label, sum] = this.best, strong = (text) => element("strong", {}, text);
    if (!("digits" in this.entry.inputs)) return [strong(label.name), ` ${percent(label.share)}`];
    if (sum) return [`${label.name} + ${digit} = `, strong(sum.name), ` ${percent(sum.share)}`];
    const number = this.scores.at(-1); // a regression: one number, read in two ways
    return [`${label.name} + ${digit} = `, strong(Math.round(number)), ` round(${number.toFixed(3)}); int() reads ${Math.trunc(number)}`];
  }

  showHeat() {
    if (!this.image) return;
    const score = this.pointed ?? this.pinned ?? this.best[0].score;
    const group = this.groups.find(({ from, bars }) => score >= from && score < from + bars.length);
    for (const { from, bars } of this.groups) {
      bars.forEach(({ button }, at) => {
        button.classList.toggle("looked", from + at === score);
        button.setAttribute("aria-pressed", from + at === this.pinned);
      });
    }
    const heat = heatMap(this.entry, this.tensors, this.maps, score), name = group.output.classes[score - group.from];
    paintHeat(this.heat, this.image, heat);
    const mean = heat.data.reduce((a, b) => a + b) / heat.data.length, bias = this.scores[score] - mean;
    const [height, width] = heat.shape;
    const exact = `Class activation map for “${name}”. Orange speaks for it, blue against it: the mean of the map's ${height} × ${width} numbers, ${mean.toFixed(2)}, `;
    const plus = `${bias < 0 ? "−" : "+"} ${Math.abs(bias).toFixed(2)} (bias)`;
    const seen = this.entry.layers.find(({ name }) => name === this.entry.heat.layer).field.size;
    const coarse = ` Each number sees ${seen} × ${seen} pixels, so the places are only roughly right.`;
    this.heatText.textContent = (heat.exact
      ? `${exact}${Math.abs(bias) < 0.005 ? "is its score." : `${plus} is its score, ${this.scores[score].toFixed(2)}.`}`
      : `Grad-CAM for “${name}”: the maps of the last convolution, each with the weight that the gradient of the score gives it. Only what speaks for it is shown.`) + coarse;
    this.heat.setAttribute("aria-label", this.heatText.textContent);
  }
}
