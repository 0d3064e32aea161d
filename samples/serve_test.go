package samples

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestReorder(t *testing.T) {
	order := []string{"Content-Type", "Content-Length", "Server", "Date"}
	for _, tt := range []struct{ name, in, want string }{
		{"an answer", "HTTP/1.1 200 OK|Date: d|Content-Length: 2|Content-Type: t|Server: s||ok", "HTTP/1.1 200 OK|Content-Type: t|Content-Length: 2|Server: s|Date: d||ok"},
		{"other headers follow, in their own order", "HTTP/1.1 302 Found|X-B: 1|Location: /|Server: s|X-A: 2||", "HTTP/1.1 302 Found|Server: s|X-B: 1|Location: /|X-A: 2||"},
		{"case does not matter", "HTTP/1.1 200 OK|date: d|CONTENT-TYPE: t||", "HTTP/1.1 200 OK|CONTENT-TYPE: t|date: d||"},
		{"a body that looks like a header", "HTTP/1.1 200 OK|Date: d||Date: 1|Server: 2||", "HTTP/1.1 200 OK|Date: d||Date: 1|Server: 2||"},
		{"half a header stays", "HTTP/1.1 200 OK|Date: d|Content-Length: 1", "HTTP/1.1 200 OK|Date: d|Content-Length: 1"},
		{"nothing", "", ""},
	} {
		got := strings.ReplaceAll(string(reorder([]byte(strings.ReplaceAll(tt.in, "|", "\r\n")), order)), "\r\n", "|")
		if got != tt.want {
			t.Errorf("%s: %s\nwant %s", tt.name, got, tt.want)
		}
	}
}

// askedIn is an application whose last request comes a while after it was told to end.
func askedIn(after time.Duration) *atomic.Int64 {
	asked := &atomic.Int64{}
	asked.Store(int64(after))
	return asked
}

// An application takes requests for a while once it is to end, unless a listener fails
// or nobody is to wait.
func TestLinger(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name  string
		end   endpoints
		fails error
		after time.Duration
	}{
		{"as long as it is told", endpoints{linger: 3 * time.Second}, nil, 3 * time.Second},
		{"and as long as it is asked", endpoints{linger: 3 * time.Second, asked: askedIn(2 * time.Second)}, nil, 5 * time.Second},
		{"but not for ever", endpoints{linger: 3 * time.Second, asked: askedIn(time.Hour)}, nil, 10 * time.Second},
		{"not at all by itself", endpoints{}, nil, 0},
		{"not while nobody may wait", endpoints{linger: time.Second, abrupt: true}, nil, 0},
		{"not without a listener", endpoints{linger: time.Second}, broken, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				failed := make(chan error, 1)
				if tt.fails != nil {
					failed <- tt.fails
				}
				begin := time.Now()
				if tt.end.asked != nil { // times of the bubble
					tt.end.asked.Add(begin.UnixNano())
				}
				err := tt.end.drain(context.Background(), &http.Server{}, failed)
				if took := time.Since(begin); took != tt.after || !errors.Is(err, tt.fails) {
					t.Errorf("%v after %v, want %v after %v", err, took, tt.fails, tt.after)
				}
			})
		})
	}
}
