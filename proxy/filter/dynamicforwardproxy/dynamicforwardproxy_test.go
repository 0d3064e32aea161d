package dynamicforwardproxy

import (
	"fmt"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/anypb"

	cachepb "github.com/envoyproxy/go-control-plane/envoy/extensions/common/dynamic_forward_proxy/v3"
	forwardpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_forward_proxy/v3"

	"github.com/lateen-mesh/lateen/proxy/cluster"
	"github.com/lateen-mesh/lateen/proxy/dns"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func packed(t *testing.T, name string) *anypb.Any {
	t.Helper()
	a, err := anypb.New(&forwardpb.FilterConfig{ImplementationSpecifier: &forwardpb.FilterConfig_DnsCacheConfig{DnsCacheConfig: &cachepb.DnsCacheConfig{Name: name}}})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Each reason why a host cannot be reached has an answer of its own.
func TestReplies(t *testing.T) {
	for _, c := range []struct {
		err           error
		body, details string
		flag          streaminfo.Flag
	}{
		{nil, "", "", 0},
		{cluster.ErrNoSuchTarget, "", "", 0},
		{cluster.ErrNoHost, "Empty host header", "empty_host_header", 0},
		{dns.ErrFull, "DNS cache overflow", "dns_cache_overflow", 0},
		{dns.ErrBusy, "Dynamic forward proxy pending request overflow", "dynamic_forward_proxy_pending_request_overflow", 0},
		{cluster.ErrSubClusters, "Sub cluster overflow", "sub_cluster_overflow", 0},
		{cluster.ErrWarming, "Sub cluster warming timeout", "sub_cluster_warming_timeout", 0},
		{fmt.Errorf("a.test: %w", dns.ErrNotFound), "DNS resolution failure", "dns_resolution_failure{a.test:_no_such_host}", streaminfo.DNSResolutionFailed},
	} {
		t.Run(fmt.Sprint(c.err), func(t *testing.T) {
			var asked string
			f, err := Factory(Deps{
				Reach: func(name, host string, _ <-chan struct{}) error {
					asked = name + " " + host
					return c.err
				},
				CheckCache: cluster.CheckCache,
			}).New(packed(t, "names"), http.Env{})
			if err != nil {
				t.Fatal(err)
			}
			s := &http.Stream{}
			s.Begin(nil, 1, nil)
			s.Route = &route.Target{Cluster: "forward"}
			s.Request.Authority = []byte("a.test:80")
			verdict := f.OnRequest(s, 0)
			reply, answered := s.TakeReply()
			if asked != "forward a.test:80" {
				t.Errorf("asked for %q", asked)
			}
			if answered != (c.body != "") || answered != (verdict == http.Replied) {
				t.Fatalf("verdict %v, answered %v", verdict, answered)
			}
			if string(reply.Body) != c.body || reply.Details != c.details || reply.Flag != c.flag {
				t.Errorf("answer %q, %q, flag %v", reply.Body, reply.Details, reply.Flag)
			}
		})
	}
}

func TestRefuses(t *testing.T) {
	f := Factory(Deps{CheckCache: cluster.CheckCache})
	if _, err := f.New(packed(t, ""), http.Env{}); err == nil || err.Error() != "dns_cache_config.name: value length must be at least 1 characters" {
		t.Errorf("error %v", err)
	}
}
