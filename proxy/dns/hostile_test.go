package dns

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// liar serves UDP with whatever reply makes of a question, nil for silence.
func liar(t *testing.T, reply func(q dnsmessage.Message) [][]byte) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		buf := make([]byte, 2000)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			var q dnsmessage.Message
			if q.Unpack(buf[:n]) != nil {
				continue
			}
			for _, m := range reply(q) {
				_, _ = c.WriteTo(m, from)
			}
		}
	})
	t.Cleanup(func() { _ = c.Close(); running.Wait() })
	return c.LocalAddr().String()
}

// said is an answer to q with records.
func said(q dnsmessage.Message, change func(*dnsmessage.Message), records ...dnsmessage.Resource) []byte {
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: q.ID, Response: true}, Questions: q.Questions, Answers: records}
	if change != nil {
		change(&m)
	}
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

func TestHostileServers(t *testing.T) {
	name := dnsmessage.MustNewName("a.test.")
	good, evil := record(name, "10.0.0.1"), record(name, "6.6.6.6")
	many := func(n int) (list []dnsmessage.Resource) {
		for range n {
			list = append(list, good)
		}
		return list
	}
	loop := record(name, "a.test.")
	for _, c := range []struct {
		name  string
		reply func(q dnsmessage.Message) [][]byte
		want  string // the address, or a part of the error
	}{
		{"silence", func(dnsmessage.Message) [][]byte { return nil }, "i/o timeout"},
		{"another id, then the truth", func(q dnsmessage.Message) [][]byte {
			return [][]byte{said(q, func(m *dnsmessage.Message) { m.ID++ }, evil), said(q, nil, good)}
		}, "10.0.0.1"},
		{"another name, then the truth", func(q dnsmessage.Message) [][]byte {
			return [][]byte{said(q, func(m *dnsmessage.Message) {
				m.Questions = []dnsmessage.Question{{Name: dnsmessage.MustNewName("b.test."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}
			}, evil), said(q, nil, good)}
		}, "10.0.0.1"},
		{"another type, then the truth", func(q dnsmessage.Message) [][]byte {
			return [][]byte{said(q, func(m *dnsmessage.Message) {
				m.Questions = []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeTXT, Class: dnsmessage.ClassINET}}
			}, evil), said(q, nil, good)}
		}, "10.0.0.1"},
		{"no question at all", func(q dnsmessage.Message) [][]byte {
			return [][]byte{said(q, func(m *dnsmessage.Message) { m.Questions = nil }, evil)}
		}, "i/o timeout"},
		{"a question in place of an answer", func(q dnsmessage.Message) [][]byte {
			return [][]byte{said(q, func(m *dnsmessage.Message) { m.Response = false }, evil)}
		}, "i/o timeout"},
		{"noise", func(dnsmessage.Message) [][]byte { return [][]byte{[]byte("noise"), nil, make([]byte, 1000)} }, "i/o timeout"},
		{"cut in the middle of a record", func(q dnsmessage.Message) [][]byte {
			b := said(q, nil, good, good)
			return [][]byte{b[:len(b)-7]}
		}, "unpacking|insufficient|resource length"},
		{"an alias of itself for ever", func(q dnsmessage.Message) [][]byte { return [][]byte{said(q, nil, loop, loop, loop, loop)} }, "no such host"},
		{"REFUSED", func(q dnsmessage.Message) [][]byte {
			return [][]byte{said(q, func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeRefused })}
		}, "RCodeRefused"},
		{"FORMERR", func(q dnsmessage.Message) [][]byte {
			return [][]byte{said(q, func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeFormatError })}
		}, "RCodeFormatError"},
		{"no more than fit", func(q dnsmessage.Message) [][]byte { return [][]byte{said(q, nil, many(60)...)} }, "10.0.0.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := New(Options{Servers: []string{liar(t, c.reply)}, NoSearch: true, Tries: 1, Timeout: 300 * time.Millisecond})
			a, err := r.Lookup(t.Context(), "a.test", V4Only)
			if err == nil {
				if got := a.Addresses[0].String(); got != c.want {
					t.Fatalf("believed %s, want %s", got, c.want)
				}
				return
			}
			for want := range strings.SplitSeq(c.want, "|") {
				if strings.Contains(err.Error(), want) {
					return
				}
			}
			t.Errorf("error %v, want %q", err, c.want)
		})
	}
}

// A huge answer comes by TCP; no more than maxAddresses of it are kept.
func TestHugeAnswer(t *testing.T) {
	words := []string{"CUT"}
	for range 3000 {
		words = append(words, "10.0.0.1")
	}
	s := newServer(t, map[string][]string{"A a.test.": words})
	a, err := New(Options{Servers: []string{s.addr}, NoSearch: true, Tries: 1}).Lookup(t.Context(), "a.test", V4Only)
	if err != nil || len(a.Addresses) != maxAddresses {
		t.Errorf("%d addresses, %v; want %d", len(a.Addresses), err, maxAddresses)
	}
}

// An answer of TTL 0 holds for the one who asked only.
func TestTTLZero(t *testing.T) {
	var asked atomic.Int32
	addr := liar(t, func(q dnsmessage.Message) [][]byte {
		asked.Add(1)
		r := record(q.Questions[0].Name, "10.0.0.1")
		r.Header.TTL = 0
		return [][]byte{said(q, nil, r)}
	})
	r := New(Options{Servers: []string{addr}, NoSearch: true})
	for range 2 {
		if _, err := r.Lookup(t.Context(), "a.test", V4Only); err != nil {
			t.Fatal(err)
		}
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("asked %d times, want 2", n)
	}
}

func TestSlowServerIsGivenUp(t *testing.T) {
	slow := liar(t, func(dnsmessage.Message) [][]byte { return nil })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := New(Options{Servers: []string{slow}, NoSearch: true}).Lookup(ctx, "a.test", V4Only)
	if err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("error %v; a lookup that nobody waits for must end as a failure", err)
	}
}
