'use strict';

// With scripts, the words about doing without Swagger UI are for when it does
// not come: its files fail to load, have another hash, or take too long.
const page = document.documentElement;
page.classList.add('loading');
const without = () => page.classList.remove('loading');
const patience = setTimeout(without, 5000);

// The description names no server, since the service does not know below which
// path a proxy has it. The page does: it is where the page itself comes from.
const base = new URL('.', location).href;
const servedBelow = (url) => () => ({
  statePlugins: { spec: { wrapActions: { updateJsonSpec: (update) => (spec) => update({ ...spec, servers: [{ url }] }) } } },
});

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
  SwaggerUIBundle({ url: 'openapi.json', dom_id: '#swagger-ui', deepLinking: true, validatorUrl: null, plugins: [servedBelow(base)] });
}, true);

document.addEventListener('DOMContentLoaded', () => {
  for (const element of document.querySelectorAll('.base')) element.textContent = base.replace(/\/$/, '');
});
