// The colours of cosines: even steps for the eye, from the card's own colour to a strong one.
//
// Straight lines in OKLab, whose distances are about what eyes see.
// Source of its matrices: https://bottosson.github.io/posts/oklab/

const LIGHT = [[0.965, -0.006, -0.006], [0.665, -0.062, -0.07], [0.36, -0.028, -0.085]];
const DARK = [[0.29, -0.012, -0.018], [0.61, -0.062, -0.05], [0.93, -0.05, 0.035]];

const scheme = window.matchMedia("(prefers-color-scheme: dark)");

export const onSchemeChange = (then) => scheme.addEventListener("change", then);

function linear([lightness, a, b]) {
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ].map((part) => Math.min(1, Math.max(0, part)));
}

/** A cell's colour and that of the writing in it, for a share of the scale from 0 to 1. */
export function shade(share) {
  const stops = scheme.matches ? DARK : LIGHT;
  const at = Math.min(1, Math.max(0, share)) * (stops.length - 1);
  const first = Math.min(Math.floor(at), stops.length - 2);
  const mixed = stops[first].map((part, i) => part + (at - first) * (stops[first + 1][i] - part));
  const rgb = linear(mixed);
  const luminance = 0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2];
  const bytes = rgb.map((part) => Math.round(255 * coded(part)));
  // of black and white one has a contrast of 4.58 or more with any colour
  return { fill: `rgb(${bytes.join(" ")})`, ink: luminance > 0.179 ? "#000" : "#fff" };
}

function coded(part) {
  return part <= 0.0031308 ? 12.92 * part : 1.055 * part ** (1 / 2.4) - 0.055;
}

/** A gradient with the scale's colours. */
export function gradient() {
  const steps = Array.from({ length: 17 }, (_, i) => `${shade(i / 16).fill} ${(100 * i) / 16}%`);
  return `linear-gradient(to right, ${steps.join(", ")})`;
}
