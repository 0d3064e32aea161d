package proxyless

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// TestRules has timeouts, retries and faults, one rule for each value of a header.
func TestRules(t *testing.T) {
	b := serve(t, "v1")
	rule := func(name, fields string) string {
		return fmt.Sprintf("  - match: [{headers: {case: {exact: %s}}}]\n    route: [{destination: {host: echo.default.svc.cluster.local}}]\n%s", name, fields)
	}
	p := start(t, map[string]string{"echo.yaml": echo(b), "route.yaml": route(
		rule("timeout", "    timeout: 0.05s\n") +
			rule("retries", "    retries: {attempts: 3, retryOn: 'unavailable,cancelled', backoff: 1ms}\n") +
			rule("none", "    retries: {attempts: 0}\n") +
			rule("abort", "    fault: {abort: {percentage: {value: 100}, grpcStatus: RESOURCE_EXHAUSTED}}\n") +
			rule("http", "    fault: {abort: {percentage: {value: 100}, httpStatus: 404}}\n") +
			rule("half", "    fault: {abort: {percentage: {value: 50}, grpcStatus: DATA_LOSS}}\n") +
			rule("delay", "    fault: {delay: {percentage: {value: 100}, fixedDelay: 0.05s}}\n") +
			rule("plain", ""))})
	c := p.dial(host)
	in := func(name string) context.Context {
		return metadata.AppendToOutgoingContext(context.Background(), "case", name)
	}
	code := func(name, word string) codes.Code { _, err := c.call(in(name), word); return status.Code(err) }

	t.Run("VS-046 a call that takes longer than its timeout", func(t *testing.T) {
		if got := code("timeout", "wait"); got != codes.DeadlineExceeded {
			t.Errorf("it ends with %v", got)
		}
		if got := code("timeout", "hello"); got != codes.OK {
			t.Errorf("one that does not ends with %v", got)
		}
	})
	t.Run("VS-047 VS-049 VS-052 a refused call is tried again", func(t *testing.T) {
		before := b.calls.Load()
		b.refuse.Store(3)
		if got := code("retries", "hello"); got != codes.OK || b.calls.Load() != before+4 {
			t.Errorf("%v after %d tries", got, b.calls.Load()-before)
		}
	})
	t.Run("VS-047 tried again where the rule does not say it", func(t *testing.T) {
		b.refuse.Store(2)
		if got := code("plain", "hello"); got != codes.OK {
			t.Error(got)
		}
	})
	t.Run("retries switched off", func(t *testing.T) {
		before := b.calls.Load()
		b.refuse.Store(1)
		if got := code("none", "hello"); got != codes.Unavailable || b.calls.Load() != before+1 {
			t.Errorf("%v after %d tries", got, b.calls.Load()-before)
		}
	})
	t.Run("VS-058 abort by gRPC status", func(t *testing.T) {
		if got := code("abort", "hello"); got != codes.ResourceExhausted {
			t.Error(got)
		}
	})
	t.Run("VS-057 abort by HTTP status", func(t *testing.T) {
		if got := code("http", "hello"); got != codes.Unimplemented {
			t.Error(got)
		}
	})
	t.Run("VS-060 abort of a share", func(t *testing.T) {
		seen := map[codes.Code]int{}
		for range 200 {
			seen[code("half", "hello")]++
		}
		if seen[codes.DataLoss] == 0 || seen[codes.OK] == 0 || len(seen) != 2 {
			t.Error(seen)
		}
	})
	t.Run("VS-053 delay", func(t *testing.T) {
		started := time.Now()
		if got := code("delay", "hello"); got != codes.OK || time.Since(started) < 50*time.Millisecond {
			t.Errorf("%v after %v", got, time.Since(started))
		}
	})
}

// TestEndpoints adds and takes away servers while calls run.
func TestEndpoints(t *testing.T) {
	one, two := serve(t, "v1"), serve(t, "v2")
	p := start(t, map[string]string{"echo.yaml": echo(one)})
	c := p.dial(host)
	c.until(context.Background(), "v1")
	end := c.load("hello")
	for range 5 {
		p.write("echo.yaml", echo(one, two))
		c.until(context.Background(), "v1", "v2")
		p.write("echo.yaml", echo(two))
		c.until(context.Background(), "v2")
		p.write("echo.yaml", echo(one))
		c.until(context.Background(), "v1")
	}
	p.write("echo.yaml", echo(one, two))
	c.until(context.Background(), "v1", "v2")
	p.write("echo.yaml", echo(two))
	c.until(context.Background(), "v2")
	one.stop()
	end()
}

// TestBrokenRules has rules that no gRPC program can carry out, among good ones.
func TestBrokenRules(t *testing.T) {
	b := serve(t, "v1")
	to := "    route: [{destination: {host: echo.default.svc.cluster.local}}]\n"
	rule := func(name, fields string) string {
		return fmt.Sprintf("  - name: %s\n    match: [{headers: {case: {exact: %s}}}]\n%s", name, name, fields)
	}
	bad := map[string]string{
		"redirect": "    redirect: {uri: /elsewhere}\n",
		"direct":   "    directResponse: {status: 200}\n",
		"rewrite":  "    rewrite: {uri: /other}\n" + to,
		"subset":   "    route: [{destination: {host: echo.default.svc.cluster.local, subset: none}}]\n",
		"service":  "    route: [{destination: {host: none.default.svc.cluster.local}}]\n",
		"tls":      "    route: [{destination: {host: secure.example, port: {number: 7070}}}]\n",
	}
	var rules strings.Builder
	for name, fields := range bad {
		rules.WriteString(rule(name, fields))
	}
	rules.WriteString(rule("lost", "    headers: {request: {set: {a: b}}}\n    mirror: {host: echo.default.svc.cluster.local}\n"+to))
	rules.WriteString("  -\n" + to)
	p := start(t, map[string]string{"echo.yaml": echo(b), "route.yaml": route(rules.String()), "secure.yaml": secure(b)})
	c := p.dial(host)
	code := func(name string) codes.Code {
		_, err := c.call(metadata.AppendToOutgoingContext(context.Background(), "case", name), "hello")
		return status.Code(err)
	}
	if got := code("other"); got != codes.OK {
		t.Fatalf("a call that no broken rule is about ends with %v", got)
	}
	for name := range bad {
		t.Run(name, func(t *testing.T) {
			if got := code(name); got != codes.Unavailable {
				t.Errorf("ends with %v", got)
			}
		})
	}
	t.Run("what has no effect is told", func(t *testing.T) {
		if got := code("lost"); got != codes.OK {
			t.Errorf("ends with %v", got)
		}
		p.told("headers, mirror")
	})
	for _, what := range []string{"no redirect", "no directResponse", "rewrite the uri", "subset none", "none.default.svc.cluster.local", "TLS of mode SIMPLE"} {
		t.Run("told: "+what, func(t *testing.T) { p.told(what) })
	}
}

// secure is a service that is to be called with TLS.
func secure(b *backend) string {
	return strings.NewReplacer("echo.default.svc.cluster.local", "secure.example", "name: echo", "name: secure").Replace(echo(b)) + `---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: secure, namespace: default}
spec: {host: secure.example, trafficPolicy: {tls: {mode: SIMPLE}}}
`
}

// told fails the test unless a problem of the VirtualService says so.
func (p *plane) told(what string) {
	p.t.Helper()
	for _, problem := range p.server.Status().Problems {
		if strings.Contains(problem.Message, what) && problem.Object == "VirtualService default/echo" && strings.Contains(problem.Place, "route.yaml") {
			return
		}
	}
	p.t.Errorf("no problem says %q: %v", what, p.server.Status().Problems)
}

// TestEncryption: what a DestinationRule wants encrypted is never called in plain text.
func TestEncryption(t *testing.T) {
	b := serve(t, "v1")
	p := start(t, map[string]string{"echo.yaml": echo(b), "secure.yaml": secure(b)})
	p.dial(host).until(context.Background(), "v1")
	c := p.dial("secure.example", grpc.WithDefaultCallOptions(grpc.WaitForReady(false)))
	if _, err := c.call(context.Background(), "hello"); status.Code(err) != codes.Unavailable {
		t.Errorf("a call ends with %v, want UNAVAILABLE", err)
	}
}
