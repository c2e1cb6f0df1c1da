'use strict';

// With scripts, the words about doing without Swagger UI are for when it does
// not come: its files fail to load, have another hash, or take too long.
const page = document.documentElement;
page.classList.add('loading');
const without = () => page.classList.remove('loading');
const patience = setTimeout(without, 5000);

// load and error of a script or a style sheet do not bubble, so they are
// caught on their way down.
let failed = false;
document.addEventListener('error', ({ target }) => {
  if (target.integrity) {
    failed = true;
    without();
  }
}, true);
document.addEventListener('load', ({ target }) => {
  if (target.localName !== 'script' || !target.integrity) return;
  clearTimeout(patience);
  if (!failed) page.classList.add('loading');
  SwaggerUIBundle({ url: '/openapi.json', dom_id: '#swagger-ui', deepLinking: true, validatorUrl: null });
}, true);

document.addEventListener('DOMContentLoaded', () => {
  for (const element of document.querySelectorAll('.origin')) element.textContent = location.origin;
});
