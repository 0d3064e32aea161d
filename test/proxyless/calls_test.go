package proxyless

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/xds"

	"github.com/lateen-mesh/lateen/test/ports"
)

func TestCalls(t *testing.T) {
	one, two := serve(t, "v1"), serve(t, "v2")
	p := start(t, map[string]string{"echo.yaml": echo(one, two)})
	for name, target := range map[string]string{
		"by the full name": host, "by the absolute name": host + ".", "by name and namespace": "echo.default", "by the name alone": "echo",
	} {
		t.Run(name, func(t *testing.T) {
			p.dial(target).until(context.Background(), "v1", "v2")
		})
	}
	t.Run("under another authority", func(t *testing.T) {
		p.dial(host, grpc.WithAuthority("somebody.example")).until(context.Background(), "v1", "v2")
	})
}

// TestServer has a server take its own configuration from the control plane.
func TestServer(t *testing.T) {
	p := start(t, nil)
	s, err := xds.NewGRPCServer(xds.BootstrapContentsForTesting(p.program("server")))
	if err != nil {
		t.Fatal(err)
	}
	b := serveWith(t, "v1", s, ports.One())
	p.write("echo.yaml", echo(b))
	c := p.dial(host, grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	eventually(t, "an answer", func() bool { name, _ := c.call(context.Background(), "hello"); return name == "v1" })
	c.load("hello")()
}

// TestComesAndGoes has a host that is called vanish and come back.
func TestComesAndGoes(t *testing.T) {
	b := serve(t, "v1")
	p := start(t, map[string]string{"echo.yaml": echo(b)})
	c := p.dial(host)
	c.until(context.Background(), "v1")
	p.write("echo.yaml", "")
	c.untilCode(context.Background(), codes.Unavailable)
	p.write("echo.yaml", echo(b))
	c.untilCode(context.Background(), codes.OK)
}

// TestWeights shifts traffic from one version to the other while calls run.
func TestWeights(t *testing.T) {
	one, two := serve(t, "v1"), serve(t, "v2")
	rules := func(first int) string {
		return subsets("v1", "v2") + "---\n" + route(fmt.Sprintf(`  - route:
    - {destination: {host: echo.default.svc.cluster.local, subset: v1}, weight: %d}
    - {destination: {host: echo.default.svc.cluster.local, subset: v2}, weight: %d}
`, first, 100-first))
	}
	p := start(t, map[string]string{"echo.yaml": echo(one, two), "rules.yaml": rules(100)})
	c := p.dial(host)
	c.until(context.Background(), "v1")
	end := c.load("hello")
	for _, step := range []struct {
		first int
		want  []string
	}{{50, []string{"v1", "v2"}}, {0, []string{"v2"}}, {100, []string{"v1"}}} {
		t.Run(fmt.Sprintf("VS-029 %d of 100", step.first), func(t *testing.T) {
			p.write("rules.yaml", rules(step.first))
			c.until(context.Background(), step.want...)
		})
	}
	t.Run("DR-055 subsets come with the rules that name them, and go with them", func(t *testing.T) {
		for i := range 10 {
			name := fmt.Sprintf("new-%d", i)
			p.write("rules.yaml", strings.NewReplacer("name: v2", "name: "+name, "subset: v2", "subset: "+name).Replace(rules(0)))
			c.until(context.Background(), "v2")
			p.write("rules.yaml", "")
			c.until(context.Background(), "v1", "v2")
		}
	})
	end()
}

func TestMatches(t *testing.T) {
	one, two, three := serve(t, "v1"), serve(t, "v2"), serve(t, "v3")
	to := func(version string) string {
		return "    route: [{destination: {host: echo.default.svc.cluster.local, subset: " + version + "}}]\n"
	}
	p := start(t, map[string]string{"echo.yaml": echo(one, two, three), "rule.yaml": subsets("v1", "v2", "v3"), "route.yaml": route(
		"  - match: [{queryParams: {user: {exact: jason}}}]\n" + to("v3") +
			"  - match: [{method: {exact: GET}}, {authority: {prefix: other}}]\n" + to("v3") +
			"  - match: [{headers: {End-User: {exact: jason}}}]\n" + to("v2") +
			"  - match: [{headers: {tier: {regex: 'gold|silver'}}, withoutHeaders: {trial: {exact: \"yes\"}}}]\n" + to("v2") +
			"  - match: [{uri: {exact: /mesh.Echo/Shout}}]\n" + to("v2") +
			"  - match: [{uri: {prefix: /mesh.}, method: {exact: POST}, authority: {exact: 'echo.default.svc.cluster.local:7070'}}]\n" + to("v1") +
			"  -\n" + to("v3"))})
	c := p.dial(host)
	for _, test := range []struct {
		name, method string
		headers      []string
		want         string
	}{
		{"VS-008 the first rule that can match", "Say", nil, "v1"},
		{"VS-016 a header", "Say", []string{"end-user", "jason"}, "v2"},
		{"a header with another value", "Say", []string{"end-user", "eve"}, "v1"},
		{"VS-022 an expression, and a header that is missing", "Say", []string{"tier", "gold"}, "v2"},
		{"an expression, and a header that is something else", "Say", []string{"tier", "silver", "trial", "no"}, "v2"},
		{"an expression, and the header that must not be", "Say", []string{"tier", "silver", "trial", "yes"}, "v1"},
		{"VS-012 a method", "Shout", nil, "v2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx := metadata.AppendToOutgoingContext(context.Background(), test.headers...)
			for range 10 {
				if got, err := c.method(ctx, test.method, "hello"); got != test.want {
					t.Fatalf("%q answered, want %s: %v", got, test.want, err)
				}
			}
		})
	}
}

// TestHash has calls with one value of a header stay with one server.
func TestHash(t *testing.T) {
	var all []*backend
	for _, name := range []string{"v1", "v2", "v3", "v4"} {
		all = append(all, serve(t, name))
	}
	p := start(t, map[string]string{"echo.yaml": echo(all...), "rule.yaml": `apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: echo, namespace: default}
spec:
  host: echo.default.svc.cluster.local
  trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: X-User}}}
`})
	c := p.dial(host)
	t.Run("DR-005 hash on a header", func(t *testing.T) {
		var seen []string
		for user := range 20 {
			ctx := metadata.AppendToOutgoingContext(context.Background(), "x-user", fmt.Sprint(user))
			names := c.answers(ctx)
			if len(names) != 1 {
				t.Fatalf("user %d is answered by %v", user, names)
			}
			seen = append(seen, names...)
		}
		slices.Sort(seen)
		if len(slices.Compact(seen)) < 2 {
			t.Errorf("all users are answered by %v", seen[0])
		}
	})
}

// TestLimit has no more calls at once than the DestinationRule allows.
func TestLimit(t *testing.T) {
	b := serve(t, "v1")
	p := start(t, map[string]string{"echo.yaml": echo(b), "rule.yaml": `apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: echo, namespace: default}
spec:
  host: echo.default.svc.cluster.local
  trafficPolicy: {connectionPool: {http: {http2MaxRequests: 1}}}
`, "route.yaml": route("  - route: [{destination: {host: echo.default.svc.cluster.local}}]\n    retries: {attempts: 0}\n")})
	c := p.dial(host)
	waiting := make(chan error, 1)
	go func() { _, err := c.call(context.Background(), "wait"); waiting <- err }()
	eventually(t, "the first call", func() bool { return b.calls.Load() == 1 })
	t.Run("DR-026 a second call at once", func(t *testing.T) {
		if _, err := c.call(context.Background(), "hello"); status.Code(err) != codes.Unavailable {
			t.Errorf("%v, want UNAVAILABLE", err)
		}
	})
	close(b.gate)
	if err := <-waiting; err != nil {
		t.Error(err)
	}
	if _, err := c.call(context.Background(), "hello"); err != nil {
		t.Errorf("a call after the first: %v", err)
	}
}
