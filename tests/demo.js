// What tests/test_demo.py computes in the browser, with the modules of the demo.

import { blocksOf, heatMap, inspect } from "/docs/demo/explain.js";
import { forward } from "/docs/demo/forward.js";
import { normalise, prepare } from "/docs/demo/prepare.js";
import { pick, readSafetensors } from "/docs/demo/safetensors.js";

const { networks } = await (await fetch("/docs/demo/networks.json")).json();
const read = {};

/** Judge one image with a network; `inputs` are the numbers of each of its inputs. */
async function judge(id, inputs) {
  const network = networks.find((entry) => entry.id === id);
  read[id] ??= pick(readSafetensors(await (await fetch(`/${network.weights}`)).arrayBuffer()), network.prefix);
  const given = Object.entries(network.inputs).map(([name, shape], at) => [name, { shape, data: Float32Array.from(inputs[at]) }]);
  return { network, tensors: read[id], maps: forward(network.layers, read[id], Object.fromEntries(given)) };
}

/** The numbers of all layers, one behind the other. */
export async function mapsOf(id, inputs) {
  const { network, maps } = await judge(id, inputs);
  return encode(network.layers.flatMap(({ name }) => [...maps.get(name).data]));
}

/** The same for a network that is not in networks.json, whose file of weights is given as text. */
export function mapsOfOther(network, text, inputs) {
  const given = Object.entries(network.inputs).map(([name, shape], at) => [name, { shape, data: Float32Array.from(inputs[at]) }]);
  const maps = forward(network.layers, readSafetensors(bytesOf(text).buffer), Object.fromEntries(given));
  return encode(network.layers.flatMap(({ name }) => [...maps.get(name).data]));
}

/** The heat map of each of the first scores. */
export async function heatMapsOf(id, inputs, scores) {
  const { network, tensors, maps } = await judge(id, inputs);
  return encode(Array.from({ length: scores }, (_, score) => [...heatMap(network, tensors, maps, score).data]).flat());
}

/** Where the numbers of an explanation do not add up, at three places of each block. */
export async function wrongExplanations(id, inputs) {
  const { network, tensors, maps } = await judge(id, inputs), wrong = [];
  for (const block of blocksOf(network.layers)) {
    const [first] = block.layers, [channels, height, width] = [...first.shape, 1, 1];
    const middle = [channels, height, width].map((size) => size >> 1);
    for (const place of [[0, 0, 0], [channels - 1, height - 1, width - 1], middle]) {
      const { parts, steps } = inspect(block, tensors, maps, ...place);
      const { patch } = parts[0];
      let value = parts.reduce((total, part) => total + part.sum, steps[0].bias ?? 0);
      if (first.kind === "max_pool") value = Math.max(...patch);
      if (first.kind === "avg_pool") value = patch.reduce((a, b) => a + b) / patch.length;
      for (const { kind, weight, mean, variance, eps, bias, value: shown } of steps) {
        if (kind === "batch_norm") value = (weight * (value - mean)) / Math.sqrt(variance + eps) + bias;
        if (kind === "relu") value = Math.max(0, value);
        if (!(Math.abs(value - shown) < 1e-3)) wrong.push([first.name, kind, place, value, shown]);
      }
    }
  }
  return wrong;
}

/** The answers of a network to images, given as the bytes of all their pixels. */
export async function answers(id, text, mean, std) {
  const bytes = bytesOf(text), found = [];
  for (let at = 0; at < bytes.length; at += 784) {
    const image = { shape: [1, 28, 28], data: Float32Array.from(bytes.subarray(at, at + 784), (byte) => byte / 255) };
    const { maps } = await judge(id, [normalise(image, mean, std).data]);
    const scores = [...maps.values()].at(-1).data;
    found.push(scores.indexOf(Math.max(...scores)));
  }
  return found;
}

/** An image of 28 x 28 bytes, enlarged 16 times to a drawing, and made small again by the page. */
export function preparedAgain(image) {
  const ink = Float32Array.from({ length: 448 * 448 }, (_, at) => image[(at / 448) >> 4][(at % 448) >> 4] / 255);
  return Array.from(prepare(ink, 448, 448).pixels);
}

/** The tensor `some` of a file. */
export function readSome(text) {
  return Array.from(readSafetensors(bytesOf(text).buffer).some.data);
}

function bytesOf(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

/** Numbers as text: their float32 bytes in base 64. */
function encode(numbers) {
  const bytes = new Uint8Array(Float32Array.from(numbers).buffer);
  let text = "";
  for (let at = 0; at < bytes.length; at += 30000) text += String.fromCharCode(...bytes.subarray(at, at + 30000));
  return btoa(text);
}
