package httpbin

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestPaths(t *testing.T) {
	tests := []struct {
		name, method, path, body string
		status                   int
		want                     string
	}{
		{"the teapot is httpbin's, 135 bytes", "GET", "/status/418", "", 418, teapot},
		{"any status", "GET", "/status/503", "", 503, ""},
		{"a status that is none", "GET", "/status/tea", "", 400, "status must be a number from 200 to 599\n"},
		{"headers in httpbin's layout", "GET", "/headers", "", 200, "{\n  \"headers\": {\n    \"Host\": \"httpbin.org\", \n    \"X-A\": \"1\"\n  }\n}\n"},
		{"delay refuses nonsense", "GET", "/delay/soon", "", 400, "delay must be a number of seconds\n"},
		{"bytes are bounded", "GET", "/bytes/4", "", 200, "abcd"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(tt.method, tt.path, strings.NewReader(tt.body))
			r.Host = "httpbin.org"
			r.Header.Set("x-a", "1")
			w := httptest.NewRecorder()
			New().ServeHTTP(w, r)
			body, _ := io.ReadAll(w.Result().Body)
			if w.Code != tt.status || string(body) != tt.want {
				t.Errorf("got %d %q, want %d %q", w.Code, body, tt.status, tt.want)
			}
		})
	}
	if len(teapot) != 135 {
		t.Errorf("teapot has %d bytes, want 135", len(teapot))
	}
}

func TestEchoNamesWhatCame(t *testing.T) {
	w := httptest.NewRecorder()
	New().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/anything/x?a=1", strings.NewReader("hello")))
	for _, want := range []string{`"data": "hello"`, `"method": "POST"`, `"a": "1"`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("answer lacks %s:\n%s", want, w.Body)
		}
	}
}
