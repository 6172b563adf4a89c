// Addresses within the page: what stands after the `#`, which can be kept and sent to others.

const LONGEST_NAME = 300; // characters
export const NAMELESS = "a worker"; // as the broker calls one that has announced nothing of itself

/** Return the view that is looked at, as the parts of its path, and its parameters. */
export function here() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  return {
    parts: path.split("/").filter(Boolean).map(decoded),
    fields: Object.fromEntries(new URLSearchParams(query)),
  };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function encoded(part) {
  return encodeURIComponent(part.replace(/\p{Cs}/gu, "\ufffd")); // half a pair of surrogates has no code
}

/** Return the address of a view, of the broker that is looked at unless `fields` name another one. */
export function link(parts, fields = {}) {
  const { broker } = here().fields;
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries({ broker, ...fields })) {
    if (value !== null && value !== undefined && value !== "") {
      query.set(name, value);
    }
  }
  const asked = query.size ?? [...query].length;
  return `#/${parts.map(encoded).join("/")}${asked ? `?${query}` : ""}`;
}

export const queueLink = (name) => link(["queue", name]);
export const taskLink = (number) => link(["task", String(number)]);

/** Return what the broker's log, and who has a task, call a worker; null: it is a plain one. */
export function nameOf({ label, host, pid }) {
  if (host === null || host === undefined) {
    return null;
  }
  const where = host ? `${host}:${pid}` : "";
  return label && where ? `${label} (${where})` : label || where || NAMELESS;
}

/** Return the end of a worker's name, which is what an address of the page has of it. */
export const endOf = (name) => Array.from(name).slice(-LONGEST_NAME).join("");

/** Return the address of a worker, which is known by what it has announced, or else by where it comes from. */
export function workerLink(worker) {
  const { address } = worker;
  const name = nameOf(worker);
  const place = address?.includes(":") ? address : null; // by ipc all come from the same one
  return link(["worker"], name === null ? { address } : { name: endOf(name), address: place });
}

/** Return the address of the worker that is called so; null: it has no name of its own. */
export const namedWorkerLink = (name) => (name === NAMELESS ? null : link(["worker"], { name: endOf(name) }));
