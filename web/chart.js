// Draws the bar chart with uPlot. Each bar is as wide as the time it covers.

/* global uPlot */
import { granularity, supportedTimeZone } from './calendar.js';
import { element } from './dom.js';
import { axisBytes, dayMonth, monthYear, time } from './format.js';

// uPlot's x values are seconds.
const DAY = 86_400;

/** The value of a CSS custom property as a color. A canvas cannot resolve the property itself. */
function color(parent, name) {
  const probe = element('i', { hidden: '' });
  probe.style.color = `var(${name})`;
  parent.append(probe);
  const { color: computed } = getComputedStyle(probe);
  probe.remove();
  return computed;
}

/** Builds paths of bars from a bucket's start to its end, with gaps between wide bars. */
function bars(ends) {
  return (u, series, first, last) => {
    const path = new Path2D();
    const base = Math.round(u.valToPos(0, 'y', true));
    for (let index = first; index <= last; index += 1) {
      const value = u.data[series][index];
      if (!value) continue;
      const left = Math.round(u.valToPos(u.data[0][index], 'x', true));
      const right = Math.round(u.valToPos(ends[index], 'x', true));
      const gap =
        right - left < 5 * devicePixelRatio
          ? 0
          : Math.max(1, Math.min(10 * devicePixelRatio, Math.round((right - left) * 0.24)));
      const width = Math.max(1, right - left - gap);
      // A value above zero is at least one pixel high.
      const top = Math.min(Math.round(u.valToPos(value, 'y', true)), base - 1);
      const radius = Math.min(3 * devicePixelRatio, width / 3, base - top);
      path.roundRect(left + Math.floor(gap / 2), top, width, base - top, gap ? [radius, radius, 0, 0] : 0);
    }
    return { fill: path, stroke: null, flags: 0 };
  };
}

/** The number of buckets, each `days` long, from one label to the next. */
function labelStep(u, days, min, max) {
  const room = (u.bbox.width / devicePixelRatio / ((max - min) / DAY)) * days;
  return [1, 2, 4, 7, 14, 28, 56, 112, 365].find((step) => step * room >= 62) ?? 730;
}

/** Label positions for daily buckets: the middle of a bar. */
function daySplits(u, _axis, min, max) {
  const step = labelStep(u, 1, min, max) * DAY;
  const splits = [];
  for (let split = min + DAY / 2; split < max; split += step) splits.push(split);
  return splits;
}

/** Label positions for buckets of several days: the starts of buckets, back from the last. */
function bucketSplits(days, last) {
  return (u, _axis, min, max) => {
    const step = labelStep(u, days, min, max) * days * DAY;
    const splits = [];
    for (let split = last - Math.floor((last - min) / step) * step; split < max; split += step) splits.push(split);
    return splits;
  };
}

/** The shortest labels in a time zone. Buckets of whole days have dates, shorter ones also times. */
function timeLabels(tz, wholeDays) {
  return (u, splits, _axis, _space, step) =>
    splits.map((split) => {
      // A label at the right edge would be cut off.
      if (u.valToPos(split, 'x') > u.bbox.width / devicePixelRatio - 16) return '';
      const instant = split * 1000;
      if (step >= 28 * DAY) return monthYear(instant, tz);
      const clock = time(instant, tz);
      return wholeDays || step >= DAY || clock === '00:00' ? dayMonth(instant, tz) : clock;
    });
}

/**
 * Draws buckets { start, end, bytes } into an element; times are in milliseconds. Calls
 * `onHover(index)` when the user points at a bucket (null: at none), and `onSelect(start, end)`
 * when the user clicks a bucket or drags across several.
 */
export class Chart {
  #parent;
  #plot = null;
  #band = null;
  #shown = null;
  #index = null;
  #onHover;
  #onSelect;

  constructor(parent, { onHover, onSelect }) {
    this.#parent = parent;
    this.#onHover = onHover;
    this.#onSelect = onSelect;
    new ResizeObserver(() => this.#plot?.setSize(this.#size())).observe(parent);
    parent.addEventListener('keydown', (event) => this.#handleKey(event));
    parent.addEventListener('blur', () => this.#highlight(null));
  }

  #size() {
    const width = this.#parent.clientWidth;
    return { width, height: width < 520 ? 220 : 300 };
  }

  clear() {
    this.#plot?.destroy();
    this.#plot = null;
    this.#shown = null;
    this.#index = null;
  }

  /** Redraws the chart in the current theme's colors. */
  redraw() {
    if (this.#shown) this.show(this.#shown);
  }

  show(shown) {
    this.clear();
    this.#shown = shown;
    const { buckets } = shown;
    const data = [buckets.map(({ start }) => start / 1000), buckets.map(({ bytes }) => Number(bytes))];
    this.#plot = new uPlot(this.#options(shown), data, this.#parent);
    this.#band = element('div', { class: 'band', hidden: '' });
    this.#plot.over.append(this.#band);
  }

  #options({ buckets, start, end, every, tz, complete }) {
    const [accent, faint, rule, ink] = ['--bar', '--pending', '--rule', '--soft'].map((name) =>
      color(this.#parent, name),
    );
    const font = `12px ${getComputedStyle(this.#parent).fontFamily}`;
    const zone = supportedTimeZone(tz);
    const { count, unit } = granularity(every);
    const days = { day: count, week: 7 * count }[unit] ?? 0;
    const byDay = days === 1;
    const ends = buckets.map((bucket) => bucket.end / 1000);
    return {
      ...this.#size(),
      padding: [12, 4, 0, 0],
      legend: { show: false },
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), zone),
      scales: {
        x: { range: () => [start / 1000, end / 1000] },
        y: { range: (_u, _min, max) => [0, max > 0 ? max * 1.04 : 1] },
      },
      series: [{}, { fill: accent, width: 0, paths: bars(ends), points: { show: false } }],
      axes: [
        {
          font,
          stroke: ink,
          grid: { show: false },
          size: 30,
          gap: 8,
          space: 64,
          ticks: { show: !byDay, stroke: rule, size: 5, width: 1 },
          ...(days > 0 && { splits: byDay ? daySplits : bucketSplits(days, buckets.at(-1).start / 1000) }),
          values: timeLabels(tz, days > 0),
        },
        {
          font,
          stroke: ink,
          size: 62,
          gap: 8,
          space: 44,
          grid: { stroke: rule, width: 1 },
          ticks: { show: false },
          values: (_u, splits) => axisBytes(splits),
        },
      ],
      cursor: { y: false, points: { show: false }, drag: { x: true, y: false, setScale: false } },
      hooks: {
        drawClear: [(u) => this.#drawPending(u, complete, end, faint, ink)],
        setCursor: [(u) => this.#followPointer(u)],
        setSelect: [(u) => this.#selectRange(u)],
        ready: [(u) => this.#listenForClicks(u)],
      },
    };
  }

  /** Tints the time after `complete`, for which more records are expected. */
  #drawPending(u, complete, end, faint, ink) {
    if (complete === null || complete >= end) return;
    const { left, top, width, height } = u.bbox;
    const from = Math.max(left, u.valToPos(complete / 1000, 'x', true));
    // uPlot assumes that nothing else changes the context.
    u.ctx.save();
    u.ctx.fillStyle = faint;
    u.ctx.fillRect(from, top, left + width - from, height);
    u.ctx.font = u.axes[0].font[0];
    u.ctx.fillStyle = ink;
    u.ctx.textAlign = 'right';
    u.ctx.textBaseline = 'top';
    const margin = 10 * devicePixelRatio;
    const text = 'incomplete';
    if (u.ctx.measureText(text).width + 2 * margin < left + width - from) {
      u.ctx.fillText(text, left + width - margin, top + margin);
    }
    u.ctx.restore();
  }

  /** The index of the bucket at a horizontal position, or null. */
  #indexAt(left) {
    if (left < 0) return null;
    const instant = this.#plot.posToVal(left, 'x') * 1000;
    const index = this.#shown.buckets.findLastIndex(({ start }) => start <= instant);
    return index >= 0 && instant < this.#shown.buckets[index].end ? index : null;
  }

  #followPointer(u) {
    if (this.#plot) this.#highlight(this.#indexAt(u.cursor.left));
  }

  #highlight(index) {
    if (!this.#plot || index === this.#index) return;
    this.#index = index;
    this.#band.hidden = index === null;
    if (index !== null) {
      const { start, end } = this.#shown.buckets[index];
      const left = this.#plot.valToPos(start / 1000, 'x');
      this.#band.style.left = `${left}px`;
      this.#band.style.width = `${Math.max(1, this.#plot.valToPos(end / 1000, 'x') - left)}px`;
    }
    this.#onHover(index);
  }

  #selectRange(u) {
    const { left, width } = u.select;
    if (width < 4) return;
    const [from, to] = [left, left + width].map((position) => u.posToVal(position, 'x') * 1000);
    u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    this.#onSelect(from, to);
  }

  #listenForClicks(u) {
    let from = null;
    u.over.addEventListener('pointerdown', (event) => {
      from = event.clientX;
    });
    u.over.addEventListener('click', (event) => {
      // The end of a drag also triggers a click event.
      if (from === null || Math.abs(event.clientX - from) < 4) this.#selectBucket(this.#indexAt(event.offsetX));
    });
  }

  #selectBucket(index) {
    if (index === null || index === undefined) return;
    const { start, end } = this.#shown.buckets[index];
    this.#onSelect(start, end);
  }

  #handleKey(event) {
    const last = (this.#shown?.buckets.length ?? 0) - 1;
    if (last < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
    const index = this.#index;
    const next = {
      ArrowRight: index === null ? 0 : Math.min(last, index + 1),
      ArrowLeft: index === null ? last : Math.max(0, index - 1),
      Home: 0,
      End: last,
    }[event.key];
    if (next !== undefined) {
      event.preventDefault();
      this.#highlight(next);
    } else if (event.key === 'Enter') {
      event.preventDefault();
      this.#selectBucket(index);
    } else if (event.key === 'Escape') {
      this.#highlight(null);
    }
  }
}
