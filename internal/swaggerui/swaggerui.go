// Package swaggerui serves an OpenAPI document and a page that shows it in
// Swagger UI, so that a browser runs only what it should: the page loads two
// files of one exact version of swagger-ui-dist, from a CDN or from the service
// itself, and states the hash of each (Subresource Integrity). Its
// Content-Security-Policy allows these, the service's own files, and nothing
// else. All URLs are relative, so that a proxy can serve the page under any path
// without telling the service.
package swaggerui

import (
	"bytes"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Version is the version of swagger-ui-dist.
const Version = "5.35.0"

const cdn = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@" + Version + "/"

const (
	css = "text/css; charset=utf-8"
	js  = "text/javascript; charset=utf-8"
)

// asset is a file of swagger-ui-dist, with its hash for HTML's integrity:
// openssl dgst -sha384 -binary FILE | base64
type asset struct{ name, kind, integrity string }

var (
	script = asset{"swagger-ui-bundle.js", js, "sha384-gjRm0bEPMeTmMh5jT2cHccIwCUZSTd8YC+j0d0sXw0MdGEfScduGpSyF3ZSSLkX9"}
	style  = asset{"swagger-ui.css", css, "sha384-WlYgdmXYOOBWL5apwjDEZwN+U3HmXSSu5R6V5aGxEcf7z+KuRNwBhoxKVN1i3D5I"}
)

// Config says whether to serve the documentation, and where Swagger UI comes
// from: a folder, or the CDN if Assets is empty.
type Config struct {
	On     bool
	Assets string
}

// Flags adds the flags, which are read into c.
func (c *Config) Flags(flags *flag.FlagSet) {
	c.On = true
	flags.BoolFunc("docs", "serve /docs and /openapi.json (default true)", func(s string) (err error) {
		if c.On, err = strconv.ParseBool(s); err != nil {
			return errors.New("it must be true or false")
		}
		return nil
	})
	flags.StringVar(&c.Assets, "docs-assets", "", "`folder` with an unpacked swagger-ui-dist "+Version+", so that /docs needs no internet")
}

// Attr returns the URL of the page for the log, if there is a page.
func (c *Config) Attr(service string) slog.Attr {
	if !c.On {
		return slog.Attr{}
	}
	return slog.String("docs", service+"/docs")
}

// Page is a handler for GET requests, and its path.
type Page struct {
	Path string
	http.Handler
}

// Answer is ServeHTTP for a router whose handlers may return an error.
func (p Page) Answer(w http.ResponseWriter, r *http.Request) error {
	p.ServeHTTP(w, r)
	return nil
}

// Pages returns the pages of the documentation, or none if it is off. The files
// come from own's folder docs. They name the tutorial's users and their passwords
// only if tutorial is true. Each time openapi.json is requested, the scopes
// that scopes returns are added to its own, so that the page can offer them. So
// everybody can see their names, as in the metadata of an authorization server
// (scopes_supported of RFC 8414 2), but not whose they are.
func (c *Config) Pages(own fs.FS, tutorial bool, scopes func() []string) ([]Page, error) {
	if !c.On {
		return nil, nil
	}
	files, err := files(own, tutorial, c.Assets)
	if err != nil {
		return nil, fmt.Errorf("-docs-assets: %w", err)
	}
	text, err := fs.ReadFile(own, "docs/openapi.json")
	if err != nil {
		return nil, err
	}
	for _, part := range []string{tutorialUsers, declared} {
		if !strings.Contains(string(text), part) {
			return nil, errors.New("docs/openapi.json: no " + part)
		}
	}
	if !tutorial {
		text = []byte(strings.Replace(string(text), tutorialUsers, "", 1))
	}
	before, after, _ := strings.Cut(string(text), declared)
	pages := []Page{
		{"/", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "docs") // http.Redirect would turn it into /docs
			w.WriteHeader(http.StatusTemporaryRedirect)
		})},
		{"/openapi.json", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body := before + declared + declarations(scopes()) + after
			newFile("/openapi.json", "application/json", []byte(body)).ServeHTTP(w, r)
		})},
	}
	for _, f := range files {
		pages = append(pages, Page{f.path, f})
	}
	return pages, nil
}

// tutorialUsers is what openapi.json says about who can log in.
const tutorialUsers = " as `johndoe` with the password `secret`, or as `alice` (who is disabled) with `secret2`"

// declared is the scope that openapi.json itself declares.
const declared = `"introspect": "ask what a token stands for"`

// declarations returns more scopes, in JSON, to go after declared.
func declarations(scopes []string) string {
	var list strings.Builder
	for _, scope := range scopes {
		if scope != "introspect" {
			name, _ := json.Marshal(scope)
			fmt.Fprintf(&list, `, %s: "some users may hold it"`, name)
		}
	}
	return list.String()
}

// file is one file to serve, at path.
type file struct {
	path   string
	kind   string
	policy string
	etag   string
	body   []byte
}

// files returns the page, /docs, and what it loads from under /docs/. They are
// made from page.html, page.css and page.js in own's folder docs; in page.html
// {{version}}, {{from}}, {{script}} and {{style}} become the version of Swagger
// UI, where it comes from, and the hashes, and {{login}} becomes curl's arguments
// for a login.
//
// If assetsDir is set, Swagger UI is also served from here, from that folder,
// an unpacked swagger-ui-dist. If a file is missing there, or is from another
// version, the error names it.
func files(own fs.FS, tutorial bool, assetsDir string) ([]file, error) {
	from, scripts, styles := cdn, " "+cdn+script.name, " "+cdn+style.name
	var files []file
	if assetsDir != "" {
		from, scripts, styles = "docs/", "", ""
		for _, a := range []asset{script, style} {
			name := filepath.Join(assetsDir, a.name)
			body, err := os.ReadFile(name)
			if err != nil {
				return nil, err
			}
			if integrity(body) != a.integrity {
				return nil, fmt.Errorf("%s is not the file of swagger-ui-dist %s", name, Version)
			}
			files = append(files, newFile("/docs/"+a.name, a.kind, body))
		}
	}
	for _, f := range []struct{ path, name, kind string }{
		{"/docs/page.css", "page.css", css},
		{"/docs/page.js", "page.js", js},
	} {
		body, err := fs.ReadFile(own, "docs/"+f.name)
		if err != nil {
			return nil, err
		}
		files = append(files, newFile(f.path, f.kind, body))
	}
	text, err := fs.ReadFile(own, "docs/page.html")
	if err != nil {
		return nil, err
	}
	login := "-d username=johndoe -d password=secret"
	if !tutorial {
		login = "--data-urlencode 'username=<i>your username</i>' --data-urlencode 'password=<i>your password</i>'"
	}
	// html/template would make the program a fifth larger, for these five.
	page := strings.NewReplacer("{{version}}", Version, "{{from}}", from, "{{login}}", login,
		"{{script}}", script.integrity, "{{style}}", style.integrity).Replace(string(text))
	docs := newFile("/docs", "text/html; charset=utf-8", []byte(page))
	docs.policy = strings.Join([]string{
		"default-src 'none'",
		"script-src 'self'" + scripts,
		"style-src 'self'" + styles,
		"img-src 'self' data:", // Swagger UI's style sheet draws its arrows with data:
		"connect-src 'self'",
		"base-uri 'none'",
		"form-action 'none'",
		"frame-ancestors 'none'",
	}, "; ")
	return append(files, docs), nil
}

func integrity(body []byte) string {
	sum := sha512.Sum384(body)
	return "sha384-" + base64.StdEncoding.EncodeToString(sum[:])
}

func newFile(path, kind string, body []byte) file {
	return file{path: path, kind: kind, body: body, etag: `"` + integrity(body) + `"`}
}

// ServeHTTP serves the file. A browser asks each time whether it has changed, so
// that a page of this version never runs a script of the last one.
func (f file) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Type", f.kind)
	header.Set("Cache-Control", "no-cache")
	header.Set("ETag", f.etag)
	header.Set("X-Content-Type-Options", "nosniff")
	if f.policy != "" {
		header.Set("Content-Security-Policy", f.policy)
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.body))
}
