// Reads a .safetensors file: eight bytes with the length of its header, the header in JSON, then the numbers.
// The format: https://github.com/huggingface/safetensors#format

/** What is wrong with a file, as a sentence for the reader. */
export class FileError extends Error {}

// How many bytes a number of each type takes, and how a list of them is read from the file's bytes. All become float32.
const TYPES = {
  F64: [8, (buffer) => Float32Array.from(new Float64Array(buffer))],
  F32: [4, (buffer) => new Float32Array(buffer)],
  F16: [2, (buffer) => Float32Array.from(new Uint16Array(buffer), fromHalf)],
  BF16: [2, (buffer) => new Float32Array(Uint32Array.from(new Uint16Array(buffer), (bits) => bits << 16).buffer)],
};

/** The tensors in the bytes of a file, {name: {shape, data}}; those of whole numbers are left out. */
export function readSafetensors(buffer) {
  const header = readHeader(buffer);
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets: offsets }] of header.entries) {
    if (!(dtype in TYPES)) continue;
    const [size, read] = TYPES[dtype];
    const [begin, end] = offsets.map((offset) => offset + header.end);
    if (end > buffer.byteLength || end - begin !== size * shape.reduce((a, b) => a * b, 1)) {
      throw new FileError(`The file is cut off or damaged: the numbers of ${name} are not all there.`);
    }
    const data = read(buffer.slice(begin, end));
    if (!data.every(Number.isFinite)) throw new FileError(`${name} holds numbers that are not finite (NaN or infinity).`);
    tensors[name] = { shape, data };
  }
  return tensors;
}

function readHeader(buffer) {
  const refused = new FileError("This is not a .safetensors file.");
  if (buffer.byteLength < 8) throw refused;
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  if (length > buffer.byteLength - 8) throw refused;
  try {
    const header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(buffer.slice(8, 8 + length)));
    delete header.__metadata__;
    const entries = Object.entries(header);
    const whole = entries.every(([, { shape, data_offsets: offsets }]) => [shape, offsets].every((numbers) => Array.isArray(numbers) && numbers.every(Number.isInteger)));
    if (whole) return { entries, end: 8 + length };
  } catch {
    // It is no JSON, or null.
  }
  throw refused;
}

/** A float16, given as its 16 bits: one for the sign, five for the exponent, ten for the fraction. */
function fromHalf(bits) {
  const sign = bits >> 15 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  if (exponent === 0) return sign * 2 ** -24 * fraction;
  return sign * 2 ** (exponent - 25) * (1024 + fraction);
}

/** The tensors of one network in a file that holds several: their names begin with `prefix`, those of the main one with nothing. */
export function pick(tensors, prefix) {
  const own = Object.keys(tensors).filter((name) => name.startsWith(prefix) && !name.slice(prefix.length).includes("/"));
  return Object.fromEntries(own.map((name) => [name.slice(prefix.length), tensors[name]]));
}

/** Whether a file's tensors are those that a network needs; raises FileError, which says the first difference. */
export function checkTensors(tensors, expected) {
  for (const [name, shape] of Object.entries(expected)) {
    if (!(name in tensors)) throw new FileError(`The file has no tensor ${name}.`);
    if (String(tensors[name].shape) !== String(shape)) {
      const [found, wanted] = [tensors[name].shape, shape].map((size) => size.join("×"));
      throw new FileError(`Its tensor ${name} is ${found}; this network has ${wanted}.`);
    }
  }
  const more = Object.keys(tensors).find((name) => !(name in expected));
  if (more) throw new FileError(`The file has a tensor ${more}, which this network does not have.`);
}
