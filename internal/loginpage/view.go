package loginpage

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html"
	"net/http"
	"net/url"
	"strings"

	"simple-oauth2/internal/answer"
)

//go:embed page.css
var style string

const referrers = "same-origin" // with no-referrer, browsers would send forms with Origin: null

// view is what one answer shows.
type view struct {
	domain     string
	to         string // where a login leads
	refused    bool   // what the query names instead
	status     int
	retryAfter string

	wrong, notice string // what to say, if anything
	username      string // for the form
	loggedIn      string // whose session it is, instead of the form
	disabled      bool
}

func (p *Page) view(r *http.Request) *view {
	to, refused := target(r.URL.RawQuery, r.Host, p.Domain)
	return &view{domain: p.Domain, to: to, refused: refused, status: http.StatusOK}
}

// fail makes the view one of an error, with a sentence that fits its status.
func (v *view) fail(e *answer.HTTPException) {
	v.status, v.retryAfter = e.Status, e.Header.Get("Retry-After")
	switch v.status {
	case http.StatusBadRequest:
		v.wrong = "Incorrect username or password"
	case http.StatusTooManyRequests:
		v.wrong = "There were too many wrong passwords for this username. " + later(v.retryAfter)
	case http.StatusServiceUnavailable:
		v.wrong = "The service cannot log you in at the moment. " + later(v.retryAfter) +
			" If that does not help, tell whoever runs it."
	case http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		v.wrong = "The form was not sent as this page sends it. Fill it in again."
	default:
		v.wrong = "Something is wrong with the service. Tell whoever runs it."
	}
}

// write answers with the view, and returns nil.
func (v *view) write(w http.ResponseWriter) error {
	// Browsers apply form-action also to where the answer to a form leads.
	actions := "'self'"
	if v.domain != "" {
		actions += " https://" + v.domain + ":* https://*." + v.domain + ":*"
	}
	sum := sha256.Sum256([]byte(style))
	styles := "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Security-Policy", "default-src 'none'; style-src "+styles+
		"; img-src data:; base-uri 'none'; form-action "+actions+"; frame-ancestors 'none'")
	header.Set("X-Frame-Options", "DENY")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", referrers)
	if v.retryAfter != "" {
		header.Set("Retry-After", v.retryAfter)
	}
	w.WriteHeader(v.status)
	w.Write([]byte(v.html()))
	return nil
}

// html returns the page. html/template would make the program larger by a fifth.
func (v *view) html() string {
	heading, body := "Log in", v.form()
	switch {
	case v.loggedIn != "" && v.disabled:
		heading, body = "Account disabled", v.session()
	case v.loggedIn != "":
		heading, body = "Logged in", v.session()
	}
	title := heading
	if v.wrong != "" {
		title = "Error – " + heading // the first thing that a screen reader says
	}
	return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>` + title + `</title>
<link rel="icon" href="data:,">
<style>` + style + `</style>
</head>
<body>
<main>
<h1>` + heading + `</h1>
` + v.message() + body + `</main>
</body>
</html>
`
}

func (v *view) message() string {
	switch {
	case v.wrong != "":
		return `<p id="message" class="wrong" role="alert">` + html.EscapeString(v.wrong) + "</p>\n"
	case v.notice != "":
		return `<p id="message" role="status">` + html.EscapeString(v.notice) + "</p>\n"
	}
	return ""
}

// form returns the form. The cursor is where the person will type next.
func (v *view) form() string {
	more := " required" // attributes of both fields
	if v.wrong != "" {
		more += ` aria-describedby="message"`
	}
	moreOfName, moreOfPassword := more+" autofocus", more
	if v.username != "" {
		moreOfName, moreOfPassword = more, more+" autofocus"
	}
	leads := ""
	if host, elsewhere := strings.CutPrefix(v.to, "https://"); elsewhere {
		host, _, _ = strings.Cut(host, "/")
		leads = "<p>You go on to <strong>" + html.EscapeString(host) + "</strong>.</p>\n"
	}
	return leads + `<form method="post" action="login?to=` + html.EscapeString(url.QueryEscape(v.to)) + `">
<label for="username">Username</label>
<input id="username" name="username" value="` + html.EscapeString(v.username) +
		`" autocomplete="username" autocapitalize="none" autocorrect="off" spellcheck="false"` + moreOfName + `>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password"` + moreOfPassword + `>
<button>Log in</button>
</form>
`
}

// session returns who is logged in, and the ways on and out.
func (v *view) session() string {
	who := "<p>You are logged in as <strong>" + html.EscapeString(v.loggedIn) + "</strong>.</p>\n"
	onward := `<a class="button" href="` + html.EscapeString(v.to) + `">Continue</a>` + "\n"
	if v.disabled {
		who = "<p>The account <strong>" + html.EscapeString(v.loggedIn) + "</strong> is disabled. " +
			"Ask whoever runs this service.</p>\n"
		onward = ""
	} else if v.to != "/" {
		onward += "<p class=\"soft\">If that leads back here, the gateway does not tell the service of your cookie.</p>\n"
	}
	return who + onward + `<form method="post" action="logout">
<button class="quiet">Log out</button>
</form>
`
}
