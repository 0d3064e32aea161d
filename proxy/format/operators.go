package format

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

type paramUse uint8

const (
	noParams paramUse = iota
	mayHaveParams
	needsParams
)

// An operator is one line of the table: how it may be written and what it compiles to.
type operator struct {
	params paramUse
	length bool // :Z may follow
	build  func(params string) (*operation, error)
}

// operators are all command operators, by name.
var operators = map[string]operator{
	// Request and response.
	"REQ":                     {needsParams, true, buildRequestHeader},
	"RESP":                    {needsParams, true, buildResponseHeader},
	"TRAILER":                 {needsParams, true, buildTrailer},
	"REQ_WITHOUT_QUERY":       {needsParams, true, buildWithoutQuery},
	"PATH":                    {mayHaveParams, true, buildPath},
	"QUERY_PARAM":             {needsParams, true, buildQueryParam},
	"QUERY_PARAMS":            {mayHaveParams, true, buildQueryParams},
	"PROTOCOL":                text(func(i *streaminfo.Info) string { return i.Protocol }),
	"UPSTREAM_PROTOCOL":       text(func(i *streaminfo.Info) string { return i.UpstreamProtocol }),
	"BYTES_RECEIVED":          number(func(r Record) int64 { return int64(r.Info.BytesReceived) }),
	"BYTES_SENT":              number(func(r Record) int64 { return int64(r.Info.BytesSent) }),
	"REQUEST_HEADERS_BYTES":   number(requestHeadersBytes),
	"RESPONSE_HEADERS_BYTES":  number(responseHeadersBytes),
	"RESPONSE_TRAILERS_BYTES": number(func(r Record) int64 { return headersBytes(r.ResponseTrailers) }),

	// Result.
	"RESPONSE_CODE":                       number(func(r Record) int64 { return int64(r.Info.Code) }),
	"RESPONSE_CODE_DETAILS":               {mayHaveParams, false, buildCodeDetails},
	"RESPONSE_FLAGS":                      always(func(dst []byte, r Record) []byte { return r.Info.Flags.AppendShort(dst) }),
	"RESPONSE_FLAGS_LONG":                 always(func(dst []byte, r Record) []byte { return r.Info.Flags.AppendLong(dst) }),
	"CONNECTION_TERMINATION_DETAILS":      text(func(i *streaminfo.Info) string { return i.TerminationDetails }),
	"UPSTREAM_TRANSPORT_FAILURE_REASON":   optional(func(dst []byte, r Record) []byte { return underscored(dst, r.Info.UpstreamFailureReason) }),
	"UPSTREAM_REQUEST_ATTEMPT_COUNT":      number(func(r Record) int64 { return int64(r.Info.Attempts) }),
	"DOWNSTREAM_TRANSPORT_FAILURE_REASON": optional(func(dst []byte, r Record) []byte { return underscored(dst, r.Info.DownstreamFailureReason) }),
	"CUSTOM_FLAGS":                        always(func(dst []byte, _ Record) []byte { return dst }), // no filter of ours sets one
	"LOCAL_REPLY_BODY":                    always(func(dst []byte, r Record) []byte { return append(dst, r.LocalReplyBody...) }),
	"GRPC_STATUS":                         {mayHaveParams, false, buildGRPCStatus},
	"GRPC_STATUS_NUMBER":                  {noParams, false, func(string) (*operation, error) { return buildGRPCStatus("NUMBER") }},

	// Upstream.
	"UPSTREAM_HOST":                        optional(upstreamHost),
	"UPSTREAM_HOST_NAME":                   optional(upstreamHostName),
	"UPSTREAM_HOST_NAME_WITHOUT_PORT":      optional(hostOf(upstreamHostName)),
	"UPSTREAM_CLUSTER":                     text((*streaminfo.Info).ObservedCluster),
	"UPSTREAM_CLUSTER_RAW":                 text(func(i *streaminfo.Info) string { return i.Cluster }),
	"UPSTREAM_REMOTE_ADDRESS":              optional(upstreamRemote),
	"UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": optional(hostOf(upstreamRemote)),
	"UPSTREAM_REMOTE_PORT":                 rawJSON(portOf(upstreamRemote)),

	"UPSTREAM_PEER_URI_SAN":                      ofServer(func(dst []byte, c *streaminfo.Certificate) []byte { return joined(dst, c.URIs) }),
	"UPSTREAM_PEER_DNS_SAN":                      ofServer(func(dst []byte, c *streaminfo.Certificate) []byte { return joined(dst, c.DNS) }),
	"UPSTREAM_PEER_IP_SAN":                       ofServer(func(dst []byte, c *streaminfo.Certificate) []byte { return addresses(dst, c.X509) }),
	"UPSTREAM_PEER_SUBJECT":                      ofServer(func(dst []byte, c *streaminfo.Certificate) []byte { return append(dst, c.Subject...) }),
	"UPSTREAM_PEER_ISSUER":                       ofServer(func(dst []byte, c *streaminfo.Certificate) []byte { return append(dst, c.Issuer...) }),
	"UPSTREAM_PEER_CERT":                         ofServer(func(dst []byte, c *streaminfo.Certificate) []byte { return encodedPEM(dst, c.X509) }),
	"UPSTREAM_PEER_CERT_V_START":                 {mayHaveParams, false, buildTime(serverValidity(func(c *x509.Certificate) time.Time { return c.NotBefore }), time.UTC)},
	"UPSTREAM_PEER_CERT_V_END":                   {mayHaveParams, false, buildTime(serverValidity(func(c *x509.Certificate) time.Time { return c.NotAfter }), time.UTC)},
	"UPSTREAM_LOCAL_URI_SAN":                     ofShown(func(dst []byte, c *streaminfo.Certificate) []byte { return joined(dst, c.URIs) }),
	"UPSTREAM_LOCAL_DNS_SAN":                     ofShown(func(dst []byte, c *streaminfo.Certificate) []byte { return joined(dst, c.DNS) }),
	"UPSTREAM_LOCAL_IP_SAN":                      ofShown(func(dst []byte, c *streaminfo.Certificate) []byte { return addresses(dst, c.X509) }),
	"UPSTREAM_TLS_VERSION":                       ofUpstreamTLS(func(t *streaminfo.TLS) string { return t.Version }),
	"UPSTREAM_TLS_CIPHER":                        ofUpstreamTLS(func(t *streaminfo.TLS) string { return t.Cipher }),
	"UPSTREAM_TLS_GROUP":                         ofUpstreamTLS(func(t *streaminfo.TLS) string { return t.Group }),
	"UPSTREAM_HOSTS_ATTEMPTED":                   optional(attempted(upstreamRemote)),
	"UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT":      optional(attempted(hostOf(upstreamRemote))),
	"UPSTREAM_HOST_NAMES_ATTEMPTED":              optional(attempted(connectedName)),
	"UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT": optional(attempted(hostOf(connectedName))),

	// Other.
	"ROUTE_NAME":           text(func(i *streaminfo.Info) string { return i.RouteName }),
	"VIRTUAL_CLUSTER_NAME": text(func(i *streaminfo.Info) string { return i.VirtualCluster }),
	"FILTER_CHAIN_NAME":    text(func(i *streaminfo.Info) string { return i.FilterChain }),
	"REQUESTED_SERVER_NAME": text(func(i *streaminfo.Info) string {
		return i.ServerName
	}),
	"BYTES_RETRANSMITTED":   number(func(Record) int64 { return 0 }), // of QUIC only, as the next
	"PACKETS_RETRANSMITTED": number(func(Record) int64 { return 0 }),
	"CONNECTION_ID":         number(func(r Record) int64 { return int64(r.Info.ConnectionID) }),
	"STREAM_ID":             optional(streamID),
	"TRACE_ID":              optional(func(dst []byte, r Record) []byte { return append(dst, r.Info.TraceID...) }),
	"SPAN_ID":               optional(func(dst []byte, r Record) []byte { return append(dst, r.Info.SpanID...) }),
	"UNIQUE_ID":             always(func(dst []byte, _ Record) []byte { return appendUUID(dst) }),
	"ACCESS_LOG_TYPE":       always(logType),
	"HOSTNAME":              {noParams, false, buildHostname},
	"ENVIRONMENT":           {needsParams, true, buildEnvironment},
	"METADATA":              {needsParams, true, buildMetadata},
	"DYNAMIC_METADATA":      {needsParams, true, func(p string) (*operation, error) { return buildMetadata("DYNAMIC:" + p) }},
	"UPSTREAM_METADATA": {needsParams, true, func(p string) (*operation, error) {
		return buildMetadata("UPSTREAM_HOST:" + p)
	}},
	"FILTER_STATE": {needsParams, true, buildFilterState},

	// Time.
	"START_TIME":                    {mayHaveParams, false, buildTime(func(r Record) time.Time { return r.Info.Start }, time.UTC)},
	"START_TIME_LOCAL":              {mayHaveParams, false, buildTime(func(r Record) time.Time { return r.Info.Start }, time.Local)},
	"EMIT_TIME":                     {mayHaveParams, false, buildTime(func(Record) time.Time { return time.Now() }, time.UTC)},
	"EMIT_TIME_LOCAL":               {mayHaveParams, false, buildTime(func(Record) time.Time { return time.Now() }, time.Local)},
	"DURATION":                      milliseconds(whole),
	"REQUEST_DURATION":              milliseconds(func(i *streaminfo.Info) (time.Duration, bool) { return reached(i.RequestReceived) }),
	"REQUEST_TX_DURATION":           milliseconds(func(i *streaminfo.Info) (time.Duration, bool) { return reached(i.UpstreamRequestEnd) }),
	"ROUNDTRIP_DURATION":            constant(""), // of QUIC only
	"DOWNSTREAM_HANDSHAKE_DURATION": milliseconds(func(i *streaminfo.Info) (time.Duration, bool) { return reached(i.Handshake) }),
	"RESPONSE_DURATION":             milliseconds(func(i *streaminfo.Info) (time.Duration, bool) { return reached(i.UpstreamResponse) }),
	"RESPONSE_TX_DURATION":          milliseconds(responseSending),
	"COMMON_DURATION":               {needsParams, false, buildCommonDuration},

	// Downstream.
	"DOWNSTREAM_PEER_URI_SAN":         optional(func(dst []byte, r Record) []byte { return joined(dst, r.Info.PeerURISANs) }),
	"DOWNSTREAM_LOCAL_URI_SAN":        optional(func(dst []byte, r Record) []byte { return joined(dst, r.Info.LocalURISANs) }),
	"DOWNSTREAM_PEER_SUBJECT":         text(func(i *streaminfo.Info) string { return i.PeerSubject }),
	"DOWNSTREAM_PEER_DNS_SAN":         optional(func(dst []byte, r Record) []byte { return joined(dst, r.Info.PeerDNSSANs) }),
	"DOWNSTREAM_PEER_IP_SAN":          ofPeer(addresses),
	"DOWNSTREAM_PEER_EMAIL_SAN":       ofPeer(func(dst []byte, c *x509.Certificate) []byte { return joined(dst, c.EmailAddresses) }),
	"DOWNSTREAM_PEER_CERT":            ofPeer(encodedPEM),
	"DOWNSTREAM_PEER_ISSUER":          text(func(i *streaminfo.Info) string { return i.PeerIssuer }),
	"DOWNSTREAM_PEER_SERIAL":          ofPeer(serial),
	"DOWNSTREAM_PEER_FINGERPRINT_256": ofPeer(func(dst []byte, c *x509.Certificate) []byte { return fingerprint(dst, sha256.New(), c) }),
	"DOWNSTREAM_PEER_FINGERPRINT_1":   ofPeer(func(dst []byte, c *x509.Certificate) []byte { return fingerprint1(dst, c) }),
	"DOWNSTREAM_PEER_CERT_V_START":    {mayHaveParams, false, buildTime(validity(func(c *x509.Certificate) time.Time { return c.NotBefore }), time.UTC)},
	"DOWNSTREAM_PEER_CERT_V_END":      {mayHaveParams, false, buildTime(validity(func(c *x509.Certificate) time.Time { return c.NotAfter }), time.UTC)},
	"DOWNSTREAM_TLS_VERSION":          text(func(i *streaminfo.Info) string { return i.TLSVersion }),
	"DOWNSTREAM_TLS_CIPHER":           text(func(i *streaminfo.Info) string { return i.TLSCipher }),

	"DOWNSTREAM_REMOTE_ADDRESS":                     address(downstreamRemote),
	"DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT":        host(downstreamRemote),
	"DOWNSTREAM_REMOTE_PORT":                        port(downstreamRemote),
	"DOWNSTREAM_DIRECT_REMOTE_ADDRESS":              address(downstreamDirectRemote),
	"DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": host(downstreamDirectRemote),
	"DOWNSTREAM_DIRECT_REMOTE_PORT":                 port(downstreamDirectRemote),
	"DOWNSTREAM_LOCAL_ADDRESS":                      address(downstreamLocal),
	"DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT":         host(downstreamLocal),
	"DOWNSTREAM_LOCAL_PORT":                         port(downstreamLocal),
	"DOWNSTREAM_DIRECT_LOCAL_ADDRESS":               address(downstreamDirectLocal),
	"DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT":  host(downstreamDirectLocal),
	"DOWNSTREAM_DIRECT_LOCAL_PORT":                  port(downstreamDirectLocal),
	"UPSTREAM_LOCAL_ADDRESS":                        address(upstreamLocal),
	"UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT":           host(upstreamLocal),
	"UPSTREAM_LOCAL_PORT":                           port(upstreamLocal),
}

// plain is an operator without parameters and length.
func plain(op operation) operator {
	return operator{noParams, false, func(string) (*operation, error) { return &op, nil }}
}

// text is an operator on a string that is absent when empty.
func text(get func(*streaminfo.Info) string) operator {
	return plain(operation{write: func(dst []byte, r Record) ([]byte, bool) {
		s := get(r.Info)
		return append(dst, s...), s != ""
	}})
}

// number is an operator on a number that is always there.
func number(get func(Record) int64) operator {
	return plain(numeric(func(dst []byte, r Record) ([]byte, bool) { return strconv.AppendInt(dst, get(r), 10), true }))
}

// numeric is an operation whose text is a JSON value as it is.
func numeric(write func(dst []byte, r Record) ([]byte, bool)) operation {
	return operation{write: write, json: write}
}

// always is an operator on a text that is there even when it is empty.
func always(write func(dst []byte, r Record) []byte) operator {
	return plain(operation{write: func(dst []byte, r Record) ([]byte, bool) { return write(dst, r), true }})
}

// optional is an operator on a text that is absent when nothing is appended.
func optional(write func(dst []byte, r Record) []byte) operator {
	return plain(operation{write: presentIfAny(write)})
}

// rawJSON is optional for what is a JSON value as it is.
func rawJSON(write func(dst []byte, r Record) []byte) operator {
	return plain(numeric(presentIfAny(write)))
}

func presentIfAny(write func(dst []byte, r Record) []byte) func([]byte, Record) ([]byte, bool) {
	return func(dst []byte, r Record) ([]byte, bool) {
		n := len(dst)
		dst = write(dst, r)
		return dst, len(dst) > n
	}
}

func constant(s string) operator { return text(func(*streaminfo.Info) string { return s }) }

// underscored appends s with blanks replaced, so that a log line splits at blanks.
func underscored(dst []byte, s string) []byte {
	for i := range len(s) {
		switch c := s[i]; c {
		case ' ', '\t', '\n', '\v', '\f', '\r':
			dst = append(dst, '_')
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

func buildCodeDetails(params string) (*operation, error) {
	switch params {
	case "":
		return &operation{write: presentIfAny(func(dst []byte, r Record) []byte { return underscored(dst, r.Info.CodeDetails) })}, nil
	case "ALLOW_WHITESPACES":
		return &operation{write: presentIfAny(func(dst []byte, r Record) []byte { return append(dst, r.Info.CodeDetails...) })}, nil
	}
	return nil, errParam(params, "ALLOW_WHITESPACES")
}

func joined(dst []byte, list []string) []byte {
	for i, s := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, s...)
	}
	return dst
}

func logType(dst []byte, r Record) []byte {
	if r.Info.LogType != "" {
		return append(dst, r.Info.LogType...)
	}
	if r.Request == nil {
		return append(dst, "TcpConnectionEnd"...)
	}
	return append(dst, "DownstreamEnd"...)
}

func fixed(s string) *operation {
	return &operation{write: func(dst []byte, _ Record) ([]byte, bool) { return append(dst, s...), true }}
}

func buildHostname(string) (*operation, error) {
	name, err := os.Hostname()
	if err != nil {
		return fixed("-"), nil
	}
	return fixed(name), nil
}

// A variable that is not set is "-" also in JSON, as in Envoy.
func buildEnvironment(params string) (*operation, error) {
	value, ok := os.LookupEnv(strings.TrimSpace(params))
	if !ok {
		return fixed("-"), nil
	}
	return fixed(value), nil
}

// streamID is the id of the request; of a connection without HTTP it is made from the
// facts that no other has, so that all logs agree on it.
func streamID(dst []byte, r Record) []byte {
	if r.Info.Protocol != "" {
		id, _ := requestHeader(r, "x-request-id")
		return append(dst, id...)
	}
	var facts [16]byte
	binary.LittleEndian.PutUint64(facts[:], uint64(r.Info.Start.UnixNano()))
	binary.LittleEndian.PutUint64(facts[8:], r.Info.ConnectionID)
	sum := sha256.Sum256(facts[:])
	return formatUUID(dst, [16]byte(sum[:16]))
}

// appendUUID appends a random UUID.
func appendUUID(dst []byte) []byte {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return formatUUID(dst, b)
}

// formatUUID appends b as a UUID of version 4.
func formatUUID(dst []byte, b [16]byte) []byte {
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	for i, end := range []int{4, 6, 8, 10, 16} {
		start := []int{0, 4, 6, 8, 10}[i]
		if i > 0 {
			dst = append(dst, '-')
		}
		dst = hex.AppendEncode(dst, b[start:end])
	}
	return dst
}
