'use strict';

// If scripts run, the help in #without shows only when Swagger UI does not
// load: its files cannot be fetched, have another hash, or take too long.
const page = document.documentElement;
page.classList.add('loading');
const without = () => page.classList.remove('loading');
const patience = setTimeout(without, 5000);

// The description names no server, since the service does not know under which
// path a proxy serves it. The page does know: it is its own URL. Client
// credentials are for programs. A person who could enter them would, and would
// then be "authorized", but not logged in.
const base = new URL('.', location).href;
const forPeople = (spec) => {
  const { ClientBasic, ...securitySchemes } = spec.components.securitySchemes;
  return { ...spec, servers: [{ url: base }], components: { ...spec.components, securitySchemes } };
};
const description = () => ({
  statePlugins: { spec: { wrapActions: { updateJsonSpec: (update) => (spec) => update(forPeople(spec)) } } },
});

// Swagger UI's fields of a login are not in a form, so Enter does nothing. They
// also do not tell a phone or a password manager what they are for. It would send a
// login without a username or a password; here the cursor goes to what is missing.
const fields = {
  oauth_username: { autocomplete: 'username', autocapitalize: 'none', autocorrect: 'off', spellcheck: 'false' },
  oauth_password: { autocomplete: 'current-password' },
  client_id_password: { autocomplete: 'off', autocapitalize: 'none', autocorrect: 'off', spellcheck: 'false' },
  client_secret_password: { autocomplete: 'off' },
};
const login = () => ({
  wrapComponents: {
    oauth2: (Oauth2, { React }) => (props) => {
      React.useLayoutEffect(() => {
        for (const [id, attributes] of Object.entries(fields)) {
          for (const [name, value] of Object.entries(attributes)) document.getElementById(id)?.setAttribute(name, value);
        }
      });
      const onClickCapture = (event) => {
        const empty = ['oauth_username', 'oauth_password'].map((id) => document.getElementById(id)).find((field) => field?.value === '');
        if (!empty || !event.target.closest('button.authorize')) return;
        event.stopPropagation();
        empty.focus();
      };
      return React.createElement('form', { noValidate: true, onClickCapture, onSubmit: (event) => event.preventDefault() },
        React.createElement(Oauth2, props));
    },
  },
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
  SwaggerUIBundle({ url: 'openapi.json', dom_id: '#swagger-ui', deepLinking: true, validatorUrl: null, plugins: [description, login] });
}, true);

document.addEventListener('DOMContentLoaded', () => {
  for (const element of document.querySelectorAll('.base')) element.textContent = base.replace(/\/$/, '');
});
