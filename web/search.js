// Search as you type over organizations and SIM cards, however many there are: organizations are few and are
// fetched once, SIM cards are asked for by how they begin.

import { inventory, organizations } from './api.js';
import { bytes } from './format.js';

const PAUSE_MS = 120;
const MOST_ORGANIZATIONS = 6;
const MOST_SIM_CARDS = 10;

export class Search {
  #input;
  #list;
  #chosen;
  #options = [];
  #shownFor = null;
  #active = -1;
  #timer = null;
  #abort = null;
  #organizations = null;

  /** `chosen` is told the { kind, id } that was found. */
  constructor(input, list, chosen) {
    this.#input = input;
    this.#list = list;
    this.#chosen = chosen;
    input.addEventListener('input', () => this.#later());
    input.addEventListener('focus', () => this.#look());
    input.addEventListener('click', () => this.#list.hidden && this.#look());
    input.addEventListener('blur', () => this.close());
    input.addEventListener('keydown', (event) => this.#key(event));
    // The input would lose its focus before the click.
    list.addEventListener('pointerdown', (event) => event.preventDefault());
    list.addEventListener('click', (event) => {
      const option = event.target.closest('[role=option]');
      if (option) this.#choose(Number(option.dataset.index));
    });
  }

  /** Forgets what was fetched: another token may see other subjects. */
  forget() {
    this.#organizations = null;
  }

  #later() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#look(), PAUSE_MS);
  }

  async #look() {
    this.#abort?.abort();
    const abort = new AbortController();
    this.#abort = abort;
    const wanted = this.#input.value.trim();
    try {
      const [all, assignments] = await Promise.all([this.#allOrganizations(), this.#begin(wanted, abort.signal)]);
      if (abort.signal.aborted || document.activeElement !== this.#input) return;
      this.#shownFor = wanted;
      this.#show(this.#matching(wanted, all, assignments));
    } catch (error) {
      if (!abort.signal.aborted) this.#say(error.message);
    }
  }

  /** Organizations with usage; a failure is not kept. */
  #allOrganizations() {
    this.#organizations ??= organizations(1000)
      .then(({ items }) => items)
      .catch((error) => {
        this.#organizations = null;
        throw error;
      });
    return this.#organizations;
  }

  /** Assignments of which an identifier begins so. */
  async #begin(wanted, signal) {
    return wanted === '' ? [] : (await inventory({ q: wanted, size: 200 }, signal)).items;
  }

  #matching(wanted, all, assignments) {
    const begins = (id) => id.toLowerCase().startsWith(wanted.toLowerCase());
    const found = new Map();
    for (const { organization, 'bytes-used-total': used } of all) {
      if (begins(organization)) found.set(organization, bytes(used));
    }
    const cards = new Map();
    for (const { simcard, organization } of assignments) {
      if (begins(organization) && !found.has(organization)) found.set(organization, '');
      // The last assignment of a card is the one that holds.
      if (begins(simcard) || begins(organization)) cards.set(simcard, organization);
    }
    // What was typed is more likely to mean the card that begins so than one of an organization's.
    const sorted = [...cards].sort(([one], [other]) => begins(other) - begins(one));
    return [
      ...[...found].slice(0, MOST_ORGANIZATIONS).map(([id, note]) => ({ kind: 'organization', id, note })),
      ...sorted.slice(0, MOST_SIM_CARDS).map(([id, note]) => ({ kind: 'simcard', id, note })),
    ];
  }

  #show(options) {
    this.#options = options;
    this.#active = -1;
    if (options.length === 0) {
      this.#say(
        this.#input.value.trim() ? `Nothing begins with “${this.#input.value.trim()}”.` : 'Nothing has usage yet.',
      );
      return;
    }
    const groups = [
      ['organization', 'Organizations'],
      ['simcard', 'SIM cards'],
    ].map(([kind, name]) => {
      const group = document.createElement('div');
      group.setAttribute('role', 'group');
      group.setAttribute('aria-label', name);
      const head = document.createElement('p');
      head.textContent = name;
      head.setAttribute('aria-hidden', 'true');
      group.append(
        head,
        ...options.flatMap((option, index) => (option.kind === kind ? [this.#option(option, index)] : [])),
      );
      return group.childElementCount > 1 ? group : '';
    });
    this.#list.replaceChildren(...groups);
    this.#open();
    // Enter takes the first of what was searched for.
    if (this.#input.value.trim()) this.#activate(0);
  }

  #option({ id, note }, index) {
    const option = document.createElement('div');
    option.setAttribute('role', 'option');
    option.setAttribute('aria-selected', 'false');
    option.id = `found-${index}`;
    option.dataset.index = index;
    const name = document.createElement('span');
    const typed = this.#input.value.trim().length;
    if (typed && id.toLowerCase().startsWith(this.#input.value.trim().toLowerCase())) {
      const mark = document.createElement('mark');
      mark.textContent = id.slice(0, typed);
      name.append(mark, id.slice(typed));
    } else {
      name.textContent = id;
    }
    const extra = document.createElement('small');
    extra.textContent = note;
    option.append(name, ' ', extra);
    return option;
  }

  #say(sentence) {
    this.#options = [];
    this.#active = -1;
    const option = document.createElement('div');
    option.setAttribute('role', 'option');
    option.setAttribute('aria-disabled', 'true');
    option.setAttribute('aria-selected', 'false');
    option.className = 'nothing';
    option.textContent = sentence;
    this.#list.replaceChildren(option);
    this.#open();
  }

  #open() {
    this.#list.hidden = false;
    this.#input.setAttribute('aria-expanded', 'true');
  }

  close() {
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
    this.close();
    this.#input.blur();
    this.#chosen({ kind: option.kind, id: option.id });
  }

  async #key(event) {
    const count = this.#options.length;
    if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
      event.preventDefault();
      if (this.#list.hidden) await this.#look();
      else if (count > 0) {
        const step = event.key === 'ArrowDown' ? 1 : -1;
        this.#activate((this.#active + step + (this.#active < 0 && step < 0 ? 1 : 0) + count) % count);
      }
    } else if (event.key === 'Enter') {
      event.preventDefault();
      clearTimeout(this.#timer);
      // Whoever types fast is still to be shown what it means.
      if (this.#list.hidden || this.#shownFor !== this.#input.value.trim()) await this.#look();
      if (this.#active >= 0) this.#choose(this.#active);
    } else if (event.key === 'Escape') {
      if (this.#list.hidden) this.#input.value = '';
      this.close();
    }
  }
}
