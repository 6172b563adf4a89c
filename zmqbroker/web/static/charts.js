// Small pictures of the last ten minutes.

import { svg } from "./dom.js";
import { number, rate } from "./text.js";

const SPAN = 600; // seconds
const WIDTH = 120;
const HEIGHT = 24;
const GAP = 0.5; // above and below the line

/** Return what there was of a queue; null: nothing is known of it. */
export function seriesOf(history, queue) {
  return Object.hasOwn(history?.queues ?? {}, queue) ? history.queues[queue] : null;
}

/** Draw what there was at each look; `ages` are seconds ago, null is: not there. */
export function levels(ages, values, what) {
  const known = values.filter((value) => value !== null);
  const label = known.length
    ? `${what}, last 10 minutes: ${number(known.at(-1))} now, ${number(Math.max(...known))} at most`
    : `${what}: nothing is known of the last 10 minutes`;
  return drawn(ages, values, label, what);
}

/** Draw how much has come in a second between looks, of what only grows. */
export function rates(ages, totals, what) {
  const values = totals.map((total, place) => {
    const before = totals[place - 1];
    const took = ages[place - 1] - ages[place];
    return place && total !== null && before !== null && total >= before && took > 0 ? (total - before) / took : null;
  });
  const known = values.filter((value) => value !== null);
  const label = known.length
    ? `${what} in a second, last 10 minutes: ${rate(known.at(-1))} now, ${rate(Math.max(...known))} at most`
    : `${what}: nothing is known of the last 10 minutes`;
  return drawn(ages, values, label, what);
}

function drawn(ages, values, label, what) {
  const most = Math.max(1e-9, ...values.map((value) => value ?? 0));
  const runs = [[]];
  values.forEach((value, place) => {
    if (value === null) {
      runs.push([]);
    } else {
      const x = WIDTH * (1 - Math.min(ages[place] / SPAN, 1));
      const y = HEIGHT - GAP - 1 - (HEIGHT - 2 * GAP - 2) * (value / most);
      runs.at(-1).push([x.toFixed(1), y.toFixed(1)]);
    }
  });
  const lines = runs.filter((run) => run.length > 1);
  const edge = (run) => run.map((point) => point.join(",")).join(" L");
  return svg(
    "svg",
    {
      class: `chart ${what}`,
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": label,
    },
    svg("title", {}, label),
    svg("path", { class: "ground", d: `M0,${HEIGHT - GAP} H${WIDTH}` }),
    lines.map((run) =>
      svg("path", { class: "area", d: `M${run[0][0]},${HEIGHT} L${edge(run)} L${run.at(-1)[0]},${HEIGHT} Z` }),
    ),
    lines.map((run) => svg("path", { class: "line", d: `M${edge(run)}` })),
  );
}
