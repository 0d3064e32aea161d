package hcm

import (
	"bytes"
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/stats"
)

// authorityRules say how the host of a request is made canonical before routing.
type authorityRules struct {
	listenerPort bool // strip_matching_host_port
	anyPort      bool // strip_any_host_port
	dot          bool // strip_trailing_host_dot
}

// apply takes from the host what the rules do not want. port is that of the listener.
func (a authorityRules) apply(r *http.Request, port uint16) {
	host, rest := splitPort(r.Authority)
	if a.dot && len(host) > 0 && host[len(host)-1] == '.' {
		bare := host[:len(host)-1]
		if len(rest) == 0 {
			r.Authority = bare
		} else {
			r.Authority = append(append(make([]byte, 0, len(r.Authority)), bare...), rest...)
		}
		host = bare
	}
	if len(rest) == 0 || string(r.Method) == "CONNECT" {
		return
	}
	if a.anyPort || a.listenerPort && string(rest[1:]) == strconv.Itoa(int(port)) {
		r.Authority = host
	}
}

// splitPort cuts off ":port", if it is one.
func splitPort(authority []byte) (host, port []byte) {
	at := bytes.LastIndexByte(authority, ':')
	if at < 0 || at == len(authority)-1 || bytes.IndexByte(authority[at:], ']') >= 0 || authority[0] != '[' && bytes.IndexByte(authority, ':') != at {
		return authority, nil
	}
	for _, c := range authority[at+1:] {
		if c < '0' || c > '9' {
			return authority, nil
		}
	}
	return authority[:at], authority[at:]
}

// schemeRules are scheme_header_transformation.
type schemeRules struct {
	fixed []byte // scheme_to_overwrite, nil: none
}

func newSchemeRules(t *corev3.SchemeHeaderTransformation) schemeRules {
	if s := t.GetSchemeToOverwrite(); s != "" {
		return schemeRules{fixed: []byte(s)}
	}
	return schemeRules{}
}

// underscored looks at names with underscores, as headers_with_underscores_action says:
// they are dropped, or the request is to be refused. The codec's counters take note.
func (m *manager) underscored(h *http.Headers, dropped, rejected *stats.Counter) (refused bool) {
	if m.underscores == corev3.HttpProtocolOptions_ALLOW {
		return false
	}
	kept := h.Fields[:0]
	for _, f := range h.Fields {
		switch {
		case bytes.IndexByte(f.Name, '_') < 0:
			kept = append(kept, f)
		case m.underscores == corev3.HttpProtocolOptions_REJECT_REQUEST:
			rejected.Inc()
			return true
		default:
			dropped.Inc()
		}
	}
	h.Fields = kept
	return false
}

func newAuthorityRules(c *hcmv3.HttpConnectionManager) authorityRules {
	return authorityRules{listenerPort: c.GetStripMatchingHostPort(), anyPort: c.GetStripAnyHostPort(), dot: c.GetStripTrailingHostDot()}
}
