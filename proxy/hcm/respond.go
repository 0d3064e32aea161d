package hcm

import (
	"time"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/lateen-mesh/lateen/proxy/http"
)

var (
	nameDate   = []byte("date")
	nameServer = []byte("server")
	valueClose = []byte("close")
)

// respond runs the first n filters in reverse over the response and writes it. For an
// answer of our own that is all of them, also those whose OnRequest has not run.
func (st *stream) respond(n int) {
	links := st.chain.links
	for i := n - 1; i >= 0; i-- {
		if st.disabled(http.Slot(i)) || links[i].filter.OnResponse(&st.Stream, http.Slot(i)) == http.Continue {
			continue
		}
		if r, ok := st.TakeReply(); ok {
			st.local(r)
		}
	}
	st.complete()
	st.write()
}

// complete adds what the connection manager says about itself, in Envoy's order.
func (st *stream) complete() {
	m, resp := st.c.m, &st.Response
	h := &resp.Headers
	if !h.Has("date") {
		h.Add(nameDate, m.clock.date(time.Now()))
	}
	switch m.transform {
	case hcmv3.HttpConnectionManager_OVERWRITE:
		h.Set("server", m.server)
	case hcmv3.HttpConnectionManager_APPEND_IF_ABSENT:
		if !h.Has("server") {
			h.Add(nameServer, m.server)
		}
	}
	if m.requestID.answer || st.internal && st.Request.Headers.Has("x-envoy-force-trace") {
		if id := st.Request.Headers.Get("x-request-id"); id != nil {
			h.Set("x-request-id", id)
		}
	}
	if len(m.via) > 0 {
		appendVia(&st.Stream, h, m.via)
	}
	st.decorateResponse(h)
	st.by.ending(st, h)
}

// decorateResponse names the operation to clients of inbound listeners and keeps the
// name that an upstream gave from those of outbound ones.
func (st *stream) decorateResponse(h *http.Headers) {
	const name = "x-envoy-decorator-operation"
	if st.c.m.sampling == nil || st.target.Route == nil {
		return
	}
	switch op := st.target.Route.Decorator; {
	case !st.c.m.ingress:
		if h.Has(name) {
			h.Remove(name)
		}
	case op != "" && !st.decorated:
		h.Set(name, st.Keep(append(st.Scratch(), op...)))
	}
}

// write puts the response on the wire.
func (st *stream) write() {
	codec, resp := st.codec, &st.Response
	st.Info.Code = resp.Status
	st.Info.ResponseSent = time.Since(st.Info.Start)
	st.headWritten = true
	if why := st.c.why; why != nil {
		why.Answer(resp, &st.Info)
	}
	last := resp.Body.Done() || st.Request.Protocol >= http.HTTP2 && string(st.Request.Method) == "HEAD"
	_ = codec.WriteHead(resp, last) // it only gathers
	st.established()
	if last {
		if codec.Flush() != nil {
			st.lost()
		}
		return
	}
	if string(st.Request.Method) == "HEAD" {
		if codec.Flush() != nil {
			st.lost()
		}
		return
	}
	st.copyBody()
}
