// The forward pass of the course's networks: what PyTorch computes when it judges one image, layer by layer.
//
// A map is {shape, data}: `data` is a Float32Array, `shape` is [channels, height, width] for the maps of a convolution
// and [features] behind `flatten`. The number at channel c, row y, column x is data[(c * height + y) * width + x].
// `layers` is the list that the course makes from the network: each layer has a name, a kind, the names of its inputs
// and the shape of its output. `tensors` are the trained numbers, under the names that they have in PyTorch.

/** Judge one image. `inputs` are the network's inputs by name; returns the maps of all layers by name, in order. */
export function forward(layers, tensors, inputs) {
  const maps = new Map(Object.entries(inputs));
  for (const layer of layers) {
    const [x, ...others] = layer.inputs.map((name) => maps.get(name));
    const data = LAYERS[layer.kind](x, layer, (name) => tensors[`${layer.name}.${name}`]?.data, ...others);
    maps.set(layer.name, { shape: layer.shape, data });
  }
  return maps;
}

/** The kinds of layer: each takes maps, the layer's description and a function that gives its trained numbers. */
const LAYERS = { conv, batch_norm, relu, max_pool, avg_pool, flatten, linear, add, cat };

/** Convolution: slide a small filter over all maps of the input; at each place multiply, and add everything up. */
function conv(x, layer, trained) {
  const { kernel, stride, padding, shape } = layer;
  const [channels, height, width] = shape;
  const filters = trained("weight"), bias = trained("bias"); // filters: [out channels, in channels, kernel, kernel]
  const padded = pad(x, padding);
  const inChannels = x.shape[0], area = height * width;
  const out = new Float32Array(channels * area);
  const slide = kernel === 3 ? slide3 : slideAny;
  for (let o = 0; o < channels; o++) {
    const sums = out.subarray(o * area, (o + 1) * area);
    if (bias) sums.fill(bias[o]);
    for (let i = 0; i < inChannels; i++) {
      slide(padded, i, filters, (o * inChannels + i) * kernel * kernel, sums, layer);
    }
  }
  return out;
}

/** Add to `sums`, at each place, what the filter that begins at `filters[f]` finds in input map `i`. */
function slideAny({ data, shape: [, rows, columns] }, i, filters, f, sums, { kernel, stride, shape: [, height, width] }) {
  for (let ky = 0; ky < kernel; ky++) {
    for (let kx = 0; kx < kernel; kx++) {
      const weight = filters[f + ky * kernel + kx];
      for (let y = 0, to = 0; y < height; y++) {
        let from = (i * rows + y * stride + ky) * columns + kx;
        for (let x = 0; x < width; x++, from += stride) sums[to++] += weight * data[from];
      }
    }
  }
}

/** The same for the usual 3x3 filter, written out: twice as fast, because each sum is touched once and not nine times. */
function slide3({ data, shape: [, rows, columns] }, i, filters, f, sums, { stride, shape: [, height, width] }) {
  const a = filters[f], b = filters[f + 1], c = filters[f + 2], d = filters[f + 3], e = filters[f + 4];
  const g = filters[f + 5], h = filters[f + 6], k = filters[f + 7], l = filters[f + 8];
  for (let y = 0, to = 0; y < height; y++) {
    let top = (i * rows + y * stride) * columns;
    for (let x = 0; x < width; x++, top += stride) {
      const middle = top + columns, bottom = middle + columns;
      sums[to++] +=
        a * data[top] + b * data[top + 1] + c * data[top + 2] +
        d * data[middle] + e * data[middle + 1] + g * data[middle + 2] +
        h * data[bottom] + k * data[bottom + 1] + l * data[bottom + 2];
    }
  }
}

/** Put `padding` rows and columns of zeros around each map, so that a filter can reach over the edge. */
function pad(x, padding) {
  if (!padding) return x;
  const [channels, height, width] = x.shape;
  const rows = height + 2 * padding, columns = width + 2 * padding;
  const data = new Float32Array(channels * rows * columns);
  for (let c = 0; c < channels; c++) {
    for (let y = 0; y < height; y++) {
      const from = (c * height + y) * width;
      data.set(x.data.subarray(from, from + width), (c * rows + y + padding) * columns + padding);
    }
  }
  return { shape: [channels, rows, columns], data };
}

/** Batch norm: y = weight * (x - mean) / sqrt(var + eps) + bias, with numbers of its own for each map. */
function batch_norm(x, layer, trained) {
  const weight = trained("weight"), bias = trained("bias");
  const mean = trained("running_mean"), variance = trained("running_var");
  const area = x.data.length / x.shape[0];
  return x.data.map((value, at) => {
    const c = Math.floor(at / area);
    return (weight[c] * (value - mean[c])) / Math.sqrt(variance[c] + layer.eps) + bias[c];
  });
}

/** ReLU: what is below zero becomes zero. */
function relu(x) {
  return x.data.map((value) => Math.max(value, 0));
}

/** Max pooling: of each small square only the largest number stays. */
function max_pool(x, layer) {
  return pool(x, layer, -Infinity, Math.max);
}

/** Average pooling: of each small square the mean stays. */
function avg_pool(x, layer) {
  return pool(x, layer, 0, (sum, value) => sum + value).map((sum) => sum / layer.kernel ** 2);
}

/** Go over each square of a map and gather its numbers into one, with `gather` from `first` on. */
function pool(x, { kernel, stride, shape: [channels, height, width] }, first, gather) {
  const [, rows, columns] = x.shape;
  const out = new Float32Array(channels * height * width);
  for (let at = 0; at < out.length; at++) {
    const c = Math.floor(at / (height * width)), y = Math.floor(at / width) % height, column = at % width;
    let gathered = first;
    for (let ky = 0; ky < kernel; ky++) {
      const from = (c * rows + y * stride + ky) * columns + column * stride;
      for (let kx = 0; kx < kernel; kx++) gathered = gather(gathered, x.data[from + kx]);
    }
    out[at] = gathered;
  }
  return out;
}

/** Flatten: the numbers stay where they are; they are only no longer called maps. */
function flatten(x) {
  return x.data;
}

/** Fully connected: each output is a weighted sum of all inputs. */
function linear(x, layer, trained) {
  const weight = trained("weight"), bias = trained("bias"); // weight: [outputs, inputs]
  return new Float32Array(layer.shape[0]).map((_, o) => {
    let sum = bias ? bias[o] : 0;
    for (let i = 0, from = o * x.data.length; i < x.data.length; i++) sum += weight[from + i] * x.data[i];
    return sum;
  });
}

/** Residual add: the way around the convolutions meets the way through them. */
function add(x, layer, trained, other) {
  return x.data.map((value, at) => value + other.data[at]);
}

/** Put lists one behind the other. */
function cat(x, layer, trained, ...others) {
  return Float32Array.from([x, ...others].flatMap(({ data }) => [...data]));
}

/** Scores as probabilities: e to the power of each, divided by their sum. */
export function softmax(scores) {
  const highest = Math.max(...scores);
  const powers = Array.from(scores, (score) => Math.exp(score - highest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}
