// Text from elsewhere made harmless to the eye.

const HIDDEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0]|(?! )\p{Zs}/gu;
const MOST_MARKS = 4; // on a letter, above and below it: more of them would cover other lines
const MARKS = new RegExp(`\\p{M}{${MOST_MARKS + 1},}`, "gu");
const SHORT_ESCAPES = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

/** Return text on one line in which nothing is hidden, nor hides its neighbours: that is escaped, as in our logs. */
export function visible(text) {
  return String(text).replace(HIDDEN, escaped).replace(MARKS, withFew);
}

function withFew(marks) {
  const each = Array.from(marks);
  return [...each.slice(0, MOST_MARKS), ...each.slice(MOST_MARKS).map(escaped)].join("");
}

function escaped(letter) {
  const code = letter.codePointAt(0);
  const digits = code.toString(16);
  const long = code > 0xffff ? `\\U${digits.padStart(8, "0")}` : `\\u${digits.padStart(4, "0")}`;
  return SHORT_ESCAPES[letter] ?? (code < 0x100 ? `\\x${digits.padStart(2, "0")}` : long);
}
