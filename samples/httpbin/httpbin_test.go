package httpbin

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"encoding/json"
	"image"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// ask sends one request; headers are "Name: value".
func ask(handler http.Handler, method, target, body string, headers ...string) *http.Response {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host = "httpbin.org"
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w.Result()
}

func bodyOf(t *testing.T, r *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestAnswers(t *testing.T) {
	tests := []struct {
		name, method, path, body string
		status                   int
		want                     string // the whole body
	}{
		{"the teapot is httpbin's, 135 bytes", "GET", "/status/418", "", 418, teapot},
		{"any status", "GET", "/status/503", "", 503, ""},
		{"by any method", "PUT", "/status/201", "", 201, ""},
		{"a status that is none", "GET", "/status/tea", "", 400, "status must be a number from 200 to 599\n"},
		{"a choice of statuses, by weight", "GET", "/status/200:0,503:1", "", 503, ""},
		{"a weight that is none", "GET", "/status/200:much", "", 400, "the weight of a status must be a number, 0 or more\n"},
		{"headers in httpbin's layout", "GET", "/headers", "", 200, "{\n  \"headers\": {\n    \"Host\": \"httpbin.org\", \n    \"X-A\": \"1\"\n  }\n}\n"},
		{"the caller's address", "GET", "/ip", "", 200, "{\n  \"origin\": \"192.0.2.1\"\n}\n"},
		{"the caller's program", "GET", "/user-agent", "", 200, "{\n  \"user-agent\": \"\"\n}\n"},
		{"delay", "GET", "/delay/0.001", "", 200, ""},
		{"delay with a unit", "GET", "/delay/1ms", "", 200, ""},
		{"delay refuses nonsense", "GET", "/delay/soon", "", 400, "delay must be a number of seconds\n"},
		{"delay refuses the past", "GET", "/delay/-1", "", 400, "delay must be a number of seconds\n"},
		{"bytes are bounded", "GET", "/bytes/4", "", 200, "abcd"},
		{"bytes, but how many", "GET", "/bytes/-4", "", 400, "n must be a number, 0 or more\n"},
		{"bytes of untold length", "GET", "/stream-bytes/4", "", 200, "abcd"},
		{"base64", "GET", "/base64/aHR0cGJpbg==", "", 200, "httpbin"},
		{"not base64", "GET", "/base64/!", "", 400, "not base64: try /base64/aHR0cGJpbg==\n"},
		{"drip", "GET", "/drip?numbytes=3&duration=0&code=201", "", 201, "***"},
		{"robots", "GET", "/robots.txt", "", 200, "User-agent: *\nDisallow: /deny\n"},
		{"a path that is not there", "GET", "/nothing", "", 404, "404 page not found\n"},
		{"a method that is not", "POST", "/get", "", 405, "Method Not Allowed\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ask(New(), tt.method, tt.path, tt.body, "x-a: 1")
			if body := bodyOf(t, got); got.StatusCode != tt.status || body != tt.want && tt.want != "" {
				t.Errorf("got %d %q, want %d %q", got.StatusCode, body, tt.status, tt.want)
			}
		})
	}
	if len(teapot) != 135 {
		t.Errorf("teapot has %d bytes, want 135", len(teapot))
	}
}

// The two images answer the same request in their own form.
func TestForms(t *testing.T) {
	tests := []struct {
		name, method, path, body, header string
		python, golang                   []string // parts of the body
	}{
		{"headers", "GET", "/headers", "", "X-A: 1", []string{`"X-A": "1"`}, []string{"\"X-A\": [\n      \"1\"\n    ]"}},
		{"a certificate as a sidecar adds it", "GET", "/headers", "", `X-Forwarded-Client-Cert: By=spiffe://a;Hash=1;Subject="";URI=spiffe://b`,
			[]string{`    "X-Forwarded-Client-Cert": "By=spiffe://a;Hash=1;Subject=\"\";URI=spiffe://b"`}, []string{"\"X-Forwarded-Client-Cert\": [\n"}},
		{"arguments", "GET", "/get?a=1&b=2&b=3", "", "", []string{`"a": "1"`, `"url": "http://httpbin.org/get?a=1&b=2&b=3"`}, []string{"\"a\": [\n      \"1\"", `"method": "GET"`}},
		{"what load balancers add", "GET", "/get", "", "X-Forwarded-For: 10.1.1.1", []string{`"origin": "10.1.1.1"`}, []string{`"X-Forwarded-For"`, `"origin": "10.1.1.1"`}},
		{"and is shown when asked for", "GET", "/get?show_env=1", "", "X-Forwarded-For: 10.1.1.1", []string{`"X-Forwarded-For": "10.1.1.1"`}, nil},
		{"the scheme outside", "GET", "/get", "", "X-Forwarded-Proto: https", []string{`"url": "https://httpbin.org/get"`}, []string{`"url": "https://httpbin.org/get"`}},
		{"text", "POST", "/anything/x?a=1", "hello", "", []string{`"data": "hello"`, `"method": "POST"`, `"json": null`}, []string{`"data": "hello"`}},
		{"JSON", "POST", "/post", `{"a":[1]}`, "Content-Type: application/json", []string{`"data": "{\"a\":[1]}"`, "\"json\": {\n    \"a\": ["}, nil},
		{"a form", "PUT", "/put", "a=1&b=2", "Content-Type: application/x-www-form-urlencoded", []string{`"a": "1"`, `"data": ""`}, []string{"\"b\": [\n      \"2\""}},
		{"bytes that are no text", "PATCH", "/patch", "\xff", "", []string{`"data": "data:application/octet-stream;base64,/w=="`}, nil},
		{"cookies", "GET", "/cookies", "", "Cookie: a=1; b=2", []string{`"a": "1"`, `"b": "2"`}, nil},
		{"the teapot", "GET", "/status/418", "", "", []string{"-=[ teapot ]=-"}, []string{"I'm a teapot!"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for image, form := range map[string]struct {
				handler http.Handler
				want    []string
			}{"httpbin": {New(), tt.python}, "go-httpbin": {NewGo(), tt.golang}} {
				var headers []string
				if tt.header != "" {
					headers = []string{tt.header}
				}
				body := bodyOf(t, ask(form.handler, tt.method, tt.path, tt.body, headers...))
				for _, part := range form.want {
					if !strings.Contains(body, part) {
						t.Errorf("%s: answer lacks %s:\n%s", image, part, body)
					}
				}
			}
		})
	}
	if body := bodyOf(t, ask(New(), "GET", "/headers", "", "X-Request-Id: 1")); strings.Contains(body, "X-Request-Id") {
		t.Errorf("what load balancers add is hidden, but:\n%s", body)
	}
}

func TestHeadersOfAnswers(t *testing.T) {
	for _, tt := range []struct {
		name, method, path, header string
		status                     int
		want                       string // "Name: value"
	}{
		{"told by the request", "GET", "/response-headers?X-A=1&X-A=2", "", 200, "X-A: 1,2"},
		{"a redirect by status", "GET", "/status/302", "", 302, "Location: /redirect/1"},
		{"redirects that end", "GET", "/redirect/1", "", 302, "Location: /get"},
		{"redirects that go on", "GET", "/redirect/3", "", 302, "Location: /relative-redirect/2"},
		{"a redirect to a place", "GET", "/redirect-to?url=http://a.example/&status_code=307", "", 307, "Location: http://a.example/"},
		{"a redirect to no place", "GET", "/redirect-to", "", 400, ""},
		{"a login that is missing", "GET", "/basic-auth/a/b", "", 401, `WWW-Authenticate: Basic realm="Fake Realm"`},
		{"a login", "GET", "/basic-auth/a/b", "Authorization: Basic YTpi", 200, "Content-Type: application/json"},
		{"a wrong login", "GET", "/basic-auth/a/c", "Authorization: Basic YTpi", 401, ""},
		{"no token", "GET", "/bearer", "", 401, "WWW-Authenticate: Bearer"},
		{"a token", "GET", "/bearer", "Authorization: Bearer t", 200, ""},
		{"a tag", "GET", "/etag/x", "", 200, `ETag: "x"`},
		{"a tag that is known", "GET", "/etag/x", `If-None-Match: "x"`, 304, `ETag: "x"`},
		{"a cache", "GET", "/cache/60", "", 200, "Cache-Control: public, max-age=60"},
		{"a cache that has it", "GET", "/cache", "If-None-Match: *", 304, ""},
		{"a cookie is set", "GET", "/cookies/set?a=1", "", 302, "Set-Cookie: a=1; Path=/"},
		{"a cookie is taken away", "GET", "/cookies/delete?a", "", 302, "Set-Cookie: a=; Path=/; Max-Age=0"},
		{"every site may read", "GET", "/ip", "", 200, "Access-Control-Allow-Origin: *"},
		{"a site that asks by name", "GET", "/ip", "Origin: http://a.example", 200, "Access-Control-Allow-Origin: http://a.example"},
		{"a site that asks first", "OPTIONS", "/ip", "Access-Control-Request-Headers: x-a", 200, "Access-Control-Allow-Headers: x-a"},
		{"a page", "GET", "/html", "", 200, "Content-Type: text/html; charset=utf-8"},
		{"XML", "GET", "/xml", "", 200, "Content-Type: application/xml"},
		{"an image of the kind that is taken", "GET", "/image", "Accept: image/svg+xml", 200, "Content-Type: image/svg+xml"},
		{"an image of a kind that is not here", "GET", "/image", "Accept: image/webp", 406, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var headers []string
			if tt.header != "" {
				headers = []string{tt.header}
			}
			got := ask(New(), tt.method, tt.path, "", headers...)
			name, value, _ := strings.Cut(tt.want, ": ")
			if got.StatusCode != tt.status || tt.want != "" && strings.Join(got.Header.Values(name), ",") != value {
				t.Errorf("got %d %v, want %d %s", got.StatusCode, got.Header, tt.status, tt.want)
			}
		})
	}
}

func TestCompressedBodies(t *testing.T) {
	for path, open := range map[string]func(io.Reader) (io.ReadCloser, error){
		"/gzip":    func(r io.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) },
		"/deflate": zlib.NewReader,
	} {
		got := ask(New(), "GET", path, "")
		plain, err := open(got.Body)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		var answer map[string]any
		if err := json.NewDecoder(plain).Decode(&answer); err != nil || answer["origin"] != "192.0.2.1" {
			t.Errorf("%s holds %v, %v", path, answer, err)
		}
	}
}

func TestImagesAreImages(t *testing.T) {
	for _, format := range []string{"png", "jpeg"} {
		picture, got, err := image.Decode(ask(New(), "GET", "/image/"+format, "").Body)
		if err != nil || got != format || picture.Bounds().Dx() != 64 {
			t.Errorf("/image/%s is a %s: %v", format, got, err)
		}
	}
}

func TestStreamIsLinesOfJSON(t *testing.T) {
	lines := json.NewDecoder(ask(New(), "GET", "/stream/3", "").Body)
	for want := range 3 {
		var line struct {
			ID  int
			URL string
		}
		if err := lines.Decode(&line); err != nil || line.ID != want || line.URL != "http://httpbin.org/stream/3" {
			t.Errorf("line %d is %+v, %v", want, line, err)
		}
	}
	if lines.More() {
		t.Error("more lines than were asked for")
	}
}

func TestFilesOfAForm(t *testing.T) {
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, _ := form.CreateFormFile("upload", "a.txt")
	_, _ = io.WriteString(part, "content")
	_ = form.WriteField("note", "n")
	_ = form.Close()
	answer := bodyOf(t, ask(New(), "POST", "/post", body.String(), "Content-Type: "+form.FormDataContentType()))
	for _, want := range []string{`"upload": "content"`, `"note": "n"`} {
		if !strings.Contains(answer, want) {
			t.Errorf("answer lacks %s:\n%s", want, answer)
		}
	}
}

func TestBodiesAreBounded(t *testing.T) {
	if got := ask(New(), "POST", "/post", strings.Repeat("a", maxBody+1)); got.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("a body of more than %d bytes gives %d", maxBody, got.StatusCode)
	}
	if got := bodyOf(t, ask(New(), "GET", "/bytes/1000000000", "")); len(got) != maxBytes {
		t.Errorf("/bytes gives %d bytes, at most %d", len(got), maxBytes)
	}
}

// Whatever a path says, the answer has a status and comes at once.
func FuzzOrders(f *testing.F) {
	for _, path := range []string{"/status/200:1,503:0", "/delay/0", "/drip?numbytes=1&duration=0", "/base64/aa==", "/redirect/3", "/response-headers?a=b"} {
		f.Add(path)
	}
	handler := New()
	f.Fuzz(func(t *testing.T, path string) {
		target, err := url.ParseRequestURI(path)
		if err != nil || target.Host != "" {
			return
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // a client that waits for nothing: delays end
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
		r.URL = target
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code < 200 || w.Code > 599 {
			t.Errorf("%s: status %d", path, w.Code)
		}
	})
}

// The site's load balancer gives a request its trace id, if it has none.
func TestSite(t *testing.T) {
	shown := func(headers ...string) string {
		var answer struct{ Headers map[string]string }
		if err := json.Unmarshal([]byte(bodyOf(t, ask(NewSite(), "GET", "/headers", "", headers...))), &answer); err != nil {
			t.Fatal(err)
		}
		return answer.Headers["X-Amzn-Trace-Id"]
	}
	if got := shown(); !regexp.MustCompile(`^Root=1-[0-9a-f]{8}-[0-9a-f]{24}$`).MatchString(got) {
		t.Errorf("trace id %q", got)
	}
	if got := shown("X-Amzn-Trace-Id: Root=mine"); got != "Root=mine" {
		t.Errorf("trace id %q", got)
	}
}
