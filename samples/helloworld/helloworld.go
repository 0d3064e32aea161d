// Package helloworld is the helloworld service of Istio's examples: it tells which
// version and which instance answered.
package helloworld

import (
	"fmt"
	"net/http"
)

// New returns the handler of an instance: /hello says who it is, /health that it is
// well.
func New(version, instance string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, "Hello version: %s, instance: %s\n", version, instance)
	})
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, "Helloworld is healthy")
	})
	return mux
}
