// Colours and small pictures, and a short way to make elements.

const BLACK = [14, 17, 22], ORANGE = [240, 136, 40], CREAM = [255, 246, 214], BLUE = [52, 120, 230], ICE = [222, 236, 255];

export const GREEN = "#3ddc84"; // frames over pictures
export const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** The colour [r, g, b] of a number from -1 to 1: below zero blue, zero black, above zero orange. */
function colour(value) {
  const [middle, end] = value < 0 ? [BLUE, ICE] : [ORANGE, CREAM];
  const strength = Math.min(Math.abs(value), 1);
  const [from, to, share] = strength < 0.6 ? [BLACK, middle, strength / 0.6] : [middle, end, (strength - 0.6) / 0.4];
  return from.map((part, at) => part + share * (to[at] - part));
}

/** A number's colour as CSS, and a colour for text on it. */
export function cellStyle(value, scale) {
  const [r, g, b] = colour(scale ? value / scale : 0);
  const bright = 0.3 * r + 0.59 * g + 0.11 * b > 130;
  return `background: rgb(${r} ${g} ${b}); color: ${bright ? "#111" : "#f4f4f4"}`;
}

/** All maps of a layer as a small canvas, one below the other, a pixel for each number. */
export function mapsPicture({ shape: [channels, height, width], data }, scale) {
  return picture(width, channels * height, (at) => colour(scale ? data[at] / scale : 0));
}

/** An image, grey or red, green and blue, with numbers from 0 to 1, as a small canvas. */
export function imagePicture({ shape: [channels, height, width], data }) {
  const area = width * height;
  return picture(width, height, (at) => [0, 1, 2].map((c) => 255 * data[(channels === 3 ? c * area : 0) + at]));
}

function picture(width, height, colourAt) {
  const canvas = new OffscreenCanvas(width, height), context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  for (let at = 0; at < width * height; at++) {
    image.data.set(colourAt(at), 4 * at);
    image.data[4 * at + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Draw a small picture on a whole canvas, each of its pixels a square. */
export function magnify(canvas, small) {
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  return context;
}

/** The largest distance from zero, to which the colours of maps are scaled. */
export function largest(data) {
  return data.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
}

/** Draw a heat map over an image: orange speaks for the class, blue against it. */
export function paintHeat(canvas, image, heat) {
  const context = canvas.getContext("2d"), { width, height } = canvas;
  magnify(canvas, imagePicture(image));
  const pixels = context.getImageData(0, 0, width, height), scale = largest(heat.data);
  const [against, towards] = [colour(-0.6), colour(0.6)];
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at += 4) {
      const value = scale ? bilinear(heat, (y + 0.5) / height, (x + 0.5) / width) / scale : 0;
      const over = value < 0 ? against : towards, share = 0.75 * Math.abs(value);
      for (let c = 0; c < 3; c++) pixels.data[at + c] += share * (over[c] - pixels.data[at + c]);
    }
  }
  context.putImageData(pixels, 0, 0);
}

/** The value of a map between its points; `down` and `across` are from 0 to 1. */
function bilinear({ shape: [height, width], data }, down, across) {
  const y = Math.min(Math.max(down * height - 0.5, 0), height - 1), x = Math.min(Math.max(across * width - 0.5, 0), width - 1);
  const top = Math.floor(y), left = Math.floor(x), bottom = Math.min(top + 1, height - 1), right = Math.min(left + 1, width - 1);
  const mix = (row) => data[row * width + left] * (1 - x + left) + data[row * width + right] * (x - left);
  return mix(top) * (1 - y + top) + mix(bottom) * (y - top);
}

/** Make an element: properties that are functions listen, others are attributes; children are elements or texts. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}
