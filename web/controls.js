// The controls above the chart: preset and custom intervals, granularity and time zone.

import { $ } from './dom.js';
import { cachedExtent } from './extent.js';
import { bucketName } from './format.js';
import {
  GRANULARITIES,
  MAX_BUCKETS,
  adjacentInterval,
  bucketCount,
  dayCount,
  withReadableGranularity,
} from './view.js';

const presets = [...document.querySelectorAll('[data-days]')];

export class Controls {
  #view = null;

  /** Calls `go(view)` when the user changes the view, and `goToLatest(days)` for a preset. */
  constructor(go, goToLatest) {
    addTimeZones();
    for (const preset of presets) {
      const { days } = preset.dataset;
      preset.addEventListener('click', () => goToLatest(days === 'all' ? 'all' : Number(days)));
    }
    $('earlier').addEventListener('click', () => go({ ...this.#view, ...adjacentInterval(this.#view, -1) }));
    $('later').addEventListener('click', () => go({ ...this.#view, ...adjacentInterval(this.#view, 1) }));
    for (const id of ['start', 'end']) {
      $(id).addEventListener('change', () => {
        const interval = validDates();
        if (interval) go(withReadableGranularity({ ...this.#view, ...interval }));
      });
    }
    $('controls').addEventListener('submit', (event) => event.preventDefault());
    $('every').addEventListener('change', () => go({ ...this.#view, every: $('every').value }));
    $('tz').addEventListener('change', () => go({ ...this.#view, tz: $('tz').value }));
  }

  /** Sets the controls to a view. */
  show(view) {
    this.#view = view;
    $('start').value = view.start;
    $('end').value = view.end;
    pressPreset(view);
    listGranularities(view);
    const offered = [...$('tz').options].some(({ value }) => value === view.tz);
    if (!offered) $('tz').prepend(new Option(view.tz, view.tz));
    $('tz').value = view.tz;
  }
}

/** The dates in the inputs. If they are invalid, the browser shows why, and the result is null. */
function validDates() {
  const [start, end] = [$('start').value, $('end').value];
  const reversed = start && end && start > end;
  $('end').setCustomValidity(reversed ? 'The last day is before the first day.' : '');
  return $('controls').reportValidity() ? { start, end } : null;
}

/** Marks the preset that the view's interval matches. */
function pressPreset(view) {
  const count = String(dayCount(view));
  const extent = cachedExtent(view);
  const endsLast = extent === null || extent.latest === view.end;
  // "All time" can be as long as another preset, so it comes second; only one is marked.
  const pressed =
    presets.find(({ dataset }) => dataset.days === count && endsLast) ??
    presets.find(({ dataset }) => dataset.days === 'all' && extent?.start === view.start && extent.end === view.end);
  for (const preset of presets) preset.setAttribute('aria-pressed', String(preset === pressed));
}

/** Lists the granularities. Those with too many bars for the interval are disabled. */
function listGranularities(view) {
  const { every } = view;
  const offered = GRANULARITIES.includes(every) ? GRANULARITIES : [every, ...GRANULARITIES];
  $('every').replaceChildren(
    ...offered.map((choice) => {
      const selected = choice === every;
      const option = new Option(bucketName(choice), choice, selected, selected);
      option.disabled = !selected && bucketCount({ ...view, every: choice }) > MAX_BUCKETS;
      return option;
    }),
  );
}

/** Lists UTC and the browser's time zone, then all others. */
function addTimeZones() {
  const own = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const first = own && own !== 'UTC' ? ['UTC', own] : ['UTC'];
  const others = Intl.supportedValuesOf('timeZone').filter((zone) => !first.includes(zone));
  const options = (zones) => zones.map((zone) => new Option(zone.replaceAll('_', ' '), zone));
  const group = document.createElement('optgroup');
  group.label = 'All time zones';
  group.append(...options(others));
  $('tz').append(...options(first), group);
}
