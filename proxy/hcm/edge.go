package hcm

import (
	"bytes"
	"net/netip"
	"strconv"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/match"
)

// edge says how far the client and the headers it sends are trusted.
type edge struct {
	remote   bool // use_remote_address
	hops     int  // xff_num_trusted_hops
	skip     bool // skip_xff_append
	port     bool // append_x_forwarded_port
	unix     bool // clients on unix sockets are internal
	internal match.CIDR
	local    netip.Addr
	// detections find the client where that is not the peer: the first that does.
	detections []detection
}

var (
	schemeHTTP  = []byte("http")
	schemeHTTPS = []byte("https")
	valueTrue   = []byte("true")
	comma       = []byte(",")
	localhost   = netip.AddrFrom4([4]byte{127, 0, 0, 1})
)

// apply finds out who the client is, notes it in the headers and removes those that
// only trusted clients may send. reject is the answer to a request whose client is
// demanded and was not found, 0 for none.
func (e *edge) apply(c *client, s *http.Stream) (atEdge, internal bool, reject int) {
	h := &s.Request.Headers
	if h.Has("te") {
		sanitizeTE(h)
	}
	if all, ok := h.Value("x-forwarded-for", 0); ok {
		h.Set("x-forwarded-for", all) // one line: the nearest proxy's address may be on a second one
	}
	scheme := schemeHTTP
	if c.tls {
		scheme = schemeHTTPS
	}
	client, single, reject := e.client(s)
	if reject != 0 {
		return false, false, reject
	}
	if e.remote {
		if !e.skip {
			e.appendXFF(s)
		}
		if e.hops == 0 || !h.Has("x-forwarded-proto") {
			h.Set("x-forwarded-proto", scheme)
		}
		if e.port && !h.Has("x-forwarded-port") {
			h.Set("x-forwarded-port", s.Keep(strconv.AppendUint(s.Scratch(), uint64(s.Info.DownstreamLocal.Port()), 10)))
		}
	} else if !h.Has("x-forwarded-proto") {
		h.Set("x-forwarded-proto", scheme)
	}
	switch {
	case c.m.scheme.fixed != nil:
		s.Request.Scheme = c.m.scheme.fixed
		h.Set("x-forwarded-proto", c.m.scheme.fixed)
	case s.Request.Protocol < http.HTTP2 || string(s.Request.Scheme) != "http" && string(s.Request.Scheme) != "https":
		s.Request.Scheme = h.Get("x-forwarded-proto")
	}
	internal = single && e.isInternal(client.Addr())
	if client.IsValid() {
		s.Info.DownstreamRemote = client
	}
	atEdge = !internal && e.remote
	if internal {
		h.Set("x-envoy-internal", valueTrue)
		return atEdge, internal, 0
	}
	sanitize(h, atEdge, !e.remote && !c.m.ingress && !h.Has("x-forwarded-for"))
	if atEdge && client.IsValid() {
		h.Set("x-envoy-external-address", s.Keep(client.Addr().AppendTo(s.Scratch())))
	}
	return atEdge, internal, 0
}

// client is the address of the client, and whether nobody else stands between.
func (e *edge) client(s *http.Stream) (client netip.AddrPort, alone bool, reject int) {
	if e.remote {
		xff := s.Request.Headers.Get("x-forwarded-for")
		if e.hops > 0 {
			if a, _ := nthAddress(xff, e.hops-1); a.IsValid() {
				return a, false, 0
			}
		}
		return s.Info.Source(), xff == nil, 0
	}
	for i := range e.detections {
		d := &e.detections[i]
		client, alone = d.detect(s)
		if !client.IsValid() && d.reject != 0 {
			return client, false, d.reject
		}
		if d.appends {
			e.appendXFF(s)
		}
		if client.IsValid() {
			return client, alone, 0
		}
	}
	return netip.AddrPort{}, alone, 0
}

// nthAddress is the n-th last element of x-forwarded-for as an address, and whether it
// is the only one.
func nthAddress(xff []byte, n int) (netip.AddrPort, bool) {
	single := n == 0 && !bytes.Contains(xff, comma)
	for ; n > 0; n-- {
		i := bytes.LastIndexByte(xff, ',')
		if i < 0 {
			return netip.AddrPort{}, false
		}
		xff = xff[:i]
	}
	a := parseAddress(xff[bytes.LastIndexByte(xff, ',')+1:])
	return a, single && a.IsValid()
}

// appendXFF adds the peer of the connection; for localhost our own address. Other
// addresses of 127.0.0.0/8 are no localhost to Envoy.
func (e *edge) appendXFF(s *http.Stream) {
	a := s.Info.Source().Addr()
	if !a.IsValid() || a == localhost || a == netip.IPv6Loopback() {
		a = e.local
	}
	h := &s.Request.Headers
	b := s.Scratch()
	if before := h.Get("x-forwarded-for"); len(before) > 0 {
		b = append(append(b, before...), ',')
	}
	h.Set("x-forwarded-for", s.Keep(a.AppendTo(b)))
}

// isInternal reports whether the client is one of ours. One on a unix socket has no address.
func (e *edge) isInternal(a netip.Addr) bool {
	if !a.IsValid() {
		return e.unix
	}
	return e.internal.Match(a)
}

// sanitizeTE keeps nothing of te but trailers.
func sanitizeTE(h *http.Headers) {
	if v := h.Get("te"); bytes.Contains(bytes.ToLower(v), []byte("trailers")) {
		h.Set("te", []byte("trailers"))
		return
	}
	h.Remove("te")
}

// sanitize removes what only internal clients may send; at the edge more than inside. The
// application beside a sidecar, who forwards nobody's request, may say how long it waits.
func sanitize(h *http.Headers, atEdge, application bool) {
	kept := h.Fields[:0]
	for _, f := range h.Fields {
		if application && http.EqualFold(f.Name, ownTimeout) {
			kept = append(kept, f)
			continue
		}
		if len(f.Name) > len("x-envoy-") && http.EqualFold(f.Name[:len("x-envoy-")], "x-envoy-") && untrusted(f.Name[len("x-envoy-"):], atEdge) {
			continue
		}
		kept = append(kept, f)
	}
	h.Fields = kept
}

// untrusted looks at the part of a name behind "x-envoy-".
func untrusted(name []byte, atEdge bool) bool {
	for _, n := range internalOnly {
		if http.EqualFold(name, n) {
			return true
		}
	}
	if !atEdge {
		return false
	}
	for _, n := range edgeOnly {
		if http.EqualFold(name, n) {
			return true
		}
	}
	return false
}

const ownTimeout = "x-envoy-upstream-rq-timeout-ms"

var (
	internalOnly = []string{
		"retriable-status-codes", "upstream-alt-stat-name", "upstream-rq-timeout-ms", "upstream-rq-per-try-timeout-ms",
		"upstream-rq-timeout-alt-response", "expected-rq-timeout-ms", "force-trace", "ip-tags", "max-retries", "retry-on",
		"retry-grpc-on", "retriable-header-names", "hedge-on-per-try-timeout", "is-timeout-retry", "internal",
	}
	edgeOnly = []string{"decorator-operation", "downstream-service-cluster", "downstream-service-node", "original-path", "original-host"}
)
