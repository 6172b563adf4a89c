// A queue's, a worker's and a task's own page.

import { ask, Rates, Trouble } from "./api.js";
import { levels, rates as ratesChart } from "./charts.js";
import { h } from "./dom.js";
import { attempt, inHand, queueBadges, tasksTable, tile, whoHas, workerBadges, workerName } from "./parts.js";
import { link, queueLink } from "./routes.js";
import { badge, facts } from "./tables.js";
import { brief, clock, counted, foreign, NONE, number, rate, size, span, visible, wholeText } from "./text.js";

const rates = new Rates();

function title(text, ...more) {
  return h("div", { class: "title", "data-key": "head" }, h("h1", { tabindex: "-1" }, text), more);
}

function section(key, heading, ...children) {
  return h(
    "section",
    { "data-key": key, "aria-labelledby": `${key}-heading` },
    h("div", { class: "heading" }, h("h2", { id: `${key}-heading` }, heading)),
    children,
  );
}

export const queue = {
  title: ({ parts }) => `Queue ${visible(parts[1] ?? "")}`,

  async ask({ broker }, { parts }) {
    const name = parts[1] ?? "default";
    const [answer, running, waiting, history] = await Promise.all([
      ask("queues", { broker, queue: name }),
      ask("tasks", { broker, queue: name, state: "running", most: 10 }),
      ask("tasks", { broker, queue: name, state: "waiting", most: 10 }),
      ask("history", { broker, queue: name }),
    ]);
    return { queue: answer.queues[0], bounds: answer.bounds, running, waiting, history, at: performance.now() / 1000 };
  },

  draw({ queue: one, bounds, running, waiting, history, at }, { fields }) {
    const now = rates.note(`${fields.broker} ${one.name}`, at, {
      done: one.done,
      failed: one.failed,
      accepted: one.accepted,
    });
    const series = history.queues[one.name];
    const settled = ["done", "failed", "cancelled", "expired"].map((name) => `${number(one[name])} ${name}`);
    const ended = Object.entries(one.attempts).map(([name, count]) => `${number(count)} ${name}`);
    return [
      title(["Queue ", foreign(one.name)], queueBadges(one)),
      one.waiting > 0 &&
        !one.workers &&
        h(
          "p",
          { class: "alarm bad", "data-key": "alarm" },
          h(
            "strong",
            {},
            `${counted(one.waiting, "task waits", "tasks wait")} here, and no worker asks from this queue.`,
          ),
        ),
      h(
        "section",
        { class: "tiles", "data-key": "tiles", "aria-label": "Numbers" },
        tile(
          "Waiting",
          number(one.waiting),
          one.oldest === null ? "none waits" : `oldest ${span(one.oldest)}`,
          levels(history.ages, series.waiting, "waiting"),
        ),
        tile(
          "Running",
          number(one.running),
          `${number(one.delayed)} delayed`,
          levels(history.ages, series.running, "running"),
        ),
        tile(
          "Done in a second",
          rate(now.done),
          `${number(one.done)} in all`,
          ratesChart(history.ages, series.done, "done"),
        ),
        tile(
          "Failed in a second",
          rate(now.failed),
          `${number(one.failed)} in all`,
          ratesChart(history.ages, series.failed, "failed"),
        ),
        tile("Workers", number(one.workers), `${number(one.idle)} idle`, null),
      ),
      section(
        "counts",
        "In all",
        facts([
          ["Accepted", number(one.accepted)],
          ["Settled", settled.join(", ")],
          ["Attempts ended by", ended.join(", ")],
          ["Late results", number(one.late)],
          ["Waited", times(one.waited, bounds)],
          ["In hand", times(one.ran, bounds)],
        ]),
      ),
      tasksTable("running", "Running", running.tasks, { empty: "Nothing runs.", more: all("running", one, running) }),
      tasksTable("waiting", "Waiting, the oldest first", waiting.tasks, {
        empty: "Nothing waits.",
        more: all("waiting", one, waiting),
      }),
    ];
  },
};

function all(state, one, answer) {
  return (
    answer.cursor !== null &&
    h("p", { class: "more" }, h("a", { href: link(["tasks"], { queue: one.name, state }) }, `All that are ${state}`))
  );
}

/** Say in what time half, and 99% of what was counted was done, as far as buckets tell. */
function times({ counts, seconds }, bounds) {
  const count = counts.reduce((sum, each) => sum + each, 0);
  if (!count) {
    return NONE;
  }
  const within = (share) => {
    let sum = 0;
    const place = counts.findIndex((each) => (sum += each) >= share * count);
    return place < bounds.length ? `< ${brief(bounds[place])}` : `> ${span(bounds.at(-1))}`;
  };
  return `half ${within(0.5)}, 99% ${within(0.99)}, ${brief(seconds / count)} on average`;
}

export const worker = {
  title: () => "Worker",

  async ask({ broker, host, pid, address }) {
    const find = host === undefined ? address : `${host}:${pid}`;
    const answer = await ask("workers", { broker, find });
    const isMeant = (one) =>
      host === undefined
        ? one.host === null && one.address === address
        : String(one.pid) === pid && (one.host ?? "").startsWith(host);
    const process = answer.workers.filter(isMeant);
    const connection = process.filter((one) => one.address === address);
    const found = connection.length ? connection : process; // it may have connected anew
    if (!found.length) {
      throw new Trouble(404, "There is no such worker now: it has left, or is a plain one that has asked for nothing.");
    }
    const tasks = host === undefined ? null : await ask("tasks", { broker, worker: find, state: "running", most: 20 });
    return { found, tasks };
  },

  draw({ found, tasks }) {
    return [
      title(
        ["Worker ", workerName(found[0], 200)],
        found.length > 1 && badge(`${number(found.length)} connections of this process`),
      ),
      ...found.map((one, place) => connection(one, place, found.length)),
      tasks && tasksTable("held", "What it has", tasks.tasks, { empty: "It has no task." }),
    ];
  },
};

function connection(one, place, total) {
  return section(
    `connection-${place}`,
    total > 1 ? `Connection ${place + 1}` : "What is known of it",
    facts([
      ["Label", one.label === null ? null : wholeText(one.label)],
      ["Host", one.host === null ? null : wholeText(one.host)],
      ["Process", one.pid === null ? null : String(one.pid)],
      ["Address", foreign(one.address || NONE)],
      ["Owner", one.owner === null ? null : foreign(one.owner)],
      [
        "Asks from",
        one.queues.map((name, order) => [order ? ", " : null, h("a", { href: queueLink(name) }, foreign(name))]),
      ],
      ["In hand", [inHand(one), one.since === null ? null : `, for ${span(one.since)}`]],
      ["Has", counted(one.held, "task", "tasks")],
      ["Asks for", counted(one.asks, "more", "more")],
      ["Done", number(one.done)],
      ["Failed", number(one.failed)],
      one.marks ? ["Failed here, done elsewhere", number(one.marks)] : null,
      one.held_back === null ? null : ["Held back", workerBadges({ ...one, host: "", owner: null })],
    ]),
  );
}

export const task = {
  title: ({ parts, fields }) => `Task ${visible(parts[1] ?? fields.key ?? "")}`,

  ask({ broker, key, owner }, { parts }) {
    return parts[1] === undefined ? ask("task", { broker, key, owner }) : ask("task", { broker, number: parts[1] });
  },

  draw({ task: live, stored, failure }) {
    const one = live ?? stored ?? failure;
    const state = live ? live.state : one.status;
    const style = { running: "good", done: "good", failed: "bad", expired: "bad" }[state] ?? "";
    return [
      title(`Task ${one.number}`, badge(state, style)),
      one.reason
        ? h(
            "p",
            { class: `alarm ${live ? "warn" : "bad"}`, "data-key": "reason" },
            h("strong", {}, live ? "Its last attempt was lost: " : "Reason: "),
            wholeText(one.reason),
          )
        : null,
      section(
        "about",
        "What is known of it",
        facts([
          ["Key", one.key === null ? NONE : wholeText(one.key)],
          ["Owner", one.owner === null ? null : foreign(one.owner)],
          ["Queue", h("a", { href: queueLink(one.queue) }, foreign(one.queue))],
          ["Group", one.group ? foreign(one.group) : null],
          ["Priority", one.priority === undefined ? null : number(one.priority)],
          ["Accepted", live || stored ? moment(one.age) : null],
          ["Settled", failure ? moment(failure.age) : null],
          ["Attempts", live ? attempt(live) : number(one.attempts)],
          stored ? ["Hand-outs in all", number(stored.hand_outs)] : null,
          live ? [live.in_hand ? "In hand for" : "So since", span(live.since)] : null,
          live ? ["Due in", span(live.due)] : null,
          [live ? "Worker" : "Last worker", whoHas(live ? live.worker : one.worker || null, 200)],
          one.bytes === undefined ? null : [stored?.status === "done" ? "Result" : "Body", size(one.bytes)],
          live ? ["Who gets its outcome", counted(live.waiters, "connection", "connections")] : null,
          stored ? ["Kept for", span(stored.kept)] : null,
        ]),
      ),
      stored &&
        section(
          "body",
          stored.status === "done" ? "The beginning of its result" : "The beginning of its body",
          body(stored),
        ),
      failure &&
        h(
          "p",
          { class: "quiet", "data-key": "note" },
          "This is one of the last 1,000 failures; it is not in the store.",
        ),
    ];
  },
};

function moment(age) {
  return `${span(age)} ago, at ${clock(Date.now() - 1000 * age)}`;
}

function body(stored) {
  if (stored.body === null) {
    return h(
      "p",
      { class: "quiet" },
      "It is not shown: bodies are for who has logged in with the page's token, and for a page whose identity is an admin's.",
    );
  }
  return h("pre", { class: "body", tabindex: "0" }, h("bdi", {}, stored.body ? visible(stored.body) : "It is empty."));
}
