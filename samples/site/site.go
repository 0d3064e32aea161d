// Package site is a stand-in for a public web site: one page with a title that
// tells which name was asked for.
package site

import (
	"fmt"
	"html"
	"net/http"
)

// New returns a handler whose page has the given title and shows the Host that
// was asked for.
func New(title string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, "<!DOCTYPE html>\n<html><head><title>%s</title></head>\n<body><h1>%s</h1><p>You asked %s for %s.</p></body></html>\n",
			html.EscapeString(title), html.EscapeString(title), html.EscapeString(r.Host), html.EscapeString(r.URL.Path))
	})
}
