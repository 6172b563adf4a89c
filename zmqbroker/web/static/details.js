// A queue's and a task's own page.

import { ask, Rates, Trouble } from "./api.js";
import { levels, rates as ratesChart, seriesOf } from "./charts.js";
import { h } from "./dom.js";
import {
  attempt,
  isUnserved,
  NO_TASKS,
  noneInHand,
  noneSoFar,
  queueBadges,
  section,
  taskName,
  tasksTable,
  tile,
  title,
  whoHas,
} from "./parts.js";
import { link, queueLink } from "./routes.js";
import { badge, facts } from "./tables.js";
import { brief, clock, counted, foreign, NONE, number, rate, size, span, wholeText } from "./text.js";
import { visible } from "./visible.js";

const MOVED = "None any more."; // the numbers are of another instant
const FORGOTTEN =
  "So it is settled, or there never was one: what is done is known only to a broker with a store, and not for ever. " +
  "A worker may still be at it, if the broker has given that attempt up.";
const STYLES = new Map(Object.entries({ running: "good", done: "good", failed: "bad", expired: "bad" }));
const rates = new Rates();

export const queue = {
  title: ({ parts }) => `Queue ${visible(parts[1] ?? "")}`,

  async ask({ broker }, { parts }) {
    const name = parts[1] ?? "default";
    const [answer, history] = await Promise.all([
      ask("queues", { broker, queue: name }),
      ask("history", { broker, queue: name }),
    ]);
    const [one] = answer.queues;
    const tasks = { broker, queue: name, most: 10 };
    const [running, waiting] = await Promise.all([
      one.running ? ask("tasks", { ...tasks, state: "running", order: "slowest" }) : NO_TASKS,
      one.waiting ? ask("tasks", { ...tasks, state: "waiting" }) : NO_TASKS,
    ]);
    return { queue: one, bounds: answer.bounds, running, waiting, history, at: performance.now() / 1000 };
  },

  isTroubled: (answer) => isUnserved(answer.queue),

  draw({ queue: one, bounds, running, waiting, history, at }, { fields }) {
    const now = rates.note(`${fields.broker} ${one.name}`, at, {
      done: one.done,
      failed: one.failed,
      accepted: one.accepted,
    });
    const series = seriesOf(history, one.name);
    const settled = ["done", "failed", "cancelled", "expired"].map((name) => `${number(one[name])} ${name}`);
    const ended = Object.entries(one.attempts).map(([name, count]) => `${number(count)} ${name}`);
    return [
      title(["Queue ", foreign(one.name)], queueBadges(one)),
      alarm(one),
      h(
        "p",
        { class: "ways", "data-key": "ways" },
        h("a", { href: link(["failures"], { queue: one.name }) }, "Its failures"),
        h("a", { href: link(["workers"], { find: one.name }) }, "Its workers"),
        h("a", { href: link(["tasks"], { queue: one.name }) }, "Its tasks"),
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
      tasksTable("running", "Running, the longest in hand first", running.tasks, {
        empty: noneSoFar(noneInHand(one.running), running, { queue: one.name, state: "running", order: "slowest" }),
        more: all(running, { queue: one.name, state: "running" }),
      }),
      tasksTable("waiting", "Waiting, the oldest first", waiting.tasks, {
        empty: noneSoFar(one.waiting ? MOVED : "Nothing waits.", waiting, { queue: one.name, state: "waiting" }),
        more: all(waiting, { queue: one.name, state: "waiting" }),
      }),
    ];
  },
};

/** Say why tasks wait, where that is not as it should be; null: it is. */
function alarm(one) {
  const waits = `${counted(one.waiting, "task waits", "tasks wait")} here`;
  let said = null;
  if (isUnserved(one)) {
    said = ["bad", `${waits}, and no worker asks from this queue.`];
  } else if (one.waiting && one.paused) {
    said = ["warn", `${waits}, as the queue is paused.`];
  } else if (one.waiting && !one.idle && !one.running) {
    said = ["warn", `${waits}, and none of its workers is free: they are at tasks of other queues, are held back, or hang.`];
  }
  return said && h("p", { class: `alarm ${said[0]}`, "data-key": "alarm" }, h("strong", {}, said[1]));
}

function all(answer, fields) {
  return (
    answer.tasks.length > 0 &&
    answer.cursor !== null &&
    h("p", { class: "more" }, h("a", { href: link(["tasks"], fields) }, `All that are ${fields.state}`))
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

export const task = {
  title: ({ parts, fields }) => `Task ${visible(parts[1] ?? fields.key ?? fields.find ?? "")}`,

  async ask({ broker, key, owner, find }, { parts }) {
    try {
      if (find !== undefined) {
        return await findTask(broker, find);
      }
      return await ask("task", { broker, ...(parts[1] === undefined ? { key, owner } : { number: parts[1] }) });
    } catch (error) {
      throw error.status === 404 ? new Trouble(404, error.message, { hint: FORGOTTEN }) : error;
    }
  },

  draw({ task: live, stored, failure, other }) {
    const one = live ?? stored ?? failure;
    const state = live ? live.state : one.status;
    return [
      title(`Task ${one.number}`, badge(state, STYLES.get(state))),
      other &&
        h(
          "p",
          { class: "alarm", "data-key": "other" },
          "Another task has this number as its key: ",
          taskName(other),
          ".",
        ),
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

/** Return the task that has this number, or else this key; `other` has that as its key where there are both. */
async function findTask(broker, text) {
  const [numbered, keyed] = await Promise.allSettled([
    /^\d+$/.test(text) ? ask("task", { broker, number: text }) : Promise.reject(new Trouble(404, "it is no number")),
    ask("task", { broker, key: text }),
  ]);
  const answers = [numbered, keyed].filter((one) => one.status === "fulfilled").map((one) => one.value);
  if (!answers.length) {
    throw keyed.reason;
  }
  const [first, other] = answers.map(({ task: live, stored, failure }) => live ?? stored ?? failure);
  return { ...answers[0], other: other && other.number !== first.number ? other : null };
}

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
  return h("pre", { class: "body", tabindex: "0" }, h("bdi", {}, stored.body || "It is empty."));
}
