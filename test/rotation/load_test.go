package rotation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lateen-mesh/lateen/test/fixture"
	"github.com/lateen-mesh/lateen/test/traffic"
)

// patience bounds a request, on a busy machine too.
const patience = time.Minute

// A load is requests at a constant rate, of all kinds, from each member to each other.
type load struct {
	m    *mesh
	stop context.CancelFunc
	done chan struct{}

	asked    atomic.Int64
	mu       sync.Mutex
	underWay map[int]bool // by number
	last     int          // the newest number
	counts   map[string]int
	failed   []string
}

// A client is one of a kind, of a member.
type client struct {
	kind string
	traffic.Client
}

// clients are those of a member, to another.
func clients(from, to *member) (all []client) {
	url := func(port int) string { return "http://" + at(to, port) + "/" }
	for _, k := range []struct {
		kind string
		traffic.Client
	}{
		{"HTTP/1.1", traffic.HTTP{Dial: from.dial}.Client(url(http1Port))},
		{"HTTP/1.1, connections of a few requests", traffic.HTTP{Once: true, Dial: from.dial}.Client(url(http1ShortPort))},
		{"HTTP/2", traffic.HTTP{HTTP2: true, Dial: from.dial}.Client(url(http2Port))},
		{"HTTP/2, connections of a few requests", traffic.HTTP{HTTP2: true, Dial: from.dial}.Client(url(http2ShortPort))},
		{"TCP, one connection", traffic.Bytes(from.dial, at(to, tcpPort))},
		{"TCP, a connection each", traffic.BytesOnce(from.dial, at(to, tcpPort))},
	} {
		all = append(all, client{k.kind + ", " + from.name + " to " + to.name, k.Client})
	}
	return all
}

func at(p *member, port int) string { return net.JoinHostPort(p.vip(), strconv.Itoa(port)) }

// load begins one.
func (m *mesh) load() *load {
	m.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	l := &load{m: m, stop: stop, done: make(chan struct{}), counts: map[string]int{}, underWay: map[int]bool{}}
	var all []client
	for _, from := range m.members {
		for _, to := range m.members {
			if from != to {
				all = append(all, clients(from, to)...)
			}
		}
	}
	go func() {
		defer close(l.done)
		traffic.AtRate(ctx, *rate, func(n int) func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.underWay[n], l.last = true, n
			return func() { l.ask(n, all[n%len(all)]) }
		})
		for _, c := range all {
			c.Close()
		}
	}()
	m.t.Cleanup(l.end)
	return l
}

func (l *load) ask(n int, c client) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := c.Ask(ctx)
	l.asked.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.underWay, n)
	l.counts[strings.Split(c.kind, ", ")[0]]++
	if err != nil {
		l.failed = append(l.failed, fmt.Sprintf("%s %s: %v", time.Now().Format("15:04:05.000"), c.kind, err))
	}
}

// passed waits until all requests have their answers that are under way now.
func (l *load) passed() {
	l.m.t.Helper()
	l.mu.Lock()
	last := l.last
	l.mu.Unlock()
	fixture.Eventually(l.m.t, "requests that are under way have their answers", func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		for n := range l.underWay {
			if n <= last {
				return fmt.Errorf("request %d has none", n)
			}
		}
		return nil
	})
}

// more waits until so many requests more have their answers.
func (l *load) more(n int64) {
	l.m.t.Helper()
	enough := l.asked.Load() + n
	fixture.Eventually(l.m.t, "requests are answered", func() error {
		if l.asked.Load() < enough {
			return errors.New("not enough")
		}
		return nil
	})
}

// end stops the load when all under way is answered.
func (l *load) end() {
	l.stop()
	<-l.done
}

// report fails the test for each request and each handshake that has failed.
func (l *load) report(t *testing.T) {
	t.Helper()
	l.end()
	servers, clients := 0, 0
	for _, p := range l.m.members {
		s, c := p.handshakes(t)
		servers, clients = servers+s, clients+c
	}
	t.Logf("%d requests %v, %d failed; %d handshakes of servers, %d of clients", l.asked.Load(), l.counts, len(l.failed), servers, clients)
	if len(l.failed) > 0 {
		t.Errorf("%d requests failed:\n%s", len(l.failed), strings.Join(l.failed[:min(len(l.failed), 20)], "\n"))
	}
	if least := int(l.asked.Load() / 10); servers < least || clients < least {
		t.Error("this few handshakes are no load")
	}
}

// handshakes counts those of a member's proxy, as server and as client. None may have failed.
func (p *member) handshakes(t *testing.T) (server, client int) {
	t.Helper()
	page, err := p.admin("/stats?filter=" + `^(listener|cluster\.outbound).*(ssl\.|cx_connect_fail)`)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(page) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), ": ")
		value, err := strconv.Atoi(text)
		if err != nil { // a histogram
			continue
		}
		last := name[strings.LastIndexByte(name, '.')+1:]
		switch {
		case last == "handshake" && strings.HasPrefix(name, "listener"):
			server += value
		case last == "handshake":
			client += value
		case value != 0 && (last == "connection_error" || strings.HasPrefix(last, "fail_") || last == "upstream_cx_connect_fail"):
			t.Errorf("%s: %s is %d", p.name, name, value)
		}
	}
	return server, client
}
