package match

import (
	"fmt"
	"net/netip"

	"github.com/cespare/xxhash/v2"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hashingv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/input_matchers/consistent_hashing/v3"
	ipv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/input_matchers/ip/v3"
	fractionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/input_matchers/runtime_fraction/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// newCustom compiles an input matcher that is more than a comparison of texts.
func newCustom(config *anypb.Any, share func(*corev3.RuntimeFractionalPercent) func(uint64) bool) (func(value []byte) bool, error) {
	m, err := config.UnmarshalNew()
	if err != nil {
		return nil, err
	}
	switch c := m.(type) {
	case *ipv3.Ip:
		return newIP(c)
	case *hashingv3.ConsistentHashing:
		return newHashing(c)
	case *fractionv3.RuntimeFraction:
		of, seed := NewFraction(c.GetRuntimeFraction().GetDefaultValue()).Of, c.GetSeed()
		if share != nil {
			of = share(c.GetRuntimeFraction())
		}
		return func(v []byte) bool { return of(seeded(v, seed)) }, nil
	}
	return nil, fmt.Errorf("%s: not supported", config.GetTypeUrl())
}

// newIP wants an address of some ranges.
func newIP(c *ipv3.Ip) (func([]byte) bool, error) {
	ranges, err := NewCIDR(c.GetCidrRanges()...)
	if err != nil {
		return nil, fmt.Errorf("cidr_ranges%w", err)
	}
	return func(v []byte) bool {
		addr, err := netip.ParseAddr(string(v))
		return err == nil && ranges.Match(addr)
	}, nil
}

// newHashing wants a value whose hash falls below a threshold.
func newHashing(c *hashingv3.ConsistentHashing) (func([]byte) bool, error) {
	if c.GetModulo() == 0 {
		return nil, fmt.Errorf("modulo: must be greater than 0")
	}
	if c.GetThreshold() > c.GetModulo() {
		return nil, fmt.Errorf("threshold: %d is greater than modulo %d", c.GetThreshold(), c.GetModulo())
	}
	return func(v []byte) bool {
		return seeded(v, c.GetSeed())%uint64(c.GetModulo()) >= uint64(c.GetThreshold())
	}, nil
}

func seeded(v []byte, seed uint64) uint64 {
	d := xxhash.NewWithSeed(seed)
	_, _ = d.Write(v) // a hash never fails
	return d.Sum64()
}
