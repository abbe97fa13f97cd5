// The button that switches between the light and the dark theme.

import { $ } from './dom.js';

// initial-theme.js reads the same key.
const STORAGE_KEY = 'simusage.theme';

const systemDark = matchMedia('(prefers-color-scheme: dark)');
const systemTheme = () => (systemDark.matches ? 'dark' : 'light');
const otherTheme = () => ((document.documentElement.dataset.theme ?? systemTheme()) === 'dark' ? 'light' : 'dark');

/** Sets up the button. Calls `onChange` whenever the user or the system changes the theme. */
export function initTheme(onChange) {
  const labelButton = () => $('theme').setAttribute('aria-label', `Switch to ${otherTheme()} theme`);
  const update = () => {
    labelButton();
    onChange();
  };
  labelButton();
  systemDark.addEventListener('change', update);
  $('theme').addEventListener('click', () => {
    setTheme(otherTheme());
    update();
  });
}

/** Applies and stores a theme. With the system's own theme, the page follows the system again. */
function setTheme(theme) {
  const followsSystem = theme === systemTheme();
  if (followsSystem) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    if (followsSystem) localStorage.removeItem(STORAGE_KEY);
    else localStorage.setItem(STORAGE_KEY, theme);
  } catch {
    // Storage is blocked: the choice lasts until the page is closed.
  }
}
