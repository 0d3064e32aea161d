package extauthz

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lateen-mesh/lateen/proxy/format"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// partialHeader tells the service whether the body that it got is all of it.
const partialHeader = "x-envoy-auth-partial-body"

// hold reads of the body what the service is to be told; the request keeps all of it. False:
// the stream is answered, or its body has broken off.
func (f *filter) hold(s *http.Stream, b *bodySettings, q *question) bool {
	body := s.Request.Body
	for !body.Done() && (!b.partial || len(q.body) < b.most) {
		p, err := body.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return false // the connection manager knows why
		}
		if !b.partial && len(q.body)+len(p) > b.most {
			s.Reply(http.Reply{Status: 413, Body: []byte("Payload Too Large"), Details: "request_payload_too_large", GRPCStatus: -1, Close: true})
			return false
		}
		q.body = append(q.body, p...)
	}
	s.Request.Body = &held{first: http.Bytes{B: q.body}, rest: body}
	whole := len(q.body)
	q.received = whole
	q.body = q.body[:min(whole, b.most)]
	h := &authv3.AttributeContext_HttpRequest{}
	if f.bytes {
		h.RawBody = q.body
	} else {
		h.Body = text(q.body)
	}
	f.tell(h, partialHeader, []byte(strconv.FormatBool(len(q.body) < whole)))
	q.check.Attributes = &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: h}}
	return true
}

// held is a body whose first part is in memory.
type held struct {
	first http.Bytes
	rest  http.Body
}

func (h *held) Next() ([]byte, error) {
	if !h.first.Done() {
		return h.first.Next()
	}
	return h.rest.Next()
}

func (h *held) Ready() bool             { return !h.first.Done() || h.rest.Ready() }
func (h *held) Done() bool              { return h.first.Done() && h.rest.Done() }
func (h *held) Trailers() *http.Headers { return h.rest.Trailers() }

// describe completes the question about a request.
func (f *filter) describe(s *http.Stream, t *route.Target, q *question) {
	a := q.check.Attributes
	if a == nil {
		a = &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{}}}
		q.check.Attributes = a
	}
	f.describeConnection(a, &s.Info)
	a.Source.Service = text(s.Request.Headers.Get("x-envoy-downstream-service-cluster"))
	a.Request.Time = timestamppb.New(s.Info.Start)
	f.describeHTTP(a.Request.Http, s, q.received)
	a.ContextExtensions = f.extensions(t)
	a.MetadataContext = contextOf(s.Info.Metadata, f.namespaces)
	a.RouteMetadataContext = contextOf(t.Route.Metadata, f.routeNamespaces)
}

// describeConnection tells of the two ends, for the network filter too.
func (t *telling) describeConnection(a *authv3.AttributeContext, i *streaminfo.Info) {
	a.Source = &authv3.AttributeContext_Peer{Address: addressOf(i.Source()), Principal: principal(i.PeerURISANs, i.PeerDNSSANs, i.PeerSubject)}
	a.Destination = &authv3.AttributeContext_Peer{Address: addressOf(i.DownstreamLocal), Labels: t.labels,
		Principal: principal(i.LocalURISANs, nil, "")}
	if t.certificate && i.Peer != nil {
		a.Source.Certificate = string(certificateFormat.Append(nil, format.Record{Info: i}))
	}
	if t.tls {
		a.TlsSession = &authv3.AttributeContext_TLSSession{Sni: i.ServerName}
	}
}

// certificateFormat is the client's certificate as a percent-encoded PEM block.
var certificateFormat = func() *format.Format {
	f, err := format.ParseHeader("%DOWNSTREAM_PEER_CERT%")
	if err != nil {
		panic(err) // the operator is ours
	}
	return f
}()

// principal is who an end of TLS is: a URI of its certificate, a name, else the subject.
func principal(uris, dns []string, subject string) string {
	switch {
	case len(uris) > 0:
		return text([]byte(uris[0]))
	case len(dns) > 0:
		return text([]byte(dns[0]))
	}
	return text([]byte(subject))
}

func addressOf(a netip.AddrPort) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: a.Addr().Unmap().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(a.Port())}}}}
}

func (t *telling) describeHTTP(h *authv3.AttributeContext_HttpRequest, s *http.Stream, received int) {
	r := &s.Request
	h.Id = strconv.FormatUint(rand.Uint64(), 10)
	h.Method, h.Path, h.Host, h.Scheme = text(r.Method), text(r.Path), text(r.Authority), text(r.Scheme)
	h.Size, h.Protocol = int64(received), r.Protocol.String()
	if t.raw && h.HeaderMap == nil {
		h.HeaderMap = &corev3.HeaderMap{}
	}
	for _, pseudo := range [...]http.Field{{Name: []byte(":authority"), Value: r.Authority}, {Name: []byte(":path"), Value: r.Path},
		{Name: []byte(":method"), Value: r.Method}, {Name: []byte(":scheme"), Value: r.Scheme}} {
		if pseudo.Value != nil {
			t.tellAllowed(h, pseudo)
		}
	}
	for _, f := range r.Headers.Fields {
		t.tellAllowed(h, f)
	}
}

// tellAllowed tells one field of the request, if it may be told.
func (t *telling) tellAllowed(h *authv3.AttributeContext_HttpRequest, f http.Field) {
	name := strings.ToLower(string(f.Name))
	if name == partialHeader || t.disallowed.match(name) || t.allowed != nil && !t.allowed.match(name) {
		return
	}
	t.tell(h, name, f.Value)
}

// tell adds a field; those of one name are one value, but for raw ones.
func (t *telling) tell(h *authv3.AttributeContext_HttpRequest, name string, value []byte) {
	if t.raw {
		if h.HeaderMap == nil {
			h.HeaderMap = &corev3.HeaderMap{}
		}
		h.HeaderMap.Headers = append(h.HeaderMap.Headers, &corev3.HeaderValue{Key: name, RawValue: bytes.Clone(value)})
		return
	}
	if h.Headers == nil {
		h.Headers = map[string]string{}
	}
	if before, ok := h.Headers[name]; ok {
		h.Headers[name] = before + "," + text(value)
		return
	}
	h.Headers[name] = text(value)
}

// extensions are context_extensions of all that a route belongs to, the closest last.
func (f *filter) extensions(t *route.Target) map[string]string {
	var out map[string]string
	for _, v := range t.Overrides(f.name, true) {
		if o, ok := v.(*override); ok && len(o.extensions) > 0 {
			if out == nil {
				out = map[string]string{}
			}
			maps.Copy(out, o.extensions)
		}
	}
	return out
}

// contextOf is the part of metadata that is in some namespaces.
func contextOf(metadata map[string]map[string]any, namespaces []string) *corev3.Metadata {
	out := &corev3.Metadata{}
	for _, n := range namespaces {
		m, ok := metadata[n]
		if !ok {
			continue
		}
		v, err := structpb.NewStruct(m)
		if err != nil {
			continue // nothing that could be told
		}
		if out.FilterMetadata == nil {
			out.FilterMetadata = map[string]*structpb.Struct{}
		}
		out.FilterMetadata[n] = v
	}
	return out
}

// text is b where it is UTF-8; what is not is "!", byte by byte, as Envoy writes it.
func text(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	var out strings.Builder
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 {
			r = '!'
		}
		out.WriteRune(r)
		b = b[n:]
	}
	return out.String()
}
