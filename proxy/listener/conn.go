package listener

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

// conn is one connection in the hands of the listener.
type conn struct {
	network.Conn
	raw    net.Conn
	info   streaminfo.Info
	start  *listener // that has accepted it
	config *Config   // in whose hands it is
	group  *group    // of its chain, nil before there is one
	chain  *chain    // with the group
	turn   uint64    // of the group's reviews when the connection came

	admitted bool
	greeting *greeting   // nil: none, or the chain has it
	stop     func() bool // ends the wait for the set's end
	cancel   context.CancelFunc

	reviewing sync.Mutex // held while it is reviewed

	mu    sync.Mutex
	off   bool           // cut: nothing may be set up any more
	ready bool           // the filters have let it through
	state map[string]any // the filter state that they have left
}

// cut ends the connection from outside.
func (c *conn) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off = true
	if c.cancel != nil {
		c.cancel()
	}
	_ = c.raw.Close() // whoever reads or writes finds out
}

// serve is the life of a connection. Its frame and dispatch's lie under every idle
// connection: what they have on the stack is memory that each one costs.
func (l *listener) serve(raw net.Conn) {
	c := l.config()
	if c == nil {
		_ = raw.Close()
		return
	}
	cn := &conn{raw: raw, start: l, config: c}
	defer cn.end()
	if cn.admitted = l.admit(c); cn.admitted {
		cn.stop = context.AfterFunc(l.set.ctx, cn.cut)
		cn.serve(l)
	}
}

// serve runs an admitted connection.
func (c *conn) serve(l *listener) {
	l.arriving.add(c)
	a := newAccepted(c.raw)
	l, ok := l.inspect(a, c)
	if ok {
		l.dispatch(a, c)
	}
	_ = c.raw.Close()
	c.info.End = time.Now()
	for _, logger := range c.config.loggers {
		logger.LogTCP(&c.info)
	}
}

// end gives back what a connection holds. It also keeps a fault in the code of one
// connection from ending all others.
func (c *conn) end() {
	s := c.start.set
	if p := recover(); p != nil {
		s.opts.Log.Error("connection ended by a fault", "fault", p, "stack", string(debug.Stack()))
	}
	_ = c.raw.Close()
	c.hush()
	if c.Greeting != nil {
		c.Greeting.Close()
	}
	c.config.release()
	if c.admitted {
		c.start.arriving.remove(c)
		c.stop()
		s.total.Add(-1)
		c.start.active.Add(-1)
	}
}

// admit counts the connection and reports whether the limits allow it.
func (l *listener) admit(c *Config) bool {
	n, total := l.active.Add(1), l.set.total.Add(1)
	o := &l.set.opts
	switch {
	case o.GlobalLimit > 0 && total > o.GlobalLimit && !c.unlimited:
		c.stats.globalOverflow.Inc()
	case o.ConnectionLimit != nil && o.ConnectionLimit(c.name) > 0 && n > o.ConnectionLimit(c.name):
		c.stats.overflow.Inc()
	default:
		return true
	}
	l.active.Add(-1)
	l.set.total.Add(-1)
	return false
}

func newAccepted(raw net.Conn) *accepted {
	local, remote := addrPort(raw.LocalAddr()), addrPort(raw.RemoteAddr())
	return &accepted{raw: raw, local: local, remote: remote, direct: remote}
}

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := t.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// inspect runs the listener filters, and after a hand-off those of the next listener
// too. It returns the listener that goes on with the connection.
func (l *listener) inspect(a *accepted, cn *conn) (*listener, bool) {
	cn.info.Start = time.Now()
	cn.info.ConnectionID = l.set.ids.Add(1)
	cn.info.DownstreamDirectLocal, cn.info.DownstreamDirectRemote = a.local, a.direct
	for hop := 0; ; hop++ {
		c := cn.config
		ok := l.runFilters(c, a, cn)
		cn.info.DownstreamLocal, cn.info.DownstreamRemote, cn.info.ServerName = a.local, a.remote, a.serverName
		cn.info.LocalRestored, cn.info.DownstreamTold, cn.info.Metadata, cn.info.FilterState = a.restored, a.told, a.metadata, a.state
		if !ok {
			return l, false
		}
		if hop > 0 || !c.handOff || !a.restored {
			break
		}
		next := l.set.restored(a.local)
		if next == nil || next == l {
			break
		}
		nc := next.config()
		if nc == nil {
			break
		}
		c.release()
		l, cn.config = next, nc
	}
	if a.transport == "" {
		a.transport = "raw_buffer"
	}
	return l, true
}

// runFilters reports whether the connection goes on.
func (l *listener) runFilters(c *Config, a *accepted, cn *conn) bool {
	if len(c.filters) == 0 {
		return true
	}
	c.stats.preActive.Inc()
	defer c.stats.preActive.Dec()
	if a.peek == nil {
		p, err := newPeeker(a.raw)
		if err != nil {
			c.stats.filterError.Inc()
			return false
		}
		a.peek = p
	}
	var deadline time.Time
	if c.timeout > 0 {
		deadline = time.Now().Add(c.timeout)
		_ = a.raw.SetReadDeadline(deadline) // fails on closed sockets, which the filters find out
	}
	heard, server := false, false
	for _, f := range c.filters {
		if f.disabled != nil && f.disabled(a) {
			continue
		}
		var err error
		if _, ok := f.listenerFilter.(detector); ok && c.goOn && !heard {
			heard = true
			cn.info.DownstreamLocal, cn.info.DownstreamRemote, cn.info.LocalRestored = a.local, a.remote, a.restored
			server, err = l.hear(a, cn, deadline)
		}
		if server {
			break
		}
		if err == nil {
			err = f.inspect(a)
		}
		if err == nil {
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) && c.goOn {
			c.stats.preTimeout.Inc()
			break
		}
		c.countFilterError(err)
		return false
	}
	_ = a.raw.SetReadDeadline(time.Time{})
	return true
}

func (c *Config) countFilterError(err error) {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.stats.preTimeout.Inc()
	case errors.Is(err, io.EOF):
		c.stats.filterRemoteClose.Inc()
	default:
		c.stats.filterError.Inc()
	}
}

// dispatch finds the chain and lets it serve the connection to its end.
func (l *listener) dispatch(a *accepted, cn *conn) {
	c := cn.config
	ch := choose(c.chains, c.fallback, a, nil)
	cn.greeted(ch)
	if ch == nil {
		c.stats.noMatch.Inc()
		cn.info.Flags.Set(streaminfo.NoRouteFound)
		cn.info.CodeDetails = "filter_chain_not_found"
		return
	}
	if ch.terminal == nil { // a chain without filters closes, as in Envoy
		return
	}
	cn.info.FilterChain = ch.name
	if ctx := cn.arm(); ctx != nil {
		cn.join(ch)
		defer cn.leave()
		ch.serve(ctx, cn)
	}
}

// arm makes the context of what is set up; nil when the connection was cut before. It
// ends when the connection is cut, and so with the set.
func (c *conn) arm() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cancel = cancel
	if c.off {
		cancel()
		return nil
	}
	return ctx
}

// join makes c a connection of the chain.
func (c *conn) join(ch *chain) {
	c.group, c.chain = ch.group.Load(), ch
	c.turn = c.group.turn.Load()
	c.group.join(c)
	c.config.stats.total.Inc()
	c.config.stats.active.Inc()
}

func (c *conn) leave() {
	if c.Conn.Conn != nil {
		_ = c.Close() // the terminal filter has ended the stream by its own rules
	}
	stats := c.config.stats
	stats.active.Dec()
	stats.destroy.Inc()
	stats.length.Record(uint64(time.Since(c.info.Start).Milliseconds()))
	c.group.leave(c)
	c.cancel()
}

// serve sets up the transport socket and runs the filters.
func (ch *chain) serve(ctx context.Context, cn *conn) {
	if ch.handshakeConn(ctx, cn.config, cn, cn.group) {
		cn.start.arriving.remove(cn)
		ch.run(ctx, cn)
	}
}

// handshakeConn sets up the transport socket.
func (ch *chain) handshakeConn(ctx context.Context, c *Config, cn *conn, g *group) bool {
	hctx := ctx
	if ch.handshake > 0 {
		var cancel context.CancelFunc
		hctx, cancel = context.WithTimeout(ctx, ch.handshake)
		defer cancel()
	}
	tc, err := ch.socket.Accept(hctx, cn.raw, nil)
	if err != nil {
		if hctx.Err() == context.DeadlineExceeded {
			c.stats.handshakeTimeout.Inc()
			cn.info.TerminationDetails = "transport socket timeout was reached"
		}
		ch.refuse(cn, g.set, err)
		return false
	}
	cn.Conn = network.Conn{Conn: tc, Info: &cn.info, Greeting: cn.Greeting, Draining: g.drain, Stale: func() bool { return g.stale(ch) || g.set.failing() }}
	if st := tc.TLS(); st != nil {
		ch.describeTLS(&cn.info, st)
	}
	return true
}

// refuse tells the terminal filter of a connection that it will not see. One that writes no log
// of connections leaves it to the proxy's own.
func (ch *chain) refuse(cn *conn, s *Set, err error) {
	failure, isTLS := errors.AsType[*transport.Error](err)
	r, ok := ch.terminal.(network.Refuser)
	if !ok {
		if isTLS && failure.Reason != "" {
			s.refused(cn, failure.Reason)
		}
		return
	}
	if isTLS {
		cn.info.DownstreamFailureReason = failure.Reason
		if failure.TLS != nil {
			ch.describeTLS(&cn.info, failure.TLS)
		}
	}
	r.Refused(&cn.info)
}

// refusedQuiet keeps strangers from filling the log.
const refusedQuiet = time.Second

// refused writes down who was refused in the handshake, of many one in a while.
func (s *Set) refused(cn *conn, reason string) {
	now, last := time.Now().UnixNano(), s.saidRefused.Load()
	if now-last < int64(refusedQuiet) || !s.saidRefused.CompareAndSwap(last, now) {
		s.unsaid.Add(1)
		return
	}
	s.opts.Log.Warn("handshake refused", "listener", cn.config.name, "peer", cn.info.DownstreamDirectRemote.String(), "reason", reason, "others_meanwhile", s.unsaid.Swap(0))
}

// describeTLS records what logs and policies ask about the handshake.
func (ch *chain) describeTLS(i *streaminfo.Info, st *tls.ConnectionState) {
	i.TLSVersion = "TLSv1.2" // what BoringSSL takes a handshake for until it knows better
	if st.Version != 0 {
		i.TLSVersion = transport.VersionName(st.Version)
	}
	if st.CipherSuite != 0 {
		i.TLSCipher = transport.CipherName(st.CipherSuite)
	}
	if o, ok := ch.socket.(transport.Owner); ok {
		i.LocalURISANs = o.URIs()
	}
	if len(st.PeerCertificates) == 0 {
		return
	}
	peer := transport.Describe(st.PeerCertificates[0])
	i.Peer, i.PeerSubject, i.PeerIssuer, i.PeerDNSSANs, i.PeerURISANs = peer.X509, peer.Subject, peer.Issuer, peer.DNS, peer.URIs
}

func (ch *chain) run(ctx context.Context, cn *conn) {
	for _, f := range ch.filters {
		if !f.OnConnect(&cn.Conn) {
			if d, ok := ch.terminal.(network.Denier); ok {
				d.Denied(&cn.info)
			}
			return
		}
		if x, ok := f.(network.Closer); ok {
			defer x.OnClose(&cn.Conn)
		}
	}
	cn.reviewed(ch)
	ch.terminal.Serve(ctx, &cn.Conn)
	cn.Settle()
}
