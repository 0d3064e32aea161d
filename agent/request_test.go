package agent

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestRequest(t *testing.T) {
	admin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/nothing" {
			http.Error(w, "invalid path", http.StatusNotFound)
			return
		}
		fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.RequestURI(), body)
	}))
	defer admin.Close()
	address := strings.TrimPrefix(admin.URL, "http://")
	tests := []struct {
		name string
		args []string
		want string
		err  string
	}{
		{"a path without its slash", []string{"request", "GET", "stats"}, "GET /stats ", ""},
		{"a method in lower case, with a query", []string{"request", "post", "/logging?level=debug", "x"}, "POST /logging?level=debug x", ""},
		{"a page that is not there", []string{"request", "GET", "nothing"}, "", "GET nothing: 404 Not Found: invalid path"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			cmd := Command(nil)
			cmd.SetOut(&out)
			cmd.SetArgs(append(tt.args, "--debug-addr", address))
			err := cmd.Execute()
			if fmt.Sprint(err) != tt.err && (err != nil || tt.err != "") {
				t.Fatalf("error is %v, want %q", err, tt.err)
			}
			if out.String() != tt.want {
				t.Errorf("printed %q, want %q", out.String(), tt.want)
			}
		})
	}
}
