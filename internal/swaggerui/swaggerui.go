// Package swaggerui serves an OpenAPI document and a page that shows it in
// Swagger UI, so that a browser runs nothing but what was meant: the page loads
// two files of one exact version of swagger-ui-dist, from a CDN or from the
// service itself, each with the hash that it must have (Subresource Integrity),
// under a Content-Security-Policy that allows these, the service's own files,
// and nothing else.
package swaggerui

import (
	"bytes"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Version is the version of swagger-ui-dist.
const Version = "5.35.0"

const cdn = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@" + Version + "/"

// Another version brings other hashes: openssl dgst -sha384 -binary FILE | base64
var script, style = asset{
	Name:      "swagger-ui-bundle.js",
	Integrity: "sha384-gjRm0bEPMeTmMh5jT2cHccIwCUZSTd8YC+j0d0sXw0MdGEfScduGpSyF3ZSSLkX9",
}, asset{
	Name:      "swagger-ui.css",
	Integrity: "sha384-WlYgdmXYOOBWL5apwjDEZwN+U3HmXSSu5R6V5aGxEcf7z+KuRNwBhoxKVN1i3D5I",
}

// asset is a file of swagger-ui-dist; Integrity is of its bytes, as in HTML.
type asset struct{ Name, Integrity string }

// File is one file to serve, at Path.
type File struct {
	Path   string
	kind   string
	policy string
	etag   string
	body   []byte
}

// Files are the files of the documentation: /openapi.json, /docs, and what the
// page loads from below /docs/. They are made of openapi.json, page.html (a
// template), page.css and page.js in own.
//
// With assetsDir, Swagger UI too comes from here, out of that folder, which
// holds an unpacked swagger-ui-dist. A file that is missing there, or is not
// the version's, is an error that names it.
func Files(own fs.FS, assetsDir string) ([]File, error) {
	const (
		html = "text/html; charset=utf-8"
		css  = "text/css; charset=utf-8"
		js   = "text/javascript; charset=utf-8"
	)
	page := struct {
		Version, From string
		Script, Style asset
	}{Version, cdn, script, style}
	allowed := [2]string{" " + cdn + script.Name, " " + cdn + style.Name}
	var files []File
	if assetsDir != "" {
		page.From, allowed = "/docs/", [2]string{}
		for _, a := range []struct {
			asset
			kind string
		}{{script, js}, {style, css}} {
			body, err := os.ReadFile(filepath.Join(assetsDir, a.Name))
			if err != nil {
				return nil, err
			}
			if integrity(body) != a.Integrity {
				return nil, fmt.Errorf("%s is not the one of swagger-ui-dist %s", filepath.Join(assetsDir, a.Name), Version)
			}
			files = append(files, newFile("/docs/"+a.Name, a.kind, body))
		}
	}
	for _, f := range []struct{ path, name, kind string }{
		{"/openapi.json", "openapi.json", "application/json"},
		{"/docs/page.css", "page.css", css},
		{"/docs/page.js", "page.js", js},
	} {
		body, err := fs.ReadFile(own, f.name)
		if err != nil {
			return nil, err
		}
		files = append(files, newFile(f.path, f.kind, body))
	}
	text, err := template.ParseFS(own, "page.html")
	if err != nil {
		return nil, err
	}
	var body bytes.Buffer
	if err := text.Execute(&body, page); err != nil {
		return nil, err
	}
	docs := newFile("/docs", html, body.Bytes())
	docs.policy = strings.Join([]string{
		"default-src 'none'",
		"script-src 'self'" + allowed[0],
		"style-src 'self'" + allowed[1],
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

func newFile(path, kind string, body []byte) File {
	return File{Path: path, kind: kind, body: body, etag: `"` + integrity(body) + `"`}
}

// ServeHTTP serves the file. A browser asks each time whether it has changed: a
// page of this version must not meet a script of the last one.
func (f File) ServeHTTP(w http.ResponseWriter, r *http.Request) {
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
