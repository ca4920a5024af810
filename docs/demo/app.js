// The page: the drawing, the networks beside it, test images, and weights of one's own.

import { Card } from "./card.js";
import { Layers } from "./layers.js";
import { Pad } from "./pad.js";
import { element, GREEN, imagePicture, magnify } from "./paint.js";
import { prepare } from "./prepare.js";
import { checkTensors, FileError, pick, readSafetensors } from "./safetensors.js";

const find = (id) => document.getElementById(id);
const get = async (file) => {
  const answer = await fetch(file);
  if (!answer.ok) throw new Error(`${file} is missing (${answer.status}).`);
  return answer;
};
/** Say what could not be loaded. */
const fail = (error) => {
  find("message").textContent = `Something could not be loaded. ${error.message} Reload the page to try again.`;
  throw error;
};
const [{ source, networks }, images] = await Promise.all(["networks.json", "images.json"].map(async (file) => (await get(file)).json())).catch(fail);
// Weights are named from the root of the site, where this page is demo/, or of the repository, where it is docs/demo/.
const inRepository = location.pathname.includes("/docs/demo/");
const root = inRepository ? "../../" : "../";
const pageOf = ({ session }) => (inRepository ? `${source}/sessions/${session}` : `../sessions/${session}.html`);

const cards = { first: null, second: null };
const layers = new Layers(find("rows"), find("panel"));
let taken = null; // the test image that is shown instead of a drawing, {shape, data, label}
let latest = 0; // counts the choices of networks: while one loads, the reader may make another
let digit = 5; // what session 2 adds
let waiting = false;

// ---------------------------------------------------------------------------------------------------------------
// The image: a drawing or a test image

const pad = new Pad(find("pad"), find("cursor"), () => {
  taken = null;
  update();
});

/** The image that the networks get, and on the small picture how it was made from the drawing. */
function currentImage() {
  const prepared = taken ? null : prepare(pad.ink(), pad.canvas.width, pad.canvas.height);
  const image = taken ?? (prepared && { shape: [1, 28, 28], data: prepared.pixels });
  const canvas = find("prepared");
  const context = image ? magnify(canvas, imagePicture(image)) : canvas.getContext("2d");
  if (!image) context.clearRect(0, 0, canvas.width, canvas.height);
  find("made").textContent = taken
    ? `A test image of “${taken.label}”, ${taken.shape[1]} × ${taken.shape[2]} pixels, as it is.`
    : "28 × 28 pixels: the drawing scaled into 20 × 20 (frame), its centre of mass (cross) in the middle, as the digits of MNIST were made.";
  for (const button of find("samples").children) button.setAttribute("aria-pressed", button.image === taken);
  if (prepared) {
    const unit = canvas.width / 28, { box, mass } = prepared;
    Object.assign(context, { strokeStyle: GREEN, lineWidth: 2 });
    context.strokeRect(box.left * unit, box.top * unit, box.width * unit, box.height * unit);
    context.beginPath();
    for (const [x, y] of [[-6, 0], [6, 0]]) context.lineTo(mass.x * unit + x, mass.y * unit + y);
    context.moveTo(mass.x * unit, mass.y * unit - 6);
    context.lineTo(mass.x * unit, mass.y * unit + 6);
    context.stroke();
  }
  return image;
}

/** Let all networks judge the image, once before the browser paints next. */
function update() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    const image = currentImage();
    document.body.classList.toggle("drawn", Boolean(image));
    for (const card of Object.values(cards)) card?.update(image, digit);
    find("read").textContent = (image && cards.first?.answer.textContent) || "";
    layers.update();
    find("status").textContent = Object.values(cards).filter(Boolean).map(({ entry, answer }) => `${entry.title}: ${answer.textContent}`).join(". ");
  });
}

/** The test images of one data set, as buttons. */
async function makeSamples(name) {
  const { file, size: [height, width], labels, mean } = images[name];
  const sheet = new Image();
  sheet.src = file;
  await sheet.decode();
  const canvas = new OffscreenCanvas(sheet.width, sheet.height), context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(sheet, 0, 0);
  return labels.map((label, at) => {
    const { data } = context.getImageData(at * width, 0, width, height), area = width * height;
    const pixels = Float32Array.from({ length: mean.length * area }, (_, i) => data[4 * (i % area) + Math.floor(i / area)] / 255);
    const image = { shape: [mean.length, height, width], data: pixels, label };
    const picture = element("canvas", { width: 56, height: 56 });
    magnify(picture, imagePicture(image));
    const button = element("button", { type: "button", "aria-label": `Test image: ${label}`, title: label, click: () => take(image) }, picture);
    return Object.assign(button, { image });
  });
}

/** Take a test image instead of a drawing. */
function take(image) {
  pad.clear();
  magnify(pad.canvas, imagePicture(image));
  taken = image;
  update();
}

// ---------------------------------------------------------------------------------------------------------------
// The networks

const sizeOf = (entry) => String(Object.values(entry.inputs)[0]);

/** Fill both lists; beside the first network stand those that take the same images. */
function listNetworks(first, second) {
  const option = (entry, chosen) => new Option(entry.title, entry.id, false, entry === chosen);
  const known = networks.filter(({ weights }) => weights);
  find("first").replaceChildren(...known.map((entry) => option(entry, first)));
  const beside = known.filter((entry) => entry !== first && sizeOf(entry) === sizeOf(first));
  find("second").replaceChildren(new Option("nothing", ""), ...beside.map((entry) => option(entry, second)));
}

/** Show these networks; `second` may be null. All is loaded first, then shown at once. */
async function choose(first, second) {
  if (second && (second === first || sizeOf(first) !== sizeOf(second))) second = null;
  const call = ++latest;
  listNetworks(first, second);
  const otherImages = !cards.first || sizeOf(cards.first.entry) !== sizeOf(first);
  const [samples] = await Promise.all([otherImages && makeSamples(first.dataset), loadWeights(first), second && loadWeights(second)]);
  if (call !== latest) return;
  for (const [place, entry] of Object.entries({ first, second })) {
    const root = find(`card-${place}`);
    root.hidden = !entry;
    if (cards[place]?.entry !== entry) cards[place] = entry && new Card(root, entry, entry.tensors, images, pageOf(entry));
  }
  const address = new URLSearchParams({ network: first.id, ...(second && { beside: second.id }) });
  history.replaceState(null, "", `?${address}`);
  find("number").hidden = ![first, second].some((entry) => entry && "digits" in entry.inputs);
  const photos = sizeOf(first) !== "1,28,28";
  document.body.classList.toggle("photos", photos);
  pad.canvas.inert = photos; // a photograph cannot be drawn
  document.querySelector("h1").textContent = photos ? "What is in the photograph?" : "Draw a digit";
  showLayers();
  if (samples) showImages(first, samples);
  update();
}

/** Load the trained numbers of a network, unless they are there or come from the reader's file. */
async function loadWeights(entry) {
  if (entry.tensors) return;
  const tensors = pick(readSafetensors(await (await get(root + entry.weights)).arrayBuffer()), entry.prefix);
  checkTensors(tensors, entry.tensors_expected);
  entry.tensors = tensors;
}

/** Offer the data sets whose images the network takes, and test images of its own; take one, unless there is a drawing. */
function showImages(entry, samples) {
  const size = sizeOf(entry);
  const fits = Object.keys(images).filter((name) => String([images[name].mean.length, ...images[name].size]) === size);
  find("set").replaceChildren(...fits.map((name) => new Option(name, name, false, name === entry.dataset)));
  find("samples").replaceChildren(...samples);
  if (!pad.strokes.length || document.body.classList.contains("photos")) samples[6].click();
}

/** Show the maps of the first network or of the one beside it. */
function showLayers() {
  const { first, second } = cards;
  const options = [first, second].filter(Boolean).map((card) => new Option(card.entry.title, card.entry.id));
  find("seen").replaceChildren(...options);
  find("seen").closest("label").hidden = !second;
  layers.show(first);
}

// ---------------------------------------------------------------------------------------------------------------
// Weights of one's own

/** Read a file of weights and show the network that it belongs to, or say why not. */
async function openFile(file) {
  find("message").textContent = "";
  try {
    const tensors = pick(readSafetensors(await file.arrayBuffer()), "");
    const current = cards.first.entry;
    const fits = [current, ...networks].find((entry) => matches(tensors, entry));
    if (!fits) refuse(tensors, current);
    const entry = { ...fits, id: `${file.name} ${networks.length}`, title: `${fits.title.split(/:|, your /)[0]}, your ${file.name}`, tensors, weights: file.name, accuracy: null };
    networks.push(entry);
    await choose(entry, current);
    find("message").textContent = `${file.name}: these weights run now. Images are normalised as for ${entry.dataset}.`;
  } catch (error) {
    if (!(error instanceof FileError)) throw error;
    find("message").textContent = `${file.name} was refused. ${error.message}`;
  }
}

/** Raise FileError for tensors that fit no network, with the first difference from the one that is shown. */
function refuse(tensors, shown) {
  try {
    checkTensors(tensors, shown.tensors_expected);
  } catch (error) {
    throw new FileError(`It fits none of the course's networks. Compared with ${shown.title}: ${error.message}`);
  }
}

function matches(tensors, entry) {
  try {
    checkTensors(tensors, entry.tensors_expected);
    return true;
  } catch {
    return false;
  }
}

// ---------------------------------------------------------------------------------------------------------------
// What the reader does

const chosen = (id) => networks.find((entry) => entry.id === find(id).value) ?? null;
find("clear").addEventListener("click", () => pad.clear());
find("undo").addEventListener("click", () => pad.undo());
find("set").addEventListener("change", async () => {
  const name = find("set").value, samples = await makeSamples(name).catch(fail);
  if (name === find("set").value) find("samples").replaceChildren(...samples);
});
for (const id of ["first", "second"]) find(id).addEventListener("change", () => choose(chosen("first"), chosen("second")).catch(fail));
find("seen").addEventListener("change", () => layers.show(Object.values(cards).find((card) => card?.entry.id === find("seen").value)));
find("digit").addEventListener("input", () => {
  digit = Number(find("digit").value);
  find("digit-shown").textContent = digit;
  update();
});
find("file").addEventListener("change", async () => {
  await openFile(find("file").files[0]);
  find("file").value = ""; // so that the same file can be opened again
});
for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());
addEventListener("dragover", () => document.body.classList.add("dragged"));
for (const name of ["dragleave", "drop"]) addEventListener(name, () => document.body.classList.remove("dragged"));
addEventListener("drop", ({ dataTransfer }) => dataTransfer.files.length && openFile(dataTransfer.files[0]));

for (const entry of networks) [entry.tensors_expected, entry.tensors] = [entry.tensors, undefined];
const asked = new URLSearchParams(location.search);
const named = (id) => networks.find((entry) => entry.id === id && entry.weights) ?? null;
await choose(named(asked.get("network")) ?? named("s06_under_10k"), named(asked.get("beside"))).catch(fail);
find("message").textContent = "";
document.body.classList.add("ready");
