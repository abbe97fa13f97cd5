// Applies the stored theme before the first paint; a classic script, because modules run too late.
'use strict';
try {
  const theme = localStorage.getItem('simusage.theme');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
} catch {
  // Storage is blocked: the page follows the system's theme.
}
