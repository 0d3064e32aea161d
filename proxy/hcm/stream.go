package hcm

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/http1"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/tracing"
)

// A stream is one exchange of a connection with what it needs; the next exchange uses
// it again.
type stream struct {
	http.Stream
	c      *conn
	table  *route.Table // in force when the stream began
	target route.Target
	facts  route.Facts
	random uint64
	body   http.Bytes
	span   tracing.Span

	routed      bool // target is of the request as it is
	isLocal     bool // the response is the proxy's own
	closing     bool // the connection ends with the stream
	internal    bool // the client is one of ours
	decorated   bool // the client named the operation itself
	informed    bool // a 1xx head of the upstream was handed on
	headWritten bool
	broken      bool // the response broke off, or could not be written
	tunnel      bool // the connection carries another protocol
}

// begin makes st ready for the request that was read.
func (st *stream) begin() {
	c := st.c
	st.Begin(st, len(c.m.chain), c.left)
	info := c.nc.Info
	st.Info = *info
	st.Info.Reset()
	st.Info.Start = c.codec.Started()
	st.Info.Protocol = "HTTP/1.1"
	st.table = c.m.routes.table.Load()
	st.target = route.Target{Decision: route.Decision{Table: st.table}}
	st.routed, st.internal, st.isLocal, st.closing, st.decorated, st.informed, st.headWritten, st.broken = false, false, false, false, false, false, false, false
	st.Response.Status, st.Response.Body = 0, http.NoBody
	c.m.stats.rqTotal.Inc()
	c.m.stats.rqHTTP1.Inc()
	c.m.stats.rqActive.Inc()
}

// run answers the request; false: the connection ends.
func (st *stream) run() bool {
	if r, ok := st.prepare(); ok {
		st.local(r)
		st.respond(len(st.c.m.chain))
	} else {
		st.filters()
	}
	return st.finish()
}

// prepare checks and completes the request; ok says that it is answered already.
func (st *stream) prepare() (r http.Reply, ok bool) {
	m, req := st.c.m, &st.Request
	if st.c.codec.HTTP10() {
		st.Info.Protocol = "HTTP/1.0"
	}
	connect := string(req.Method) == "CONNECT"
	switch {
	case req.Authority == nil:
		return http.Reply{Status: 400, Details: "missing_host_header", GRPCStatus: -1, Close: true}, true
	case !connect && (len(req.Path) == 0 || req.Path[0] != '/'):
		m.stats.rqNonRelative.Inc()
		return http.Reply{Status: 404, Details: "absolute_path_rejected", GRPCStatus: -1}, true
	}
	if !connect {
		switch m.path.apply(&st.Stream) {
		case pathRejected:
			m.stats.rqFailedPath.Inc()
			return http.Reply{Status: 400, Details: "path_normalization_failed", GRPCStatus: -1, Close: true}, true
		case pathRedirected:
			m.stats.rqRedirectedPath.Inc()
			to := []http.Field{{Name: []byte("location"), Value: req.Path}}
			return http.Reply{Status: 307, Details: "path_normalization_failed", GRPCStatus: -1, Prepend: to}, true
		}
	}
	st.mutate()
	st.Refresh()
	if req.Upgrade != nil && !st.mayUpgrade() {
		m.stats.rqWS.Inc()
		return http.Reply{Status: 403, Details: "upgrade_failed", GRPCStatus: -1}, true
	}
	if !m.proxy100 && st.c.codec.ExpectsContinue() {
		req.Headers.Remove("expect")
		if !req.Body.Done() {
			return r, st.inform(&http.Response{Status: 100}) != nil
		}
	}
	return r, false
}

// mutate applies the edge rules, certificates and the request id.
func (st *stream) mutate() {
	c := st.c
	m, s := c.m, &st.Stream
	atEdge, internal := m.edge.apply(c, s)
	st.internal = internal
	h := &s.Request.Headers
	if len(m.via) > 0 {
		appendVia(s, h, m.via)
	}
	if m.userAgent != nil {
		h.Set("x-envoy-downstream-service-cluster", m.userAgent)
		if len(m.node) > 0 {
			h.Set("x-envoy-downstream-service-node", m.node)
		}
		if !h.Has("user-agent") {
			h.Set("user-agent", m.userAgent)
		}
	}
	m.requestID.apply(m, s, atEdge)
	m.xfcc.apply(c, s)
}

func appendVia(s *http.Stream, h *http.Headers, via []byte) {
	before := h.Get("via")
	if len(before) == 0 {
		h.Set("via", via)
		return
	}
	h.Set("via", s.Keep(append(append(append(s.Scratch(), before...), ", "...), via...)))
}

// mayUpgrade reports that the connection manager and the route allow the protocol.
func (st *stream) mayUpgrade() bool {
	name := lower(st.Request.Upgrade)
	if st.target.Route != nil && st.target.Route.Forward != nil {
		if on, set := st.target.Route.Forward.Upgrades[string(name)]; set {
			return on
		}
	}
	return st.c.m.upgrades[string(name)]
}

func lower(b []byte) []byte {
	out := make([]byte, len(b))
	for i, c := range b {
		out[i] = http.Lower(c)
	}
	return out
}

// ClearRoute forgets the route; the next filter finds one chosen anew.
func (st *stream) ClearRoute() { st.routed = false }

// Tunnel ends the reading ahead, so that the bytes of the other protocol can be read.
func (st *stream) Tunnel() {
	st.tunnel = true
	st.c.m.stats.upgradesTotal.Inc()
	st.c.m.stats.upgradesActive.Inc()
	st.c.watch.tunnel()
}

// StopBody ends a blocked read of the request's body.
func (st *stream) StopBody() {
	st.closing = true
	_ = st.c.nc.SetReadDeadline(past) // a closed connection reads no more either
}

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// Inform sends a 1xx head of the upstream downstream: the first one, and only where
// proxy_100_continue says so, as Envoy does. An upstream cannot flood a client.
func (st *stream) Inform(r *http.Response) error {
	if !st.c.m.proxy100 || st.informed {
		return nil
	}
	st.informed = true
	return st.inform(r)
}

func (st *stream) inform(r *http.Response) error {
	if err := st.c.codec.WriteHead(r, true); err != nil {
		return err
	}
	return st.c.codec.Flush()
}

// Refresh chooses the route of the request.
func (st *stream) Refresh() {
	if st.routed {
		return
	}
	st.routed = true
	st.Route = nil
	st.Info.RouteName, st.Info.VirtualHost, st.Info.Cluster = "", "", ""
	st.c.watch.routeIdle(-1)
	st.target = route.Target{Decision: route.Decision{Table: st.table}}
	if st.table == nil {
		return
	}
	st.random = rand.Uint64()
	c := st.c
	st.facts = route.Facts{Request: &st.Request, Random: st.random, TLS: c.tls, SourceIP: c.sourceIP,
		PeerPresented: c.mutual, PeerValidated: c.mutual, Metadata: st.Info.Metadata}
	st.target.Aim(st.table.Select(&st.facts, nil), st.random, c.header)
	c.m.overrides(&st.Stream, &st.target)
	t := &st.target
	if t.VirtualHost != nil {
		st.Info.VirtualHost = t.VirtualHost.Name
	}
	if t.Route == nil {
		return
	}
	st.Route = t
	st.Info.RouteName = t.Route.Name
	if t.Route.Forward != nil {
		c.watch.routeIdle(t.Route.Forward.IdleTimeout)
	}
	if t.Cluster != "" && (c.m.hasCluster == nil || c.m.hasCluster(t.Cluster)) {
		st.Info.Cluster = t.Cluster
	}
	st.decorate()
}

// decorate names the operation: outbound to the upstream, inbound to the client.
func (st *stream) decorate() {
	if st.c.m.sampling == nil {
		return
	}
	h := &st.Request.Headers
	switch op := st.target.Route.Decorator; {
	case st.c.m.ingress:
		if h.Has("x-envoy-decorator-operation") {
			st.decorated = true
			h.Remove("x-envoy-decorator-operation")
		}
	case op != "":
		h.Set("x-envoy-decorator-operation", st.Keep(append(st.Scratch(), op...)))
	}
}

// filters runs the chain until a filter has the answer.
func (st *stream) filters() {
	chain := st.c.m.chain
	st.trace()
	for i := range chain {
		st.Refresh()
		if st.disabled(http.Slot(i)) || chain[i].filter.OnRequest(&st.Stream, http.Slot(i)) == http.Continue {
			continue
		}
		if r, ok := st.TakeReply(); ok {
			if st.bodyFailed() {
				return
			}
			st.local(r)
			st.respond(len(chain))
			return
		}
		if st.Response.Status == 0 {
			st.abandoned()
			return
		}
		st.respond(i + 1)
		return
	}
}

// trace begins the stream's span.
func (st *stream) trace() {
	m := st.c.m
	if m.tracer == nil {
		return
	}
	m.tracer.Start(&st.span, &st.Request.Headers, st.Traced, !m.ingress)
	if st.span.Live() {
		st.Trace = &st.span
		st.Info.TraceID = st.Keep(st.span.AppendTraceID(st.Scratch()))
		st.Info.SpanID = st.Keep(st.span.AppendSpanID(st.Scratch()))
	}
}

// disabled reports whether the route says that the filter does not run for it.
func (st *stream) disabled(slot http.Slot) bool {
	_, off := st.Override(slot).(route.Disabled)
	return off
}

// abandoned finds out why there is no answer: the client left, its body was
// malformed, or a time limit passed.
func (st *stream) abandoned() {
	if st.bodyFailed() {
		return
	}
	if why := st.c.watch.expired(); why != nil {
		st.expire(why)
		return
	}
	st.lost()
}

// lost notes that the client has left.
func (st *stream) lost() {
	st.closing, st.broken = true, true
	st.c.remote, st.c.torn = true, true
	st.Info.Flags.Set(streaminfo.DownstreamConnectionTermination)
	st.Info.CodeDetails = "downstream_remote_disconnect"
	st.c.m.stats.rqRxReset.Inc()
}

// bodyFailed answers a request whose body broke off; true when it was the case.
func (st *stream) bodyFailed() bool {
	err := st.c.codec.BodyError()
	var refused *http1.Error
	switch {
	case err == nil, errors.Is(err, os.ErrDeadlineExceeded):
		return false
	case errors.As(err, &refused):
		st.TakeReply()
		st.Request.Headers.Remove("content-type") // the answer is the codec's, never gRPC
		st.c.m.stats.cxProtocolError.Inc()
		st.local(refusal(refused))
		st.respond(len(st.c.m.chain))
	default:
		st.lost()
	}
	return true
}

// refusal is the answer to a message that breaks the protocol.
func refusal(e *http1.Error) http.Reply {
	return http.Reply{Status: e.Status, Body: []byte(http1.ReasonPhrase(e.Status)), Details: e.Details,
		Flag: streaminfo.DownstreamProtocolError, GRPCStatus: -1, Close: true}
}

// expire answers a stream whose time has passed.
func (st *stream) expire(why *limit) {
	if why.flag != 0 {
		st.Info.Flags.Set(why.flag)
	}
	switch n := &st.c.m.stats; why {
	case limitIdle:
		n.rqIdleTimeout.Inc()
	case limitRequest:
		n.rqTimeout.Inc()
	case limitStream:
		n.rqMaxDuration.Inc()
	}
	if st.headWritten {
		st.Info.CodeDetails = why.details
		st.closing, st.broken, st.c.torn = true, true, true
		return
	}
	r := http.Reply{Status: 408, Body: []byte(why.text), Details: why.details, GRPCStatus: -1}
	if why.gateway && st.c.codec.Finished() {
		r.Status = 504
	}
	st.local(r)
	st.respond(len(st.c.m.chain))
}

// copyBody moves the response's body to the client.
func (st *stream) copyBody() {
	body, codec := st.Response.Body, st.c.codec
	for !body.Done() {
		if !body.Ready() {
			if codec.Flush() != nil {
				st.lost()
				return
			}
		}
		p, err := body.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			st.upstreamFailed(err)
			return
		}
		if codec.WriteBody(p, body.Done() && body.Trailers() == nil) != nil {
			st.lost()
			return
		}
	}
	if !codec.BodyWritten() {
		_ = codec.WriteTrailers(body.Trailers()) // it only gathers
	}
	if codec.Flush() != nil {
		st.lost()
	}
}

// upstreamFailed ends a response that broke off in its body.
func (st *stream) upstreamFailed(err error) {
	_ = st.c.codec.Flush() // what came is the client's; the connection ends anyway
	st.closing, st.broken, st.c.torn = true, true, true
	var reset *http.Reset
	switch {
	case st.Left():
		if why := st.c.watch.expired(); why != nil {
			st.expire(why)
			return
		}
		st.lost()
	case errors.Is(err, os.ErrDeadlineExceeded):
		st.Info.Flags.Set(streaminfo.UpstreamRequestTimeout)
		st.Info.CodeDetails = "response_timeout"
	case errors.As(err, &reset):
		st.Info.Flags.Set(reset.Reason.Flag())
		st.Info.CodeDetails = "upstream_reset_after_response_started{" + reset.Error() + "}"
	default:
		st.Info.CodeDetails = "upstream_reset_after_response_started"
	}
}

// finish ends the exchange: filters are told, it is counted and logged.
func (st *stream) finish() bool {
	c := st.c
	m, codec := c.m, c.codec
	st.Info.BytesReceived, st.Info.BytesSent = codec.Received(), codec.Sent()
	now := time.Now()
	st.Info.End = now
	if st.Info.RequestReceived == 0 && codec.Finished() {
		st.Info.RequestReceived = max(st.Info.UpstreamRequestSent, 1) // with its head, if nothing was sent on
	}
	m.stats.rqActive.Dec()
	if st.tunnel {
		st.tunnel = false
		m.stats.upgradesActive.Dec()
	}
	if st.Info.Code > 0 {
		m.stats.answered(st.Info.Code)
	}
	m.stats.rqTime.Record(uint64(now.Sub(st.Info.Start).Milliseconds()))
	for _, l := range m.loggers {
		l.LogHTTP(&st.Stream)
	}
	for _, slot := range m.enders {
		m.chain[slot].ender.OnEnd(&st.Stream, slot)
	}
	st.Settle()
	keep := !st.closing && !codec.Closes() && codec.Finished() && !st.broken
	st.Finish()
	return keep
}
