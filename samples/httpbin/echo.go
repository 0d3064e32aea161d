package httpbin

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"unicode/utf8"
)

// echoes are the paths that tell what came.
func (a application) echoes(mux *http.ServeMux) {
	for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
		mux.HandleFunc(method+" /"+strings.ToLower(method), func(w http.ResponseWriter, r *http.Request) { a.echo(w, r, nil) })
	}
	anything := func(w http.ResponseWriter, r *http.Request) { a.echo(w, r, map[string]any{"method": r.Method}) }
	mux.HandleFunc("/anything", anything)
	mux.HandleFunc("/anything/", anything)
	mux.HandleFunc("GET /headers", func(w http.ResponseWriter, r *http.Request) {
		a.reply(w, map[string]any{"headers": a.headers(r)})
	})
	mux.HandleFunc("GET /ip", func(w http.ResponseWriter, r *http.Request) {
		a.reply(w, map[string]any{"origin": origin(r)})
	})
	mux.HandleFunc("GET /user-agent", func(w http.ResponseWriter, r *http.Request) {
		a.reply(w, map[string]any{"user-agent": r.UserAgent()})
	})
	mux.HandleFunc("GET /cookies", func(w http.ResponseWriter, r *http.Request) {
		all := map[string]string{}
		for _, c := range r.Cookies() {
			all[c.Name] = c.Value
		}
		a.reply(w, map[string]any{"cookies": all})
	})
	mux.HandleFunc("GET /hostname", func(w http.ResponseWriter, _ *http.Request) {
		name, _ := os.Hostname()
		a.reply(w, map[string]any{"hostname": name})
	})
}

// echo answers with the request, and what is in more.
func (a application) echo(w http.ResponseWriter, r *http.Request, more map[string]any) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	answer := a.request(r)
	if a.lists {
		answer["method"] = r.Method
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead || more != nil {
		a.content(answer, r, body)
	}
	maps.Copy(answer, more)
	a.reply(w, answer)
}

// request is what every answer tells of a request.
func (a application) request(r *http.Request) map[string]any {
	scheme := r.Header.Get("X-Forwarded-Proto")
	if scheme == "" {
		scheme = "http"
		if r.TLS != nil {
			scheme = "https"
		}
	}
	return map[string]any{
		"args": a.values(r.URL.Query()), "headers": a.headers(r), "origin": origin(r),
		"url": scheme + "://" + r.Host + r.URL.RequestURI(),
	}
}

// content tells what a body holds: as text, and as the form or the JSON that it is.
func (a application) content(answer map[string]any, r *http.Request, body []byte) {
	answer["data"], answer["json"] = "", nil
	answer["form"], answer["files"] = map[string]any{}, map[string]any{}
	r.Body = io.NopCloser(bytes.NewReader(body))
	switch kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind {
	case "application/x-www-form-urlencoded":
		if form, err := url.ParseQuery(string(body)); err == nil {
			answer["form"] = a.values(form)
		}
		return
	case "multipart/form-data":
		if r.ParseMultipartForm(maxBody) == nil { //nolint:gosec // the body is in memory, and bounded by MaxBytesHandler
			answer["form"] = a.values(r.MultipartForm.Value)
			answer["files"] = a.values(files(r))
		}
		return
	}
	answer["data"] = text(body)
	var parsed any
	if json.Unmarshal(body, &parsed) == nil {
		answer["json"] = parsed
	}
}

func files(r *http.Request) url.Values {
	all := url.Values{}
	for name, list := range r.MultipartForm.File {
		for _, header := range list {
			f, err := header.Open()
			if err != nil {
				continue
			}
			content, _ := io.ReadAll(f)
			_ = f.Close()
			all.Add(name, text(content))
		}
	}
	return all
}

// text is what JSON can hold of a body.
func text(body []byte) string {
	if utf8.Valid(body) {
		return string(body)
	}
	return "data:application/octet-stream;base64," + base64.StdEncoding.EncodeToString(body)
}

// hidden are headers that load balancers add and httpbin.org does not show, but
// when asked with ?show_env=1.
var hidden = []string{
	"Connect-Time", "Total-Route-Time", "Via", "X-Forwarded-For", "X-Forwarded-Port", "X-Forwarded-Proto",
	"X-Forwarded-Protocol", "X-Forwarded-Ssl", "X-Real-Ip", "X-Request-Id", "X-Request-Start", "X-Varnish",
}

func (a application) headers(r *http.Request) map[string]any {
	all := map[string]any{}
	add := func(name string, values []string) {
		if a.lists {
			all[name] = values
		} else {
			all[name] = strings.Join(values, ",")
		}
	}
	add("Host", []string{r.Host})
	for name, values := range r.Header {
		if a.lists || !slices.Contains(hidden, name) || r.URL.Query().Has("show_env") {
			add(name, values)
		}
	}
	return all
}

// values are arguments: lists, or strings where there is one of a name.
func (a application) values(list url.Values) map[string]any {
	all := map[string]any{}
	for name, values := range list {
		if len(values) == 1 && !a.lists {
			all[name] = values[0]
		} else {
			all[name] = values
		}
	}
	return all
}

// origin is the address of the client, through proxies that tell it.
func origin(r *http.Request) string {
	if through := r.Header.Get("X-Forwarded-For"); through != "" {
		return through
	}
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	return host
}

// reply writes JSON in the layout of the image: both sort names and indent by two,
// and httpbin.org has a blank after each comma at the end of a line.
func (a application) reply(w http.ResponseWriter, v any) {
	a.replyStatus(w, http.StatusOK, v)
}

func (a application) replyStatus(w http.ResponseWriter, status int, v any) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	_ = e.Encode(v)
	kind, out := "application/json", b.Bytes()
	if a.lists {
		kind = "application/json; charset=utf-8"
	} else {
		out = bytes.ReplaceAll(out, []byte(",\n"), []byte(", \n"))
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	_, _ = w.Write(out)
}
