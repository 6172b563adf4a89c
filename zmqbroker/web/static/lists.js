// All queues, workers, tasks and failures: in pages, with search.

import { ask, Rates } from "./api.js";
import { h } from "./dom.js";
import { failuresTable, found, paging, queuesTable, shown, tasksTable, title, workersTable } from "./parts.js";
import { link } from "./routes.js";
import { badge, column, tableSection } from "./tables.js";
import { capped, foreign, MOST_UNSERVED, NONE, number, span } from "./text.js";

const MOST = 50;
const rates = new Rates();
const MOST_FAILURES = 1000; // that a broker has
const MOST_FOUND = 200;
const SEARCH_EVERY = 10000; // milliseconds between two searches in the last failures
let kept = { names: "", at: -Infinity, history: null };
let last = { broker: null, at: -Infinity, failures: [] };

function filter(route, ...fields) {
  return h("form", { class: "filter", role: "search", "data-route": route, "data-key": "filter" }, fields);
}

function box(name, label, value, width = "") {
  return h(
    "label",
    {},
    label,
    h("input", {
      type: "search",
      name,
      value: value ?? "",
      class: width,
      autocomplete: "off",
      spellcheck: "false",
      maxlength: 300,
    }),
  );
}

function choice(name, label, value, options) {
  return h(
    "label",
    {},
    label,
    h(
      "select",
      { name },
      options.map(([key, text]) => h("option", { value: key, selected: key === (value ?? "") }, text)),
    ),
  );
}

function withoutAfter({ after, ...fields }) {
  return fields;
}

export const queues = {
  title: () => "Queues",

  async ask({ broker, find = "", sort = "", after }) {
    const answer = await ask("queues", { broker, find, sort: sort || "trouble", after, most: MOST });
    return { answer, history: await recent(broker, answer.queues), at: performance.now() / 1000 };
  },

  draw({ answer, history, at }, { fields }) {
    const speeds = new Map(
      answer.queues.map((queue) => [
        queue.name,
        rates.note(`${fields.broker} ${queue.name}`, at - answer.age, { done: queue.done, failed: queue.failed }),
      ]),
    );
    return [
      title("Queues"),
      filter(
        "queues",
        box("find", "Name has", fields.find),
        choice("sort", "First", fields.sort, [
          ["", "those in trouble, then the fullest"],
          ["name", "by name"],
          ["waiting", "most waiting"],
          ["running", "most running"],
          ["oldest", "oldest task"],
          ["failed", "most failed"],
        ]),
      ),
      queuesTable(answer.queues, speeds, history, {
        note: found(answer.queues.length, answer, "queue", "queues"),
        empty: "No queue has such a name.",
        more: paging(["queues"], withoutAfter(fields), fields.after, answer.cursor),
      }),
    ];
  },
};

async function recent(broker, queues) {
  const names = `${broker} ${queues.map((queue) => queue.name).join(" ")}`;
  if (kept.names !== names || performance.now() > kept.at + 5000) {
    kept = {
      names,
      at: performance.now(),
      history: await ask("history", { broker, queue: queues.map((queue) => queue.name) }),
    };
  }
  return kept.history;
}

export const workers = {
  title: () => "Workers",

  ask: ({ broker, find = "", sort = "", after }) =>
    ask("workers", { broker, find, sort: sort || "trouble", after, most: MOST }),

  draw(answer, { fields }) {
    return [
      title("Workers"),
      filter(
        "workers",
        box("find", "Label, host, address or queue has", fields.find, "wide"),
        choice("sort", "First", fields.sort, [
          ["", "those held back, then longest at a task"],
          ["longest", "longest at a task"],
          ["name", "by name"],
          ["failed", "most failed"],
        ]),
      ),
      workersTable(answer.workers, {
        note: found(answer.workers.length, answer, "worker", "workers"),
        empty: answer.total ? "No worker is like that." : "No worker is connected.",
        more: paging(["workers"], withoutAfter(fields), fields.after, answer.cursor),
      }),
    ];
  },
};

export const tasks = {
  title: () => "Tasks",

  ask: ({ broker, state, queue, worker, owner, order, after }) =>
    ask("tasks", { broker, state, queue, worker, owner, order, after, most: MOST }),

  draw(answer, { fields }) {
    return [
      title("Unsettled tasks"),
      filter(
        "tasks",
        choice("state", "State", fields.state, [
          ["", "any"],
          ["waiting", "waiting"],
          ["delayed", "delayed"],
          ["running", "running"],
        ]),
        choice("order", "First", fields.order, [
          ["", "the oldest"],
          ["slowest", "longest in hand"],
        ]),
        box("queue", "In the queue", fields.queue),
        box("worker", "Worker has", fields.worker),
      ),
      h(
        "form",
        { class: "filter", "data-open": "task", "data-key": "open" },
        h(
          "label",
          {},
          "Open a task by its number or key",
          h("input", { name: "task", required: true, autocomplete: "off", spellcheck: "false", maxlength: 256 }),
        ),
        h("button", {}, "Open"),
      ),
      tasksTable("tasks", "Tasks", answer.tasks, {
        note: `${number(answer.tasks.length)} shown; ${number(answer.total)} unsettled in all`,
        empty: answer.cursor === null ? "There are none." : "None so far: see the next page.",
        more: paging(["tasks"], withoutAfter(fields), fields.after, answer.cursor),
      }),
    ];
  },
};

export const failures = {
  title: () => "Failures",

  async ask({ broker, kept: where, queue, reason, after }) {
    if (where === "store") {
      return ask("failed", { broker, queue, reason: reason && `*${reason}*`, order: "newest", after, most: MOST });
    }
    return queue || reason ? searched(broker, queue, reason) : ask("failures", { broker, after, most: MOST });
  },

  draw(answer, { fields }) {
    const isStored = fields.kept === "store";
    const ended = isStored ? answer.failed : answer.failures;
    return [
      title(isStored ? "Failed tasks in the store" : "Last failures"),
      filter(
        "failures",
        choice("kept", "Which", fields.kept, [
          ["", "the last 1,000 of this run"],
          ["store", "all that the store has"],
        ]),
        box("queue", "In the queue", fields.queue),
        box("reason", "Reason has", fields.reason, "wide"),
      ),
      failuresTable(ended, {
        isStored,
        note: answer.found
          ? found(ended.length, answer, "failure", "failures")
          : shown(ended.length, answer.total, "failure", "failures"),
        empty: answer.cursor === null ? "There are none." : "None so far: see the next page.",
        more: paging(["failures"], withoutAfter(fields), fields.after, answer.cursor),
      }),
    ];
  },
};

/** Search in the last failures, of which there are so few that all are asked for, though not at each look. */
async function searched(broker, queue, reason) {
  if (last.broker !== broker || performance.now() > last.at + SEARCH_EVERY) {
    last = { broker, at: performance.now(), failures: await allFailures(broker) };
  }
  const isMeant = (one) => (!queue || one.queue === queue) && has(one.reason, reason ?? "");
  const failures = last.failures.filter(isMeant);
  return {
    failures: failures.slice(0, MOST_FOUND),
    found: failures.length,
    total: last.failures.length,
    cursor: null,
    age: (performance.now() - last.at) / 1000,
  };
}

async function allFailures(broker) {
  const all = [];
  let answer = { cursor: 0 };
  for (let pages = 0; answer.cursor !== null && pages < MOST_FAILURES / MOST; pages += 1) {
    answer = await ask("failures", { broker, after: answer.cursor, most: MOST });
    all.push(...answer.failures);
  }
  return all;
}

const has = (text, part) => text.toLowerCase().includes(part.toLowerCase());

const BROKERS = [
  column("Broker"),
  column("State", "state"),
  column("Up", "time"),
  column("Waiting", "number"),
  column("Running", "number"),
  column("Workers", "number"),
  column("Unserved", "number"),
];

export const brokers = {
  title: () => "Brokers",

  ask: () => ask("brokers"),

  isTroubled: (answer) => answer.brokers.some((one) => one.error || one.unserved),

  draw(answer) {
    const rows = answer.brokers.map((one) => ({
      key: `broker ${one.name}`,
      style: one.error || one.unserved ? "bad" : null,
      cells: [
        [
          h("a", { href: link([], { broker: one.name }) }, foreign(one.name)),
          one.error && [h("br"), h("span", { class: "quiet" }, foreign(one.error, 300))],
        ],
        one.error
          ? badge(`no answer for ${span(one.since)}`, "bad")
          : badge(one.state ?? "not asked yet", one.state === "serving" ? "good" : "warn"),
        span(one.uptime),
        number(one.waiting),
        number(one.running),
        number(one.workers),
        one.unserved === null ? NONE : capped(one.unserved, MOST_UNSERVED, "≥ "),
      ],
    }));
    return [
      title("Brokers"),
      tableSection("brokers", "Brokers", BROKERS, rows, {
        empty: "No broker of this user answers on this machine. One that is started shows up here by itself.",
      }),
    ];
  },
};
