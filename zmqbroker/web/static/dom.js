// Elements, made one by one and never of markup: what a task or a worker says is text, whatever is in it.

import { visible } from "./visible.js";

const SVG = "http://www.w3.org/2000/svg";

/** Make an element. An attribute that is null or false is left out, one that is true is empty; so with children. */
export function h(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** Make an element of a picture. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  const said = children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
  element.append(...said.map((child) => (child instanceof Node ? child : visible(child))));
  return element;
}

/** Have an element contain what was made anew, by changing what differs: focus, selection and scrolling stay. */
export function redraw(parent, wanted) {
  const focused = document.activeElement;
  morph(parent, wanted.flat(Infinity).filter(Boolean));
  if (focused !== document.activeElement && focused?.isConnected) {
    focused.focus({ preventScroll: true }); // its row has moved
  }
}

function morph(parent, wanted) {
  const byKey = keyed(parent.children);
  let next = parent.firstChild;
  for (const made of wanted) {
    const key = keyOf(made);
    const there = key ? byKey.get(key)?.shift() : next && !keyOf(next) ? next : null;
    if (!there || there.nodeName !== made.nodeName) {
      parent.insertBefore(made, next);
    } else {
      if (there === next) {
        next = next.nextSibling;
      } else {
        parent.insertBefore(there, next);
      }
      update(there, made);
    }
  }
  while (next) {
    const after = next.nextSibling;
    next.remove();
    next = after;
  }
}

/** Return lists of elements by their keys: several rows may have the same one, as a task that has failed twice. */
function keyed(elements) {
  const byKey = new Map();
  for (const element of elements) {
    const key = keyOf(element);
    if (key) {
      byKey.set(key, [...(byKey.get(key) ?? []), element]);
    }
  }
  return byKey;
}

function update(there, made) {
  if (there.nodeType !== Node.ELEMENT_NODE) {
    if (there.nodeValue !== made.nodeValue) {
      there.nodeValue = made.nodeValue;
    }
    return;
  }
  for (const { name } of [...there.attributes]) {
    if (!made.hasAttribute(name) && !(there.nodeName === "DETAILS" && name === "open")) {
      there.removeAttribute(name);
    }
  }
  for (const { name, value } of made.attributes) {
    if (there.getAttribute(name) !== value) {
      there.setAttribute(name, value);
    }
  }
  if (there.nodeName !== "SELECT" || there !== document.activeElement) {
    // an open list of choices is left alone
    morph(there, [...made.childNodes]);
  }
}

function keyOf(node) {
  return node.dataset?.key;
}
