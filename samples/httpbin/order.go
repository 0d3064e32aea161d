package httpbin

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxDelay bounds how long an answer waits, maxRedirects how many may follow.
const (
	maxDelay     = 10 * time.Second
	maxRedirects = 20
)

// teapot is the body of /status/418 of httpbin.org, 135 bytes.
const teapot = "\n    -=[ teapot ]=-\n\n       _...._\n     .'  _ _ `.\n    | .\"` ^ `\". _,\n    \\_;`\"---\"`|//\n      |       ;/\n      \\_     _/\n        `\"\"\"`\n"

// orders are the paths whose answer is told by the request.
func (a application) orders(mux *http.ServeMux) {
	mux.HandleFunc("/status/{codes}", a.status)
	mux.HandleFunc("/delay/{seconds}", a.delay)
	mux.HandleFunc("/response-headers", a.responseHeaders)
	mux.HandleFunc("/redirect/{n}", redirect)
	mux.HandleFunc("/relative-redirect/{n}", redirect)
	mux.HandleFunc("/redirect-to", redirectTo)
	mux.HandleFunc("GET /cookies/set", func(w http.ResponseWriter, r *http.Request) {
		for name, values := range r.URL.Query() {
			http.SetCookie(w, &http.Cookie{Name: name, Value: values[0], Path: "/"}) //nolint:gosec // the request asks for exactly this cookie
		}
		http.Redirect(w, r, "/cookies", http.StatusFound)
	})
	mux.HandleFunc("GET /cookies/delete", func(w http.ResponseWriter, r *http.Request) {
		for name := range r.URL.Query() {
			http.SetCookie(w, &http.Cookie{Name: name, Path: "/", MaxAge: -1}) //nolint:gosec // as above
		}
		http.Redirect(w, r, "/cookies", http.StatusFound)
	})
	mux.HandleFunc("GET /cache", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-Modified-Since") != "" || r.Header.Get("If-None-Match") != "" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		a.echo(w, r, nil)
	})
	mux.HandleFunc("GET /cache/{seconds}", func(w http.ResponseWriter, r *http.Request) {
		if seconds, ok := number(w, r, "seconds", 1<<31); ok {
			w.Header().Set("Cache-Control", "public, max-age="+strconv.Itoa(seconds))
			a.echo(w, r, nil)
		}
	})
	mux.HandleFunc("GET /etag/{etag}", func(w http.ResponseWriter, r *http.Request) {
		tag := strconv.Quote(r.PathValue("etag"))
		w.Header().Set("ETag", tag)
		if match := r.Header.Get("If-None-Match"); match == tag || match == "*" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		a.echo(w, r, nil)
	})
}

// number is a path value from 0 to limit; more is limit. It answers 400 itself.
func number(w http.ResponseWriter, r *http.Request, name string, limit int) (int, bool) {
	n, err := strconv.Atoi(r.PathValue(name))
	if err != nil || n < 0 {
		http.Error(w, name+" must be a number, 0 or more", http.StatusBadRequest)
		return 0, false
	}
	return min(n, limit), true
}

func (a application) status(w http.ResponseWriter, r *http.Request) {
	code, err := choose(r.PathValue("codes"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	body := ""
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	switch code {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusUseProxy, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		w.Header().Set("Location", "/redirect/1")
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Basic realm="Fake Realm"`)
	case http.StatusTeapot:
		w.Header().Set("x-more-info", "http://tools.ietf.org/html/rfc2324")
		body = teapot
		if a.lists {
			body = "I'm a teapot!"
		}
	}
	if code != http.StatusNoContent && code != http.StatusNotModified {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(code)
	_, _ = w.Write([]byte(body))
}

// choose is one status of a list CODE[:WEIGHT],…, at random by weight.
func choose(list string) (int, error) {
	var codes []int
	var weights []float64
	sum := 0.0
	for part := range strings.SplitSeq(list, ",") {
		text, share, weighted := strings.Cut(part, ":")
		code, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || code < 200 || code > 599 {
			return 0, errors.New("status must be a number from 200 to 599")
		}
		weight := 1.0
		if weighted {
			if weight, err = strconv.ParseFloat(share, 64); err != nil || !(weight >= 0 && weight <= 1e9) {
				return 0, errors.New("the weight of a status must be a number, 0 or more")
			}
		}
		codes, weights, sum = append(codes, code), append(weights, weight), sum+weight
	}
	at := rand.Float64() * sum
	for i, weight := range weights {
		if at -= weight; at < 0 {
			return codes[i], nil
		}
	}
	return codes[len(codes)-1], nil
}

func (a application) delay(w http.ResponseWriter, r *http.Request) {
	wait, err := duration(r.PathValue("seconds"))
	if err != nil {
		http.Error(w, "delay must be a number of seconds", http.StatusBadRequest)
		return
	}
	if pause(r, wait) {
		a.echo(w, r, map[string]any{})
	}
}

// duration reads seconds, or a duration with a unit; at most maxDelay.
func duration(text string) (time.Duration, error) {
	wait, err := time.ParseDuration(text)
	if seconds, notNumber := strconv.ParseFloat(text, 64); notNumber == nil {
		wait, err = time.Duration(min(seconds, maxDelay.Seconds())*float64(time.Second)), nil
	}
	if err != nil || wait < 0 {
		return 0, fmt.Errorf("%q is not a time", text)
	}
	return min(wait, maxDelay), nil
}

// pause waits and reports whether the client still does.
func pause(r *http.Request, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
		return false
	}
}

func (a application) responseHeaders(w http.ResponseWriter, r *http.Request) {
	args := r.URL.Query()
	for name, values := range args {
		w.Header()[http.CanonicalHeaderKey(name)] = values
	}
	answer := a.values(args)
	if !a.lists {
		answer["Content-Type"] = "application/json"
	}
	a.reply(w, answer)
}

func redirect(w http.ResponseWriter, r *http.Request) {
	n, ok := number(w, r, "n", maxRedirects)
	if !ok {
		return
	}
	to := "/get"
	if n > 1 {
		to = "/relative-redirect/" + strconv.Itoa(n-1)
	}
	http.Redirect(w, r, to, http.StatusFound)
}

func redirectTo(w http.ResponseWriter, r *http.Request) {
	args := r.URL.Query()
	code, err := strconv.Atoi(args.Get("status_code"))
	if err != nil || code < 300 || code > 399 {
		code = http.StatusFound
	}
	if args.Get("url") == "" {
		http.Error(w, "url is missing: /redirect-to?url=URL", http.StatusBadRequest)
		return
	}
	w.Header().Set("Location", args.Get("url"))
	w.WriteHeader(code)
}
