package dns

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// counts are the events of a Cache.
type counts struct {
	mu   sync.Mutex
	more *sync.Cond
	n    map[string]int
}

func newCounts() *counts {
	c := &counts{n: map[string]int{}}
	c.more = sync.NewCond(&c.mu)
	return c
}

func (c *counts) add(event string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[event]++
	c.more.Broadcast()
}

// await returns when an event has come so often.
func (c *counts) await(event string, times int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.n[event] < times {
		c.more.Wait()
	}
}

func (c *counts) of(event string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[event]
}

// turning answers with what the test has set last; every question is told.
type turning struct {
	mu    sync.Mutex
	words []string
	asked chan struct{}
}

func (s *turning) set(words ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.words = words
}

func (s *turning) reply(q dnsmessage.Message) [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() {
		select {
		case s.asked <- struct{}{}:
		default:
		}
	}()
	var list []dnsmessage.Resource
	for _, w := range s.words {
		if w == "SERVFAIL" {
			return [][]byte{said(q, func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeServerFailure })}
		}
		r := record(q.Questions[0].Name, w)
		r.Header.TTL = 0
		list = append(list, r)
	}
	return [][]byte{said(q, nil, list...)}
}

func newCache(t *testing.T, s *turning, o CacheOptions) (*Cache, *counts) {
	t.Helper()
	s.asked = make(chan struct{}, 100)
	n := newCounts()
	o.Resolver = New(Options{Servers: []string{liar(t, s.reply)}, NoSearch: true, Tries: 1})
	o.Family, o.Count = V4Only, n.add
	c := NewCache(o)
	t.Cleanup(c.Close)
	return c, n
}

func TestCacheResolves(t *testing.T) {
	s := &turning{words: []string{"10.0.0.1", "10.0.0.2"}}
	c, n := newCache(t, s, CacheOptions{})
	for range 3 {
		got, err := c.Resolve(nil, "a.test")
		if err != nil || len(got) != 2 || got[0] != netip.MustParseAddr("10.0.0.1") {
			t.Fatal(got, err)
		}
	}
	if n.of("dns_query_attempt") != 1 || n.of("host_added") != 1 || n.of("host_address_changed") != 1 {
		t.Errorf("events %v, want one lookup", n.n)
	}
	if c.Known("a.test") == nil || c.Known("b.test") != nil || c.Len() != 1 {
		t.Error("what is known is not what was asked for")
	}
}

// A name that was resolved stays so, whatever the server says later.
func TestCacheKeepsTheLastGoodAnswer(t *testing.T) {
	s := &turning{words: []string{"10.0.0.1"}}
	c, n := newCache(t, s, CacheOptions{Refresh: time.Millisecond, MinRefresh: time.Millisecond, FailBase: time.Millisecond})
	if _, err := c.Resolve(nil, "a.test"); err != nil {
		t.Fatal(err)
	}
	s.set("SERVFAIL")
	n.await("dns_query_failure", 2)
	if got, err := c.Resolve(nil, "a.test"); err != nil || got[0] != netip.MustParseAddr("10.0.0.1") {
		t.Errorf("%v %v, want the last good answer", got, err)
	}
	s.set("10.0.0.9")
	n.await("host_address_changed", 2)
	// The counter is told before the answer is in force.
	for c.Known("a.test")[0] != netip.MustParseAddr("10.0.0.9") {
		<-s.asked
	}
}

func TestCacheLimits(t *testing.T) {
	t.Run("names", func(t *testing.T) {
		c, n := newCache(t, &turning{words: []string{"10.0.0.1"}}, CacheOptions{MaxHosts: 1})
		if _, err := c.Resolve(nil, "a.test"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Resolve(nil, "b.test"); !errors.Is(err, ErrFull) || n.of("host_overflow") != 1 {
			t.Errorf("error %v, want ErrFull", err)
		}
	})
	t.Run("who waits", func(t *testing.T) {
		silent := &turning{asked: make(chan struct{}, 100)}
		c := NewCache(CacheOptions{MaxPending: 1, Resolver: New(Options{NoSearch: true,
			Servers: []string{liar(t, func(q dnsmessage.Message) [][]byte { silent.reply(q); return nil })}})})
		defer c.Close()
		done := make(chan struct{})
		var first sync.WaitGroup
		first.Go(func() {
			if _, err := c.Resolve(done, "a.test"); !errors.Is(err, context.Canceled) {
				t.Errorf("error %v of one who left", err)
			}
		})
		for c.pending.Load() == 0 {
			<-silent.asked
		}
		if _, err := c.Resolve(nil, "b.test"); !errors.Is(err, ErrBusy) {
			t.Errorf("error %v, want ErrBusy", err)
		}
		close(done)
		first.Wait()
	})
}

func TestCacheForgets(t *testing.T) {
	t.Run("names that nobody asks for", func(t *testing.T) {
		s := &turning{words: []string{"10.0.0.1"}}
		c, n := newCache(t, s, CacheOptions{Refresh: time.Millisecond, MinRefresh: time.Millisecond, TTL: time.Nanosecond})
		if _, err := c.Resolve(nil, "a.test"); err != nil {
			t.Fatal(err)
		}
		n.await("host_removed", 1)
		if c.Len() != 0 {
			t.Error("it is still there")
		}
	})
	t.Run("failures, if told so", func(t *testing.T) {
		c, _ := newCache(t, &turning{}, CacheOptions{ForgetFailures: true})
		if _, err := c.Resolve(nil, "a.test"); !errors.Is(err, ErrNotFound) {
			t.Fatalf("error %v", err)
		}
		if c.Len() != 0 {
			t.Error("a name without addresses is kept")
		}
	})
	t.Run("but not failures otherwise", func(t *testing.T) {
		c, n := newCache(t, &turning{}, CacheOptions{})
		for range 2 {
			if _, err := c.Resolve(nil, "a.test"); !errors.Is(err, ErrNotFound) {
				t.Fatalf("error %v", err)
			}
		}
		if n.of("dns_query_attempt") != 1 {
			t.Error("asked again before its time")
		}
	})
}
