// The search box: fetches all organizations once, and searches SIM cards on the server by prefix.

import { inventory, organizations } from './api.js';
import { assignmentAt } from './assignment.js';
import { element } from './dom.js';
import { bytes } from './format.js';

const TYPING_PAUSE_MS = 120;
const MAX_ORGANIZATIONS = 6;
const MAX_SIM_CARDS = 10;
const GROUPS = [
  ['organization', 'Organizations'],
  ['simcard', 'SIM cards'],
];

const startsWith = (id, prefix) => id.toLowerCase().startsWith(prefix.toLowerCase());

export class Search {
  #input;
  #list;
  #onChoose;
  #options = [];
  /** The text that `#options` are the results for. */
  #searched = null;
  /** The index of the highlighted option, or -1. */
  #active = -1;
  #timer = null;
  #abort = null;
  /** A promise of the organizations, once they have been requested. */
  #organizations = null;

  /** Calls `onChoose({ kind, id })` when the user chooses a result. */
  constructor(input, list, onChoose) {
    this.#input = input;
    this.#list = list;
    this.#onChoose = onChoose;
    input.addEventListener('input', () => this.#searchAfterPause());
    input.addEventListener('focus', () => this.#search());
    input.addEventListener('click', () => this.#list.hidden && this.#search());
    input.addEventListener('blur', () => this.#close());
    input.addEventListener('keydown', (event) => this.#handleKey(event));
    // Keeps the focus in the input, which would otherwise close the list before the click.
    list.addEventListener('pointerdown', (event) => event.preventDefault());
    list.addEventListener('click', (event) => {
      const option = event.target.closest('[role=option]');
      if (option) this.#choose(Number(option.dataset.index));
    });
  }

  /** Discards the fetched organizations, because a different token may allow different ones. */
  clearCache() {
    this.#organizations = null;
  }

  get #text() {
    return this.#input.value.trim();
  }

  #searchAfterPause() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#search(), TYPING_PAUSE_MS);
  }

  async #search() {
    this.#abort?.abort();
    const abort = new AbortController();
    this.#abort = abort;
    const text = this.#text;
    try {
      const [all, assignments] = await Promise.all([
        this.#fetchOrganizations(),
        this.#fetchAssignments(text, abort.signal),
      ]);
      if (abort.signal.aborted || document.activeElement !== this.#input) return;
      this.#searched = text;
      this.#showOptions(this.#matches(text, all, assignments));
    } catch (error) {
      if (!abort.signal.aborted) this.#showMessage(error.message);
    }
  }

  /** Requests the organizations with usage once; after an error, again. */
  #fetchOrganizations() {
    this.#organizations ??= organizations(1000)
      .then(({ items }) => items)
      .catch((error) => {
        this.#organizations = null;
        throw error;
      });
    return this.#organizations;
  }

  async #fetchAssignments(prefix, signal) {
    return prefix === '' ? [] : (await inventory({ q: prefix, size: 200 }, signal)).items;
  }

  #matches(prefix, all, assignments) {
    const matches = (id) => startsWith(id, prefix);
    const found = new Map();
    for (const { organization, 'bytes-used-total': used } of all) {
      if (matches(organization)) found.set(organization, bytes(used));
    }
    const cards = new Map();
    for (const assignment of assignments) {
      const { simcard, organization } = assignment;
      if (matches(organization) && !found.has(organization)) found.set(organization, '');
      if (matches(simcard) || matches(organization)) cards.set(simcard, [...(cards.get(simcard) ?? []), assignment]);
    }
    // The note of a SIM card is the organization that it belongs to today.
    const now = Date.now();
    for (const [simcard, listed] of cards) {
      const { assignment, when } = assignmentAt(listed, now);
      cards.set(simcard, when === 'now' ? assignment.organization : '');
    }
    // SIM cards that match come before those whose organization matches.
    const sorted = [...cards].sort(([one], [other]) => matches(other) - matches(one));
    return [
      ...[...found].slice(0, MAX_ORGANIZATIONS).map(([id, note]) => ({ kind: 'organization', id, note })),
      ...sorted.slice(0, MAX_SIM_CARDS).map(([id, note]) => ({ kind: 'simcard', id, note })),
    ];
  }

  #showOptions(options) {
    const text = this.#text;
    if (options.length === 0) {
      this.#showMessage(text ? `No organization or SIM card starts with “${text}”.` : 'No organization has usage yet.');
      return;
    }
    this.#options = options;
    this.#active = -1;
    this.#list.replaceChildren(...GROUPS.flatMap(([kind, name]) => this.#group(kind, name)));
    this.#open();
    // Enter chooses the first result.
    if (text) this.#activate(0);
  }

  /** The options of one kind with a heading; an empty list if there are none. */
  #group(kind, name) {
    const options = this.#options.flatMap((option, index) =>
      option.kind === kind ? [this.#option(option, index)] : [],
    );
    if (options.length === 0) return [];
    const heading = element('p', { 'aria-hidden': 'true' }, name);
    return [element('div', { role: 'group', 'aria-label': name }, heading, ...options)];
  }

  #option({ id, note }, index) {
    const text = this.#text;
    const name =
      text && startsWith(id, text)
        ? element('span', {}, element('mark', {}, id.slice(0, text.length)), id.slice(text.length))
        : element('span', {}, id);
    const attributes = { role: 'option', 'aria-selected': 'false', id: `found-${index}`, 'data-index': index };
    return element('div', attributes, name, ' ', element('small', {}, note));
  }

  #showMessage(sentence) {
    this.#options = [];
    this.#active = -1;
    const attributes = { role: 'option', 'aria-disabled': 'true', 'aria-selected': 'false', class: 'nothing' };
    this.#list.replaceChildren(element('div', attributes, sentence));
    this.#open();
  }

  #open() {
    this.#list.hidden = false;
    this.#input.setAttribute('aria-expanded', 'true');
  }

  #close() {
    clearTimeout(this.#timer);
    this.#abort?.abort();
    this.#list.hidden = true;
    this.#active = -1;
    this.#input.setAttribute('aria-expanded', 'false');
    this.#input.removeAttribute('aria-activedescendant');
  }

  #activate(index) {
    this.#list.querySelector('[aria-selected=true]')?.setAttribute('aria-selected', 'false');
    this.#active = index;
    const option = document.getElementById(`found-${index}`);
    option.setAttribute('aria-selected', 'true');
    option.scrollIntoView({ block: 'nearest' });
    this.#input.setAttribute('aria-activedescendant', option.id);
  }

  #choose(index) {
    const option = this.#options[index];
    if (!option) return;
    this.#input.value = '';
    this.#close();
    this.#input.blur();
    this.#onChoose({ kind: option.kind, id: option.id });
  }

  async #handleKey(event) {
    const count = this.#options.length;
    if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
      event.preventDefault();
      if (this.#list.hidden) await this.#search();
      else if (count > 0) {
        const step = event.key === 'ArrowDown' ? 1 : -1;
        this.#activate((this.#active + step + (this.#active < 0 && step < 0 ? 1 : 0) + count) % count);
      }
    } else if (event.key === 'Enter') {
      event.preventDefault();
      clearTimeout(this.#timer);
      // If the user typed faster than the search, wait for the results.
      if (this.#list.hidden || this.#searched !== this.#text) await this.#search();
      if (this.#active >= 0) this.#choose(this.#active);
    } else if (event.key === 'Escape') {
      if (this.#list.hidden) this.#input.value = '';
      this.#close();
    }
  }
}
