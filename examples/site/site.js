const [message, login, username, password, enter, items, title, item, reload, logout] =
  ["message", "login", "username", "password", "enter", "items", "title", "item", "reload", "logout"]
    .map((id) => document.getElementById(id));

// The token is in no storage, where any script of this origin could read it. After
// a reload people log in again.
let token;

// ask returns the answer to a request. Its status is 0 if there was no answer.
async function ask(path, init) {
  try {
    const answer = await fetch(path, init);
    return { status: answer.status, retryAfter: answer.headers.get("Retry-After"), text: await answer.text() };
  } catch {
    return { status: 0 };
  }
}

// trouble tells the user what an answer other than 200 means.
function trouble({ status, retryAfter }) {
  const later = retryAfter > 0 ? `in ${retryAfter} ${retryAfter === "1" ? "second" : "seconds"}` : "later";
  switch (status) {
    case 0: return "The server cannot be reached. Check your connection, and try again.";
    case 401: return "Your login has ended. Log in again.";
    case 403: return "You are logged in, but you may not see this.";
    case 404: return "There is no such item.";
    case 429: return `There were too many tries. Try again ${later}.`;
    case 503: return `The server is busy. Try again ${later}.`;
    default: return "Something is wrong with the server. Try again later.";
  }
}

function say(text, wrong = false) {
  message.textContent = text;
  message.classList.toggle("wrong", wrong);
}

// show shows the items if there is a token, and otherwise the login. It clears the
// password and the item.
function show() {
  password.value = item.textContent = "";
  login.hidden = token !== undefined;
  items.hidden = token === undefined;
  (token ? title : username.value ? password : username).focus();
}

login.addEventListener("submit", async (event) => {
  event.preventDefault();
  enter.disabled = true; // a second click would be a second login
  say("Logging in…");
  const form = new URLSearchParams({ username: username.value, password: password.value, scope: "items:read" });
  const answer = await ask("login/token", { method: "POST", body: form });
  enter.disabled = false;
  if (answer.status === 200) {
    token = JSON.parse(answer.text).access_token;
    show();
    load();
    return;
  }
  say(answer.status === 400 ? "The username or the password is wrong." : trouble(answer), true);
  password.focus();
  password.select();
});

async function load() {
  const asked = token;
  say("Loading…");
  // Without no-store a browser may show what it kept of another user's answer.
  const answer = await ask("api/items/1", { headers: { Authorization: `Bearer ${asked}` }, cache: "no-store" });
  if (token !== asked) return; // logged out meanwhile
  if (answer.status === 401) {
    token = undefined;
    show();
  }
  item.textContent = answer.status === 200 ? answer.text : "";
  say(answer.status === 200 ? "" : trouble(answer), true);
}

logout.addEventListener("click", async () => {
  const form = new URLSearchParams({ token });
  token = undefined;
  username.value = "";
  show();
  say("You are logged out.");
  const { status } = await ask("login/revoke", { method: "POST", body: form, keepalive: true }); // also if the page is closed
  if (status !== 200) say("You are logged out here, but the server could not be told.", true);
});

reload.addEventListener("click", load);
