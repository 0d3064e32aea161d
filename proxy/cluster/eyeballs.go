package cluster

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// eyeballsDelay is how long the next address of an endpoint waits for the one before it.
const eyeballsDelay = 300 * time.Millisecond

// dial connects to the endpoint: where it has several addresses, to one after the other,
// the families in turn, until one answers; each gets a head start before the next.
func (h *host) dial(ctx context.Context) (net.Conn, error) {
	d := &h.cluster.config.dialer
	if len(h.ep.More) == 0 {
		return d.Dial(ctx, h.ep.Address, 0)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := race{results: make(chan result)}
	defer r.discard()
	list := inTurn(h.ep.Address, h.ep.More)
	var first error
	for i := 0; i < len(list) || r.running > 0; {
		var delay <-chan time.Time
		if i < len(list) {
			address := list[i]
			r.start(func() (net.Conn, error) { return d.Dial(ctx, address, 0) })
			i++
			t := time.NewTimer(eyeballsDelay)
			defer t.Stop()
			delay = t.C
		}
		conn, err := r.await(delay, i == len(list))
		if conn != nil {
			return conn, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// race is attempts that run at the same time.
type race struct {
	results chan result
	running int
}

type result struct {
	conn net.Conn
	err  error
}

func (r *race) start(dial func() (net.Conn, error)) {
	r.running++
	go func() {
		conn, err := dial()
		r.results <- result{conn, err}
	}()
}

// await returns the first connection, or nil when the next attempt may start: one has
// failed, or delay is over. The last of them is waited for as long as any runs.
func (r *race) await(delay <-chan time.Time, last bool) (net.Conn, error) {
	if last {
		delay = nil
	}
	select {
	case x := <-r.results:
		r.running--
		return x.conn, x.err
	case <-delay:
		return nil, nil
	}
}

// discard closes what comes too late.
func (r *race) discard() {
	if r.running == 0 {
		return
	}
	n, results := r.running, r.results
	go func() {
		for range n {
			if x := <-results; x.conn != nil {
				_ = x.conn.Close()
			}
		}
	}()
}

// inTurn orders addresses so that the families alternate, beginning with that of the first.
func inTurn(first string, more []string) []string {
	var queues [2][]string // those of the first's family, and the others
	six := isSix(first)
	for _, a := range more {
		i := 0
		if isSix(a) != six {
			i = 1
		}
		queues[i] = append(queues[i], a)
	}
	list := []string{first}
	for turn := 1; len(queues[0])+len(queues[1]) > 0; turn++ {
		if q := &queues[turn%2]; len(*q) > 0 {
			list = append(list, (*q)[0])
			*q = (*q)[1:]
		}
	}
	return list
}

func isSix(address string) bool {
	a, err := netip.ParseAddrPort(address)
	return err == nil && a.Addr().Is6()
}
