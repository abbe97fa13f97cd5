// Shows progress, notices and errors, and announces changes to screen readers.

import { $ } from './dom.js';

const LOADING_DELAY_MS = 150;
const TOAST_MS = 6_000;

let loadingTimer = null;
let toastTimer = null;

/** Marks the page as loading or ready. The progress bar appears after a short delay. */
export function setBusy(busy) {
  clearTimeout(loadingTimer);
  $('main').setAttribute('aria-busy', String(busy));
  if (busy) loadingTimer = setTimeout(() => document.body.classList.add('loading'), LOADING_DELAY_MS);
  else document.body.classList.remove('loading');
}

/** Announces a sentence to screen readers. */
export function announce(sentence) {
  $('status').textContent = sentence;
}

/** Shows a notice in place of the chart, optionally with a button: { label, run }. */
export function showNotice(title, detail, action = null) {
  $('notice').hidden = false;
  $('notice-title').textContent = title;
  $('notice-detail').textContent = detail;
  $('notice-action').hidden = action === null;
  $('notice-action').textContent = action?.label ?? '';
  $('notice-action').onclick = action?.run ?? null;
}

export function hideNotice() {
  $('notice').hidden = true;
}

export function errorTitle(error) {
  return error.title ?? 'Something went wrong';
}

/** Replaces the view with an error message and a button that retries. */
export function showFailure(error, retry) {
  // Errors from the API have a title; any other is a bug in the page.
  if (error.title === undefined) console.error(error);
  $('view').hidden = true;
  $('failure').hidden = false;
  $('failure-title').textContent = errorTitle(error);
  $('failure-detail').textContent = error.message;
  $('failure-action').onclick = retry;
}

/** Replaces the view with instructions for a database without usage. */
export function showWelcome() {
  $('view').hidden = true;
  $('welcome').hidden = false;
  document.title = 'simusage';
}

export function hideFailureAndWelcome() {
  $('failure').hidden = $('welcome').hidden = true;
}

/** Shows a sentence at the bottom of the window for a few seconds. */
export function toast(sentence) {
  clearTimeout(toastTimer);
  $('toast').hidden = false;
  $('toast').textContent = sentence;
  toastTimer = setTimeout(() => {
    $('toast').hidden = true;
  }, TOAST_MS);
}
