// Package localratelimit is the network filter envoy.filters.network.local_ratelimit: each
// new connection takes a token of a bucket, and is closed when there is none.
package localratelimit

import (
	"errors"
	"sync"
	"time"

	localratelimitpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/local_ratelimit/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/runtime"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// leastInterval is the shortest fill_interval.
const leastInterval = 50 * time.Millisecond

// Factory makes the filter known to listeners. Its stat is
// "local_rate_limit.<stat_prefix>.rate_limited".
func Factory(store *stats.Store, values *runtime.Values) network.Factory {
	return network.Factory{
		Name:     "envoy.filters.network.local_ratelimit",
		TypeURLs: []string{"envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit"},
		New: func(cfg *anypb.Any, _ network.Env) (network.Built, error) {
			var c localratelimitpb.LocalRateLimit
			if err := cfg.UnmarshalTo(&c); err != nil {
				return network.Built{}, err
			}
			f, err := compile(&c, store, values)
			if err != nil {
				return network.Built{}, err
			}
			return network.Built{Filter: f, Close: f.release}, nil
		},
	}
}

// filter is the bucket of one chain.
type filter struct {
	most, fill uint32
	interval   time.Duration
	enabled    *runtime.Switch // nil: always
	limited    *stats.Counter
	release    func()

	mu     sync.Mutex
	tokens uint32
	filled time.Time // when tokens came last
}

func compile(c *localratelimitpb.LocalRateLimit, store *stats.Store, values *runtime.Values) (*filter, error) {
	if err := xds.Only(c, "stat_prefix", "token_bucket", "runtime_enabled"); err != nil {
		return nil, err
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	b := c.GetTokenBucket()
	f := &filter{
		most: b.GetMaxTokens(), fill: 1, interval: b.GetFillInterval().AsDuration(), tokens: b.GetMaxTokens(), filled: time.Now(),
	}
	if c.GetRuntimeEnabled() != nil {
		enabled := values.Switch(c.GetRuntimeEnabled())
		f.enabled = &enabled
	}
	if b.GetTokensPerFill() != nil {
		f.fill = b.GetTokensPerFill().GetValue()
	}
	if f.interval < leastInterval {
		return nil, errors.New("local rate limit token bucket fill timer must be >= 50ms")
	}
	s := store.Scope("local_rate_limit." + c.GetStatPrefix() + ".")
	f.limited, f.release = s.Counter("rate_limited"), s.Claim()
	return f, nil
}

// OnConnect takes a token.
func (f *filter) OnConnect(c *network.Conn) bool {
	if f.enabled != nil && !f.enabled.On() || f.take(time.Now()) {
		return true
	}
	f.limited.Inc()
	c.Info.Flags.Set(streaminfo.UpstreamRetryLimitExceeded) // as Envoy tells of it
	return false
}

func (f *filter) take(now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := now.Sub(f.filled) / f.interval; n > 0 {
		f.filled = f.filled.Add(n * f.interval)
		f.tokens = uint32(min(uint64(f.most), uint64(f.tokens)+uint64(n)*uint64(f.fill)))
	}
	if f.tokens == 0 {
		return false
	}
	f.tokens--
	return true
}
