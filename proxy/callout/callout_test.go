package callout_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/lateen-mesh/lateen/proxy/callout"
	"github.com/lateen-mesh/lateen/proxy/cluster"
	"github.com/lateen-mesh/lateen/proxy/http"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// client calls clusters of the given addresses by name; h2 speak HTTP/2.
func client(t *testing.T, addresses map[string]string, h2 ...string) *callout.Client {
	t.Helper()
	cs := cluster.New(cluster.Options{})
	t.Cleanup(cs.Close)
	for name, address := range addresses {
		host, port, _ := net.SplitHostPort(address)
		endpoints := ""
		if host != "" {
			endpoints = fmt.Sprintf(`{"lb_endpoints":[{"endpoint":{"address":{"socket_address":{"address":%q,"port_value":%s}}}}]}`, host, port)
		}
		speaks := ""
		for _, n := range h2 {
			if n == name {
				speaks = `,"http2_protocol_options":{}`
			}
		}
		var pb clusterv3.Cluster
		text := fmt.Sprintf(`{"name":%q,"type":"STATIC","connect_timeout":"5s","load_assignment":{"cluster_name":%q,"endpoints":[%s]}%s}`, name, name, endpoints, speaks)
		if err := protojson.Unmarshal([]byte(text), &pb); err != nil {
			t.Fatal(err)
		}
		if err := cs.AddStatic(&pb); err != nil {
			t.Fatal(err)
		}
	}
	cs.Start(nil, 0)
	return &callout.Client{LocalAddress: netip.MustParseAddr("192.0.2.7"), Cluster: func(name string) callout.Cluster {
		if c := cs.Get(name); c != nil {
			return c
		}
		return nil
	}}
}

func serveHTTP(t *testing.T, handler nethttp.HandlerFunc) string {
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// TestDo: one request, one answer, as the server wrote it.
func TestDo(t *testing.T) {
	address := serveHTTP(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Seen", fmt.Sprintf("%s %s %s %s %s %s", r.Method, r.URL, r.Host, r.Header.Get("x-a"), r.Header.Get("x-envoy-internal"), r.Header.Get("x-forwarded-for")))
		w.WriteHeader(418)
		_, _ = w.Write(body)
	})
	c := client(t, map[string]string{"a": address})
	r := &callout.Request{Cluster: "a", Method: "POST", Path: "/p?q", Body: []byte("hello")}
	r.Headers.Add([]byte("x-a"), []byte("1"))
	for range 2 { // the second on the connection of the first
		answer, err := c.Do(callout.Within(t.Context()), r)
		if err != nil {
			t.Fatal(err)
		}
		if answer.Status != 418 || string(answer.Body) != "hello" || string(answer.Headers.Get("x-seen")) != "POST /p?q a 1 true 192.0.2.7" {
			t.Errorf("%d %q %q", answer.Status, answer.Body, answer.Headers.Get("x-seen"))
		}
	}
	r.Plain, r.Authority = true, "b.test"
	answer, err := c.Do(callout.Within(t.Context()), r)
	if err != nil || string(answer.Headers.Get("x-seen")) != "POST /p?q b.test 1" {
		t.Errorf("%q, %v", answer.Headers.Get("x-seen"), err)
	}
}

// TestFailures: each way in which there is no answer has an error of its own.
func TestFailures(t *testing.T) {
	release := make(chan struct{})
	address := serveHTTP(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		switch r.URL.Path {
		case "/large":
			_, _ = io.WriteString(w, strings.Repeat("x", 1000))
		case "/slow":
			<-release
		case "/break":
			panic(nethttp.ErrAbortHandler)
		}
	})
	t.Cleanup(func() { close(release) })
	refused, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = refused.Close()
	c := client(t, map[string]string{"a": address, "empty": "", "refused": refused.Addr().String()})
	gone, leave := context.WithCancel(t.Context())
	leave()
	for _, k := range []struct {
		name    string
		ctx     context.Context
		request callout.Request
		is      func(error) bool
	}{
		{"no cluster", t.Context(), callout.Request{Cluster: "none"}, func(err error) bool { return errors.Is(err, callout.ErrNoCluster) }},
		{"no endpoint", t.Context(), callout.Request{Cluster: "empty"}, func(err error) bool { return errors.Is(err, callout.ErrNoHealthy) }},
		{"refused", t.Context(), callout.Request{Cluster: "refused"}, isReset},
		{"broken off", t.Context(), callout.Request{Cluster: "a", Path: "/break"}, isReset},
		{"too large", t.Context(), callout.Request{Cluster: "a", Path: "/large", MaxAnswer: 999}, func(err error) bool { return errors.Is(err, callout.ErrTooLarge) }},
		{"too late", t.Context(), callout.Request{Cluster: "a", Path: "/slow", Timeout: 20 * time.Millisecond}, func(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }},
		{"left", gone, callout.Request{Cluster: "a", Path: "/slow"}, func(err error) bool { return errors.Is(err, callout.ErrLeft) }},
	} {
		k.request.Method = "GET"
		if _, err := c.Do(callout.Within(k.ctx), &k.request); !k.is(err) {
			t.Errorf("%s: %v", k.name, err)
		}
	}
	if answer, err := c.Do(callout.Within(t.Context()), &callout.Request{Cluster: "a", Method: "GET", Path: "/large", MaxAnswer: 1000}); err != nil || len(answer.Body) != 1000 {
		t.Errorf("as large as it may be: %v", err)
	}
}

func isReset(err error) bool {
	var reset *http.Reset
	return errors.As(err, &reset)
}

// TestLeave: a call ends when whom it is for leaves while it blocks.
func TestLeave(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	address := serveHTTP(t, func(nethttp.ResponseWriter, *nethttp.Request) { close(asked); <-release })
	t.Cleanup(func() { close(release) })
	c := client(t, map[string]string{"a": address})
	ctx, leave := context.WithCancel(t.Context())
	go func() { <-asked; leave() }()
	if _, err := c.Do(callout.Within(ctx), &callout.Request{Cluster: "a", Method: "GET", Path: "/"}); !errors.Is(err, callout.ErrLeft) {
		t.Error(err)
	}
}

// TestUnary: a call of gRPC, and the codes of those that fail.
func TestUnary(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	h := health.NewServer()
	h.SetServingStatus("known", healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(s, h)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	c := client(t, map[string]string{"g": l.Addr().String(), "plain": serveHTTP(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) { w.WriteHeader(503) })}, "g")
	check := func(name, cluster, method, service string) (*healthpb.HealthCheckResponse, error) {
		var pb corev3.GrpcService
		if err := protojson.Unmarshal(fmt.Appendf(nil, `{"envoy_grpc":{"cluster_name":%q},"initial_metadata":[{"key":"x-a","value":"1"}]}`, cluster), &pb); err != nil {
			t.Fatal(err)
		}
		at, err := callout.NewService(&pb, 5*time.Second)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out := &healthpb.HealthCheckResponse{}
		return out, c.Unary(callout.Within(t.Context()), &callout.Call{Service: at, Method: method}, &healthpb.HealthCheckRequest{Service: service}, out)
	}
	const method = "/grpc.health.v1.Health/Check"
	for range 2 {
		if out, err := check("known", "g", method, "known"); err != nil || out.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
			t.Errorf("%v, %v", out, err)
		}
	}
	for _, k := range []struct {
		name, cluster, method, service string
		code                           codes.Code
		text                           string
	}{
		{"its own code", "g", method, "nobody", codes.NotFound, "unknown service"},
		{"no such method", "g", "/a.B/C", "", codes.Unimplemented, "unknown service a.B"},
		{"no gRPC", "plain", method, "", codes.Unavailable, "HTTP status 503"},
		{"no cluster", "none", method, "", codes.Unavailable, "no such cluster"},
	} {
		_, err := check(k.name, k.cluster, k.method, k.service)
		if status.Code(err) != k.code || !strings.Contains(err.Error(), k.text) {
			t.Errorf("%s: %v", k.name, err)
		}
	}
}

// TestServiceRefused: what is not understood is named.
func TestServiceRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{}`: "envoy_grpc.cluster_name: must not be empty",
		`{"google_grpc":{"target_uri":"a","stat_prefix":"b"}}`:                                  "google_grpc: not supported",
		`{"envoy_grpc":{"cluster_name":"a"},"retry_policy":{}}`:                                 "retry_policy: not supported",
		`{"envoy_grpc":{"cluster_name":"a"},"initial_metadata":[{"key":"a","value":"%NONE%"}]}`: "initial_metadata[0].value",
	} {
		var pb corev3.GrpcService
		if err := protojson.Unmarshal([]byte(text), &pb); err != nil {
			t.Fatal(err)
		}
		if _, err := callout.NewService(&pb, 0); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
