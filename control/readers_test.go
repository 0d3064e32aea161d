package control

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lateen-mesh/lateen/control/mesh"
)

// TestReaders: what an API says of accounts that ask for keys, and when it is asked (SX-023).
func TestReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		asked, refusal, away := 0, "", error(nil)
		web := mesh.Reader{Account: "system:serviceaccount:web:gw", Namespace: "web"}
		used := map[mesh.Reader]bool{web: true}
		r := newReaders(func(context.Context, string, string) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			asked++
			return refusal, away
		}, func() map[mesh.Reader]bool { mu.Lock(); defer mu.Unlock(); return maps.Clone(used) }, slog.New(slog.DiscardHandler))
		say := func(said string, err error) { mu.Lock(); defer mu.Unlock(); refusal, away = said, err }
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = r.run(ctx) }()
		check := func(when string, pause time.Duration, want mesh.Readers, changed bool, times int) {
			t.Helper()
			time.Sleep(pause)
			synctest.Wait()
			mu.Lock()
			got := asked
			asked = 0
			mu.Unlock()
			told := false
			select {
			case <-r.Changed():
				told = true
			default:
			}
			if current := r.current(); !maps.Equal(current, want) || told != changed || got != times {
				t.Errorf("%s: %v, told %v, asked %d times; want %v, told %v, asked %d times", when, current, told, got, want, changed, times)
			}
		}
		say("", errors.New("no route"))
		check("nobody wants keys", time.Hour, mesh.Readers{}, false, 0)
		r.want(web)
		check("the API is away", 0, mesh.Readers{web: "no route"}, true, 1)
		say("", nil)
		check("it is back", readerRetry, mesh.Readers{web: ""}, true, 1)
		r.want(web)
		check("one that is known", 0, mesh.Readers{web: ""}, false, 0)
		say("", errors.New("no route"))
		check("it is away again: its last word counts", readerAge, mesh.Readers{web: ""}, false, 1)
		say("no Role allows it", nil)
		check("it says no", readerRetry, mesh.Readers{web: "no Role allows it"}, true, 1)
		check("still no", readerAge, mesh.Readers{web: "no Role allows it"}, false, 1)
		mu.Lock()
		clear(used)
		mu.Unlock()
		check("no proxy is connected", readerAge, mesh.Readers{web: "no Role allows it"}, false, 1)
		check("nor a minute later", readerAge, mesh.Readers{}, true, 0)
	})
}
