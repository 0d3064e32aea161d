package listener

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

// headStart is how long a client is alone in being listened to. One that speaks first
// has done so by then, and costs no connection that it does not need.
const headStart = 50 * time.Millisecond

// A greeting is the upstream side of a connection whose client is silent.
type greeting struct {
	network.Greeting
	chain *chain // for which it was made
}

// hear waits for the first bytes of a connection whose protocol is to be found out: the
// client's, which the inspectors will look at, or the server's. In a protocol where the
// server speaks first a client waits for it, and would do so for ever: after a head start
// for the client the chain of a silent one connects, and whoever speaks first decides.
// Server reports that it was the server. Waiting ends at the deadline, if it is not zero.
func (l *listener) hear(a *accepted, cn *conn, deadline time.Time) (server bool, err error) {
	begin := time.Now().Add(headStart)
	if !deadline.IsZero() && deadline.Before(begin) {
		begin = deadline
	}
	_ = a.raw.SetReadDeadline(begin) // fails on closed sockets, which the look finds out
	defer func() { _ = a.raw.SetReadDeadline(deadline) }()
	err = a.peek.spoken()
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false, nil // the filters find the same
	}
	silent := *a
	silent.transport = "raw_buffer"
	ch := choose(cn.config.chains, cn.config.fallback, &silent, nil)
	if ch == nil {
		return false, nil
	}
	greeter, ok := ch.terminal.(network.Greeter)
	if _, secure := ch.socket.(transport.Owner); !ok || secure {
		return false, nil
	}
	return l.hearBoth(a, cn, ch, greeter, deadline)
}

// hearBoth listens to client and server.
func (l *listener) hearBoth(a *accepted, cn *conn, ch *chain, greeter network.Greeter, deadline time.Time) (server bool, err error) {
	_ = a.raw.SetReadDeadline(deadline)
	ctx, cancel := context.WithCancel(l.set.ctx)
	made, done := make(chan network.Greeting, 1), make(chan bool)
	go func() {
		g := greeter.Greet(ctx, &cn.info)
		made <- g
		spoke := g != nil && g.Await() == nil
		if spoke {
			_ = a.raw.SetReadDeadline(past) // ends the look at the client
		}
		done <- spoke
	}()
	err = a.peek.spoken()
	cancel()
	g := <-made
	if g != nil {
		g.Hush()
		cn.greeting = &greeting{g, ch}
	}
	server = <-done
	if errors.Is(err, os.ErrDeadlineExceeded) && !server {
		return false, err
	}
	return err != nil && server, nil
}

// greeted gives the connection to the chain ch what was connected upstream for it; what
// was connected for another one is given up.
func (c *conn) greeted(ch *chain) {
	if g := c.greeting; g != nil && g.chain == ch {
		c.Greeting, c.greeting = g.Greeting, nil
	}
	c.hush()
}

// hush gives up what nobody took.
func (c *conn) hush() {
	if c.greeting != nil {
		c.greeting.Close()
		c.greeting = nil
	}
}

// past is a deadline that has passed.
var past = time.Unix(1, 0)
