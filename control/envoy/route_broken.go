package envoy

import (
	"regexp"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/lateen-mesh/lateen/control/ir"
)

// A proxy refuses a route table whole when one rule in it is wrong. So a rule that
// would be refused is replaced by one that answers 500 with an empty body to the
// requests that the rule is about, and all others stay as they are.

// unusable reports whether a proxy would refuse the rule.
func unusable(r ir.Route, spelled *routev3.Route) bool {
	return spelled.ValidateAll() != nil ||
		slices.ContainsFunc(patterns(r), func(p string) bool { return !compiles(p) }) ||
		slices.ContainsFunc(edits(r), brokenEdits) ||
		r.Forward != nil && r.Forward.RegexRewrite != nil && !substitutes(*r.Forward.RegexRewrite)
}

// broken answers 500 in the place of a rule that cannot be used.
func broken(r ir.Route) *routev3.Route {
	out := &routev3.Route{
		Name:     r.Name,
		Match:    routeMatch(widened(r.Match)),
		Metadata: origin(r.Origin),
		Action:   &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 500}},
	}
	if out.ValidateAll() != nil {
		out.Match = &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}
	}
	return out
}

// widened is the match without its conditions that cannot be evaluated: a request
// that the rule may have been meant for must not fall through to the rules after it.
func widened(m ir.RouteMatch) ir.RouteMatch {
	if m.Path.Kind == ir.PathRegex && !compiles(m.Path.Value) {
		m.Path.Kind, m.Path.Value = ir.PathPrefix, literalPrefix(m.Path.Value)
	}
	bad := func(s ir.StringMatch) bool { return s.Kind == ir.Regex && !compiles(s.Value) }
	var headers []ir.HeaderMatch
	for _, h := range m.Headers {
		if headerMatch(h).ValidateAll() == nil && !bad(h.StringMatch) {
			headers = append(headers, h)
		}
	}
	var query []ir.QueryMatch
	for _, q := range m.Query {
		if queryMatch(q).ValidateAll() == nil && !bad(q.StringMatch) {
			query = append(query, q)
		}
	}
	m.Headers, m.Query = headers, query
	return m
}

// literalPrefix is what every text that the author of an expression may have meant
// begins with, "/" where that is not known.
func literalPrefix(pattern string) string {
	end := strings.IndexAny(pattern, `\.+*?()|[]{}^$`)
	if end < 0 {
		end = len(pattern)
	}
	prefix := pattern[:end]
	if end < len(pattern) && strings.ContainsRune("*?{", rune(pattern[end])) && prefix != "" {
		prefix = prefix[:len(prefix)-1] // the quantifier makes the last character optional
	}
	if strings.Contains(pattern, "|") && !strings.Contains(pattern, "(") || !strings.HasPrefix(prefix, "/") {
		return "/"
	}
	return prefix
}

func compiles(pattern string) bool {
	_, err := regexp.Compile(pattern)
	return err == nil
}

// patterns are all regular expressions of a rule.
func patterns(r ir.Route) []string {
	var out []string
	add := func(s ir.StringMatch) {
		if s.Kind == ir.Regex {
			out = append(out, s.Value)
		}
	}
	if r.Match.Path.Kind == ir.PathRegex {
		out = append(out, r.Match.Path.Value)
	}
	for _, h := range r.Match.Headers {
		add(h.StringMatch)
	}
	for _, q := range r.Match.Query {
		add(q.StringMatch)
	}
	if r.CORS != nil {
		for _, o := range r.CORS.Origins {
			add(o)
		}
	}
	if r.Forward != nil && r.Forward.RegexRewrite != nil {
		out = append(out, r.Forward.RegexRewrite.Pattern)
	}
	return out
}

// substitutes reports whether each \N of a rewrite names a group of its pattern.
func substitutes(w ir.RegexRewrite) bool {
	re, err := regexp.Compile(w.Pattern)
	if err != nil {
		return false
	}
	for i := 0; i < len(w.Substitution); i++ {
		if w.Substitution[i] != '\\' {
			continue
		}
		i++
		if i == len(w.Substitution) {
			return false
		}
		c := w.Substitution[i]
		if c != '\\' && (c < '0' || c > '9' || int(c-'0') > re.NumSubexp()) {
			return false
		}
	}
	return true
}

// edits are the header edits of a rule and of its destinations.
func edits(r ir.Route) []ir.HeaderEdits {
	out := []ir.HeaderEdits{r.Headers}
	if r.Forward != nil {
		for _, c := range r.Forward.Clusters {
			out = append(out, c.Headers)
		}
	}
	return out
}

// brokenEdits reports whether edits name what cannot be edited or hold a format
// that does not parse.
func brokenEdits(e ir.HeaderEdits) bool {
	for _, name := range slices.Concat(e.RequestRemove, e.ResponseRemove) {
		if strings.HasPrefix(name, ":") || strings.EqualFold(name, "host") {
			return true
		}
	}
	for _, v := range slices.Concat(e.RequestAdd, e.ResponseAdd) {
		if !formats(v.Value) {
			return true
		}
	}
	return false
}

// command is one substitution of a format: its name, arguments in brackets, and a
// maximal length.
var command = regexp.MustCompile(`^%([A-Z0-9_]+)(\([^)]*\))?(:\d+)?%`)

// formats reports whether every % of a header value begins a command or is doubled.
func formats(value string) bool {
	for {
		i := strings.IndexByte(value, '%')
		if i < 0 {
			return true
		}
		value = value[i:]
		if strings.HasPrefix(value, "%%") {
			value = value[2:]
			continue
		}
		m := command.FindStringSubmatch(value)
		if m == nil || !slices.Contains(commands, m[1]) {
			return false
		}
		value = value[len(m[0]):]
	}
}

// commands are the names that may stand between percent signs.
var commands = strings.Fields(`
	REQ REQ_WITHOUT_QUERY RESP TRAILER START_TIME START_TIME_LOCAL BYTES_RECEIVED BYTES_SENT PROTOCOL UPSTREAM_PROTOCOL
	REQUEST_DURATION REQUEST_TX_DURATION RESPONSE_DURATION RESPONSE_TX_DURATION DURATION COMMON_DURATION
	RESPONSE_CODE RESPONSE_CODE_DETAILS RESPONSE_FLAGS RESPONSE_FLAGS_LONG CONNECTION_TERMINATION_DETAILS
	GRPC_STATUS GRPC_STATUS_NUMBER ROUTE_NAME VIRTUAL_CLUSTER_NAME CONNECTION_ID STREAM_ID REQUESTED_SERVER_NAME
	UPSTREAM_HOST UPSTREAM_HOST_NAME UPSTREAM_CLUSTER UPSTREAM_CLUSTER_RAW UPSTREAM_LOCAL_ADDRESS
	UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT UPSTREAM_LOCAL_PORT UPSTREAM_REMOTE_ADDRESS UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT
	UPSTREAM_REMOTE_PORT UPSTREAM_REQUEST_ATTEMPT_COUNT UPSTREAM_TRANSPORT_FAILURE_REASON UPSTREAM_METADATA
	UPSTREAM_TLS_CIPHER UPSTREAM_TLS_VERSION UPSTREAM_TLS_SESSION_ID UPSTREAM_PEER_SUBJECT UPSTREAM_PEER_ISSUER
	UPSTREAM_PEER_CERT UPSTREAM_PEER_URI_SAN UPSTREAM_PEER_DNS_SAN UPSTREAM_PEER_CERT_V_START UPSTREAM_PEER_CERT_V_END
	UPSTREAM_CONNECTION_ID UPSTREAM_FILTER_STATE
	DOWNSTREAM_LOCAL_ADDRESS DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT DOWNSTREAM_LOCAL_PORT DOWNSTREAM_REMOTE_ADDRESS
	DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_REMOTE_PORT DOWNSTREAM_DIRECT_REMOTE_ADDRESS
	DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_DIRECT_REMOTE_PORT DOWNSTREAM_TRANSPORT_FAILURE_REASON
	DOWNSTREAM_TLS_CIPHER DOWNSTREAM_TLS_VERSION DOWNSTREAM_TLS_SESSION_ID DOWNSTREAM_PEER_SUBJECT
	DOWNSTREAM_PEER_ISSUER DOWNSTREAM_PEER_CERT DOWNSTREAM_PEER_SERIAL DOWNSTREAM_PEER_URI_SAN DOWNSTREAM_PEER_DNS_SAN
	DOWNSTREAM_PEER_IP_SAN DOWNSTREAM_PEER_FINGERPRINT_256 DOWNSTREAM_PEER_FINGERPRINT_1 DOWNSTREAM_PEER_CERT_V_START
	DOWNSTREAM_PEER_CERT_V_END DOWNSTREAM_LOCAL_URI_SAN DOWNSTREAM_LOCAL_DNS_SAN DOWNSTREAM_LOCAL_IP_SAN
	DOWNSTREAM_LOCAL_SUBJECT
	DYNAMIC_METADATA CLUSTER_METADATA METADATA FILTER_STATE PER_REQUEST_STATE ENVIRONMENT HOSTNAME EMIT_TIME
	TRACE_ID TLS_JA3_FINGERPRINT TLS_JA4_FINGERPRINT UNIQUE_ID FILTER_CHAIN_NAME PATH QUERY_PARAM QUERY_PARAMS CUSTOM_FLAGS
	ACCESS_LOG_TYPE BYTES_RETRANSMITTED PACKETS_RETRANSMITTED
	REQUEST_HEADERS_BYTES RESPONSE_HEADERS_BYTES RESPONSE_TRAILERS_BYTES
	UPSTREAM_WIRE_BYTES_SENT UPSTREAM_WIRE_BYTES_RECEIVED UPSTREAM_HEADER_BYTES_SENT UPSTREAM_HEADER_BYTES_RECEIVED
	DOWNSTREAM_WIRE_BYTES_SENT DOWNSTREAM_WIRE_BYTES_RECEIVED DOWNSTREAM_HEADER_BYTES_SENT DOWNSTREAM_HEADER_BYTES_RECEIVED`)
