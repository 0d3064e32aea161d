package proxy

import (
	"github.com/lateen-mesh/lateen/proxy/callout"
	"github.com/lateen-mesh/lateen/proxy/filter/extauthz"
	"github.com/lateen-mesh/lateen/proxy/hcm"
)

// calls is how filters ask other services.
func (s *server) calls() *callout.Client {
	return &callout.Client{LocalAddress: hcm.LocalAddress(), Cluster: func(name string) callout.Cluster {
		if c := s.clusters.Soon(name); c != nil {
			return c
		}
		return nil
	}}
}

// authz is what external authorization uses of the proxy.
func (s *server) authz() extauthz.Deps {
	return extauthz.Deps{Calls: s.calls(), NodeMetadata: s.identity().GetMetadata().AsMap(), Tell: s.model.tell()}
}
