// The page: which view is looked at, and what it shows; asked for anew while somebody looks at it.

import { ask, Trouble } from "./api.js";
import { h, redraw } from "./dom.js";
import { queue, task } from "./details.js";
import { brokers, failures, queues, tasks, workers } from "./lists.js";
import { overview } from "./overview.js";
import { title } from "./parts.js";
import { here, link } from "./routes.js";
import { clock, foreign, number } from "./text.js";
import { worker } from "./worker.js";

const EVERY = 2000; // milliseconds between two looks
const BROKERS_EVERY = 10000; // between two looks which brokers there are
const TYPING = 250; // after the last letter of a search
const ASKED_AGAIN = "It is asked again and again.";
const MISSING = {
  title: () => "Not here",
  async ask() {
    throw new Trouble(404, "There is no such page.");
  },
};
const VIEWS = new Map(Object.entries({ "": overview, queues, workers, tasks, failures, brokers, queue, worker, task }));
const NAMES = { "": "Overview", queues: "Queues", workers: "Workers", tasks: "Tasks", failures: "Failures" };
const PARENTS = new Map(Object.entries({ queue: "queues", worker: "workers", task: "tasks" }));

const main = document.getElementById("main");
const places = Object.fromEntries(
  ["views", "which", "trouble", "freshness", "said"].map((id) => [id, document.getElementById(id)]),
);
let known = []; // brokers
let knownAt = -Infinity;
let shownAt = null; // when an answer came last; null: none has, for this view
let lost = null; // what does not answer, and since when, in milliseconds since 1970; null: all do
let look = 0; // the number of the last look that was begun: answers to earlier ones are too late
let timer = 0;

async function refresh() {
  clearTimeout(timer);
  const mine = (look += 1);
  const began = Date.now();
  try {
    await findBrokers();
    const route = current();
    const answer = await route.view.ask(route.fields, route);
    if (mine === look) {
      show(route, answer);
    }
  } catch (error) {
    if (mine === look) {
      complain(error, began);
    }
  } finally {
    if (mine === look && !document.hidden) {
      timer = setTimeout(refresh, EVERY);
    }
  }
}

async function findBrokers() {
  if (performance.now() > knownAt + BROKERS_EVERY || !known.length) {
    known = (await ask("brokers")).brokers;
    knownAt = performance.now();
  }
  drawTop();
}

/** Return the view that is looked at; where there are several brokers, or none, and none is chosen, that of brokers. */
function current() {
  const { parts, fields } = here();
  const name = parts[0] ?? "";
  const isChosen = fields.broker !== undefined || known.length === 1;
  const view = isChosen ? (VIEWS.get(name) ?? MISSING) : brokers;
  return { view, name: isChosen ? name : "brokers", parts, fields };
}

function show(route, answer) {
  shownAt = Date.now();
  redraw(main, route.view.draw(answer, route));
  const { status } = answer;
  const what = status ? `${number(status.waiting)} waiting, ${number(status.running)} running` : route.view.title(route);
  entitle(what, route.view.isTroubled?.(answer));
  places.freshness.textContent = `As of ${clock(shownAt)}; asked for anew every ${EVERY / 1000} s.`;
  hasAnswered();
}

/** Name the tab; a mark first says that somebody is needed, to who has many tabs. */
function entitle(what, isTroubled) {
  document.title = `${isTroubled ? "! " : ""}${what} · zmqbroker`;
}

function hasAnswered() {
  main.classList.remove("stale");
  if (lost !== null) {
    places.said.textContent = lost.again;
    lost = null;
    redraw(places.trouble, []);
  }
}

/** Say what is wrong: loudly where nobody answers, in place of what was asked for where that is not there. */
function complain(error, began) {
  if (error instanceof Trouble && [400, 404].includes(error.status)) {
    knownAt = -Infinity; // it may be another broker by now
    replace("Not here", h("p", { class: "alarm" }, foreign(error.message, 500)), error.hint);
    entitle("Not here", false);
    hasAnswered();
    return;
  }
  const blame = blamed(error);
  const isTold = typeof error.since === "number";
  if (lost?.who !== blame.who) {
    lost = { ...blame, since: isTold ? Date.now() - 1000 * error.since : began };
  }
  places.said.textContent = "";
  redraw(places.trouble, [
    h(
      "p",
      {},
      h("strong", {}, `${lost.who}, since ${clock(lost.since)}`),
      ": ",
      foreign(error.message, 500),
      ".",
      shownAt === null ? null : ` What is shown is of ${clock(shownAt)}.`,
      ` ${lost.more}`,
    ),
  ]);
  if (shownAt === null) {
    replace(current().view.title(here()), h("p", { class: "quiet" }, "Nothing is known of this yet."));
  }
  main.classList.add("stale");
  entitle("No answer", true);
}

/** Return who is to blame, what to do, and what is said when it is over. */
function blamed(error) {
  if (error instanceof Trouble && error.status === 503) {
    return { who: "The broker does not answer", more: ASKED_AGAIN, again: "The broker answers again." };
  }
  if (error instanceof Trouble && error.status !== 500) {
    return { who: "This page's server does not answer", more: ASKED_AGAIN, again: "The server answers again." };
  }
  console.error(error);
  return {
    who: "This page has a fault",
    more: "It is not the broker's: `zmqbroker status` tells how that is.",
    again: "The page is right again.",
  };
}

function replace(heading, ...said) {
  redraw(main, [
    title(heading),
    ...said.map((each) => each && h("div", {}, each)),
    h("p", {}, h("a", { href: link([]) }, "Overview")),
  ]);
}

function drawTop() {
  const { parts, fields } = here();
  const isChosen = fields.broker !== undefined || known.length === 1;
  const at = isChosen ? (PARENTS.get(parts[0]) ?? parts[0] ?? "") : "brokers";
  const names = { ...(isChosen ? NAMES : {}), ...(known.length === 1 ? {} : { brokers: "Brokers" }) };
  redraw(
    places.views,
    Object.entries(names).map(([name, text]) =>
      h(
        "li",
        { "data-key": name || "overview" },
        h(
          "a",
          {
            href: link(name ? [name] : [], name === "brokers" ? { broker: null } : {}),
            "aria-current": name === at ? "page" : null,
          },
          text,
        ),
      ),
    ),
  );
  const one = known.length === 1 ? known[0].name : fields.broker;
  redraw(places.which, one ? [foreign(one, 60)] : []);
}

/** Look at another view: its heading is where who cannot see begins to read. */
async function turn() {
  main.classList.add("stale");
  drawTop();
  shownAt = null;
  places.freshness.textContent = "";
  await refresh();
  main.querySelector("h1")?.focus({ preventScroll: true });
  scrollTo(0, 0);
}

let typing = 0;

/** Have a search in the address of the page; who types is not led away from what is typed. */
function search(form) {
  const fields = Object.fromEntries(new FormData(form));
  history.replaceState(null, "", link([form.dataset.route], fields));
  refresh();
}

/** Go to a task that is known by its number, or else by its key, which may be a number as well. */
function open(task) {
  location.hash = link(["task"], { find: task });
}

addEventListener("hashchange", turn);
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : refresh()));
document.addEventListener("input", ({ target }) => {
  const form = target.closest("form[data-route]");
  if (form) {
    clearTimeout(typing);
    typing = setTimeout(search, TYPING, form);
  }
});
document.addEventListener("submit", (event) => {
  event.preventDefault();
  if (event.target.dataset.open) {
    open(new FormData(event.target).get("task"));
  } else {
    search(event.target);
  }
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // what stands after the `#` is the view
  main.focus();
});

refresh();
