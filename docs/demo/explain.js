// Explains what a network did: where it looked, and how one number of a map came about.

/** The layers in blocks as people speak of them: a convolution with its batch norm and ReLU is one. */
export function blocksOf(layers) {
  const blocks = [];
  for (const layer of layers) {
    const last = blocks.at(-1)?.layers.at(-1);
    if (["batch_norm", "relu"].includes(layer.kind) && last?.name === layer.inputs[0]) blocks.at(-1).layers.push(layer);
    else blocks.push({ layers: [layer] });
  }
  return blocks.filter(({ layers: [first] }) => !["flatten", "cat"].includes(first.kind));
}

/**
 * The heat map of one score: {shape: [height, width], data, exact}.
 *
 * The maps of the last layer that has places are added up, each with the weight that the score gives it. Where their
 * means and a linear layer make the score (exact), the weights are that layer's: the class activation map, whose mean
 * and the bias are the score. Else a weight is the mean of the score's gradient by the map: Grad-CAM, which keeps what
 * is above zero.
 */
export function heatMap(network, tensors, maps, score) {
  const { layer, exact } = network.heat;
  const activations = maps.get(layer), [channels, height, width] = activations.shape, area = height * width;
  const gradient = gradientOf(network.layers, tensors, maps, score, layer);
  const data = new Float32Array(area);
  for (let c = 0; c < channels; c++) {
    let weight = 0;
    for (let at = 0; at < area; at++) weight += gradient[c * area + at];
    if (!exact) weight /= area;
    for (let at = 0; at < area; at++) data[at] += weight * activations.data[c * area + at];
  }
  return { shape: [height, width], data: exact ? data : data.map((value) => Math.max(value, 0)), exact };
}

/** The gradient of one output by the numbers of a layer: the chain rule, from the last layer back to that one. */
function gradientOf(layers, tensors, maps, score, target) {
  const gradients = new Map(); // of the score by the outputs of each layer
  const add = (name, change) => {
    const size = maps.get(name).data.length;
    const sum = gradients.get(name) ?? new Float32Array(size);
    gradients.set(name, sum);
    change(sum);
  };
  add(layers.at(-1).name, (sum) => (sum[score] = 1));
  for (const layer of [...layers].reverse()) {
    if (layer.name === target) break;
    const gradient = gradients.get(layer.name);
    if (!gradient) continue; // it is beside the way
    const trained = (name) => tensors[`${layer.name}.${name}`].data;
    let from = 0; // where in the output of `cat` an input begins
    for (const name of layer.inputs) {
      const x = maps.get(name);
      add(name, (sum) => BACK[layer.kind]({ x, layer, trained, gradient, sum, from }));
      from += x.data.length;
    }
  }
  return gradients.get(target);
}

const weighted = ({ x, trained, gradient, sum }) => {
  const weight = trained("weight"), inputs = x.data.length;
  gradient.forEach((g, o) => {
    if (g) for (let i = 0; i < inputs; i++) sum[i] += g * weight[o * inputs + i];
  });
};

// How the gradient passes back through each kind of layer that lies behind the last maps.
const BACK = {
  linear: weighted,
  conv: weighted, // behind the average a map is one number, and a 1x1 convolution is a linear layer
  flatten: ({ gradient, sum }) => gradient.forEach((g, at) => (sum[at] += g)),
  cat: ({ gradient, sum, from }) => sum.forEach((_, at) => (sum[at] += gradient[from + at])),
  relu: ({ x, gradient, sum }) => gradient.forEach((g, at) => (sum[at] += x.data[at] > 0 ? g : 0)),
  batch_norm: ({ layer, trained, gradient, sum }) =>
    gradient.forEach((g, at) => (sum[at] += (g * trained("weight")[at]) / Math.sqrt(trained("running_var")[at] + layer.eps))),
  avg_pool: ({ x, layer, gradient, sum }) =>
    gradient.forEach((g, at) => places(x, layer, at).forEach((from) => (sum[from] += g / layer.kernel ** 2))),
  max_pool: ({ x, layer, gradient, sum }) =>
    gradient.forEach((g, at) => {
      const highest = places(x, layer, at).reduce((best, from) => (x.data[from] > x.data[best] ? from : best));
      sum[highest] += g;
    }),
};

/** The places in the input that number `at` of a pooling layer is made from. */
function places(x, { kernel, stride, shape: [, height, width] }, at) {
  const [, rows, columns] = x.shape;
  const channel = Math.floor(at / (height * width)), y = Math.floor(at / width) % height, column = at % width;
  return Array.from({ length: kernel * kernel }, (_, k) => {
    return (channel * rows + y * stride + Math.floor(k / kernel)) * columns + column * stride + (k % kernel);
  });
}

/** The part of the image that a place of a layer sees, {left, top, size} in pixels; null for all of it. */
export function receptiveField({ field }, y, x) {
  return field && { left: field.start + x * field.jump, top: field.start + y * field.jump, size: field.size };
}

/**
 * How one number of a block came about: {parts, steps}.
 *
 * `parts` are what its first layer adds up (or takes the mean or largest of), the largest first: {source, channel,
 * patch, filter, kernel, sum}. `steps` are the layers of the block, {kind, value, …} with the numbers that they used.
 */
export function inspect(block, tensors, maps, channel, y, x) {
  const [first] = block.layers;
  const inputs = first.inputs.map((name) => maps.get(name));
  const parts = PARTS[first.kind](first, inputs, (name) => tensors[`${first.name}.${name}`]?.data, channel, y, x);
  parts.sort((a, b) => Math.abs(b.sum) - Math.abs(a.sum));
  const steps = block.layers.map((layer) => {
    const [, height, width] = [...layer.shape, 1, 1];
    const trained = (name) => tensors[`${layer.name}.${name}`]?.data[channel];
    const value = maps.get(layer.name).data[(channel * height + y) * width + x];
    const step = { kind: layer.kind, name: layer.name, value };
    if (layer.kind !== "batch_norm") return { ...step, bias: trained("bias") };
    const [weight, bias, mean, variance] = ["weight", "bias", "running_mean", "running_var"].map(trained);
    return { ...step, weight, bias, mean, variance, eps: layer.eps };
  });
  return { parts, steps };
}

/** The numbers of one input map under a filter or a square; outside of the map there are zeros. */
function patchOf({ shape: [, rows, columns], data }, channel, { kernel, stride, padding }, y, x) {
  return Array.from({ length: kernel * kernel }, (_, k) => {
    const row = y * stride - padding + Math.floor(k / kernel), column = x * stride - padding + (k % kernel);
    const inside = row >= 0 && row < rows && column >= 0 && column < columns;
    return inside ? data[(channel * rows + row) * columns + column] : 0;
  });
}

const pooled = (layer, [input], trained, channel, y, x) => {
  const patch = patchOf(input, channel, layer, y, x);
  return [{ channel, patch, kernel: layer.kernel, sum: 0 }];
};

const PARTS = {
  conv(layer, [input], trained, channel, y, x) {
    const area = layer.kernel ** 2, channels = input.shape[0];
    return Array.from({ length: channels }, (_, i) => {
      const patch = patchOf(input, i, layer, y, x);
      const filter = trained("weight").subarray((channel * channels + i) * area, (channel * channels + i + 1) * area);
      const sum = patch.reduce((total, value, k) => total + value * filter[k], 0);
      return { channel: i, patch, filter: [...filter], kernel: layer.kernel, sum };
    });
  },
  linear(layer, [input], trained, channel) {
    return Array.from(input.data, (value, i) => {
      const weight = trained("weight")[channel * input.data.length + i];
      return { channel: i, patch: [value], filter: [weight], kernel: 1, sum: value * weight };
    });
  },
  max_pool: pooled,
  avg_pool: pooled,
  add(layer, inputs, trained, channel, y, x) {
    const at = (channel * layer.shape[1] + y) * layer.shape[2] + x;
    return inputs.map((input, i) => ({ source: layer.inputs[i], channel, patch: [input.data[at]], kernel: 1, sum: input.data[at] }));
  },
};
