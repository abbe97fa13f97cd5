// The API token: asks the user for it, keeps it for this tab, and forgets it.

import { $ } from './dom.js';

const STORAGE_KEY = 'simusage.token';

/** The token if storage is blocked; it then lasts until the page is closed. */
let fallback = null;
/** The promise of the open dialog, if it is open. */
let pending = null;
let notify = () => {};

/**
 * Sets up the button that forgets the token. Calls `onChange` whenever the token changes, and
 * `stopLoading` before the page is emptied.
 */
export function initToken(onChange, stopLoading) {
  notify = onChange;
  $('forget').hidden = currentToken() === null;
  $('forget').addEventListener('click', () => forget(stopLoading));
}

/** Forgets the token, and starts the page again, so that nothing is shown or kept in memory. */
function forget(stopLoading) {
  setToken(null);
  // What arrives from now on has no place to be shown.
  stopLoading();
  document.body.replaceChildren();
  document.title = 'simusage';
  // The browser may keep this document for its Back button.
  addEventListener('pageshow', () => location.reload());
  location.replace(location.pathname);
}

export function currentToken() {
  try {
    return sessionStorage.getItem(STORAGE_KEY) ?? fallback;
  } catch {
    return fallback;
  }
}

function setToken(token) {
  fallback = token;
  try {
    if (token === null) sessionStorage.removeItem(STORAGE_KEY);
    else sessionStorage.setItem(STORAGE_KEY, token);
  } catch {
    // Storage is blocked: `fallback` has the token.
  }
  notify();
}

/**
 * Asks the user for a token and stores it; resolves to null if the user cancels. Parallel requests
 * share one dialog. `rejected` tells the user that the server rejected the previous token.
 */
export function requestToken(rejected) {
  pending ??= showDialog(rejected).finally(() => {
    pending = null;
  });
  return pending;
}

function showDialog(rejected) {
  const dialog = $('token');
  $('token-value').value = '';
  $('token-error').hidden = !rejected;
  $('token-error').textContent = rejected ? 'The server rejected this token.' : '';
  dialog.showModal();
  return new Promise((resolve) => {
    const finish = (token) => {
      dialog.onclose = $('token-form').onsubmit = $('token-cancel').onclick = null;
      dialog.close();
      if (token !== null) setToken(token);
      $('forget').hidden = currentToken() === null;
      resolve(token);
    };
    $('token-form').onsubmit = (event) => {
      event.preventDefault();
      finish($('token-value').value.trim() || null);
    };
    $('token-cancel').onclick = () => finish(null);
    // The Escape key closes the dialog without a click on Cancel.
    dialog.onclose = () => finish(null);
  });
}
