// Finds and creates elements, and tells plain clicks from modified ones.

export const $ = (id) => document.getElementById(id);

/** Creates an element. Children are elements or strings. */
export function element(tag, attributes = {}, ...children) {
  const created = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) created.setAttribute(name, value);
  created.append(...children);
  return created;
}

/** Whether a click follows a link in the same tab, rather than opening or saving it elsewhere. */
export function isPlainClick(event) {
  return event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
}
