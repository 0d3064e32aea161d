// Package httpbin is a small stand-in for httpbin.org: enough of its paths, with
// its bodies, for the examples that people follow with a service mesh.
package httpbin

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"time"
)

// maxBody bounds what a request may send, maxDelay how long /delay waits, maxBytes what /bytes returns.
const (
	maxBody  = 10 << 20
	maxDelay = 10 * time.Second
	maxBytes = 100 << 10
)

// teapot is the body of /status/418, 135 bytes.
const teapot = "\n    -=[ teapot ]=-\n\n       _...._\n     .'  _ _ `.\n    | .\"` ^ `\". _,\n    \\_;`\"---\"`|//\n      |       ;/\n      \\_     _/\n        `\"\"\"`\n"

// New returns the handler. It answers every Host.
func New() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/ip", func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		reply(w, map[string]any{"origin": host})
	})
	mux.HandleFunc("/user-agent", func(w http.ResponseWriter, r *http.Request) {
		reply(w, map[string]any{"user-agent": r.UserAgent()})
	})
	mux.HandleFunc("/headers", headers)
	mux.HandleFunc("/get", echo)
	mux.HandleFunc("/post", echo)
	mux.HandleFunc("/anything", echo)
	mux.HandleFunc("/anything/", echo)
	mux.HandleFunc("/status/{code}", status)
	mux.HandleFunc("/delay/{seconds}", delay)
	mux.HandleFunc("/bytes/{n}", randomBytes)
	mux.HandleFunc("/html", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, "<!DOCTYPE html>\n<title>httpbin</title>\n<h1>httpbin</h1>\n")
	})
	return http.MaxBytesHandler(mux, maxBody)
}

// headers answers in httpbin's own layout: two-space indent, sorted names and a
// blank after each comma at the end of a line.
func headers(w http.ResponseWriter, r *http.Request) {
	all := flatHeaders(r)
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	sort.Strings(names)
	var b strings.Builder
	b.WriteString("{\n  \"headers\": {\n")
	for i, name := range names {
		value, _ := json.Marshal(all[name])
		fmt.Fprintf(&b, "    %q: %s", name, value)
		if i < len(names)-1 {
			b.WriteString(", ")
		}
		b.WriteString("\n")
	}
	b.WriteString("  }\n}\n")
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, b.String())
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	args := map[string]string{}
	for k, v := range r.URL.Query() {
		args[k] = strings.Join(v, ",")
	}
	reply(w, map[string]any{
		"args": args, "data": string(body), "headers": flatHeaders(r), "method": r.Method,
		"origin": host, "url": "http://" + r.Host + r.URL.RequestURI(),
	})
}

func status(w http.ResponseWriter, r *http.Request) {
	code, err := strconv.Atoi(r.PathValue("code"))
	if err != nil || code < 200 || code > 599 {
		http.Error(w, "status must be a number from 200 to 599", http.StatusBadRequest)
		return
	}
	if code == http.StatusTeapot {
		w.Header().Set("x-more-info", "http://tools.ietf.org/html/rfc2324")
		w.Header().Set("Content-Length", strconv.Itoa(len(teapot)))
		w.WriteHeader(code)
		_, _ = io.WriteString(w, teapot)
		return
	}
	w.WriteHeader(code)
}

func delay(w http.ResponseWriter, r *http.Request) {
	seconds, err := strconv.ParseFloat(r.PathValue("seconds"), 64)
	if err != nil || seconds < 0 {
		http.Error(w, "delay must be a number of seconds", http.StatusBadRequest)
		return
	}
	timer := time.NewTimer(min(time.Duration(seconds*float64(time.Second)), maxDelay))
	defer timer.Stop()
	select {
	case <-timer.C:
		echo(w, r)
	case <-r.Context().Done():
	}
}

func randomBytes(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.PathValue("n"))
	if err != nil || n < 0 {
		http.Error(w, "bytes must be a number", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	b := make([]byte, min(n, maxBytes))
	for i := range b {
		b[i] = byte('a' + i%26)
	}
	_, _ = w.Write(b)
}

func flatHeaders(r *http.Request) map[string]string {
	all := map[string]string{"Host": r.Host}
	for name, values := range r.Header {
		all[name] = strings.Join(values, ",")
	}
	return all
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	_ = e.Encode(v)
}
