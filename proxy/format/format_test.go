package format_test

import (
	"crypto/x509"
	"encoding/json"
	"math"
	"math/big"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/format"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

const (
	defaultText = `[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%` + "\n"
	oldText     = `[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME%`
)

// headers reads "name: value" lines.
func headers(text string) http.Headers {
	var h http.Headers
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		h.Add([]byte(name), []byte(value))
	}
	return h
}

// httpRecord is a request that a backend answered.
func httpRecord() format.Record {
	start := time.Date(2026, 11, 21, 12, 34, 58, 76_203_827, time.UTC)
	info := &streaminfo.Info{
		Start: start, End: start.Add(14 * time.Millisecond),
		RequestReceived: time.Millisecond, UpstreamRequestSent: 2 * time.Millisecond, UpstreamRequestEnd: 3 * time.Millisecond,
		UpstreamResponse: 9 * time.Millisecond, UpstreamResponseEnd: 10 * time.Millisecond, ResponseSent: 11 * time.Millisecond,
		Protocol: "HTTP/1.1", UpstreamProtocol: "HTTP/2", Code: 418, CodeDetails: "via_upstream", BytesReceived: 3, BytesSent: 15,
		RouteName: "up route", Cluster: "outbound|80||httpbin.org", Attempts: 2, ConnectionID: 7, FilterChain: "chain one",
		Upstream:      &endpoint.Endpoint{Address: "127.0.3.1:8000", Hostname: "httpbin.org"},
		UpstreamLocal: netip.MustParseAddrPort("127.0.0.1:59300"), DownstreamLocal: netip.MustParseAddrPort("127.0.0.1:80"),
		DownstreamDirectLocal: netip.MustParseAddrPort("127.0.0.1:8080"),
		DownstreamRemote:      netip.MustParseAddrPort("10.77.0.2:0"), DownstreamDirectRemote: netip.MustParseAddrPort("127.0.0.1:36042"),
		Handshake: 5 * time.Millisecond, TLSVersion: "TLSv1.3", TLSCipher: "TLS_AES_128_GCM_SHA256",
		PeerURISANs: []string{"spiffe://a", "spiffe://b"}, PeerSubject: "CN=c",
		Metadata:    map[string]map[string]any{"f": {"s": "a b", "n": 3.5, "five": 5.0, "b": true, "l": []any{1.0, "a"}, "nil": nil, "deep": map[string]any{"k": "v"}}, "m": {"zero": math.Copysign(0, -1)}},
		FilterState: map[string]any{"plain": "text", "number": 4.0},
	}
	info.Upstream.Metadata.Store(map[string]map[string]any{"istio": {"workload": "w"}})
	return format.Record{
		Info: info,
		Request: &http.Request{
			Method: []byte("GET"), Scheme: []byte("http"), Authority: []byte("httpbin.org"), Path: []byte("/status/418?a=1%202&b&c=%zz+&a=3"),
			Headers: headers("User-Agent: curl/7.88.1\nx-request-id: b6bc66ab\nx-forwarded-for: 10.77.0.2\nx-empty: \nx-raw: t\tq\"\\ \xc3\xa9\nx-bad: t\t\"\xff"),
		},
		Response: &http.Response{Status: 418, Headers: headers("x-envoy-upstream-service-time: 7\ndate: Sat, 21 Nov")},
	}
}

func tcpRecord() format.Record {
	start := time.Date(2026, 11, 21, 12, 35, 26, 136_000_000, time.UTC)
	return format.Record{Info: &streaminfo.Info{
		Start: start, End: start.Add(69 * time.Millisecond), BytesReceived: 517, Cluster: "outbound|443||edition.cnn.com",
		TerminationDetails: "rbac_access_denied_matched_policy[ns[istio-system]-policy[deny]-rule[0]]",
		Upstream:           &endpoint.Endpoint{Address: "127.0.3.2:8443"}, UpstreamLocal: netip.MustParseAddrPort("127.0.0.1:54976"),
		DownstreamLocal: netip.MustParseAddrPort("127.0.0.1:443"), DownstreamRemote: netip.MustParseAddrPort("127.0.0.1:35962"), ServerName: "edition.cnn.com",
	}}
}

func text(t *testing.T, format_ string, rec format.Record) string {
	t.Helper()
	f, err := format.Parse(format_)
	if err != nil {
		t.Fatalf("%s: %v", format_, err)
	}
	return string(f.Append(nil, rec))
}

func equal(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestDefaultText(t *testing.T) {
	t.Run("OB-026 default text format, HTTP", func(t *testing.T) {
		rec := httpRecord()
		rec.Info.DownstreamRemote, rec.Info.RouteName = rec.Info.DownstreamDirectRemote, ""
		rec.Info.BytesReceived = 0
		rec.Request.Path = []byte("/status/418")
		equal(t, text(t, defaultText, rec), `[2026-11-21T12:34:58.076Z] "GET /status/418 HTTP/1.1" 418 - via_upstream - "-" 0 15 14 7 "10.77.0.2" "curl/7.88.1" "b6bc66ab" "httpbin.org" "127.0.3.1:8000" outbound|80||httpbin.org 127.0.0.1:59300 127.0.0.1:80 127.0.0.1:36042 - -`+"\n")
	})
	t.Run("OB-026 default text format, connection", func(t *testing.T) {
		equal(t, text(t, defaultText, tcpRecord()), `[2026-11-21T12:35:26.136Z] "- - -" 0 - - rbac_access_denied_matched_policy[ns[istio-system]-policy[deny]-rule[0]] "-" 517 0 69 - "-" "-" "-" "-" "127.0.3.2:8443" outbound|443||edition.cnn.com 127.0.0.1:54976 127.0.0.1:443 127.0.0.1:35962 edition.cnn.com -`+"\n")
	})
	t.Run("OB-027 text format of the 1.1 era", func(t *testing.T) {
		equal(t, text(t, oldText, tcpRecord()), `[2026-11-21T12:35:26.136Z] "- - -" 0 - 517 0 69 - "-" "-" "-" "-" "127.0.3.2:8443" outbound|443||edition.cnn.com 127.0.0.1:54976 127.0.0.1:443 127.0.0.1:35962 edition.cnn.com`)
	})
	t.Run("OB-026 no route and a failed connection", func(t *testing.T) {
		rec := httpRecord()
		*rec.Info = streaminfo.Info{
			Start: rec.Info.Start, End: rec.Info.Start, Protocol: "HTTP/1.1", Code: 503,
			CodeDetails:           "upstream_reset_before_response_started{remote_connection_failure|delayed connect error: Connection refused}",
			UpstreamFailureReason: "delayed connect error: Connection refused",
		}
		rec.Info.Flags.Set(streaminfo.UpstreamRetryLimitExceeded)
		rec.Info.Flags.Set(streaminfo.UpstreamConnectionFailure)
		rec.Response.Headers = http.Headers{}
		equal(t, text(t, `%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS%`, rec),
			`503 URX,UF upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused} - "delayed_connect_error:_Connection_refused" "-" - -`)
	})
}

// Values were compared with those that Envoy 1.40 prints for such a stream.
func TestOperators(t *testing.T) {
	t.Setenv("FORMAT_TEST", "value")
	rec := httpRecord()
	for _, c := range []struct{ name, format, want string }{
		{"OB-029 request headers", `%REQ(user-AGENT)%|%REQ(NOPE)%|%REQ(NOPE?USER-AGENT):4%|%REQ(X-EMPTY)%|%REQ(X-EMPTY?USER-AGENT)%|%REQ(HOST)%|%REQ(:SCHEME)%`, `curl/7.88.1|-|curl|||httpbin.org|http`},
		{"OB-029 response headers and trailers", `%RESP(:STATUS)%|%RESP(NOPE?DATE):3%|%TRAILER(GRPC-STATUS)%`, `418|Sat|-`},
		{"OB-029 path and query", `%PATH%|%PATH(NQ)%|%PATH(WQ:PATH):5%|%PATH(NQ:ORIG)%|%REQ_WITHOUT_QUERY(:PATH)%|%QUERY_PARAM(a)%|%QUERY_PARAM(b)%|%QUERY_PARAM(c)%|%QUERY_PARAM(d)%`, `/status/418?a=1%202&b&c=%zz+&a=3|/status/418|/stat|-|/status/418|1 2||%zz+|-`},
		{"OB-029 sizes and protocols", `%PROTOCOL% %UPSTREAM_PROTOCOL% %BYTES_RECEIVED% %BYTES_SENT% %REQUEST_HEADERS_BYTES% %RESPONSE_HEADERS_BYTES% %RESPONSE_TRAILERS_BYTES%`, `HTTP/1.1 HTTP/2 3 15 173 55 0`},
		{"query as a whole", `%QUERY_PARAMS(ORIG)%|%QUERY_PARAMS%`, `a=1%202&b&c=%zz+&a=3|a=1%202&b&c=%zz+&a=3`},
		{"OB-030 start time formats", `%START_TIME%|%START_TIME()%|%START_TIME(%s.%3f)%|%START_TIME(%f %6f %1f)%|%START_TIME(%Y/%m/%dT%H:%M:%S%z)%`, `2026-11-21T12:34:58.076Z|2026-11-21T12:34:58.076Z|1795264498.076|076203827 076203 0|2026/11/21T12:34:58+0000`},
		{"OB-030 start time, other conversions", `%START_TIME(%a %A %b %B %e %j %y %I %p %P %D %T %R %F %% %c %u %w %C %h %k %l %U %W %V %G %g %x %X %r %Z %E3S %E*S %E6f %Ez %E4Y %Q)%`, `Sat Saturday Nov November 21 325 26 12 PM pm 11/21/26 12:34:58 12:34 2026-11-21 % Sat Nov 21 12:34:58 2026 6 6 20 Nov 12 12 46 46 47 2026 26 11/21/26 12:34:58 12:34:58 PM UTC 58.076 58.076203827 076203 +00:00 2026 %Q`},
		{"OB-030 durations", `%DURATION% %REQUEST_DURATION% %REQUEST_TX_DURATION% %RESPONSE_DURATION% %RESPONSE_TX_DURATION% %ROUNDTRIP_DURATION% %DOWNSTREAM_HANDSHAKE_DURATION%`, `14 1 3 9 5 - 5`},
		{"OB-030 common duration", `%COMMON_DURATION(DS_RX_BEG:DS_RX_END:ms)% %COMMON_DURATION(US_TX_BEG:US_RX_BEG:us)% %COMMON_DURATION(US_RX_END:DS_TX_END:ns)% %COMMON_DURATION(DS_TX_END:DS_RX_BEG:ms)%`, `1 7000 4000000 -`},
		{"OB-031 result", `%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% %UPSTREAM_TRANSPORT_FAILURE_REASON% %DOWNSTREAM_TRANSPORT_FAILURE_REASON% <%LOCAL_REPLY_BODY%> %GRPC_STATUS% %GRPC_STATUS_NUMBER% %UPSTREAM_REQUEST_ATTEMPT_COUNT%`, `418 - - via_upstream - - - <> - - 2`},
		{"upstream", `%UPSTREAM_HOST%|%UPSTREAM_HOST_NAME%|%UPSTREAM_CLUSTER%|%UPSTREAM_CLUSTER_RAW%|%UPSTREAM_LOCAL_ADDRESS%|%UPSTREAM_LOCAL_PORT%|%UPSTREAM_REMOTE_ADDRESS%|%UPSTREAM_REMOTE_PORT%|%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%|%UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%`, `127.0.3.1:8000|httpbin.org|outbound|80||httpbin.org|outbound|80||httpbin.org|127.0.0.1:59300|59300|127.0.3.1:8000|8000|127.0.3.1|127.0.0.1`},
		{"downstream", `%DOWNSTREAM_REMOTE_ADDRESS%|%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%|%DOWNSTREAM_REMOTE_PORT%|%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%|%DOWNSTREAM_LOCAL_ADDRESS%|%DOWNSTREAM_LOCAL_PORT%|%DOWNSTREAM_DIRECT_LOCAL_ADDRESS%`, `10.77.0.2:0|10.77.0.2|0|127.0.0.1:36042|127.0.0.1:80|80|127.0.0.1:8080`},
		{"TLS", `%DOWNSTREAM_PEER_URI_SAN%|%DOWNSTREAM_PEER_SUBJECT%|%DOWNSTREAM_TLS_VERSION%|%DOWNSTREAM_TLS_CIPHER%|%DOWNSTREAM_LOCAL_URI_SAN%`, `spiffe://a,spiffe://b|CN=c|TLSv1.3|TLS_AES_128_GCM_SHA256|-`},
		{"other", `%ROUTE_NAME%|%FILTER_CHAIN_NAME%|%CONNECTION_ID%|%STREAM_ID%|%ACCESS_LOG_TYPE%|%VIRTUAL_CLUSTER_NAME%|%CUSTOM_FLAGS%|%ENVIRONMENT(FORMAT_TEST):3%|%ENVIRONMENT(NOPE)%`, `up route|chain one|7|b6bc66ab|DownstreamEnd|-||val|-`},
		{"minus nothing", `%DYNAMIC_METADATA(m)% %DYNAMIC_METADATA(m:zero)%`, `{"zero":-0} -0`},
		{"metadata", `%DYNAMIC_METADATA(f:s)%|%DYNAMIC_METADATA(f:n)%|%DYNAMIC_METADATA(f:five)%|%DYNAMIC_METADATA(f:b)%|%DYNAMIC_METADATA(f:l)%|%DYNAMIC_METADATA(f:l):3%|%DYNAMIC_METADATA(f:nil)%|%DYNAMIC_METADATA(f:deep:k)%|%DYNAMIC_METADATA(none)%|%METADATA(DYNAMIC:f:deep)%|%UPSTREAM_METADATA(istio:workload)%|%METADATA(UPSTREAM_HOST:istio:none)%`, `a b|3.5|5|true|[1,"a"]|[1,|-|v|-|{"k":"v"}|w|-`},
		{"filter state", `%FILTER_STATE(plain)%|%FILTER_STATE(plain:PLAIN)%|%FILTER_STATE(plain:PLAIN):2%|%FILTER_STATE(number)%|%FILTER_STATE(none)%|%FILTER_STATE(plain:FIELD:x)%`, `"text"|text|te|4|-|-`},
		{"percent sign", `100%% of %PROTOCOL%%%`, `100% of HTTP/1.1%`},
	} {
		t.Run(c.name, func(t *testing.T) { equal(t, text(t, c.format, rec), c.want) })
	}
}

func TestMoreOperators(t *testing.T) {
	t.Run("OB-035 response flags, short and long, several", func(t *testing.T) {
		rec := httpRecord()
		for _, c := range []struct {
			flag        streaminfo.Flag
			short, long string
		}{
			{streaminfo.NoHealthyUpstream, "UH", "NoHealthyUpstream"}, {streaminfo.UpstreamConnectionFailure, "UF", "UpstreamConnectionFailure"},
			{streaminfo.UpstreamOverflow, "UO", "UpstreamOverflow"}, {streaminfo.NoRouteFound, "NR", "NoRouteFound"},
			{streaminfo.UpstreamRetryLimitExceeded, "URX", "UpstreamRetryLimitExceeded"}, {streaminfo.NoClusterFound, "NC", "NoClusterFound"},
			{streaminfo.DurationTimeout, "DT", "DurationTimeout"}, {streaminfo.DownstreamConnectionTermination, "DC", "DownstreamConnectionTermination"},
			{streaminfo.FailedLocalHealthCheck, "LH", "FailedLocalHealthCheck"}, {streaminfo.UpstreamRequestTimeout, "UT", "UpstreamRequestTimeout"},
			{streaminfo.LocalReset, "LR", "LocalReset"}, {streaminfo.UpstreamRemoteReset, "UR", "UpstreamRemoteReset"},
			{streaminfo.UpstreamConnectionTermination, "UC", "UpstreamConnectionTermination"}, {streaminfo.DelayInjected, "DI", "DelayInjected"},
			{streaminfo.FaultInjected, "FI", "FaultInjected"}, {streaminfo.RateLimited, "RL", "RateLimited"},
			{streaminfo.UnauthorizedExternalService, "UAEX", "UnauthorizedExternalService"}, {streaminfo.RateLimitServiceError, "RLSE", "RateLimitServiceError"},
			{streaminfo.InvalidEnvoyRequestHeaders, "IH", "InvalidEnvoyRequestHeaders"}, {streaminfo.StreamIdleTimeout, "SI", "StreamIdleTimeout"},
			{streaminfo.DownstreamProtocolError, "DPE", "DownstreamProtocolError"}, {streaminfo.UpstreamProtocolError, "UPE", "UpstreamProtocolError"},
			{streaminfo.UpstreamMaxStreamDurationReached, "UMSDR", "UpstreamMaxStreamDurationReached"}, {streaminfo.ResponseFromCacheFilter, "RFCF", "ResponseFromCacheFilter"},
			{streaminfo.NoFilterConfigFound, "NFCF", "NoFilterConfigFound"}, {streaminfo.OverloadManager, "OM", "OverloadManagerTerminated"},
			{streaminfo.DNSResolutionFailed, "DF", "DnsResolutionFailed"}, {streaminfo.DropOverload, "DO", "DropOverload"},
		} {
			rec.Info.Flags = streaminfo.Flags{}
			rec.Info.Flags.Set(c.flag)
			equal(t, text(t, "%RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG%", rec), c.short+" "+c.long)
		}
		rec.Info.Flags = streaminfo.Flags{}
		rec.Info.Flags.Set(streaminfo.UpstreamRetryLimitExceeded)
		rec.Info.Flags.Set(streaminfo.UpstreamConnectionFailure)
		equal(t, text(t, "%RESPONSE_FLAGS%", rec), "URX,UF")
	})
	t.Run("OB-031 gRPC status of trailers, headers and HTTP", func(t *testing.T) {
		rec := httpRecord()
		rec.Request.Headers = headers("content-type: application/grpc+proto")
		const all = "%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS(NUMBER)% %GRPC_STATUS_NUMBER%"
		rec.Info.Code = 200
		equal(t, text(t, all, rec), "Unknown UNKNOWN 2 2")
		rec.Response.Headers = headers("grpc-status: 5")
		equal(t, text(t, all, rec), "NotFound NOT_FOUND 5 5")
		trailers := headers("grpc-status: 14\nx: abcdef")
		rec.ResponseTrailers = &trailers
		equal(t, text(t, all+" %TRAILER(X):3% %RESPONSE_TRAILERS_BYTES%", rec), "Unavailable UNAVAILABLE 14 14 abc 20")
	})
	t.Run("a cluster's name in stats", func(t *testing.T) {
		rec := httpRecord()
		rec.Info.ClusterStatName = "PassthroughCluster;"
		rec.Info.Cluster = "PassthroughCluster"
		equal(t, text(t, "%UPSTREAM_CLUSTER% %UPSTREAM_CLUSTER_RAW%", rec), "PassthroughCluster; PassthroughCluster")
	})
	t.Run("details with blanks", func(t *testing.T) {
		rec := httpRecord()
		rec.Info.CodeDetails = "a b"
		equal(t, text(t, "%RESPONSE_CODE_DETAILS% %RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)%", rec), "a_b a b")
	})
	t.Run("host, unique id and emit time", func(t *testing.T) {
		host, err := os.Hostname()
		if err != nil {
			t.Fatal(err)
		}
		got := text(t, "%HOSTNAME% %UNIQUE_ID% %EMIT_TIME(%s)%", httpRecord())
		want := regexp.MustCompile("^" + regexp.QuoteMeta(host) + ` [0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12} \d{10}$`)
		if !want.MatchString(got) {
			t.Errorf("got %s, want %s", got, want)
		}
	})
	t.Run("a connection has an id of its own", func(t *testing.T) {
		rec := tcpRecord()
		one := text(t, "%STREAM_ID%", rec)
		if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(one) {
			t.Errorf("got %s", one)
		}
		equal(t, text(t, "%STREAM_ID%", rec), one)
		rec.Info.ConnectionID++
		if text(t, "%STREAM_ID%", rec) == one {
			t.Error("another connection has the same")
		}
	})
	t.Run("OB-033 a client's certificate", func(t *testing.T) {
		rec := tcpRecord()
		const all = "%DOWNSTREAM_PEER_DNS_SAN% %DOWNSTREAM_PEER_IP_SAN% %DOWNSTREAM_PEER_ISSUER% %DOWNSTREAM_PEER_SERIAL% %DOWNSTREAM_PEER_CERT_V_START% %DOWNSTREAM_PEER_CERT_V_END(%Y)% %DOWNSTREAM_PEER_FINGERPRINT_1% %DOWNSTREAM_PEER_FINGERPRINT_256%"
		equal(t, text(t, all, rec), "- - - - - - - -")
		rec.Info.PeerDNSSANs, rec.Info.PeerIssuer = []string{"a.test", "b.test"}, "CN=ca"
		rec.Info.Peer = &x509.Certificate{
			Raw: []byte("certificate"), SerialNumber: big.NewInt(0x0a0b), IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1), net.IPv6loopback},
			NotBefore: rec.Info.Start, NotAfter: rec.Info.Start.AddDate(1, 0, 0),
		}
		equal(t, text(t, all, rec), "a.test,b.test 10.0.0.1,::1 CN=ca 0a0b 2026-11-21T12:35:26.136Z 2027 "+
			"735ad571c189d7ba84464bf4a9f1d2280175b128 03d66dd08835c1ca3f128cceacd1f31ac94163096b20f445ae84285bc0832d72")
	})
	t.Run("addresses of version 6", func(t *testing.T) {
		rec := tcpRecord()
		rec.Info.Upstream = &endpoint.Endpoint{Address: "[fd00::1]:80"}
		rec.Info.DownstreamRemote = netip.MustParseAddrPort("[::ffff:10.0.0.1]:5")
		equal(t, text(t, "%UPSTREAM_HOST% %UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %UPSTREAM_HOST_NAME% %DOWNSTREAM_REMOTE_ADDRESS% %ACCESS_LOG_TYPE%", rec), "[fd00::1]:80 fd00::1 [fd00::1]:80 10.0.0.1:5 TcpConnectionEnd")
	})
}

func TestHeaderValue(t *testing.T) {
	f, err := format.ParseHeader("<%REQ(NOPE)%%UPSTREAM_HOST%> 100%%")
	if err != nil {
		t.Fatal(err)
	}
	equal(t, string(f.Append([]byte("x"), httpRecord())), "x<127.0.3.1:8000> 100%")
}

func TestRefused(t *testing.T) {
	for text, want := range map[string]string{
		"%FOO_BAR%":                         "%FOO_BAR%: unknown or not supported",
		"%PROTOCOL(x)%":                     "takes no parameters",
		"%PROTOCOL:3%":                      "takes no length",
		"%REQ()%":                           "needs parameters",
		"%REQ%":                             "needs parameters",
		"%REQ(a?b?c)%":                      "parameter",
		"%REQ(a):x%":                        "no valid command",
		"%REQ(a":                            "no valid command",
		"100%":                              "no valid command",
		"50% of":                            "no valid command",
		"%REQ(a):99999999%":                 "length 99999999",
		"%PATH(XX)%":                        "WQ or NQ",
		"%PATH(WQ:XX)%":                     "ORIG, PATH or ORIG_OR_PATH",
		"%GRPC_STATUS(X)%":                  "CAMEL_STRING",
		"%RESPONSE_CODE_DETAILS(X)%":        "ALLOW_WHITESPACES",
		"%START_TIME(%n)%":                  "newline",
		"%METADATA(CLUSTER:a:b)%":           `"CLUSTER": unknown or not supported`,
		"%DYNAMIC_METADATA(:a)%":            "a namespace",
		"%FILTER_STATE(a:FIELDS:b)%":        "style",
		"%FILTER_STATE(a:FIELD)%":           "style",
		"%COMMON_DURATION(a:b)%":            "from:to:unit",
		"%COMMON_DURATION(X:DS_RX_BEG:ms)%": "point in time X",
		"%COMMON_DURATION(DS_RX_BEG:DS_RX_END:h)%": "ms, us or ns",
		"%QUERY_PARAMS(DECODED)%":                  "want ORIG",
		strings.Repeat("a", 70_000):                "format of 70000 bytes",
	} {
		if _, err := format.Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: error %v, want %q", text, err, want)
		}
	}
}

// newJSON compiles the JSON form of a SubstitutionFormatString.
func newJSON(t *testing.T, text string) *format.Format {
	t.Helper()
	var s corev3.SubstitutionFormatString
	if err := protojson.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	f, err := format.New(&s)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestJSON(t *testing.T) {
	t.Run("OB-028 keys sorted, numbers typed, missing is null", func(t *testing.T) {
		f := newJSON(t, `{"jsonFormat":{
			"start_time":"%START_TIME%","route_name":"%ROUTE_NAME%","method":"%REQ(:METHOD)%","path":"%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
			"protocol":"%PROTOCOL%","response_code":"%RESPONSE_CODE%","response_flags":"%RESPONSE_FLAGS%","response_code_details":"%RESPONSE_CODE_DETAILS%",
			"connection_termination_details":"%CONNECTION_TERMINATION_DETAILS%","bytes_received":"%BYTES_RECEIVED%","bytes_sent":"%BYTES_SENT%",
			"duration":"%DURATION%","upstream_service_time":"%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%","x_forwarded_for":"%REQ(X-FORWARDED-FOR)%",
			"user_agent":"%REQ(USER-AGENT)%","request_id":"%REQ(X-REQUEST-ID)%","authority":"%REQ(:AUTHORITY)%","upstream_host":"%UPSTREAM_HOST%",
			"upstream_cluster":"%UPSTREAM_CLUSTER_RAW%","upstream_local_address":"%UPSTREAM_LOCAL_ADDRESS%","downstream_local_address":"%DOWNSTREAM_LOCAL_ADDRESS%",
			"downstream_remote_address":"%DOWNSTREAM_REMOTE_ADDRESS%","requested_server_name":"%REQUESTED_SERVER_NAME%",
			"upstream_transport_failure_reason":"%UPSTREAM_TRANSPORT_FAILURE_REASON%"}}`)
		equal(t, string(f.Append(nil, tcpRecord())), `{"authority":null,"bytes_received":517,"bytes_sent":0,"connection_termination_details":"rbac_access_denied_matched_policy[ns[istio-system]-policy[deny]-rule[0]]","downstream_local_address":"127.0.0.1:443","downstream_remote_address":"127.0.0.1:35962","duration":69,"method":null,"path":null,"protocol":null,"request_id":null,"requested_server_name":"edition.cnn.com","response_code":0,"response_code_details":null,"response_flags":"-","route_name":null,"start_time":"2026-11-21T12:35:26.136Z","upstream_cluster":"outbound|443||edition.cnn.com","upstream_host":"127.0.3.2:8443","upstream_local_address":"127.0.0.1:54976","upstream_service_time":null,"upstream_transport_failure_reason":null,"user_agent":null,"x_forwarded_for":null}`+"\n")
	})
	const template = `"jsonFormat":{"zeta":"%PROTOCOL%","B":2,"a":1,"mixed":"code %RESPONSE_CODE% up %UPSTREAM_LOCAL_PORT% %REQ(NOPE)%","lit":"x\"y","half":1.5,"big":1e300,
		"flag":true,"nul":null,"empty":"","e1":{},"e2":[],"raw":"%REQ(X-RAW)%","bad":"<%REQ(X-BAD)%>","meta":"%DYNAMIC_METADATA(f)%","metas":"%DYNAMIC_METADATA(f:s)%",
		"cut":"%DYNAMIC_METADATA(f:l):2%","port":"%UPSTREAM_REMOTE_PORT%","missing":"%REQ(NOPE)%",
		"nested":{"b":"%REQ(:METHOD)%","a":["%PATH(NQ)%",3,"%REQ(NOPE)%"],"c":{"n":"%REQ(NOPE)%"}}}`
	t.Run("nested, escaped, typed", func(t *testing.T) {
		got := string(newJSON(t, `{`+template+`}`).Append(nil, httpRecord()))
		equal(t, got, `{"B":2,"a":1,"bad":"<t\u0009\u0022\u00ff>","big":1e+300,"cut":"[1","e1":{},"e2":[],"empty":"","flag":true,"half":1.5,"lit":"x\"y","meta":{"b":true,"deep":{"k":"v"},"five":5,"l":[1,"a"],"n":3.5,"nil":null,"s":"a b"},"metas":"a b","missing":null,"mixed":"code 418 up 59300 -","nested":{"a":["/status/418",3,null],"b":"GET","c":{"n":null}},"nul":null,"port":8000,"raw":"t\tq\"\\ é","zeta":"HTTP/1.1"}`+"\n")
		if !json.Valid([]byte(got)) {
			t.Error("not JSON")
		}
	})
	t.Run("omit_empty_values", func(t *testing.T) {
		got := string(newJSON(t, `{"omitEmptyValues":true,`+template+`}`).Append(nil, httpRecord()))
		equal(t, got, `{"B":2,"a":1,"bad":"<t\u0009\u0022\u00ff>","big":1e+300,"cut":"[1","e1":{},"e2":[],"empty":"","flag":true,"half":1.5,"lit":"x\"y","meta":{"b":true,"deep":{"k":"v"},"five":5,"l":[1,"a"],"n":3.5,"nil":null,"s":"a b"},"metas":"a b","mixed":"code 418 up 59300 ","nested":{"a":["/status/418",3],"b":"GET"},"nul":null,"port":8000,"raw":"t\tq\"\\ é","zeta":"HTTP/1.1"}`+"\n")
	})
	t.Run("refused", func(t *testing.T) {
		deep := structpb.NewStringValue("x")
		for range 40 {
			deep = structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{deep}})
		}
		for want, s := range map[string]*corev3.SubstitutionFormatString{
			"format: not set":                      {},
			"json_format: a: [0]: position 0: %X%": {Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: object("a", structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{structpb.NewStringValue("%X%")}}))}},
			"nested deeper":                        {Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: object("a", deep)}},
			"text_format: position 0: %X%":         {Format: &corev3.SubstitutionFormatString_TextFormat{TextFormat: "%X%"}},
			`formatters[0] "envoy.formatter.cel": not supported`: {
				Format: &corev3.SubstitutionFormatString_TextFormat{}, Formatters: []*corev3.TypedExtensionConfig{{Name: "envoy.formatter.cel"}},
			},
			"only inline_string": {Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: "/x"}}}},
		} {
			if _, err := format.New(s); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want %q", err, want)
			}
		}
	})
}

func object(key string, v *structpb.Value) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{key: v}}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{defaultText, oldText, "%%", "%REQ(a?b):3%", "%START_TIME(%s.%3f)%", "%START_TIME()%)%", "%METADATA(ROUTE:a:b):2%", "%PATH(NQ:ORIG)%", "100%", "%REQ(:PATH"} {
		f.Add(seed)
	}
	rec, tcp := httpRecord(), tcpRecord()
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := format.Parse(text)
		if err != nil {
			return
		}
		parsed.Append(nil, tcp)
		got := parsed.Append([]byte("kept"), rec)
		if !strings.HasPrefix(string(got), "kept") {
			t.Fatalf("%q overwrites what was there: %q", text, got)
		}
		// The same text as a JSON value must give JSON.
		inJSON, err := format.ParseJSON(object(text, structpb.NewStringValue(text)), false)
		if err != nil {
			t.Fatalf("%q is refused as JSON: %v", text, err)
		}
		if line := inJSON.Append(nil, rec); !json.Valid(line) {
			t.Fatalf("%q gives no JSON: %s", text, line)
		}
	})
}

func BenchmarkDefaultText(b *testing.B) {
	f, err := format.Parse(defaultText)
	if err != nil {
		b.Fatal(err)
	}
	rec, buf := httpRecord(), make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = f.Append(buf[:0], rec)
	}
}
