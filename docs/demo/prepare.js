// Makes of a drawing what the networks were trained on: a digit scaled and centred as those of MNIST were.
//
// LeCun et al. 1998: the digit is scaled into a box of 20 x 20 pixels with its proportions kept, which gives grey edges,
// and put into an image of 28 x 28 so that its centre of mass lies in the middle.

const SIZE = 28, BOX = 20;

/**
 * `ink` holds width x height numbers from 0 to 1, one for each point of the drawing. Returns null where nothing is drawn,
 * else {pixels, box, mass}: 28 x 28 numbers from 0 to 1, and the box {left, top, width, height} and the centre of mass
 * {x, y} of the digit in them.
 */
export function prepare(ink, width, height) {
  const bounds = boundsOf(ink, width, height);
  if (!bounds) return null;
  const digit = shrink(ink, width, bounds);
  const mass = centreOfMass(digit);
  const left = place(mass.x, digit.width), top = place(mass.y, digit.height);
  const pixels = new Float32Array(SIZE * SIZE);
  for (let y = 0; y < digit.height; y++) {
    for (let x = 0; x < digit.width; x++) {
      pixels[(y + top) * SIZE + x + left] = Math.round(255 * digit.data[y * digit.width + x]) / 255; // MNIST has bytes
    }
  }
  const box = { left, top, width: digit.width, height: digit.height };
  return { pixels, box, mass: { x: mass.x + left, y: mass.y + top } };
}

/** The smallest rectangle with all ink in it, or null. */
function boundsOf(ink, width, height) {
  let left = width, right = -1, top = height, bottom = -1;
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      if (ink[at] < 0.1) continue;
      left = Math.min(left, x), right = Math.max(right, x);
      top = Math.min(top, y), bottom = y;
    }
  }
  return right < 0 ? null : { left, top, width: right - left + 1, height: bottom - top + 1 };
}

/** Scale what is in the bounds so that its longer side is 20; each new pixel is the mean of the area that it covers. */
function shrink(ink, width, bounds) {
  const scale = Math.max(bounds.width, bounds.height) / BOX; // points a pixel
  const columns = Math.max(1, Math.round(bounds.width / scale)), rows = Math.max(1, Math.round(bounds.height / scale));
  const data = new Float32Array(columns * rows);
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      const overX = shares(x, columns, bounds.width), overY = shares(y, rows, bounds.height);
      let sum = 0, area = 0;
      for (const [row, high] of overY) {
        const from = (bounds.top + row) * width + bounds.left;
        for (const [column, wide] of overX) {
          sum += high * wide * ink[from + column];
          area += high * wide;
        }
      }
      data[y * columns + x] = sum / area;
    }
  }
  return { data, width: columns, height: rows };
}

/** Which of `length` points pixel `at` of `pixels` covers, and how much of each: [[point, share], …]. */
function shares(at, pixels, length) {
  const begin = (at * length) / pixels, end = ((at + 1) * length) / pixels;
  const covered = [];
  for (let point = Math.floor(begin); point < end && point < length; point++) {
    covered.push([point, Math.min(point + 1, end) - Math.max(point, begin)]);
  }
  return covered;
}

function centreOfMass({ data, width }) {
  let mass = 0, x = 0, y = 0;
  data.forEach((value, at) => {
    mass += value;
    x += value * ((at % width) + 0.5);
    y += value * (Math.floor(at / width) + 0.5);
  });
  return { x: x / mass, y: y / mass };
}

/**
 * Where the digit begins, so that its centre of mass is in the middle and nothing is cut off. It can only move by whole
 * pixels: in all images of MNIST the mass lies from 14 to 15, not evenly around 14.
 */
function place(mass, length) {
  return Math.min(Math.max(Math.ceil(SIZE / 2 - mass), 0), SIZE - length);
}

/** Pixels from 0 to 1 as the input of a network: less the mean of its training pixels, divided by their deviation. */
export function normalise({ shape, data }, mean, std) {
  const area = shape[1] * shape[2];
  return { shape, data: data.map((value, at) => (value - mean[Math.floor(at / area)]) / std[Math.floor(at / area)]) };
}
