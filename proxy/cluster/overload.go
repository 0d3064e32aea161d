package cluster

import (
	"errors"
	"math/rand/v2"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
)

// decodeDrops reads drop_overloads: Envoy knows one category.
func (a *assignment) decodeDrops(list []*endpointv3.ClusterLoadAssignment_Policy_DropOverload) error {
	if len(list) == 0 {
		return nil
	}
	if len(list) > 1 {
		return errors.New("only one category is supported")
	}
	p := list[0].GetDropPercentage()
	unit := uint32(100)
	switch p.GetDenominator() {
	case typev3.FractionalPercent_TEN_THOUSAND:
		unit = 10_000
	case typev3.FractionalPercent_MILLION:
		unit = 1_000_000
	}
	if p.GetNumerator() > unit {
		return errors.New("drop_percentage: must be at most 100 %")
	}
	a.drop = p.GetNumerator() * (1_000_000 / unit)
	return nil
}

// Drops reports that this request is one of those that the control plane wants dropped
// (drop_overloads), and whether it wants all of them dropped.
func (c *Cluster) Drops() (drop, all bool) {
	n := c.shed.Load()
	return n > 0 && rand.Uint32N(1_000_000) < n, n >= 1_000_000
}
