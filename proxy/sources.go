package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/proxy/xds"
	"github.com/lateen-mesh/lateen/wellknown"
)

// newADS makes the client without connecting; its cluster need not exist yet.
func (s *server) newADS() error {
	cfg := s.boot.Proto.GetDynamicResources().GetAdsConfig()
	if cfg == nil {
		return nil
	}
	c, err := s.newClient(cfg, xds.Aggregated)
	if err != nil {
		return fmt.Errorf("dynamic_resources.ads_config: %w", err)
	}
	s.ads = c
	return nil
}

func (s *server) newClient(cfg *corepb.ApiConfigSource, service xds.Service) (*xds.Client, error) {
	o, err := xds.FromConfig(cfg, func(name string) xds.Dial {
		return func(ctx context.Context) (net.Conn, error) { return s.clusters.Dialer(name)(ctx) }
	})
	if err != nil {
		return nil, err
	}
	o.Node, o.Service, o.Logger, o.Observe = s.node(), service, s.logs.Scope("config"), s.observer(service)
	return xds.New(o), nil
}

// dynamicSources finds where clusters and listeners come from.
func (s *server) dynamicSources() error {
	d := s.boot.Proto.GetDynamicResources()
	for _, x := range []struct {
		field  string
		config *corepb.ConfigSource
		url    string
		client **xds.Client
	}{
		{"cds_config", d.GetCdsConfig(), wellknown.ClusterType, &s.cds}, {"lds_config", d.GetLdsConfig(), wellknown.ListenerType, &s.lds},
	} {
		if x.config == nil {
			continue
		}
		var err error
		if *x.client, err = s.source(x.url)(x.config); err != nil {
			return fmt.Errorf("dynamic_resources.%s: %w", x.field, err)
		}
	}
	return nil
}

// source finds the client for a config source of resources of one type: the ADS stream, a
// server of their own (the agent's socket), or a file; one client for each.
func (s *server) source(url string) func(*corepb.ConfigSource) (*xds.Client, error) {
	return func(c *corepb.ConfigSource) (*xds.Client, error) {
		err := xds.Only(c, "path", "path_config_source", "api_config_source", "ads", "self", "initial_fetch_timeout", "resource_api_version")
		if err != nil { // authorities, of collections of resources
			return nil, err
		}
		switch src := c.GetConfigSourceSpecifier().(type) {
		case *corepb.ConfigSource_Ads, *corepb.ConfigSource_Self:
			if s.ads == nil {
				return nil, errors.New("ads: the bootstrap has no ads_config")
			}
			return s.ads, nil
		case *corepb.ConfigSource_ApiConfigSource:
			return s.own(url, src.ApiConfigSource, func() (*xds.Client, error) {
				service, ok := xds.ServiceOf(url)
				if !ok {
					return nil, fmt.Errorf("api_config_source: %s has no service of its own", url)
				}
				return s.newClient(src.ApiConfigSource, service)
			})
		case *corepb.ConfigSource_PathConfigSource:
			return s.fromFile(url, src.PathConfigSource)
		case *corepb.ConfigSource_Path:
			return s.fromFile(url, &corepb.PathConfigSource{Path: src.Path})
		}
		return nil, fmt.Errorf("config source %T: not supported", c.GetConfigSourceSpecifier())
	}
}

func (s *server) fromFile(url string, cfg *corepb.PathConfigSource) (*xds.Client, error) {
	file, err := xds.FromPath(cfg, url)
	if err != nil {
		return nil, err
	}
	return s.own(url, cfg, func() (*xds.Client, error) {
		service, _ := xds.ServiceOf(url)
		return xds.New(xds.Options{File: file, Logger: s.logs.Scope("config"), Observe: s.observer(service)}), nil
	})
}

// own is the client of one type with a configuration of its own.
func (s *server) own(url string, cfg proto.Message, fresh func() (*xds.Client, error)) (*xds.Client, error) {
	key, err := proto.MarshalOptions{Deterministic: true}.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	id := url + "\x00" + string(cfg.ProtoReflect().Descriptor().FullName()) + "\x00" + string(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.others[id]; c != nil {
		return c, nil
	}
	c, err := fresh()
	if err != nil {
		return nil, err
	}
	s.others[id] = c
	if s.opts.Mode != "validate" {
		s.tasks.Go(func() { c.Run(s.ctx) })
	}
	return c, nil
}

// views are what all clients hold, by type.
func (s *server) views() map[string]xds.TypeView {
	clients := []*xds.Client{}
	if s.ads != nil {
		clients = append(clients, s.ads)
	}
	s.mu.Lock()
	for _, c := range s.others {
		clients = append(clients, c)
	}
	s.mu.Unlock()
	all := map[string]xds.TypeView{}
	for _, c := range clients {
		for _, v := range c.View() {
			if before, ok := all[v.URL]; ok {
				v.Resources = append(before.Resources, v.Resources...)
				if before.Version != "" {
					v.Version = before.Version
				}
			}
			all[v.URL] = v
		}
	}
	return all
}
