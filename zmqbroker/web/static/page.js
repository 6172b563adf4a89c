// The page: which view is looked at, and what it shows; asked for anew while somebody looks at it.

import { ask, Trouble } from "./api.js";
import { h, redraw } from "./dom.js";
import { queue, task, worker } from "./details.js";
import { brokers, failures, queues, tasks, workers } from "./lists.js";
import { overview } from "./overview.js";
import { here, link } from "./routes.js";
import { clock, foreign, number, visible } from "./text.js";

const EVERY = 2000; // milliseconds between two looks
const BROKERS_EVERY = 10000; // between two looks which brokers there are
const TYPING = 250; // after the last letter of a search
const VIEWS = { "": overview, queues, workers, tasks, failures, brokers, queue, worker, task };
const NAMES = { "": "Overview", queues: "Queues", workers: "Workers", tasks: "Tasks", failures: "Failures" };
const PARENTS = { queue: "queues", worker: "workers", task: "tasks" };

const main = document.getElementById("main");
const places = Object.fromEntries(
  ["views", "which", "trouble", "freshness", "said"].map((id) => [id, document.getElementById(id)]),
);
let known = []; // brokers
let knownAt = -Infinity;
let shownAt = null; // when an answer came last; null: none has, for this view
let lost = null; // since when the broker does not answer, in milliseconds since 1970; null: it does
let look = 0; // the number of the last look that was begun: answers to earlier ones are too late
let timer = 0;

async function refresh() {
  clearTimeout(timer);
  const mine = (look += 1);
  try {
    await findBrokers();
    const route = current();
    const answer = await route.view.ask(route.fields, route);
    if (mine === look) {
      show(route, answer);
    }
  } catch (error) {
    if (mine === look) {
      complain(error);
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
  const view = isChosen ? VIEWS[name] : brokers;
  if (!view) {
    throw new Trouble(404, "There is no such page.");
  }
  return { view, name: isChosen ? name : "brokers", parts, fields };
}

function show(route, answer) {
  shownAt = Date.now();
  redraw(main, route.view.draw(answer, route));
  const what = route.view.title(route);
  const status = answer.status;
  document.title = `${status ? `${number(status.waiting)} waiting, ${number(status.running)} running` : what} · zmqbroker`;
  places.freshness.textContent = `As of ${clock(shownAt)}; asked for anew every ${EVERY / 1000} s.`;
  hasAnswered();
}

function hasAnswered() {
  main.classList.remove("stale");
  if (lost !== null) {
    lost = null;
    redraw(places.trouble, []);
    places.said.textContent = "The broker answers again.";
  }
}

/** Say what is wrong: loudly where nobody answers, in place of what was asked for where that is not there. */
function complain(error) {
  if (!(error instanceof Trouble)) {
    console.error(error);
  }
  if (error instanceof Trouble && [400, 404].includes(error.status)) {
    knownAt = -Infinity; // it may be another broker by now
    redraw(main, [
      h("div", { class: "title", "data-key": "head" }, h("h1", { tabindex: "-1" }, "Not here")),
      h("p", { class: "alarm", "data-key": "missing" }, foreign(error.message, 500)),
      h("p", { "data-key": "back" }, h("a", { href: link([]) }, "Overview")),
    ]);
    document.title = "Not here · zmqbroker";
    hasAnswered();
    return;
  }
  lost ??= Date.now() - 1000 * (error.since ?? 0);
  const who = error.status === 0 ? "This page's server does not answer" : "The broker does not answer";
  places.said.textContent = "";
  redraw(places.trouble, [
    h(
      "p",
      {},
      h("strong", {}, `${who}, since ${clock(lost)}`),
      ": ",
      foreign(error.message, 500),
      ".",
      shownAt === null ? null : ` What is shown is of ${clock(shownAt)}.`,
      " It is asked again and again.",
    ),
  ]);
  main.classList.add("stale");
  document.title = "No answer · zmqbroker";
}

function drawTop() {
  const { parts, fields } = here();
  const isChosen = fields.broker !== undefined || known.length === 1;
  const at = isChosen ? (PARENTS[parts[0]] ?? parts[0] ?? "") : "brokers";
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

/** Go to a task that is known by its number, or else by its key. */
function open(task) {
  location.hash = /^\d+$/.test(task) ? link(["task", task]) : link(["task"], { key: task });
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
