package cluster

import (
	"errors"
	"fmt"
	"slices"

	aggregatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/aggregate/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/lb"
)

// combination is the balancer of an aggregate and what it was made of.
type combination struct {
	parts    []lb.Balancer
	balancer lb.Balancer
}

func (cfg *config) decodeAggregate(typed *anypb.Any) error {
	cfg.kind = aggregate
	var m aggregatev3.ClusterConfig
	if err := unpack(typed, &m, "clusters"); err != nil {
		return err
	}
	if len(m.GetClusters()) == 0 {
		return errors.New("clusters: value must contain at least 1 item(s)")
	}
	for i, name := range m.GetClusters() {
		if slices.Contains(m.GetClusters()[:i], name) {
			return fmt.Errorf("clusters[%d]: %s is there twice", i, name)
		}
	}
	cfg.members = m.GetClusters()
	return nil
}

// combine is the balancer over the members as they are now; it is made anew only when one
// of them has changed. Clusters that are not there are left out, and those that have no
// endpoints of their own, other aggregates among them.
func (c *Cluster) combine() lb.Balancer {
	last, n := c.combined.Load(), 0
	for _, name := range c.config.members {
		b := c.part(name)
		if b == nil {
			continue
		}
		if last == nil || n >= len(last.parts) || last.parts[n] != b {
			last = nil
			break
		}
		n++
	}
	if last != nil && n == len(last.parts) {
		return last.balancer
	}
	next := &combination{}
	for _, name := range c.config.members {
		if b := c.part(name); b != nil {
			next.parts = append(next.parts, b)
		}
	}
	next.balancer = lb.NewAggregate(c.config.balancing.panic, next.parts)
	c.combined.Store(next)
	return next.balancer
}

func (c *Cluster) part(name string) lb.Balancer {
	if m := c.parent.Get(name); m != nil {
		if b := m.balancer.Load(); b != nil {
			return *b
		}
	}
	return nil
}
