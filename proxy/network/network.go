// Package network holds the L4 filters: what a connection meets after its
// filter chain is chosen and its transport socket is set up.
package network

import (
	"context"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

// A Conn is an accepted downstream connection on its way through the filters.
type Conn struct {
	transport.Conn
	// Info are the facts of the connection; a terminal filter with streams of its own
	// copies them.
	Info *streaminfo.Info
	// Greeting is what the terminal filter's Greet has returned for this connection; nil when
	// it was not asked. It is then the filter's.
	Greeting Greeting
	// Draining is closed when the listener or the proxy drains: idle connections end,
	// busy ones finish what they do and end.
	Draining <-chan struct{}
	// Stale reports that the configuration of this connection's chain has changed: new
	// connections get another one. A terminal filter with streams of its own ends the
	// connection in an orderly way after the stream that it is at, so that changed policy
	// does not stop at open connections. Nil where there is no listener.
	Stale func() bool
	// Relaying, where a filter has set it, is called by a terminal filter that moves bytes,
	// once it is connected upstream: from then on Info stays as it is until the end, but for
	// what filters find out about the first bytes (Change), and
	// progress tells the bytes so far, to any goroutine.
	Relaying func(progress func() (received, sent uint64))

	mu       sync.Mutex // of Change, Look and End
	settled  bool
	approved atomic.Bool

	reviews sync.Mutex     // held while streams is called
	streams func(Terminal) // of OnReview, nil before
	latest  Terminal       // of the last Review, nil before
}

// OnReview is for a terminal filter with streams of its own: f is called, from any goroutine but
// never twice at a time, with the terminal filter whose policies hold for the streams of the
// connection from now on. That is the one that serves it, by changed configuration of its own,
// or that of a later configuration of the chain.
func (c *Conn) OnReview(f func(Terminal)) {
	c.reviews.Lock()
	defer c.reviews.Unlock()
	c.streams = f
	if c.latest != nil {
		f(c.latest)
	}
}

// Review tells the terminal filter whose policies hold for its streams.
func (c *Conn) Review(t Terminal) {
	c.reviews.Lock()
	defer c.reviews.Unlock()
	c.latest = t
	if c.streams != nil {
		c.streams(t)
	}
}

// Approve says that the filters of the chain's latest configuration let the connection go on:
// those that it has come by need not be asked any more.
func (c *Conn) Approve() { c.approved.Store(true) }

// Approved reports whether Approve was called.
func (c *Conn) Approved() bool { return c.approved.Load() }

// Change lets f change Info while the terminal filter moves bytes, from the goroutine that
// reads them.
func (c *Conn) Change(f func(*streaminfo.Info)) { c.under(f) }

// Look lets f read Info while the terminal filter moves bytes, from any goroutine.
func (c *Conn) Look(f func(*streaminfo.Info)) { c.under(f) }

// End is Change from any goroutine, by who is about to end the connection; it is lost when
// the terminal filter has ended by itself.
func (c *Conn) End(f func(*streaminfo.Info)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.settled {
		f(c.Info)
	}
}

// Settle says that no more bytes are moved: who calls it, before it logs, has Info for itself.
func (c *Conn) Settle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settled = true
}

func (c *Conn) under(f func(*streaminfo.Info)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(c.Info)
}

// A Filter sees each connection of its chain. Shared by all of them.
type Filter interface {
	// OnConnect runs before the terminal filter; false closes the connection.
	OnConnect(*Conn) bool
}

// A Closer is a Filter that hears of the end of each connection that it has let through.
type Closer interface {
	OnClose(*Conn)
}

// A Reviewer is a Filter whose verdict on a connection changes with its configuration.
type Reviewer interface {
	// Review reports whether a connection that has come by an earlier configuration of the chain
	// may go on, and why not. Info has the facts of the connection and is not changed.
	Review(*streaminfo.Info) (details string, ok bool)
}

// A Terminal filter owns the connection until Serve returns; the caller then closes it.
type Terminal interface {
	Serve(ctx context.Context, c *Conn)
}

// A Greeter is a Terminal that can connect upstream before the client has said anything,
// for protocols in which the server speaks first.
type Greeter interface {
	// Greet connects for the connection that info describes, which it does not change. It
	// returns nil when that fails: what the client says may lead elsewhere.
	Greet(ctx context.Context, info *streaminfo.Info) Greeting
}

// A Greeting is a connection upstream that a Greeter has made. It is closed, or given to
// the Greeter with the connection downstream.
type Greeting interface {
	// Await returns nil when the server has spoken, an error when it has ended or after Hush.
	Await() error
	// Hush ends Await, now or later.
	Hush()
	Close()
}

// A Refuser is a Terminal that hears of connections whose transport socket could not be
// set up: it logs them and serves none.
type Refuser interface {
	Refused(*streaminfo.Info)
}

// A Denier is a Terminal that hears of connections that a filter before it has not let
// through: it logs them and serves none.
type Denier interface {
	Denied(*streaminfo.Info)
}

// A Factory compiles the configuration of a network filter. What New returns is a
// Filter or a Terminal. Warm, if not nil, is closed when the filter may take traffic
// (its route configuration has arrived).
type Factory struct {
	Name     string
	TypeURLs []string
	New      func(cfg *anypb.Any, env Env) (Built, error)
}

// Built is a compiled network filter.
type Built struct {
	Filter   Filter
	Terminal Terminal
	Warm     <-chan struct{} // nil: at once
	Close    func()          // gives up subscriptions when the chain is gone; nil: nothing to do
}

// Env is what network filter factories may use of the listener around them.
type Env struct {
	Direction string // traffic_direction
	Listener  string // name of the listener
	// StatPrefix is what the names of the listener's stats begin with, "listener.<address>.".
	StatPrefix string
	// Changed says that the filter has got another configuration by itself (routes, a discovered
	// filter): what it has let through is reviewed soon. It returns at once and may be called from
	// any goroutine. Nil where there is no listener.
	Changed func()
}
