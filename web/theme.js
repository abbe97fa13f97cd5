// Runs before anything is painted, so that a theme that was chosen does not flash in as the other one.
'use strict';
try {
  const theme = localStorage.getItem('simusage.theme');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
} catch {
  // Without storage the page follows the system.
}
