package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/lateen-mesh/lateen/wellknown"
)

// quiet is how long nothing comes before the server has said all it has to say.
const quiet = 3 * time.Second

// learn asks once as a sidecar does and decodes what comes: the names that all others ask for.
func learn(ctx context.Context, address string) (*names, error) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(256<<20)))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := discoverypb.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return nil, err
	}
	self, err := node(2000)
	if err != nil {
		return nil, err
	}
	for _, r := range []*discoverypb.DeltaDiscoveryRequest{{Node: self, TypeUrl: wellknown.ClusterType}, {TypeUrl: wellknown.ListenerType}} {
		if err := stream.Send(r); err != nil {
			return nil, err
		}
	}
	known := &names{}
	silence := time.AfterFunc(patience, cancel)
	defer silence.Stop()
	for {
		resp, err := stream.Recv()
		if err != nil && known.clusters > 0 && known.listeners > 0 {
			slices.Sort(known.routes)
			known.routes = slices.Compact(known.routes)
			slices.Sort(known.apart)
			known.apart = slices.Compact(known.apart)
			return known, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: no clusters and listeners from %s", err, address)
		}
		if err := known.learn(resp); err != nil {
			return nil, err
		}
		if len(known.routes) > 0 && resp.GetTypeUrl() == wellknown.ListenerType {
			ask := &discoverypb.DeltaDiscoveryRequest{TypeUrl: wellknown.RouteType, ResourceNamesSubscribe: known.routes}
			if err := stream.Send(ask); err != nil {
				return nil, err
			}
		}
		if err := stream.Send(&discoverypb.DeltaDiscoveryRequest{TypeUrl: resp.GetTypeUrl(), ResponseNonce: resp.GetNonce()}); err != nil {
			return nil, err
		}
		if known.clusters > 0 && known.listeners > 0 {
			silence.Reset(quiet)
		}
	}
}

func (k *names) learn(resp *discoverypb.DeltaDiscoveryResponse) error {
	for _, r := range resp.GetResources() {
		switch resp.GetTypeUrl() {
		case wellknown.ClusterType:
			k.clusters++
			c := &clusterpb.Cluster{}
			if err := r.GetResource().UnmarshalTo(c); err != nil {
				return err
			}
			if c.GetType() == clusterpb.Cluster_EDS {
				k.endpoints = append(k.endpoints, c.GetName())
			}
		case wellknown.ListenerType:
			k.listeners++
			l := &listenerpb.Listener{}
			if err := r.GetResource().UnmarshalTo(l); err != nil {
				return err
			}
			k.routesOf(l)
		case wellknown.RouteType:
			table := &routepb.RouteConfiguration{}
			if err := r.GetResource().UnmarshalTo(table); err != nil {
				return err
			}
			if table.GetVhds() != nil {
				k.apart = append(k.apart, table.GetName())
			}
		}
	}
	return nil
}

// routesOf notes the route tables that a listener names.
func (k *names) routesOf(l *listenerpb.Listener) {
	chains := l.GetFilterChains()
	if d := l.GetDefaultFilterChain(); d != nil {
		chains = append(slices.Clip(chains), d)
	}
	for _, c := range chains {
		for _, f := range c.GetFilters() {
			m := &hcmpb.HttpConnectionManager{}
			if f.GetTypedConfig().MessageIs(m) && f.GetTypedConfig().UnmarshalTo(m) == nil && m.GetRds().GetRouteConfigName() != "" {
				k.routes = append(k.routes, m.GetRds().GetRouteConfigName())
			}
		}
	}
}
