package helloworld

import (
	"net/http/httptest"
	"testing"
)

func TestAnswers(t *testing.T) {
	handler := New("v1", "helloworld-v1-578dd69f69-c2fmz")
	for _, tt := range []struct {
		method, path string
		status       int
		want         string
	}{
		{"GET", "/hello", 200, "Hello version: v1, instance: helloworld-v1-578dd69f69-c2fmz\n"},
		{"GET", "/health", 200, "Helloworld is healthy"},
		{"POST", "/hello", 405, "Method Not Allowed\n"},
		{"GET", "/", 404, "404 page not found\n"},
	} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
		if w.Code != tt.status || w.Body.String() != tt.want {
			t.Errorf("%s %s: %d %q, want %d %q", tt.method, tt.path, w.Code, w.Body, tt.status, tt.want)
		}
	}
}
