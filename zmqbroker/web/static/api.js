// Asking our own server, which asks the broker; and rates, which nobody is asked for.

const PATIENCE = 12000; // milliseconds
const WINDOW = 10; // seconds over which a rate is taken

/** What was asked for is not there; `status` is that of HTTP, 0: our own server does not answer. */
export class Trouble extends Error {
  constructor(status, text, { since = null, hint = null } = {}) {
    super(text);
    this.status = status;
    this.since = since; // for how many seconds the broker has not answered; null: that is not why
    this.hint = hint; // what else helps; null: nothing
  }
}

/** Return an answer. Throws Trouble. */
export async function ask(what, fields = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(fields)) {
    for (const each of [value].flat()) {
      if (each !== null && each !== undefined && each !== "") {
        query.append(name, each);
      }
    }
  }
  let response;
  try {
    response = await fetch(`/api/${what}?${query}`, {
      signal: AbortSignal.timeout(PATIENCE),
      credentials: "same-origin",
    });
  } catch {
    throw new Trouble(0, "zmqbroker web has ended, or hangs, or is out of reach");
  }
  const answer = await response.json().catch(() => null);
  if (response.status === 401) {
    location.reload(); // the login page is in this place
  }
  if (answer === null) {
    throw new Trouble(0, `zmqbroker web, or what stands before it, says ${response.status} and nothing else`);
  }
  if (!response.ok) {
    throw new Trouble(response.status, answer.error ?? `the server says ${response.status}`, { since: answer.since });
  }
  return answer;
}

/** Rates of what only grows, by what it is called. */
export class Rates {
  #seen = new Map();

  /** Take note of counts at an instant, in seconds; return how much each grows in a second; null: not known yet. */
  note(key, at, counts) {
    let samples = this.#seen.get(key) ?? [];
    const last = samples.at(-1);
    if (last && (at < last.at || Object.keys(counts).some((name) => counts[name] < last.counts[name]))) {
      samples = []; // it has begun anew
    }
    if (!samples.length || at > samples.at(-1).at) {
      samples = [...samples, { at, counts }].filter(
        (sample, place, all) => place === all.length - 1 || at - sample.at <= WINDOW,
      );
    }
    this.#seen.delete(key);
    this.#seen.set(key, samples);
    if (this.#seen.size > 2000) {
      this.#seen.delete(this.#seen.keys().next().value);
    }
    const first = samples[0];
    const names = Object.keys(counts);
    return Object.fromEntries(
      names.map((name) => [name, at > first.at ? (counts[name] - first.counts[name]) / (at - first.at) : null]),
    );
  }
}
