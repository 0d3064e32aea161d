package extauthz

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/lateen-mesh/lateen/proxy/callout"
	"github.com/lateen-mesh/lateen/proxy/format"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// removeHeader lists, in an answer that allows, headers that the request loses.
const removeHeader = "x-envoy-auth-headers-to-remove"

// httpService asks by a request with the head, and the path, of the one in question: 200 is
// yes, 5xx no decision, and any other answer is the client's.
type httpService struct {
	cluster          string
	timeout          time.Duration
	prefix, override string // of the path
	add              []addition
	upstream, append *names // of an answer that allows, for the request
	client           *names // of one that does not; nil: all
	onSuccess        *names // of one that allows, for the client
	metadata         *names
}

// An addition is one header of headers_to_add.
type addition struct {
	name  string
	value *format.Format
}

func newHTTPService(c *extauthzv3.HttpService) (*httpService, error) {
	if err := xds.Only(c, "server_uri", "path_prefix", "path_override", "authorization_request", "authorization_response"); err != nil {
		return nil, err
	}
	uri := c.GetServerUri()
	h := &httpService{cluster: uri.GetCluster(), timeout: uri.GetTimeout().AsDuration(), prefix: c.GetPathPrefix(), override: c.GetPathOverride()}
	switch {
	case uri == nil:
		return nil, errors.New("server_uri: must be set")
	case h.cluster == "":
		return nil, errors.New("server_uri.cluster: must not be empty")
	case uri.GetTimeout() == nil:
		return nil, errors.New("server_uri.timeout: must be set")
	case h.prefix != "" && h.prefix[0] != '/':
		return nil, errors.New("path_prefix: should start with \"/\"")
	case h.override != "" && h.override[0] != '/':
		return nil, errors.New("path_override: should start with \"/\"")
	case h.prefix != "" && h.override != "":
		return nil, errors.New("path_prefix and path_override: only one may be set")
	}
	if err := h.compileAdditions(c.GetAuthorizationRequest().GetHeadersToAdd()); err != nil {
		return nil, err
	}
	return h, h.compileResponse(c.GetAuthorizationResponse())
}

func (h *httpService) compileAdditions(list []*corev3.HeaderValue) error {
	for i, v := range list {
		f, err := format.ParseHeader(v.GetValue())
		if err != nil {
			return fmt.Errorf("authorization_request.headers_to_add[%d].value: %w", i, err)
		}
		h.add = append(h.add, addition{strings.ToLower(v.GetKey()), f})
	}
	return nil
}

func (h *httpService) compileResponse(c *extauthzv3.AuthorizationResponse) error {
	for _, list := range []struct {
		field string
		from  *matcherv3.ListStringMatcher
		to    **names
	}{
		{"allowed_upstream_headers", c.GetAllowedUpstreamHeaders(), &h.upstream},
		{"allowed_upstream_headers_to_append", c.GetAllowedUpstreamHeadersToAppend(), &h.append},
		{"allowed_client_headers", c.GetAllowedClientHeaders(), &h.client},
		{"allowed_client_headers_on_success", c.GetAllowedClientHeadersOnSuccess(), &h.onSuccess},
		{"dynamic_metadata_from_headers", c.GetDynamicMetadataFromHeaders(), &h.metadata},
	} {
		if len(list.from.GetPatterns()) == 0 {
			continue
		}
		var err error
		if *list.to, err = newNames(list.from); err != nil {
			return fmt.Errorf("authorization_response.%s: %w", list.field, err)
		}
	}
	if h.client != nil {
		h.client = h.client.and("content-length", "www-authenticate", "location")
	}
	return nil
}

func (h *httpService) String() string { return "cluster " + h.cluster + " by HTTP" }

func (h *httpService) decide(s *http.Stream, c *callout.Client, q *question) (*decision, bool) {
	answer, err := c.Do(s, h.request(s, q))
	if errors.Is(err, callout.ErrLeft) {
		return nil, false
	}
	if err != nil || answer.Status >= 500 {
		return &decision{outcome: failed}, true
	}
	return h.decision(answer), true
}

// request is what is asked: the head that may be told, with the path and the body.
func (h *httpService) request(s *http.Stream, q *question) *callout.Request {
	asked := q.check.GetAttributes().GetRequest().GetHttp()
	r := &callout.Request{Cluster: h.cluster, Method: asked.GetMethod(), Authority: asked.GetHost(), Path: h.path(asked.GetPath()), Body: q.body,
		Timeout: h.timeout, Unforwarded: true}
	r.Headers.Add([]byte("content-length"), strconv.AppendInt(nil, int64(len(q.body)), 10))
	for _, f := range told(asked) {
		if f.Name[0] != ':' && string(f.Name) != "content-length" {
			r.Headers.Fields = append(r.Headers.Fields, f)
		}
	}
	for _, a := range h.add {
		if v := a.value.Append(nil, format.Of(s)); len(v) > 0 {
			r.Headers.Remove(a.name)
			r.Headers.Add([]byte(a.name), v)
		}
	}
	if s.Trace != nil {
		s.Trace.Mirror(&r.Headers, true)
	}
	return r
}

func (h *httpService) path(p string) string {
	if h.override != "" {
		return h.override
	}
	return h.prefix + p
}

// told are the header fields that were told, in the order of their names, or raw as they came.
func told(h *authv3.AttributeContext_HttpRequest) []http.Field {
	var out []http.Field
	for _, name := range slices.Sorted(maps.Keys(h.GetHeaders())) {
		out = append(out, http.Field{Name: []byte(name), Value: []byte(h.GetHeaders()[name])})
	}
	for _, v := range h.GetHeaderMap().GetHeaders() {
		out = append(out, http.Field{Name: []byte(v.GetKey()), Value: v.GetRawValue()})
	}
	return out
}

// decision reads an answer.
func (h *httpService) decision(r *callout.Response) *decision {
	d := &decision{outcome: allowed}
	for _, f := range r.Headers.Fields {
		if h.metadata.match(string(f.Name)) {
			if d.metadata == nil {
				d.metadata = map[string]any{}
			}
			d.metadata[string(f.Name)] = text(f.Value)
		}
	}
	if r.Status != 200 {
		d.outcome = refused
		d.reply = reply{status: r.Status, body: r.Body}
		for _, f := range r.Headers.Fields {
			if name := string(f.Name); name != "transfer-encoding" && (h.client == nil || h.client.match(name)) {
				d.reply.headers = append(d.reply.headers, edit{name, string(f.Value), add})
			}
		}
		return d
	}
	for v := range bytes.SplitSeq(r.Headers.Get(removeHeader), []byte(",")) {
		if name := string(bytes.TrimSpace(v)); name != "" {
			d.remove = append(d.remove, name)
		}
	}
	r.Headers.Remove(removeHeader)
	var more []edit
	for _, f := range r.Headers.Fields {
		name, value := string(f.Name), string(f.Value)
		if h.upstream.match(name) {
			d.request = append(d.request, edit{name, value, set})
		}
		if h.append.match(name) {
			more = append(more, edit{name, value, add})
		}
		if h.onSuccess.match(name) {
			d.response = append(d.response, edit{name, value, add})
		}
	}
	d.request = append(d.request, more...)
	return d
}
