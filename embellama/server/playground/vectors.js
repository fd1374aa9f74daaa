// Arithmetic on vectors. Nothing here knows of the page.

/** Read little-endian float32; every machine that browsers run on has that order itself. */
export function decoded(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

export function dot(one, other) {
  let sum = 0;
  for (let i = 0; i < one.length; i += 1) sum += one[i] * other[i];
  return sum;
}

/** Cosine of two vectors; 0 where one has no length. */
export function cosine(one, other) {
  const length = Math.sqrt(dot(one, one) * dot(other, other));
  return length > 0 ? dot(one, other) / length : 0;
}

export function cosines(vectors) {
  return vectors.map((one) => vectors.map((other) => cosine(one, other)));
}

/** Principal components: the two directions in which vectors differ most.
 *
 *  The eigenvectors come from the matrix of the centred vectors' products, which has as many rows
 *  as there are texts and not as many as there are components. Gives a point [x, y] for each
 *  vector, and the share of the variance that each axis shows. */
export function mapped(vectors) {
  const gram = centredProducts(vectors);
  const total = gram.reduce((sum, row, i) => sum + row[i], 0);
  const axes = [];
  for (let axis = 0; axis < 2; axis += 1) axes.push(leading(gram, axes.map((each) => each.vector)));
  const scaled = axes.map(({ value, vector }) => vector.map((part) => part * Math.sqrt(value)));
  return {
    points: vectors.map((_, i) => [scaled[0][i], scaled[1][i]]),
    shares: axes.map(({ value }) => (total > 0 ? value / total : 0)),
  };
}

function centredProducts(vectors) {
  const mean = new Float64Array(vectors[0].length);
  for (const vector of vectors) vector.forEach((part, i) => { mean[i] += part / vectors.length; });
  const centred = vectors.map((vector) => Float64Array.from(vector, (part, i) => part - mean[i]));
  return centred.map((one) => Float64Array.from(centred, (other) => dot(one, other)));
}

const MOST_STEPS = 2000;
const CLOSE = 1e-12;

/** The largest eigenvalue and its vector by power iteration, beside those already found. */
function leading(matrix, found) {
  const apart = (vector) => {
    for (const other of found) {
      const share = dot(vector, other);
      vector.forEach((part, i) => { vector[i] = part - share * other[i]; });
    }
    const length = Math.sqrt(dot(vector, vector));
    return length > 1e-9 ? vector.map((part) => part / length) : vector.fill(0);
  };
  // any start will do that is not by chance at a right angle to the answer
  let vector = apart(Float64Array.from(matrix, (_, i) => Math.sin(12.9898 * (i + 1)) + 0.1));
  for (let step = 0; step < MOST_STEPS; step += 1) {
    const next = apart(Float64Array.from(matrix, (row) => dot(row, vector)));
    const moved = 1 - Math.abs(dot(next, vector));
    vector = next;
    if (moved < CLOSE) break;
  }
  const value = Math.max(0, dot(vector, Float64Array.from(matrix, (row) => dot(row, vector))));
  // the sign means nothing; this one is the same every time
  const largest = vector.reduce((best, part) => (Math.abs(part) > Math.abs(best) + 1e-9 ? part : best), 0);
  return { value, vector: largest < 0 ? vector.map((part) => -part) : vector };
}
