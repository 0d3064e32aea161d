// Package dynamicforwardproxy is the HTTP filter envoy.filters.http.dynamic_forward_proxy:
// before a request goes to a cluster whose endpoints are whatever hosts requests name, it
// has that name resolved. A name that cannot be is answered with 503. Requests to other
// clusters pass. The names and their addresses are the cluster's (package cluster).
package dynamicforwardproxy

import (
	"context"
	"errors"
	"fmt"
	"strings"

	cachepb "github.com/envoyproxy/go-control-plane/envoy/extensions/common/dynamic_forward_proxy/v3"
	forwardpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_forward_proxy/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/cluster"
	"github.com/lateen-mesh/lateen/proxy/dns"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// Name is the filter's canonical name.
const Name = "envoy.filters.http.dynamic_forward_proxy"

const (
	typeURL  = "type.googleapis.com/envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig"
	routeURL = "type.googleapis.com/envoy.extensions.filters.http.dynamic_forward_proxy.v3.PerRouteConfig"
)

// Deps are what the filter uses of the proxy around it.
type Deps struct {
	// Reach makes a cluster ready for a request for host, until done (cluster.Clusters).
	Reach func(cluster, host string, done <-chan struct{}) error
	// CheckCache reports what of a DNS cache is not supported.
	CheckCache func(*cachepb.DnsCacheConfig) error
}

// Factory builds the filter.
func Factory(d Deps) http.Factory {
	return http.Factory{Name: Name, TypeURLs: []string{typeURL, routeURL}, Override: newOverride,
		New: func(cfg *anypb.Any, _ http.Env) (http.Filter, error) { return newFilter(cfg, d) }}
}

type filter struct{ deps Deps }

func newFilter(cfg *anypb.Any, d Deps) (http.Filter, error) {
	var c forwardpb.FilterConfig
	if err := cfg.UnmarshalTo(&c); err != nil {
		return nil, err
	}
	if err := xds.Only(&c, "dns_cache_config", "sub_cluster_config"); err != nil {
		return nil, err
	}
	// How long to wait for a sub cluster is the cluster's own matter.
	if err := xds.Only(c.GetSubClusterConfig(), "cluster_init_timeout"); err != nil {
		return nil, fmt.Errorf("sub_cluster_config.%w", err)
	}
	if c.GetDnsCacheConfig() != nil {
		if err := d.CheckCache(c.GetDnsCacheConfig()); err != nil {
			return nil, fmt.Errorf("dns_cache_config.%w", err)
		}
	}
	return &filter{d}, nil
}

// rewrite is what a route puts in place of the host.
type rewrite struct{ literal, header string }

func newOverride(cfg *anypb.Any, _ http.Env) (any, error) {
	var c forwardpb.PerRouteConfig
	if err := cfg.UnmarshalTo(&c); err != nil {
		return nil, err
	}
	return rewrite{c.GetHostRewriteLiteral(), c.GetHostRewriteHeader()}, nil
}

// OnRequest waits until the host of the request is known.
func (f *filter) OnRequest(s *http.Stream, slot http.Slot) http.Verdict {
	t, _ := s.Route.(*route.Target)
	if t == nil || t.Cluster == "" {
		return http.Continue
	}
	if o, ok := s.Override(slot).(rewrite); ok {
		o.apply(s)
	}
	err := f.deps.Reach(t.Cluster, string(s.Request.Authority), s.Done())
	if err == nil || errors.Is(err, cluster.ErrNoSuchTarget) { // the router says so
		return http.Continue
	}
	if errors.Is(err, context.Canceled) && s.Left() {
		return http.Continue // nobody waits for an answer
	}
	s.Reply(reply(err))
	return http.Replied
}

func (o rewrite) apply(s *http.Stream) {
	switch {
	case o.literal != "":
		s.Request.Authority = []byte(o.literal)
	case o.header != "":
		if v := s.Request.Headers.Get(o.header); len(v) > 0 {
			s.Request.Authority = append([]byte(nil), v...)
		}
	}
}

func reply(err error) http.Reply {
	r := http.Reply{Status: 503, GRPCStatus: -1}
	for _, known := range []struct {
		cause         error
		body, details string
	}{
		{cluster.ErrNoHost, "Empty host header", "empty_host_header"},
		{cluster.ErrSubClusters, "Sub cluster overflow", "sub_cluster_overflow"},
		{cluster.ErrWarming, "Sub cluster warming timeout", "sub_cluster_warming_timeout"},
		{dns.ErrFull, "DNS cache overflow", "dns_cache_overflow"},
		{dns.ErrBusy, "Dynamic forward proxy pending request overflow", "dynamic_forward_proxy_pending_request_overflow"},
	} {
		if errors.Is(err, known.cause) {
			r.Body, r.Details = []byte(known.body), known.details
			return r
		}
	}
	r.Body, r.Flag = []byte("DNS resolution failure"), streaminfo.DNSResolutionFailed
	r.Details = "dns_resolution_failure{" + strings.ReplaceAll(err.Error(), " ", "_") + "}"
	return r
}

// OnResponse does nothing.
func (f *filter) OnResponse(*http.Stream, http.Slot) http.Verdict { return http.Continue }

// OnEnd does nothing.
func (f *filter) OnEnd(*http.Stream, http.Slot) {}
