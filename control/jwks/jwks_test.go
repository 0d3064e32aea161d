package jwks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lateen-mesh/lateen/control/mesh"
)

const (
	keysURL   = "https://keys.test/jwks"
	firstSet  = `{"keys":[{"kty":"oct","k":"YQ"}]}`
	secondSet = `{"keys":[{"kty":"oct","k":"Yg"}]}`
)

// A place answers with text, or not at all where it is empty.
type places struct {
	mu    sync.Mutex
	text  map[string]string
	calls map[string]int
}

func (p *places) RoundTrip(r *http.Request) (*http.Response, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls[r.URL.String()]++
	text := p.text[r.URL.String()]
	if text == "" {
		return nil, errors.New("nobody answers")
	}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
}

func (p *places) put(url, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text[url] = text
}

func (p *places) called(url string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[url]
}

// running is a Fetcher of places that ends with the test.
func running(t *testing.T, p *places) *Fetcher {
	t.Helper()
	f := New(Options{Client: &http.Client{Transport: p}, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return f
}

func newPlaces() *places { return &places{text: map[string]string{}, calls: map[string]int{}} }

var wanted = mesh.KeySource{URL: keysURL}

func TestFetcher(t *testing.T) {
	t.Run("PO-007 keys are fetched, again after twenty minutes, and kept where that fails", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPlaces()
			p.put(keysURL, " "+firstSet+"\n")
			f := running(t, p)
			f.Want(map[mesh.KeySource]time.Duration{wanted: 0})
			f.Await(t.Context(), time.Minute)
			if got := f.Keys()[wanted]; got != firstSet {
				t.Fatalf("got %q", got)
			}
			<-f.Changed()
			p.put(keysURL, "")
			time.Sleep(23 * time.Minute)
			synctest.Wait()
			if f.Keys()[wanted] != firstSet || f.Failures()[wanted] == nil {
				t.Errorf("keys %q, failure %v", f.Keys()[wanted], f.Failures()[wanted])
			}
			p.put(keysURL, secondSet)
			<-f.Changed() // soon: failures are tried again earlier
			if f.Keys()[wanted] != secondSet || f.Failures()[wanted] != nil {
				t.Errorf("keys %q, failure %v", f.Keys()[wanted], f.Failures()[wanted])
			}
		})
	})
	t.Run("PO-007 what fails is tried less and less often", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPlaces()
			f := running(t, p)
			f.Want(map[mesh.KeySource]time.Duration{wanted: 0})
			time.Sleep(time.Hour)
			synctest.Wait()
			if n := p.called(keysURL); n < 11 || n > 16 {
				t.Errorf("tried %d times in an hour", n)
			}
			if len(f.Keys()) != 0 {
				t.Errorf("got %v", f.Keys())
			}
		})
	})
	t.Run("PO-007 a discovery document leads to the keys", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPlaces()
			p.put("https://issuer.test/.well-known/openid-configuration", `{"issuer":"x","jwks_uri":"`+keysURL+`"}`)
			p.put(keysURL, firstSet)
			at := mesh.KeySource{URL: "https://issuer.test/.well-known/openid-configuration", Discovery: true}
			f := running(t, p)
			f.Want(map[mesh.KeySource]time.Duration{at: time.Second})
			f.Await(t.Context(), time.Minute)
			if f.Keys()[at] != firstSet {
				t.Errorf("keys %v, failures %v", f.Keys(), f.Failures())
			}
		})
	})
	t.Run("what is not wanted any more is not fetched", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPlaces()
			p.put(keysURL, firstSet)
			f := running(t, p)
			f.Want(map[mesh.KeySource]time.Duration{wanted: 0})
			f.Await(t.Context(), time.Minute)
			f.Want(nil)
			time.Sleep(time.Hour)
			if n := p.called(keysURL); n != 1 || len(f.Keys()) != 0 {
				t.Errorf("called %d times, keys %v", n, f.Keys())
			}
		})
	})
	t.Run("what is too much is left out", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPlaces()
			f := running(t, p)
			all := map[mesh.KeySource]time.Duration{}
			for i := range maxSources + 5 {
				url := fmt.Sprintf("https://keys.test/%d", i)
				p.put(url, firstSet)
				all[mesh.KeySource{URL: url}] = 0
			}
			f.Want(all)
			f.Await(t.Context(), time.Minute)
			synctest.Wait()
			if len(f.Keys()) != maxSources {
				t.Errorf("%d key sets", len(f.Keys()))
			}
		})
	})
}

func TestAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter)
		want   string
	}{
		"no keys":        {func(w http.ResponseWriter) { fmt.Fprint(w, `{"keys":[]}`) }, "has no keys"},
		"no JSON":        {func(w http.ResponseWriter) { fmt.Fprint(w, "<html>") }, "not a JSON Web Key Set"},
		"not found":      {func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) }, "404"},
		"too large":      {func(w http.ResponseWriter) { fmt.Fprint(w, strings.Repeat(" ", maxBytes+1)) }, "larger than"},
		"sent on always": {func(w http.ResponseWriter) { w.Header().Set("Location", "/"); w.WriteHeader(http.StatusFound) }, "too often"},
	} {
		t.Run("PO-007 "+name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { c.answer(w) }))
			defer server.Close()
			client := NewClient(nil)
			defer client.CloseIdleConnections()
			f := New(Options{Client: client, Log: slog.New(slog.DiscardHandler)})
			if _, err := f.fetch(t.Context(), mesh.KeySource{URL: server.URL}, 30*time.Second); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestBlocked(t *testing.T) {
	var calls atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls.Add(1) }))
	defer server.Close()
	f := New(Options{Client: NewClient([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}), Log: slog.New(slog.DiscardHandler)})
	t.Run("SX-021 addresses that are blocked are not called", func(t *testing.T) {
		_, err := f.fetch(t.Context(), mesh.KeySource{URL: server.URL}, 30*time.Second)
		if err == nil || !strings.Contains(err.Error(), "not to be called") || calls.Load() != 0 {
			t.Errorf("got %v after %d calls", err, calls.Load())
		}
	})
}

func FuzzDocuments(f *testing.F) {
	for _, text := range []string{firstSet, `{"keys":[{}]}`, `{"jwks_uri":"https://a.test/k"}`, `{"keys":null}`, "[]", ""} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if set, err := keySet(text); err == nil {
			if again, err := keySet([]byte(set)); err != nil || again != set {
				t.Errorf("%q becomes %q, then %q: %v", text, set, again, err)
			}
		}
		if at, err := keysOf(text); err == nil && !strings.HasPrefix(at, "http") {
			t.Errorf("%q", at)
		}
	})
}

// Keys that say who a caller is come by no wire that others write on.
func TestHTTPSOnly(t *testing.T) {
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it is called") }))
	defer plain.Close()
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/keys":
			_, _ = w.Write([]byte(`{"keys":[{"kid":"k"}]}`))
		case "/document":
			_, _ = w.Write([]byte(`{"jwks_uri":"` + plain.URL + `"}`))
		default:
			http.Redirect(w, r, plain.URL, http.StatusFound)
		}
	}))
	defer secure.Close()
	client := HTTPSOnly(secure.Client())
	for _, tt := range []struct {
		source mesh.KeySource
		ok     bool
	}{
		{mesh.KeySource{URL: secure.URL + "/keys"}, true}, {mesh.KeySource{URL: secure.URL + "/document", Discovery: true}, false},
		{mesh.KeySource{URL: secure.URL + "/away"}, false}, {mesh.KeySource{URL: plain.URL}, false},
	} {
		if _, err := Fetch(t.Context(), client, tt.source); (err == nil) != tt.ok {
			t.Errorf("SX-020 %v: %v", tt.source, err)
		}
	}
}
