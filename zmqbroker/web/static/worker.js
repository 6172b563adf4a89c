// A worker's own page.

import { ask, Trouble } from "./api.js";
import { h } from "./dom.js";
import {
  inHand,
  isGivenUp,
  NO_TASKS,
  noneSoFar,
  section,
  taskName,
  tasksTable,
  title,
  whoHas,
  workerBadges,
  workerName,
} from "./parts.js";
import { endOf, NAMELESS, nameOf, queueLink } from "./routes.js";
import { badge, facts } from "./tables.js";
import { counted, foreign, NONE, number, span, wholeText } from "./text.js";

export const worker = {
  title: () => "Worker",

  async ask({ broker, name, address }) {
    const find = name === undefined || name === NAMELESS ? address : name;
    const answer = await ask("workers", { broker, find });
    const isMeant = (one) =>
      name === undefined ? nameOf(one) === null && one.address === address : endOf(nameOf(one) ?? "") === name;
    const named = answer.workers.filter(isMeant);
    const connection = named.filter((one) => one.address === address);
    const found = connection.length ? connection : named; // it may have connected anew
    if (!found.length) {
      throw new Trouble(404, "There is no such worker now: it has left, or is a plain one that has asked for nothing.");
    }
    return { found, tasks: await held(broker, name, found) };
  },

  draw({ found, tasks }) {
    return [
      title(
        ["Worker ", workerName(found[0], 200)],
        found.length > 1 && badge(`${number(found.length)} connections of this name`),
      ),
      ...found.filter(isGivenUp).map(({ task, since }, place) => givenUp(task, since, place)),
      ...found.map((one, place) => connection(one, place, found.length)),
      tasks && heldTable(found, tasks),
    ];
  },
};

/** Ask for what a worker has; null: that cannot be told of a plain one. */
function held(broker, name, found) {
  if (found.every((one) => one.held < 2)) {
    return NO_TASKS; // but for what is known to be in hand
  }
  return name === undefined ? null : ask("tasks", { broker, worker: name, state: "running", most: 20 });
}

/** Say what has become of a task that a worker still has in hand, in vain. */
function givenUp(task, since, place) {
  const isElsewhere = task?.state === "running";
  return h(
    "p",
    { class: "alarm warn", "data-key": `given-up-${place}` },
    h("strong", {}, "It is still at a task that the broker has given up: "),
    task && [taskName(task), isElsewhere ? [", which runs in a later attempt at ", whoHas(task.worker)] : `, which is ${task.state}`],
    task ? ". " : null,
    `It has not answered for ${span(since)}: it may hang.`,
  );
}

/** Return a table of what runs at a worker: what it has in hand is known, the rest is looked for. */
function heldTable(found, answer) {
  const inHand = found.filter((one) => one.task && !isGivenUp(one)).map((one) => one.task);
  const known = new Set(inHand.map((one) => one.number));
  const rest = answer.tasks.filter((one) => !known.has(one.number));
  const fields = { worker: endOf(nameOf(found[0]) ?? ""), state: "running" };
  return tasksTable("held", "What runs there", [...inHand, ...rest], {
    empty: noneSoFar("Nothing runs there.", answer, fields),
  });
}

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
