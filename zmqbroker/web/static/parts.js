// What several views show: tables of queues, workers, tasks and failures.

import { levels, rates as ratesChart, seriesOf } from "./charts.js";
import { h } from "./dom.js";
import { link, namedWorkerLink, queueLink, taskLink, workerLink } from "./routes.js";
import { badge, column, tableSection } from "./tables.js";
import { counted, foreign, NONE, number, rate, span } from "./text.js";

const QUEUES = [
  column("Queue"),
  column("Waiting", "number"),
  column("Running", "number"),
  column("Delayed", "number"),
  column("Oldest", "time"),
  column("Workers", "number"),
  column("Done/s", "number"),
  column("Failed/s", "number"),
  column("Waiting, 10 min", "chart"),
  column("Done, 10 min", "chart"),
];
const WORKERS = [
  column("Worker"),
  column("Queues", "text"),
  column("In hand", "text"),
  column("For", "time"),
  column("Behind", "number"),
  column("Done", "number"),
  column("Failed", "number"),
];
const TASKS = [
  column("Task", "task"),
  column("Queue", "text"),
  column("State", "state"),
  column("Attempt", "number"),
  column("For", "time"),
  column("Age", "time"),
  column("Worker", "text"),
];
const FAILURES = (when) => [
  column("Task", "task"),
  column("Queue", "queue"),
  column(when, "time"),
  column("Attempts", "number"),
  column("Reason"),
  column("Worker", "text"),
];

export const NO_TASKS = { tasks: [], cursor: null }; // an answer that need not be asked for

/** Return whether tasks wait in a queue in vain. */
export const isUnserved = (queue) => queue.waiting > 0 && queue.workers === 0;

/** Return what is to be said of a queue besides its numbers. */
export function queueBadges(queue) {
  return [
    isUnserved(queue) && badge("no workers", "bad"),
    queue.paused && badge("paused", "warn"),
    queue.limit !== null && badge(`limit ${number(queue.limit)} running`),
    queue.limit_waiting !== null && badge(`limit ${number(queue.limit_waiting)} waiting`),
  ];
}

/** Return a table of queues; `rates` are by name, `history` is of them. */
export function queuesTable(queues, rates, history, options) {
  const rows = queues.map((queue) => {
    const { done, failed } = rates.get(queue.name) ?? {};
    const series = seriesOf(history, queue.name);
    return {
      key: `queue ${queue.name}`,
      style: isUnserved(queue) ? "bad" : queue.paused ? "warn" : null,
      cells: [
        [h("a", { href: queueLink(queue.name) }, foreign(queue.name)), " ", queueBadges(queue)],
        number(queue.waiting),
        number(queue.running),
        number(queue.delayed),
        span(queue.oldest),
        `${number(queue.workers)}`,
        rate(done),
        rate(failed),
        series ? levels(history.ages, series.waiting, "waiting") : NONE,
        series ? ratesChart(history.ages, series.done, "done") : NONE,
      ],
    };
  });
  return tableSection("queues", "Queues", QUEUES, rows, { empty: "There are no queues.", ...options });
}

/** Return what a worker is called. */
export function workerName(worker, most = 60) {
  if (worker.host === null) {
    return [foreign(worker.address || "a plain worker")];
  }
  return [
    foreign(worker.label || "worker", most),
    " ",
    h("span", { class: "quiet" }, foreign(`${worker.host}:${worker.pid}`, most)),
  ];
}

/** Return a table of workers. */
export function workersTable(workers, options) {
  const rows = workers.map((worker) => ({
    key: `worker ${worker.address} ${worker.host} ${worker.pid} ${(worker.label ?? "").slice(0, 100)}`,
    style: worker.held_back === null && !isGivenUp(worker) ? null : "warn",
    cells: [
      [h("a", { href: workerLink(worker) }, workerName(worker)), " ", workerBadges(worker)],
      [foreign(worker.queues.join(", "), 40)],
      inHand(worker),
      span(worker.since),
      number(Math.max(worker.held - 1, 0)),
      number(worker.done),
      number(worker.failed),
    ],
  }));
  return tableSection("workers", "Workers", WORKERS, rows, { empty: "No worker is connected.", ...options });
}

/** Return what is to be said of a worker besides its numbers. */
export function workerBadges(worker) {
  return [
    worker.host === null && badge("plain"),
    worker.owner !== null && badge(foreign(worker.owner, 30)),
    worker.held_back !== null && badge(`held back for ${span(worker.held_back)}`, "warn"),
  ];
}

/** Return what a worker has in hand. */
export function inHand(worker) {
  if (!worker.held) {
    return h("span", { class: "quiet" }, "idle");
  }
  return [worker.task ? taskName(worker.task) : "a task", isGivenUp(worker) && [" ", badge("given up", "warn")]];
}

/** Return whether the broker has given up what a worker has in hand: it is another attempt by now, or settled. */
export function isGivenUp({ held, task, since }) {
  return held > 0 && (!task || task.state !== "running" || !task.in_hand || task.since !== since);
}

/** Say why no task is listed that a worker is at. */
export function noneInHand(running) {
  return running
    ? `None is in hand: ${counted(running, "task lies", "tasks lie")} at workers behind what these have in hand.`
    : "Nothing runs.";
}

/** Say that there are none, or that they may be further on, with where that is; `fields` are of the list of tasks. */
export function noneSoFar(none, answer, fields) {
  return answer.cursor === null
    ? none
    : [
        "None among the oldest tasks of the broker, as far as was looked: ",
        h("a", { href: link(["tasks"], { ...fields, after: answer.cursor }) }, "look further"),
        ".",
      ];
}

/** Return what a task is called, and where its page is. */
export function taskName(task, most = 30) {
  const key = task.key === null ? null : [" ", h("span", { class: "quiet" }, foreign(task.key, most))];
  return [h("a", { href: taskLink(task.number) }, String(task.number)), key];
}

/** Return who has a task; empty: a plain worker; null: nobody. */
export function whoHas(name, most = 40) {
  if (name === null) {
    return h("span", { class: "quiet" }, NONE);
  }
  if (name === "") {
    return h("span", { class: "quiet" }, "plain");
  }
  const href = namedWorkerLink(name);
  const shortened = foreign(name, most, Math.floor(most / 2)); // where it is stands at its end
  return href ? h("a", { href }, shortened) : shortened;
}

/** Return a table of unsettled tasks. */
export function tasksTable(id, heading, tasks, options) {
  const rows = tasks.map((task) => ({
    key: `task ${task.number}`,
    cells: [
      taskName(task),
      h("a", { href: queueLink(task.queue) }, foreign(task.queue, 40)),
      task.state === "running" && !task.in_hand ? "lies behind" : task.state,
      attempt(task),
      span(task.since),
      span(task.age),
      whoHas(task.worker),
    ],
  }));
  return tableSection(id, heading, TASKS, rows, options);
}

/** Return which attempt a task is at, and of how many. */
export function attempt(task) {
  return task.tries ? `${number(task.attempts)} of ${number(task.tries)}` : number(task.attempts);
}

/** Return a table of tasks that came to a bad end; of those in a store it is known how long they are kept. */
export function failuresTable(failures, { isStored = false, ...options }) {
  const rows = failures.map((failure) => ({
    key: `failure ${failure.number} ${failure.key}`,
    cells: [
      taskName(failure),
      h("a", { href: queueLink(failure.queue) }, foreign(failure.queue, 30)),
      span(isStored ? failure.kept : failure.age),
      number(failure.attempts),
      [
        failure.status !== "failed" && [badge(failure.status, "warn"), " "],
        foreign(failure.reason || "no reason was given", 160),
      ],
      failure.worker ? whoHas(failure.worker) : h("span", { class: "quiet" }, NONE),
    ],
  }));
  const columns = FAILURES(isStored ? "Kept for" : "Ago");
  const heading = isStored ? "Failed tasks" : "Last failures";
  return tableSection("failures", heading, columns, rows, { empty: "No task has failed.", ...options });
}

/** Return where the next page of a list is, and the first one; null: there is only one page. */
export function paging(parts, fields, after, cursor) {
  if (cursor === null && !after) {
    return null;
  }
  return h(
    "nav",
    { class: "pages", "aria-label": "Pages" },
    after
      ? h("a", { href: link(parts, { ...fields, after: null }) }, "First page")
      : h("span", { class: "quiet" }, "First page"),
    cursor === null
      ? h("span", { class: "quiet" }, "No more")
      : h("a", { href: link(parts, { ...fields, after: cursor }), rel: "next" }, "Next page"),
  );
}

/** Return how many are shown of how many. */
export function shown(count, total, one, several) {
  return count < total ? `${number(count)} of ${counted(total, one, several)}` : counted(total, one, several);
}

/** Return how many are shown of those that a search has found. */
export function found(count, answer, one, several) {
  const ofAll = answer.found < answer.total ? ` found of ${number(answer.total)}` : "";
  return `${shown(count, answer.found, one, several)}${ofAll}${answer.age > 3 ? `, as of ${span(answer.age)} ago` : ""}`;
}

/** Return a large number with its name, what else there is to say, and a picture; null: there is none. */
export function tile(name, value, more, picture) {
  return h(
    "div",
    { class: "tile" },
    h("h2", {}, name),
    h("p", { class: "value" }, value),
    h("p", { class: "quiet" }, more),
    picture,
  );
}

/** Return the heading of a page, and what stands beside it. */
export function title(text, ...more) {
  return h("div", { class: "title", "data-key": "head" }, h("h1", { tabindex: "-1" }, text), more);
}

/** Return a section with a heading. */
export function section(key, heading, ...children) {
  return h(
    "section",
    { "data-key": key, "aria-labelledby": `${key}-heading` },
    h("div", { class: "heading" }, h("h2", { id: `${key}-heading` }, heading)),
    children,
  );
}
