// Loads the usage of a view and shows it in the chart, figures and tables.

import { assignmentsOf, series, topSimCards } from './api.js';
import { assignmentAt } from './assignment.js';
import { bucketEnd, datesBetween, fromDate } from './calendar.js';
import { Chart } from './chart.js';
import { $ } from './dom.js';
import { extent } from './extent.js';
import * as format from './format.js';
import { announce, errorTitle, hideNotice, showNotice } from './messages.js';
import {
  clearFigures,
  renderFigures,
  renderHeadings,
  renderOwner,
  renderTable,
  renderTop,
  renderTopError,
  totalRecords,
} from './render.js';
import { dayCount, lastDays, withReadableGranularity } from './view.js';

const plainDate = (date) => format.date(fromDate(date), 'UTC');

export class Usage {
  #go;
  #chart;
  #view = null;
  /** The series in the chart and the table, and the view that it belongs to. */
  #shown = { view: null, buckets: [] };

  /** Calls `go(view)` when the user selects another interval. */
  constructor(go) {
    this.#go = go;
    this.#chart = new Chart($('chart'), {
      onHover: (index) => this.#describe(index),
      onSelect: (start, end) => this.#select(start, end),
    });
    $('numbers').addEventListener('toggle', () => this.#renderTable());
  }

  /** Shows a view. The parts load in parallel and report their own errors. */
  async show(view, signal) {
    this.#view = view;
    $('view').hidden = false;
    renderHeadings(view);
    await Promise.all([this.#showSeries(signal), this.#showTop(signal), this.#showOwner(signal)]);
  }

  /** Redraws the chart in the current theme's colors. */
  redraw() {
    this.#chart.redraw();
  }

  async #showSeries(signal) {
    const view = this.#view;
    hideNotice();
    let answer;
    try {
      answer = await series(view, signal);
    } catch (error) {
      if (!signal.aborted) this.#showSeriesError(error);
      return;
    }
    if (signal.aborted) return;
    const [start, end] = [Date.parse(answer.start), Date.parse(answer.end)];
    const buckets = answer.items.map((item, index) => ({
      // The first bucket can begin before the interval.
      start: Math.max(start, Date.parse(item.date)),
      end: bucketEnd(item, answer.items[index + 1], view.every, end),
      bytes: item['bytes-used-total'],
      records: item.records,
    }));
    this.#shown = { view, buckets };
    renderFigures(view, answer, buckets);
    this.#renderTable();
    if (buckets.every(({ records }) => records === 0)) {
      this.#hideChart();
      await this.#showEmpty(signal);
      return;
    }
    $('chart').hidden = false;
    const through = answer['complete-through'];
    const complete = through ? Date.parse(through) : null;
    this.#chart.show({ buckets, start, end, every: view.every, tz: view.tz, complete });
    // The browser tests read this mark.
    performance.mark('chart');
    this.#describe(null);
    const total = format.bytes(answer['bytes-used-total']);
    announce(`${view.id}: ${total} in ${format.counted(totalRecords(buckets), 'record')}.`);
  }

  #showSeriesError(error) {
    const view = this.#view;
    this.#shown = { view, buckets: [] };
    this.#hideChart();
    clearFigures();
    this.#describe(null);
    this.#renderTable();
    const title = errorTitle(error);
    showNotice(title, error.message, { label: 'Try again', run: () => this.#go(view, { replace: true }) });
    announce(`${title}: ${error.message}`);
  }

  /** Reports that the interval has no usage, and offers the most recent interval that has some. */
  async #showEmpty(signal) {
    const view = this.#view;
    const { id, start, end } = view;
    const interval = start === end ? `on ${plainDate(start)}` : `between ${plainDate(start)} and ${plainDate(end)}`;
    const sentence = `${id} has no usage ${interval}.`;
    announce(sentence);
    showNotice('No usage', sentence);
    const used = await extent(view, signal).catch(() => null);
    if (signal.aborted || !used) return;
    const latest = withReadableGranularity({ ...view, ...lastDays(used, dayCount(view)) });
    showNotice('No usage', `${sentence} The most recent usage is from ${plainDate(used.latest)}.`, {
      label: 'Show most recent usage',
      run: () => this.#go(latest),
    });
  }

  #hideChart() {
    this.#chart.clear();
    $('chart').hidden = true;
  }

  #renderTable() {
    renderTable(this.#shown.view, this.#shown.buckets);
  }

  async #showTop(signal) {
    const view = this.#view;
    $('top').hidden = view.kind !== 'organization';
    if ($('top').hidden) return;
    try {
      const answer = await topSimCards(view, signal);
      if (!signal.aborted) renderTop(view, answer);
    } catch (error) {
      if (!signal.aborted) renderTopError(error);
    }
  }

  /** Shows the organization that a SIM card belongs to, or the next or last one, if the inventory has one. */
  async #showOwner(signal) {
    const view = this.#view;
    if (view.kind !== 'simcard') return;
    const { items } = await assignmentsOf(view.id, signal).catch(() => ({ items: [] }));
    const found = assignmentAt(items, Date.now());
    if (!signal.aborted && found) renderOwner(view, found);
  }

  /** Shows the numbers of a bucket above the chart. */
  #describe(index) {
    const { view, buckets } = this.#shown;
    const bucket = index === null ? null : buckets[index];
    const text = bucket
      ? `${format.bucket(bucket, view.every, view.tz)}: ${format.bytes(bucket.bytes)}, ${format.counted(bucket.records, 'record')}`
      : '';
    $('readout').textContent = text;
    // Keyboard users have no pointer that shows which bucket is selected.
    if (bucket && document.activeElement === $('chart')) announce(text);
  }

  /** Goes to the days between two instants. */
  #select(start, end) {
    const view = this.#view;
    const interval = datesBetween(start, end, view.tz);
    if (interval.start === view.start && interval.end === view.end) return;
    this.#go(withReadableGranularity({ ...view, ...interval }));
  }
}
