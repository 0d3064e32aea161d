package router

import (
	"testing"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/route"
)

func TestTimeoutsOfARequest(t *testing.T) {
	const global, try, expected = "x-envoy-upstream-rq-timeout-ms", "x-envoy-upstream-rq-per-try-timeout-ms", "x-envoy-expected-rq-timeout-ms"
	type headers map[string]string
	for _, c := range []struct {
		name           string
		respect, quiet bool
		perTry         time.Duration
		grpc           time.Duration // max_grpc_timeout; negative: not set
		send           headers
		whole, each    time.Duration
		tell           string // the expected timeout that the upstream reads
	}{
		{name: "the route's", grpc: -1, whole: 15 * time.Second, tell: "15000"},
		{name: "the route's for a try", grpc: -1, perTry: time.Second, whole: 15 * time.Second, each: time.Second, tell: "1000"},
		{name: "a try as long as the whole is no limit", grpc: -1, perTry: 15 * time.Second, whole: 15 * time.Second, tell: "15000"},
		{name: "the client's", grpc: -1, send: headers{global: "300", try: "100"}, whole: 300 * time.Millisecond, each: 100 * time.Millisecond, tell: "100"},
		{name: "zero is none", grpc: -1, send: headers{global: "0"}, whole: 0},
		{name: "no number", grpc: -1, send: headers{global: "soon"}, whole: 15 * time.Second, tell: "15000"},
		{name: "expected, not respected", grpc: -1, send: headers{expected: "70"}, whole: 15 * time.Second, tell: "15000"},
		{name: "expected, respected", respect: true, grpc: -1, send: headers{expected: "70"}, whole: 70 * time.Millisecond, tell: "70"},
		{name: "respected, but absent", respect: true, grpc: -1, send: headers{global: "300"}, whole: 300 * time.Millisecond, tell: "300"},
		{name: "nothing is told", quiet: true, grpc: -1, whole: 15 * time.Second},
		{name: "gRPC without leave", grpc: -1, send: headers{"content-type": "application/grpc", "grpc-timeout": "1S"}, whole: 15 * time.Second, tell: "15000"},
		{name: "gRPC", grpc: time.Minute, send: headers{"content-type": "application/grpc+proto", "grpc-timeout": "1S"}, whole: time.Second, tell: "1000"},
		{name: "gRPC, at most", grpc: time.Minute, send: headers{"content-type": "application/grpc", "grpc-timeout": "1H"}, whole: time.Minute, tell: "60000"},
		{name: "gRPC, any", grpc: 0, send: headers{"content-type": "application/grpc", "grpc-timeout": "1H"}, whole: time.Hour, tell: "3600000"},
		{name: "gRPC, rounded up", grpc: 0, send: headers{"content-type": "application/grpc", "grpc-timeout": "1u"}, whole: time.Millisecond, tell: "1"},
		{name: "gRPC, as long as it can be", grpc: time.Minute, send: headers{"content-type": "application/grpc", "grpc-timeout": "99999999H"}, whole: time.Minute, tell: "60000"},
		{name: "gRPC, no number", grpc: time.Minute, send: headers{"content-type": "application/grpc", "grpc-timeout": "1x"}, whole: time.Minute, tell: "60000"},
		{name: "gRPC without a deadline", grpc: 0, send: headers{"content-type": "application/grpc"}, whole: 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &http.Stream{}
			for name, value := range c.send {
				s.Request.Headers.Add([]byte(name), []byte(value))
			}
			f := &route.Forward{Timeout: 15 * time.Second, MaxGRPCTimeout: c.grpc, MaxGRPCTimeoutSet: c.grpc >= 0}
			if c.perTry > 0 {
				f.Retry = &route.RetryPolicy{PerTry: c.perTry}
			}
			k := &call{r: &router{respectExpected: c.respect, quiet: c.quiet}, s: s, forward: f, grpc: s.Request.IsGRPC()}
			k.timeouts()
			if k.timeout != c.whole || k.perTry != c.each {
				t.Errorf("timeout %s, of a try %s; want %s, %s", k.timeout, k.perTry, c.whole, c.each)
			}
			if got := string(s.Request.Headers.Get(expected)); got != c.tell {
				t.Errorf("%s: %q, want %q", expected, got, c.tell)
			}
			for _, name := range []string{global, try} {
				if s.Request.Headers.Has(name) {
					t.Errorf("%s goes to the upstream", name)
				}
			}
		})
	}
}
