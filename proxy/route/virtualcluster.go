package route

import (
	"errors"
	"fmt"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/upstream"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// A VirtualCluster are requests of a virtual host that are counted by themselves.
type VirtualCluster struct {
	Name  string          // "" of those that are in none of the configured ones
	Tally *upstream.Tally // nil where no stats are kept

	headers []HeaderMatcher
}

// VirtualCluster is the one that a request is counted in, nil for none.
func (vh *VirtualHost) VirtualCluster(r *http.Request) *VirtualCluster {
	for i := range vh.clusters {
		if c := &vh.clusters[i]; MatchesAll(c.headers, r) {
			return c
		}
	}
	return nil
}

// virtualClusters compiles those of a virtual host; behind them all is that of other requests.
func (c *compiler) virtualClusters(v *routev3.VirtualHost) ([]VirtualCluster, error) {
	if len(v.GetVirtualClusters()) == 0 {
		return nil, nil
	}
	list, err := compileAll("virtual_clusters", v.GetVirtualClusters(), func(p *routev3.VirtualCluster) (out VirtualCluster, err error) {
		if err := xds.Only(p, "headers", "name"); err != nil {
			return out, err
		}
		if len(p.GetHeaders()) == 0 {
			return out, errors.New("virtual clusters must define 'headers'")
		}
		out.Name, out.Tally = p.GetName(), c.tally(v, "vcluster", p.GetName())
		out.headers, err = NewHeaderMatchers("headers", p.GetHeaders())
		return out, err
	})
	return append(list, VirtualCluster{Tally: c.tally(v, "vcluster", "other")}), err
}

// tally keeps stats of some requests of a virtual host.
func (c *compiler) tally(v *routev3.VirtualHost, kind, name string) *upstream.Tally {
	if c.env.HTTP.Stats == nil {
		return nil
	}
	return upstream.NewTally(c.env.HTTP.Stats.Root().Scope(fmt.Sprintf("vhost.%s.%s.%s", v.GetName(), kind, name)))
}
