// What an operator wants to see first: what is wrong, how much there is to do, and where.

import { alarmsSection, isTroubled } from "./alarms.js";
import { ask, Rates } from "./api.js";
import { levels, rates as ratesChart } from "./charts.js";
import { h } from "./dom.js";
import {
  failuresTable,
  noneInHand,
  queuesTable,
  section,
  shown,
  tasksTable,
  tile,
  title,
  workersTable,
} from "./parts.js";
import { link } from "./routes.js";
import { badge, facts } from "./tables.js";
import { brief, counted, foreign, NONE, number, rate, size, span } from "./text.js";

const MOST_WORKERS = 12;
const HISTORY_EVERY = 5000; // milliseconds
const rates = new Rates();
let kept = { broker: null, at: -Infinity, history: null };

export const overview = {
  title: () => "Overview",
  isTroubled,

  async ask({ broker }) {
    const [status, workers] = await Promise.all([
      ask("status", { broker }),
      firstWorkers(broker),
    ]);
    return { status, workers, history: await recent(broker, status.queues) };
  },

  draw({ status, workers, history }) {
    const now = speeds(status);
    return [
      head(status),
      alarmsSection(status, history),
      tiles(status, now, history),
      queuesTable(status.queues, queueSpeeds(status), history, {
        note: shown(status.queues.length, status.total_queues, "queue", "queues"),
        more:
          status.queues.length < status.total_queues &&
          h("p", { class: "more" }, h("a", { href: link(["queues"]) }, "All queues, and search")),
      }),
      h(
        "div",
        { class: "two", "data-key": "two" },
        tasksTable("slowest", "Slowest running tasks", status.slowest, { empty: noneInHand(status.running) }),
        failuresTable(status.failures, {
          note:
            status.totals.failed + status.totals.expired
              ? `${number(status.totals.failed)} failed, ${number(status.totals.expired)} expired since the start`
              : null,
        }),
      ),
      workersTable(workers.workers, {
        note: `${shown(workers.workers.length, workers.total, "worker", "workers")}, ${number(status.idle)} idle`,
        more:
          workers.total > MOST_WORKERS &&
          h("p", { class: "more" }, h("a", { href: link(["workers"]) }, "All workers, and search")),
      }),
      broker(status, now),
    ];
  },
};

/** Ask for those workers that somebody may want to see: for the first that there are, if to look at all takes long. */
function firstWorkers(broker) {
  const first = { broker, most: MOST_WORKERS };
  return ask("workers", { ...first, sort: "trouble" }).catch(() => ask("workers", first));
}

async function recent(broker, queues) {
  if (kept.broker !== broker || performance.now() > kept.at + HISTORY_EVERY) {
    const history = await ask("history", { broker, queue: queues.map((queue) => queue.name) });
    kept = { broker, at: performance.now(), history };
  }
  return kept.history;
}

function head(status) {
  const { pid, uptime, version, state } = status;
  return title(
    "Overview",
    badge(foreign(state, 20), state === "serving" ? "good" : "warn"),
    h("span", { class: "quiet" }, `up ${span(uptime)} · process ${pid} · version `, foreign(version, 30)),
  );
}

// Numbers

function speeds(status) {
  const { done, failed, accepted } = status.totals;
  const counts = { done, failed, accepted, busy: status.busy };
  for (const [name, socket] of Object.entries(status.sockets)) {
    counts[`to ${name}`] = socket.messages;
  }
  return rates.note(`status ${status.pid}`, status.uptime, counts);
}

function queueSpeeds(status) {
  return new Map(
    status.queues.map((queue) => [
      queue.name,
      rates.note(`${status.pid} ${queue.name}`, status.uptime, { done: queue.done, failed: queue.failed }),
    ]),
  );
}

function tiles(status, now, history) {
  const oldest = Math.max(-1, ...status.queues.map((queue) => queue.oldest ?? -1));
  const { ages, total } = history;
  const busy = now.busy ?? status.busy / status.uptime;
  return h(
    "section",
    { class: "tiles", "data-key": "tiles", "aria-label": "Numbers" },
    tile(
      "Waiting",
      number(status.waiting),
      oldest < 0 ? "none waits" : `oldest ${span(oldest)}`,
      levels(ages, total.waiting, "waiting"),
    ),
    tile(
      "Running",
      number(status.running),
      `${number(status.delayed)} delayed`,
      levels(ages, total.running, "running"),
    ),
    tile(
      "Done in a second",
      rate(now.done),
      `${number(status.totals.done)} in all`,
      ratesChart(ages, total.done, "done"),
    ),
    tile(
      "Failed in a second",
      rate(now.failed),
      `${number(status.totals.failed)} in all`,
      ratesChart(ages, total.failed, "failed"),
    ),
    tile("Workers", number(status.workers), `${number(status.idle)} idle`, null),
    tile(
      "Broker busy",
      `${Math.round(100 * Math.min(busy, 1))}%`,
      `longest turn ${brief(status.longest_turn)}`,
      meter(busy),
    ),
  );
}

function meter(share) {
  return h("meter", {
    min: 0,
    max: 1,
    high: 0.8,
    value: Math.min(share, 1).toFixed(2),
    "aria-label": "part of the time in which the broker is busy",
  });
}

// The broker itself

function broker(status, now) {
  const { addresses, totals, store } = status;
  const came = Object.entries(status.sockets).map(([name, socket]) => [
    `To ${name}`,
    [
      foreign(addresses[name] ?? NONE),
      h("br"),
      h(
        "span",
        { class: "quiet" },
        `${rate(now[`to ${name}`])} messages/s, ${number(socket.messages)} in all, ${number(socket.malformed)} malformed${socket.connections === null ? "" : `, ${number(socket.connections)} connected`}`,
      ),
    ],
  ]);
  const odd = ["cancelled", "expired", "retried", "late", "lost", "undeliverable"].map(
    (name) => `${number(totals[name])} ${name}`,
  );
  return section(
    "broker",
    "Broker",
    facts([
      ...came,
      ["Since its start", `${number(totals.accepted)} accepted, ${odd.join(", ")}`],
      ["Uses", `${size(status.memory)} of memory, ${number(status.descriptors)} descriptors`],
      [
        "Identities",
        status.identities ? `needed; ${counted(status.refusals?.total ?? 0, "refusal", "refusals")}` : "none",
      ],
      store && [
        "Store",
        [
          foreign(store.path),
          h("br"),
          h(
            "span",
            { class: "quiet" },
            `${size(store.bytes)}, ${size(store.free)} free (floor ${size(store.floor)}); ${number(store.outcomes)} outcomes, `,
            h("a", { href: link(["failures"], { kept: "store" }) }, `${number(store.failed)} failed`),
            `, ${number(store.dropped)} dropped, ${number(store.damaged)} damaged`,
          ),
        ],
      ],
    ]),
  );
}
