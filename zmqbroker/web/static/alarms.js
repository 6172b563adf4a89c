// What is wrong with a broker, as far as its status and its last ten minutes tell.

import { h } from "./dom.js";
import { isUnserved } from "./parts.js";
import { link, queueLink } from "./routes.js";
import { capped, counted, foreign, MOST_UNSERVED, number, size, span } from "./text.js";

const MOST_NAMED = 8; // queues in a line of what is wrong
const STILL = 180; // seconds without anything done, after which one is told
const LATELY = 300; // seconds over which attempts are counted that come to nothing
const FEWEST_RETRIED = 3; // of them, and in which share of all, before one is told
const SHARE_RETRIED = 0.05;

/** Return what is wrong: of each a name, how bad it is, and what is to be said. */
export function alarms(status, history) {
  return [
    unserved(status),
    low(status.store),
    still(status, history),
    retried(status, history),
    draining(status),
    paused(status.queues),
    open(status),
    refused(status),
  ].filter(Boolean);
}

/** Return whether somebody is needed now. */
export function isTroubled({ status, history }) {
  return alarms(status, history).some(([, style]) => style === "bad");
}

/** Return a section that says what is wrong, or that nothing is. */
export function alarmsSection(status, history) {
  const lines = alarms(status, history);
  return h(
    "section",
    { "data-key": "alarms", class: "alarms", "aria-label": "What needs somebody" },
    lines.length
      ? h(
          "ul",
          {},
          lines.map(([key, style, said]) => h("li", { class: `alarm ${style}`, "data-key": key }, said)),
        )
      : h("p", { class: "alarm good" }, allIsWell(status, history)),
  );
}

/** Say what is well, and no more than is known: where tasks are there, whether any is done shows after a while. */
function allIsWell(status, { total }) {
  const isMoving = growth(total.done) > 0 ? "tasks are being done" : null;
  const isDone = status.waiting + status.running + status.delayed ? null : "all tasks are settled";
  const moves = isMoving ?? isDone;
  const known = ["no queue waits in vain", status.store && "the store has room", moves].filter(Boolean);
  return `${moves ? "All is well" : "Nothing is wrong so far"}: ${known.join(", ")}.`;
}

function unserved(status) {
  if (!status.unserved) {
    return null;
  }
  const queues = status.queues.filter(isUnserved).slice(0, MOST_NAMED);
  const places = `${capped(status.unserved, MOST_UNSERVED)} ${status.unserved === 1 ? "queue" : "queues"}`;
  const isCapped = status.unserved >= MOST_UNSERVED;
  const more = status.unserved - queues.length;
  return [
    "unserved",
    "bad",
    [
      h("strong", {}, `Tasks wait in ${places} that no worker asks from: `),
      named(queues),
      more > 0 && [" and ", h("a", { href: link(["queues"]) }, isCapped ? "many more" : `${number(more)} more`)],
    ],
  ];
}

function named(queues) {
  return queues.map((queue, place) => [
    place ? ", " : null,
    h("a", { href: queueLink(queue.name) }, foreign(queue.name, 60)),
    ` (${number(queue.waiting)})`,
  ]);
}

function low(store) {
  if (!store || !(store.refusing || (store.free !== null && store.free < 2 * store.floor))) {
    return null;
  }
  const room = `${size(store.free)} are free, and below ${size(store.floor)} new tasks are refused.`;
  if (!store.refusing) {
    return ["store", "warn", [h("strong", {}, "The store's disk is nearly full: "), room]];
  }
  const why =
    store.free !== null && store.free < store.floor
      ? `its disk is full. ${room} Make room there: it goes on by itself.`
      : "the store has failed. The broker's log says why.";
  return ["store", "bad", [h("strong", {}, "New tasks are refused, as they cannot be stored: "), why]];
}

/** Tell of tasks that are there, at workers or for them, while none is done. */
function still(status, history) {
  const isServed = status.queues.some((queue) => queue.waiting && queue.workers && !queue.paused);
  const seconds = stillFor(status, history, isServed);
  if (seconds < STILL) {
    return null;
  }
  const there = `${counted(status.running, "task runs", "tasks run")}, ${counted(status.waiting, "waits", "wait")}.`;
  return [
    "still",
    isServed ? "bad" : "warn",
    [
      h("strong", {}, `Nothing has been done for ${span(seconds)}: `),
      `${there} Tasks take that long, or workers hang: see `,
      h("a", { href: link(["workers"]) }, "who is at what, and for how long"),
      ".",
    ],
  ];
}

function stillFor({ totals }, { ages, total }, isServed) {
  let seconds = 0;
  for (let place = ages.length - 1; place >= 0; place -= 1) {
    const isThere = total.running[place] || (isServed && total.waiting[place]);
    if (!isThere || total.done[place] !== totals.done || total.failed[place] !== totals.failed) {
      break;
    }
    seconds = ages[place];
  }
  return seconds;
}

/** Tell of attempts that come to nothing, if they are many. */
function retried(status, { ages, total }) {
  const first = ages.findIndex((age) => age <= LATELY);
  const [again, done] = first < 0 ? [0, 0] : [total.retried, total.done].map((counts) => growth(counts.slice(first)));
  if (again < FEWEST_RETRIED || again < SHARE_RETRIED * (again + done)) {
    return null;
  }
  const worst = status.queues
    .map(({ name, attempts }) => ({ name, attempts, lost: attempts.timeout + attempts.lost + attempts.fail }))
    .filter(({ lost }) => lost)
    .sort((one, other) => other.lost - one.lost)
    .slice(0, 3);
  return [
    "retried",
    done ? "warn" : "bad",
    [
      h("strong", {}, "Attempts come to nothing: "),
      `${number(again)} had to be made again in the last ${span(ages[first])}, and ${counted(done, "task was", "tasks were")} done.`,
      worst.length > 0 && " Since the start: ",
      worst.map(({ name, attempts }, place) => [
        place ? "; " : null,
        h("a", { href: queueLink(name) }, foreign(name, 60)),
        ` (${endings(attempts).join(", ")})`,
      ]),
      worst.length > 0 && ".",
    ],
  ];
}

function endings({ timeout, lost, fail }) {
  const said = { "timed out": timeout, "lost with their worker": lost, failed: fail };
  return Object.entries(said).flatMap(([how, count]) => (count ? `${number(count)} ${how}` : []));
}

/** Return by how much a count has grown, that begins anew with its broker. */
function growth(counts) {
  return counts.reduce((sum, count, place) => sum + Math.max(count - (counts[place - 1] ?? count), 0), 0);
}

function draining(status) {
  const unsettled = status.waiting + status.delayed + status.running;
  return status.state === "draining"
    ? [
        "draining",
        "warn",
        [
          h("strong", {}, "The broker drains: "),
          `it refuses new tasks, and ends when ${unsettled ? `${counted(unsettled, "task is", "tasks are")} settled` : "its last replies are sent"}.`,
        ],
      ]
    : null;
}

function paused(queues) {
  const held = queues.filter((queue) => queue.paused && queue.waiting);
  return held.length
    ? ["paused", "warn", [h("strong", {}, "Tasks wait in queues that are paused: "), named(held.slice(0, MOST_NAMED))]]
    : null;
}

function open(status) {
  const where = (status.open_to ?? []).join(", ");
  return where
    ? ["open", "warn", [h("strong", {}, "No identities are needed: "), `whoever reaches ${where} may do anything.`]]
    : null;
}

function refused({ refusals }) {
  const last = (refusals?.last ?? []).filter((one) => one.age < 3600);
  if (!last.length) {
    return null;
  }
  const one = last[0];
  return [
    "refused",
    "warn",
    [
      h("strong", {}, "Somebody is refused: "),
      foreign(one.address || "somebody"),
      ` at ${one.where}, ${counted(one.count, "time", "times")}, ${span(one.age)} ago: `,
      foreign(one.reason),
    ],
  ];
}
