// Words and numbers for people, and text from elsewhere, cut where it is long.

import { h } from "./dom.js";
import { visible } from "./visible.js";

export const NONE = "–";
export const MOST_UNSERVED = 1000; // queues that a broker counts where tasks wait and no worker asks
const UNITS = [
  [120, 1, "s"],
  [7200, 60, "min"],
  [172800, 3600, "h"],
  [Infinity, 86400, "d"],
];
const SIZES = ["bytes", "kB", "MB", "GB", "TB"];
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** Return a whole number with commas; null: there is none. */
export function number(value) {
  return value === null || value === undefined ? NONE : whole.format(value);
}

/** Return a number and what it counts. */
export function counted(value, one, several) {
  return `${number(value)} ${value === 1 ? one : several}`;
}

/** Return a number that the broker counts no further than `most`. */
export function capped(value, most, least = "at least ") {
  return `${value >= most ? least : ""}${number(value)}`;
}

/** Return a span of seconds in one unit; null: there is none. */
export function span(seconds) {
  if (seconds === null || seconds === undefined) {
    return NONE;
  }
  const [, unit, name] = UNITS.find(([most]) => seconds < most);
  const value = Math.max(seconds, 0) / unit;
  return `${value < 9.95 ? value.toFixed(1) : whole.format(value)} ${name}`;
}

/** Return a short span of seconds, a part of one say. */
export function brief(seconds) {
  return seconds < 1 ? `${Number((1000 * seconds).toPrecision(2))} ms` : span(seconds);
}

/** Return a number of bytes in one unit. */
export function size(bytes) {
  if (bytes === null || bytes === undefined) {
    return NONE;
  }
  if (bytes === 1) {
    return "1 byte";
  }
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < SIZES.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit && value < 9.95 ? value.toFixed(1) : whole.format(value)} ${SIZES[unit]}`;
}

/** Return how often something happens in a second; null: not known yet. */
export function rate(value) {
  if (value === null || value === undefined) {
    return NONE;
  }
  return value > 0 && value < 9.95 ? value.toFixed(1) : whole.format(value);
}

/**
 * Return an element with text from elsewhere, whose direction of writing stays inside it.
 *
 * Of one with more than `most` characters the middle is left out, and `ending` are left at its end.
 */
export function foreign(text, most = 120, ending = 0) {
  const letters = Array.from(visible(text.length > 4 * most ? text.slice(0, 2 * most) + text.slice(-2 * most) : text));
  if (letters.length <= most) {
    return h("bdi", {}, letters.join(""));
  }
  const start = letters.slice(0, most - ending).join("");
  const end = ending ? letters.slice(-ending).join("") : "";
  return h("bdi", { title: visible(text.slice(0, 1000)) }, start, h("span", { class: "cut" }, "…"), end);
}

/** Return an element with all of a text from elsewhere, in a box of its own where it is long. */
export function wholeText(text) {
  return h(
    "bdi",
    { class: text.length > 200 ? "long" : null, tabindex: text.length > 200 ? "0" : null },
    text,
  );
}

/** Return the time of day of an instant, in milliseconds since 1970. */
export function clock(instant) {
  return new Date(instant).toLocaleTimeString([], { hour12: false });
}
