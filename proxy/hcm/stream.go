package hcm

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/tracing"
)

// A stream is one exchange of a connection with what it needs; the next exchange uses
// it again.
type stream struct {
	http.Stream
	c      *client
	by     carrier
	codec  http.ServerStream
	table  *route.Table // in force when the stream began
	chain  *chain
	target route.Target
	facts  route.Facts
	random uint64
	body   http.Bytes
	span   tracing.Span
	held   held

	grpc        bool // the client asked in gRPC's terms, whatever filters have made of it
	routed      bool // target is of the request as it is
	isLocal     bool // the response is the proxy's own
	closing     bool // the connection ends with the stream
	internal    bool // the client is one of ours
	decorated   bool // the client named the operation itself
	informed    bool // a 1xx head of the upstream was handed on
	headWritten bool
	broken      bool // the response broke off, or could not be written
	upgraded    bool // another protocol, or a tunnel, was allowed
}

// attach says whose stream it is.
func (st *stream) attach(c *client, by carrier, codec http.ServerStream) {
	st.c, st.by, st.codec = c, by, codec
}

// begin makes st ready for the request that was read; done is closed when its client leaves.
func (st *stream) begin(done <-chan struct{}) {
	c := st.c
	st.Begin(st, c.m.slots, done)
	st.chain = &c.m.chain
	c.nc.Look(func(i *streaminfo.Info) { st.Info = *i })
	st.Info.Reset()
	st.Info.Start = st.codec.Started()
	st.Info.Protocol = st.Request.Protocol.String()
	st.grpc = st.Request.IsGRPC()
	st.held.turn = c.m.policy.turn.Load() // ahead of what it is about
	st.table = c.m.routes.table.Load()
	st.target = route.Target{Decision: route.Decision{Table: st.table}}
	st.routed, st.internal, st.isLocal, st.closing, st.decorated, st.informed, st.headWritten, st.broken = false, false, false, false, false, false, false, false
	st.Response.Status, st.Response.Body = 0, http.NoBody
	if c.why != nil {
		st.Tell = c.why.Note
	}
	c.m.stats.rqTotal.Inc()
	c.m.stats.rqActive.Inc()
}

// run answers the request.
func (st *stream) run() {
	if r, ok := st.prepare(); ok {
		st.local(r)
		st.respond(len(st.chain.links))
	} else {
		st.filters()
	}
	st.finish()
}

// prepare checks and completes the request; ok says that it is answered already.
func (st *stream) prepare() (r http.Reply, ok bool) {
	m, req := st.c.m, &st.Request
	connect := string(req.Method) == "CONNECT"
	switch {
	case req.Authority == nil:
		return http.Reply{Status: 400, Details: "missing_host_header", GRPCStatus: -1}, true
	case !connect && (len(req.Path) == 0 || req.Path[0] != '/'):
		m.stats.rqNonRelative.Inc()
		return http.Reply{Status: 404, Details: "absolute_path_rejected", GRPCStatus: -1}, true
	}
	if string(req.Method) == "QUERY" && !req.Headers.Has("content-type") { // RFC 10008
		return http.Reply{Status: 400, Details: "query_missing_content_type", GRPCStatus: -1}, true
	}
	if !connect {
		switch m.path.apply(&st.Stream) {
		case pathRejected:
			m.stats.rqFailedPath.Inc()
			return http.Reply{Status: 400, Details: "path_normalization_failed", GRPCStatus: -1}, true
		case pathRedirected:
			m.stats.rqRedirectedPath.Inc()
			to := []http.Field{{Name: []byte("location"), Value: req.Path}}
			return http.Reply{Status: 307, Details: "path_normalization_failed", GRPCStatus: -1, Prepend: to}, true
		}
	}
	if m.authority != (authorityRules{}) {
		m.authority.apply(req, st.Info.DownstreamLocal.Port())
	}
	if status := st.mutate(); status != 0 {
		m.stats.rqRejectedByIP.Inc()
		return http.Reply{Status: status, Details: "rejecting_because_detection_failed", GRPCStatus: -1}, true
	}
	st.Refresh()
	if r, ok = st.upgrade(); !ok {
		return r, true
	}
	if !m.proxy100 && st.codec.ExpectsContinue() {
		req.Headers.Remove("expect")
		return r, st.inform(&http.Response{Status: 100}) != nil
	}
	return r, false
}

// mutate applies the edge rules, certificates and the request id. It returns the status of
// the answer to a request that ends here, 0 for one that goes on.
func (st *stream) mutate() (reject int) {
	c := st.c
	m, s := c.m, &st.Stream
	for _, edits := range m.earlyEdits {
		edits.Apply(&s.Request.Headers, s)
	}
	atEdge, internal, reject := m.edge.apply(c, s)
	if reject != 0 {
		return reject
	}
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
	return 0
}

func appendVia(s *http.Stream, h *http.Headers, via []byte) {
	before := h.Get("via")
	if len(before) == 0 {
		h.Set("via", via)
		return
	}
	h.Set("via", s.Keep(append(append(append(s.Scratch(), before...), ", "...), via...)))
}

// ClearRoute forgets the route; the next filter finds one chosen anew.
func (st *stream) ClearRoute() { st.routed = false }

// Reroute chooses the route of the request in the table of now. Where either route has something
// to say to filters, which have run, the first one stays: they might have refused the request.
func (st *stream) Reroute() bool {
	newest := st.c.m.routes.find(&st.Request)
	if newest == st.table || hasOverrides(&st.target) {
		return false
	}
	random := rand.Uint64()
	f := st.c.facts(&st.Request, &st.Info, random)
	t := route.By(newest, &f, st.c.why)
	if hasOverrides(&t) {
		return false
	}
	st.table, st.random, st.target = newest, random, t
	st.take()
	return true
}

// StopBody ends a blocked read of the request's body.
func (st *stream) StopBody() {
	st.by.stopBody()
}

// Inform sends a 1xx head of the upstream downstream: the first one, and only where
// proxy_100_continue says so, as Envoy does. An upstream cannot flood a client.
func (st *stream) Inform(r *http.Response) error {
	known := r.Status == 100 || r.Status == 102 || r.Status == 103
	if !st.c.m.proxy100 || st.informed || !known {
		return nil
	}
	st.informed = true
	return st.inform(r)
}

func (st *stream) inform(r *http.Response) error {
	if err := st.codec.WriteHead(r, true); err != nil {
		return err
	}
	return st.codec.Flush()
}

// Refresh chooses the route of the request.
func (st *stream) Refresh() {
	if st.routed {
		return
	}
	if scopes := st.c.m.routes.scopes; scopes != nil {
		st.table = scopes.Find(&st.Request)
	}
	st.random = rand.Uint64()
	st.facts = st.c.facts(&st.Request, &st.Info, st.random)
	st.target = route.By(st.table, &st.facts, st.c.why)
	st.take()
}

// take has the request go by st.target.
func (st *stream) take() {
	st.routed = true
	st.Route = nil
	st.Info.RouteName, st.Info.VirtualHost, st.Info.Cluster = "", "", ""
	st.by.routeIdle(-1)
	if st.table == nil {
		st.by.routeLife(-1)
		st.chain.overrides(&st.Stream, &st.target)
		return
	}
	c := st.c
	if c.why != nil {
		target := st.target
		c.why.Target = &target
	}
	st.chain.overrides(&st.Stream, &st.target)
	t := &st.target
	if t.VirtualHost != nil {
		st.Info.VirtualHost = t.VirtualHost.Name
	}
	st.by.routeLife(t.Life(&st.Stream))
	if t.Route == nil {
		return
	}
	st.Route = t
	st.Info.RouteName = t.Route.Name
	if t.Route.Forward != nil {
		st.by.routeIdle(t.Route.Forward.IdleTimeout)
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
	chain := st.chain.links
	st.trace()
	if st.c.m.early.start {
		st.Refresh()
		st.logEarly(logStart)
	}
	for i := 0; i < len(chain); i++ {
		st.Refresh()
		if i == st.chain.hold {
			if r, ok := st.hold(); !ok {
				st.local(r)
				st.respond(len(chain))
				return
			}
		}
		if st.disabled(http.Slot(i)) {
			continue
		}
		switch chain[i].filter.OnRequest(&st.Stream, http.Slot(i)) {
		case http.Continue:
			continue
		case http.Again:
			st.again()
			i = -1
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

// again ends the pass of a request that begins anew: it is logged, and filters are told.
func (st *stream) again() {
	m := st.c.m
	st.letGo()
	st.Info.End = time.Now()
	for _, l := range m.loggers {
		l.LogHTTP(&st.Stream)
	}
	for _, slot := range st.chain.enders {
		st.chain.links[slot].ender.OnEnd(&st.Stream, slot)
	}
	st.Renew()
	st.routed = false
	st.Info.Code, st.Info.CodeDetails, st.Info.Attempts, st.Info.Upstream, st.Info.Attempted = 0, "", 0, nil, nil
	st.Info.Flags, st.Info.End = streaminfo.Flags{}, time.Time{}
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
	if why := st.by.expired(); why != nil {
		st.expire(why)
		return
	}
	st.lost()
}

// lost notes that the client has left.
func (st *stream) lost() {
	st.closing, st.broken = true, true
	st.by.left(st)
}

// bodyFailed answers a request whose body broke off; true when it was the case.
func (st *stream) bodyFailed() bool {
	err := st.codec.BodyError()
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	r, ok := st.by.refused(err)
	if !ok {
		st.lost()
		return true
	}
	st.TakeReply()
	st.Request.Headers.Remove("content-type") // the answer is the codec's, never gRPC
	st.c.m.stats.cxProtocolError.Inc()
	st.local(r)
	st.respond(len(st.chain.links))
	return true
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
		st.c.m.stats.rqTxReset.Inc()
		st.tear()
		return
	}
	r := http.Reply{Status: 408, Body: []byte(why.text), Details: why.details, GRPCStatus: -1}
	if why.gateway && st.codec.Finished() {
		r.Status = 504
	}
	if why.status != 0 {
		r.Status = why.status
	}
	if why == limitStream {
		r.GRPCStatus = grpcDeadlineExceeded
	}
	st.local(r)
	st.respond(len(st.chain.links))
}

const grpcDeadlineExceeded = 4

// copyBody moves the response's body to the client.
func (st *stream) copyBody() {
	body, codec := st.Response.Body, st.codec
	for !body.Done() {
		if !body.Ready() {
			if codec.Flush() != nil {
				st.unwritten()
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
			st.unwritten()
			return
		}
	}
	if !codec.BodyWritten() {
		_ = codec.WriteTrailers(body.Trailers()) // it only gathers
	}
	if codec.Flush() != nil {
		st.unwritten()
	}
}

// unwritten ends a response that the client does not take: it has left, or its time was up.
func (st *stream) unwritten() {
	if why := st.by.expired(); why != nil {
		st.expire(why)
		return
	}
	st.lost()
}

// tear notes that the answer breaks off, and the connection with it where it is its only
// stream.
func (st *stream) tear() {
	st.closing, st.broken = true, true
	st.c.torn.Store(true)
}

// upstreamFailed ends a response that broke off in its body.
func (st *stream) upstreamFailed(err error) {
	_ = st.codec.Flush() // what came is the client's; the connection ends anyway
	st.tear()
	var reset *http.Reset
	switch {
	case st.Left():
		if why := st.by.expired(); why != nil {
			st.expire(why)
			return
		}
		st.lost()
	case errors.Is(err, os.ErrDeadlineExceeded):
		st.Info.Flags.Set(streaminfo.UpstreamRequestTimeout)
		st.Info.CodeDetails = "response_timeout"
		if late, ok := errors.AsType[*http.Late](err); ok {
			st.Info.CodeDetails = late.Details
		}
	case errors.As(err, &reset):
		st.Info.Flags.Set(reset.Reason.Flag())
		st.Info.CodeDetails = "upstream_reset_after_response_started{" + reset.Error() + "}"
	default:
		st.Info.CodeDetails = "upstream_reset_after_response_started"
	}
	if !st.Left() {
		st.c.m.stats.rqTxReset.Inc()
	}
}

// finish ends the exchange: it is counted and logged, and filters are told.
func (st *stream) finish() {
	st.letGo()
	st.record()
	for _, slot := range st.chain.enders {
		st.chain.links[slot].ender.OnEnd(&st.Stream, slot)
	}
	st.Settle()
	st.Finish()
}

// record counts and logs the exchange.
func (st *stream) record() {
	m, codec := st.c.m, st.codec
	st.Info.BytesReceived, st.Info.BytesSent = codec.Received(), codec.Sent()
	now := time.Now()
	st.Info.End = now
	if st.Info.RequestReceived == 0 && codec.Finished() && st.Request.Method != nil {
		st.Info.RequestReceived = max(st.Info.UpstreamRequestSent, 1) // with its head, if nothing was sent on
	}
	m.stats.rqActive.Dec()
	if st.broken || !codec.Finished() {
		m.stats.rqRxReset.Inc() // by us, too
	}
	if st.unconnected() {
		st.by.unconnected()
	}
	if st.upgraded {
		st.upgraded = false
		m.stats.upgradesActive.Dec()
	}
	switch {
	case st.Info.HealthCheck:
		m.stats.healthChecks.Inc()
	case st.Info.Code > 0:
		m.stats.answered(st.Info.Code)
	}
	m.stats.rqTime.Record(uint64(now.Sub(st.Info.Start).Milliseconds()))
	for _, l := range m.loggers {
		l.LogHTTP(&st.Stream)
	}
}
