package health

import (
	"bytes"
	"context"
	"errors"
	"io"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/lateen-mesh/lateen/proxy/format"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/match"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// httpCheck sends a request and looks at the answer.
type httpCheck struct {
	method, path, host  []byte
	send                []byte
	receive             [][]byte
	buffer              int
	add                 []header
	remove              []string
	expected, retriable [][2]int64
	h2                  bool
	byALPN              bool
	service             *match.String
}

// A header is a field to be added.
type header struct {
	name      []byte
	value     *format.Format
	overwrite bool
	empty     bool // sent even if it is empty
}

func compileHTTP(pb *corev3.HealthCheck_HttpHealthCheck) (prober, error) {
	err := xds.Only(pb, "host", "path", "send", "receive", "response_buffer_size", "request_headers_to_add", "request_headers_to_remove",
		"expected_statuses", "retriable_statuses", "codec_client_type", "use_alpn_protocol", "service_name_matcher", "method")
	if err != nil {
		return nil, err
	}
	if pb.GetCodecClientType() == typev3.CodecClientType_HTTP3 {
		return nil, errors.New("codec_client_type: HTTP3: not supported")
	}
	k := &httpCheck{
		method: []byte("GET"), path: []byte(pb.GetPath()), host: []byte(pb.GetHost()), buffer: defaultBuffer,
		h2: pb.GetCodecClientType() == typev3.CodecClientType_HTTP2, byALPN: pb.GetUseAlpnProtocol(),
	}
	if m := pb.GetMethod(); m != corev3.RequestMethod_METHOD_UNSPECIFIED {
		k.method = []byte(m.String())
	}
	if n := pb.GetResponseBufferSize(); n != nil {
		if k.buffer = int(min(n.GetValue(), maxBuffer)); k.buffer == 0 {
			k.buffer = maxBuffer
		}
	}
	for _, name := range pb.GetRequestHeadersToRemove() {
		k.remove = append(k.remove, string(bytes.ToLower([]byte(name))))
	}
	return k, k.compile(pb)
}

// compile takes the fields that can be wrong.
func (k *httpCheck) compile(pb *corev3.HealthCheck_HttpHealthCheck) (err error) {
	if k.send, err = payload(pb.GetSend()); err != nil {
		return at("send", err)
	}
	if k.receive, err = payloads("receive", pb.GetReceive()); err != nil {
		return err
	}
	if k.add, err = headers("request_headers_to_add", pb.GetRequestHeadersToAdd()); err != nil {
		return err
	}
	if k.expected, err = statuses("expected_statuses", pb.GetExpectedStatuses()); err != nil {
		return err
	}
	if k.expected == nil {
		k.expected = [][2]int64{{200, 201}}
	}
	if k.retriable, err = statuses("retriable_statuses", pb.GetRetriableStatuses()); err != nil {
		return err
	}
	k.service, err = compileMatcher(pb)
	return err
}

func (*httpCheck) kind() kind { return datav3.HealthCheckerType_HTTP }

func (k *httpCheck) probe(s *session) probe {
	return &httpProbe{check: k, s: s, line: line{s: s, h2: k.h2, byALPN: k.byALPN}}
}

type httpProbe struct {
	check *httpCheck
	s     *session
	line  line
}

func (p *httpProbe) close() { p.line.close() }

func (p *httpProbe) try(ctx context.Context) outcome {
	return p.line.exchange(ctx, p.request, p.check.send, p.check.buffer, p.judge)
}

// request is the head of the check.
func (p *httpProbe) request() *http.Request {
	k := p.check
	r := &http.Request{
		Method: k.method, Scheme: scheme(p.line.secure()), Authority: p.s.authority(k.host), Path: k.path, Protocol: http.HTTP11,
		ContentLength: int64(len(k.send)), Body: http.NoBody,
	}
	r.Headers.Add([]byte("user-agent"), []byte("Envoy/HC"))
	p.s.edit(r, k.add, k.remove)
	return r
}

func scheme(secure bool) []byte {
	if secure {
		return []byte("https")
	}
	return []byte("http")
}

// authority is whom a check asks for: the endpoint's own name for it, then the check's,
// then the cluster.
func (s *session) authority(own []byte) []byte {
	switch {
	case s.Hostname != "":
		return []byte(s.Hostname)
	case len(own) > 0:
		return own
	}
	return []byte(s.c.env.Cluster)
}

// edit adds and removes fields.
func (s *session) edit(r *http.Request, add []header, remove []string) {
	rec := format.Record{Info: &streaminfo.Info{Cluster: s.c.env.Cluster, Upstream: s.Endpoint}, Request: r}
	for _, h := range add {
		v := h.value.Append(nil, rec)
		switch {
		case len(v) == 0 && !h.empty:
		case h.overwrite:
			r.Headers.Set(string(h.name), v)
		default:
			r.Headers.Add(h.name, v)
		}
	}
	for _, name := range remove {
		r.Headers.Remove(name)
	}
}

// judge finds out what an answer says.
func (p *httpProbe) judge(r *http.Response, body []byte) outcome {
	k := p.check
	o := outcome{status: r.Status, degraded: r.Headers.Has("x-envoy-degraded"), excluded: r.Headers.Has("x-envoy-immediate-health-check-fail")}
	switch {
	case !within(k.expected, r.Status):
		o.patient = within(k.retriable, r.Status)
		return o
	case !matches(k.receive, body):
		return o
	case !p.named(r):
		return o
	}
	o.passed = true
	return o
}

// named reports that the host is of the service that is wanted.
func (p *httpProbe) named(r *http.Response) bool {
	if p.check.service == nil {
		return true
	}
	p.s.counts.verifyCluster.Inc()
	return p.check.service.Match(r.Headers.Get("x-envoy-upstream-healthchecked-cluster"))
}

// ask sends a request with its body and reads the answer; of its body at most keep bytes.
func ask(x http.ClientStream, r *http.Request, send []byte, answer *http.Response, keep int) ([]byte, error) {
	if err := x.WriteHead(r, len(send) == 0); err != nil {
		return nil, err
	}
	if len(send) > 0 {
		if err := x.WriteBody(send, true); err != nil {
			return nil, err
		}
	}
	for {
		if err := x.ReadHead(answer); err != nil {
			return nil, err
		}
		if answer.Status >= 200 {
			break
		}
	}
	var body []byte
	for {
		b, err := answer.Body.Next()
		if errors.Is(err, io.EOF) {
			return body, nil
		}
		if err != nil {
			return nil, err
		}
		body = append(body, b[:min(len(b), keep-len(body))]...)
	}
}
