package listener

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
)

// A machine around the pod has a listening socket that it hands out.
type machine struct {
	ln    net.Listener
	asked atomic.Int64
	fails atomic.Int64 // so many times before it answers
}

func newMachine(t *testing.T) *machine {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return &machine{ln: ln}
}

// socket is a descriptor of its own for the same socket, as one that came by SCM_RIGHTS.
func (m *machine) socket(context.Context, uint16) (net.Listener, error) {
	m.asked.Add(1)
	if m.fails.Add(-1) >= 0 {
		return nil, errors.New("nobody answers")
	}
	f, err := m.ln.(*net.TCPListener).File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FileListener(f)
}

func wildcard(name, greeting string) string {
	return strings.Replace(address0(name, `"filter_chains": [`+chainNamed("c", greeting, "")+`]`), "127.0.0.1", "0.0.0.0", 1)
}

// TestPublished: a listener with a published port has two sockets and is one listener.
func TestPublished(t *testing.T) {
	m := newMachine(t)
	f := newFixture(t, func(o *Options) { o.Publish = m.socket })
	addr := f.apply(nil, wildcard("l", "one"))
	outer := f.dial(m.ln.Addr().String())
	if got := outer.line(); got != "one" {
		t.Fatal(got)
	}
	inner := f.dial("127.0.0.1" + strings.TrimPrefix(addr, "0.0.0.0"))
	if got := inner.line(); got != "one" {
		t.Fatal(got)
	}
	f.stat("listener.0.0.0.0_0.downstream_cx_total", "2")
	t.Run("a change goes for both and asks no more", func(t *testing.T) {
		f.apply(nil, wildcard("l", "two"))
		if got := f.dial(m.ln.Addr().String()).line(); got != "two" {
			t.Error(got)
		}
		if got := outer.say("still here\n").line(); got != "still here" {
			t.Error(got)
		}
		if n := m.asked.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
	})
	t.Run("the next listener has what waits at the machine's socket", func(t *testing.T) {
		f.apply([]string{"l"})
		waiting := f.dial(m.ln.Addr().String()) // nobody accepts, nobody refuses
		f.apply(nil, wildcard("m", "three"))
		if got := waiting.line(); got != "three" {
			t.Error(got)
		}
	})
}

func TestNotPublished(t *testing.T) {
	for _, c := range []struct {
		name, listener string
		asked          int64
	}{
		{"on one address", address0("l", `"filter_chains": [`+chainNamed("c", "one", "")+`]`), 0},
		{"another port", wildcard("l", "one"), 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var asked atomic.Int64
			done := make(chan struct{}, 1)
			f := newFixture(t, func(o *Options) {
				o.Publish = func(context.Context, uint16) (net.Listener, error) {
					asked.Add(1)
					done <- struct{}{}
					return nil, nil
				}
			})
			addr := f.apply(nil, c.listener)
			if c.asked > 0 {
				<-done
			}
			if got := f.dial(strings.Replace(addr, "0.0.0.0", "127.0.0.1", 1)).line(); got != "one" {
				t.Error(got)
			}
			f.Set.Close()
			if n := asked.Load(); n != c.asked {
				t.Errorf("asked %d times", n)
			}
		})
	}
}

// TestPublishedLater: when nobody answers, the machine is asked again.
func TestPublishedLater(t *testing.T) {
	m := newMachine(t)
	m.fails.Store(1)
	f := newFixture(t, func(o *Options) { o.Publish = m.socket })
	f.apply(nil, wildcard("l", "one"))
	if got := f.dial(m.ln.Addr().String()).line(); got != "one" {
		t.Error(got)
	}
}
