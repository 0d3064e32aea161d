package extauthz

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	networkv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/ext_authz/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/callout"
	"github.com/lateen-mesh/lateen/proxy/format"
	"github.com/lateen-mesh/lateen/proxy/match"
	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// NetworkName is the network filter's canonical name, and the namespace of its metadata.
const NetworkName = "envoy.filters.network.ext_authz"

// NetworkFactory makes the network filter, which asks about each connection when it comes.
func NetworkFactory(d Deps, store *stats.Store) network.Factory {
	return network.Factory{
		Name:     NetworkName,
		TypeURLs: []string{"envoy.extensions.filters.network.ext_authz.v3.ExtAuthz"},
		New: func(cfg *anypb.Any, _ network.Env) (network.Built, error) {
			var c networkv3.ExtAuthz
			if err := cfg.UnmarshalTo(&c); err != nil {
				return network.Built{}, err
			}
			f, err := newNetworkFilter(&c, d, store)
			if err != nil {
				return network.Built{}, err
			}
			return network.Built{Filter: f, Close: f.stats.release}, nil
		},
	}
}

// networkFilter is the network filter of one chain.
type networkFilter struct {
	telling
	to        *callout.Service
	calls     *callout.Client
	tell      func(string) // nil: it asks
	failOpen  bool
	enabledBy *match.Metadata // nil: always
	stats     networkCounters
}

func newNetworkFilter(c *networkv3.ExtAuthz, d Deps, store *stats.Store) (*networkFilter, error) {
	err := xds.Only(c, "stat_prefix", "grpc_service", "failure_mode_allow", "include_peer_certificate", "transport_api_version",
		"filter_enabled_metadata", "bootstrap_metadata_labels_key", "include_tls_session", "metadata_context_namespaces", "typed_metadata_context_namespaces")
	if err != nil {
		return nil, err
	}
	if v := c.GetTransportApiVersion(); v != corev3.ApiVersion_V3 && v != corev3.ApiVersion_AUTO {
		return nil, fmt.Errorf("transport_api_version: %s: not supported", v)
	}
	if c.GetStatPrefix() == "" {
		return nil, errors.New("stat_prefix: must not be empty")
	}
	f := &networkFilter{calls: d.Calls, tell: d.Tell, failOpen: c.GetFailureModeAllow()}
	f.certificate, f.tls, f.namespaces = c.GetIncludePeerCertificate(), c.GetIncludeTlsSession(), c.GetMetadataContextNamespaces()
	f.labels = d.labels(c.GetBootstrapMetadataLabelsKey())
	if f.to, err = callout.NewService(c.GetGrpcService(), defaultTimeout); err != nil {
		return nil, fmt.Errorf("grpc_service: %w", err)
	}
	if m := c.GetFilterEnabledMetadata(); m != nil {
		by, err := match.NewMetadata(m)
		if err != nil {
			return nil, fmt.Errorf("filter_enabled_metadata: %w", err)
		}
		f.enabledBy = &by
	}
	f.stats = newNetworkCounters(store.Scope("ext_authz." + c.GetStatPrefix() + "."))
	return f, nil
}

// networkCounters are the network filter's stats, "ext_authz.<stat_prefix>.".
type networkCounters struct {
	total, ok, denied, failed, allowed, disabled, closed *stats.Counter
	active                                               *stats.Gauge
	release                                              func()
}

func newNetworkCounters(s *stats.Scope) networkCounters {
	return networkCounters{total: s.Counter("total"), ok: s.Counter("ok"), denied: s.Counter("denied"), failed: s.Counter("error"),
		allowed: s.Counter("failure_mode_allowed"), disabled: s.Counter("disabled"), closed: s.Counter("cx_closed"), active: s.Gauge("active"), release: s.Claim()}
}

// OnConnect asks, and closes a connection that may not pass.
func (f *networkFilter) OnConnect(c *network.Conn) bool {
	i := c.Info
	if f.enabledBy != nil && !f.enabledBy.Match(i.Metadata) {
		f.stats.disabled.Inc()
		return true
	}
	if f.tell != nil {
		f.tell("ext_authz: cluster " + f.to.Cluster() + " is asked by gRPC about the connection")
		return true
	}
	f.stats.total.Inc()
	f.stats.active.Inc()
	began := time.Now()
	d := f.ask(i)
	f.stats.active.Dec()
	if len(d.metadata) > 0 {
		addMetadata(&i.Metadata, NetworkName, d, time.Since(began))
	}
	details := detailsDenied
	switch d.outcome {
	case allowed:
		f.stats.ok.Inc()
		return true
	case refused:
		f.stats.denied.Inc()
	case failed:
		f.stats.failed.Inc()
		if f.failOpen {
			f.stats.allowed.Inc()
			return true
		}
		details = detailsError
	}
	f.stats.closed.Inc()
	i.Flags.Set(streaminfo.UnauthorizedExternalService)
	i.CodeDetails = details
	return false
}

func (f *networkFilter) ask(i *streaminfo.Info) *decision {
	a := &authv3.AttributeContext{}
	f.describeConnection(a, i)
	a.Destination.Service = i.ServerName
	a.MetadataContext = contextOf(i.Metadata, f.namespaces)
	var answer authv3.CheckResponse
	k := callout.Call{Service: f.to, Method: checkMethod, Record: format.Record{Info: i}}
	// Nothing tells of a client that leaves meanwhile: the call's own time bounds it.
	if f.calls.Unary(callout.Within(context.Background()), &k, &authv3.CheckRequest{Attributes: a}, &answer) != nil {
		return &decision{outcome: failed}
	}
	return decisionOf(&answer)
}
