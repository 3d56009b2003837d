// Raw DEFLATE (RFC 1951), decompression only: the page opens in any browser and from file:// without
// asynchronous streams, which older browsers lack.

const LENGTH_BASE = [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115,
  131, 163, 195, 227, 258];
const LENGTH_EXTRA = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const DISTANCE_BASE = [1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537,
  2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577];
const CODE_ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
const MAX_BITS = 15;

// A table from the next 15 bits of the stream to (symbol << 4 | code length).
function huffmanTable(lengths) {
  const count = new Uint16Array(MAX_BITS + 2);
  for (const length of lengths) count[length] += 1;
  count[0] = 0;
  const next = new Uint16Array(MAX_BITS + 2);
  for (let bits = 1; bits <= MAX_BITS; bits++) next[bits + 1] = (next[bits] + count[bits]) << 1;
  const table = new Uint16Array(1 << MAX_BITS);
  lengths.forEach((length, symbol) => {
    if (!length) return;
    let code = next[length]++;
    let reversed = 0;
    for (let bit = 0; bit < length; bit++, code >>= 1) reversed = (reversed << 1) | (code & 1);
    for (let entry = reversed; entry < table.length; entry += 1 << length) table[entry] = (symbol << 4) | length;
  });
  return table;
}

const FIXED_LENGTHS = Array.from({ length: 288 }, (_, i) => (i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8));
const FIXED = [huffmanTable(FIXED_LENGTHS), huffmanTable(new Array(30).fill(5))];

// Decompress `input` into a new array of exactly `size` bytes.
function inflate(input, size) {
  const output = new Uint8Array(size);
  let position = 0; // of the next byte of the input
  let buffer = 0;
  let held = 0; // bits in the buffer
  let filled = 0; // bytes of the output

  function bits(n) {
    while (held < n) {
      buffer |= (input[position++] || 0) << held;
      held += 8;
    }
    const value = buffer & ((1 << n) - 1);
    buffer >>>= n;
    held -= n;
    return value;
  }

  function symbol(table) {
    while (held < MAX_BITS) {
      buffer |= (input[position++] || 0) << held;
      held += 8;
    }
    const entry = table[buffer & 0x7fff];
    buffer >>>= entry & 15;
    held -= entry & 15;
    return entry >> 4;
  }

  function storedBlock() {
    position -= held >> 3; // whole bytes that were read ahead
    buffer = 0;
    held = 0;
    const length = input[position] | (input[position + 1] << 8);
    position += 4;
    output.set(input.subarray(position, position + length), filled);
    position += length;
    filled += length;
  }

  function dynamicTables() {
    const nLiteral = bits(5) + 257;
    const nDistance = bits(5) + 1;
    const nCode = bits(4) + 4;
    const codeLengths = new Array(19).fill(0);
    for (let i = 0; i < nCode; i++) codeLengths[CODE_ORDER[i]] = bits(3);
    const codes = huffmanTable(codeLengths);
    const lengths = [];
    while (lengths.length < nLiteral + nDistance) {
      const code = symbol(codes);
      if (code < 16) lengths.push(code);
      else {
        const value = code === 16 ? lengths[lengths.length - 1] : 0;
        const repeat = code === 16 ? bits(2) + 3 : code === 17 ? bits(3) + 3 : bits(7) + 11;
        for (let i = 0; i < repeat; i++) lengths.push(value);
      }
    }
    return [huffmanTable(lengths.slice(0, nLiteral)), huffmanTable(lengths.slice(nLiteral))];
  }

  function compressedBlock([literals, distances]) {
    while (filled <= size) {
      const code = symbol(literals);
      if (code === 256) return;
      if (code < 256) {
        output[filled++] = code;
        continue;
      }
      const length = LENGTH_BASE[code - 257] + bits(LENGTH_EXTRA[code - 257]);
      const far = symbol(distances);
      const distance = DISTANCE_BASE[far] + bits(far < 4 ? 0 : (far >> 1) - 1);
      for (let end = filled + length; filled < end; filled++) output[filled] = output[filled - distance];
    }
  }

  for (let last = 0; !last; ) {
    last = bits(1);
    const type = bits(2);
    if (type === 0) storedBlock();
    else if (type === 1) compressedBlock(FIXED);
    else if (type === 2) compressedBlock(dynamicTables());
    else throw new Error("broken data in this page");
  }
  return output;
}
