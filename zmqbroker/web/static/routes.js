// Addresses within the page: what stands after the `#`, which can be kept and sent to others.

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
  return `#/${parts.map(encodeURIComponent).join("/")}${asked ? `?${query}` : ""}`;
}

export const queueLink = (name) => link(["queue", name]);
export const taskLink = (number) => link(["task", String(number)]);

/** Return the address of a worker, which is known by what it has announced, or else by where it comes from. */
export function workerLink({ host, pid, address }) {
  const place = address?.includes(":") ? address : null; // by ipc all come from the same one
  return link(
    ["worker"],
    host === null || host === undefined ? { address } : { host: host.slice(0, 300), pid, address: place },
  );
}

/** Return the address of the worker that a log calls so: `LABEL (HOST:PID)` or `HOST:PID`; null: it has no such name. */
export function namedWorkerLink(name) {
  const match = /\(([^()]*):(\d+)\)$/.exec(name) ?? /^([^()]*):(\d+)$/.exec(name);
  return match && workerLink({ host: match[1], pid: match[2] });
}
