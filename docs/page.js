'use strict';

// If scripts run, the help in #without shows only when Swagger UI does not
// load: its files cannot be fetched, have another hash, or take too long.
const page = document.documentElement;
page.classList.add('loading');
const without = () => page.classList.remove('loading');
const patience = setTimeout(without, 5000);

// The description names no server, since the service does not know under which
// path a proxy serves it. The page does know: it is its own URL.
const base = new URL('.', location).href;
const servedBelow = (url) => () => ({
  statePlugins: { spec: { wrapActions: { updateJsonSpec: (update) => (spec) => update({ ...spec, servers: [{ url }] }) } } },
});

// The load and error events of a script or a style sheet do not bubble, so they
// are caught in the capture phase.
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
