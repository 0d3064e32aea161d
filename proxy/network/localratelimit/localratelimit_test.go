package localratelimit

import (
	"testing"
	"time"

	localratelimitpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/local_ratelimit/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lateen-mesh/lateen/proxy/stats"
)

func bucket(most, fill uint32, every time.Duration) *localratelimitpb.LocalRateLimit {
	return &localratelimitpb.LocalRateLimit{StatPrefix: "p", TokenBucket: &typepb.TokenBucket{MaxTokens: most, TokensPerFill: wrapperspb.UInt32(fill), FillInterval: durationpb.New(every)}}
}

func TestTokens(t *testing.T) {
	f, err := compile(bucket(3, 2, time.Second), stats.NewStore(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.release()
	begin := f.filled
	at := func(d time.Duration) (n int) {
		for f.take(begin.Add(d)) {
			n++
		}
		return n
	}
	if n := at(0); n != 3 {
		t.Error("at first", n)
	}
	if n := at(999 * time.Millisecond); n != 0 {
		t.Error("before the first fill", n)
	}
	if n := at(time.Second); n != 2 {
		t.Error("after one fill", n)
	}
	if n := at(1000 * time.Hour); n != 3 {
		t.Error("after many", n)
	}
}

func TestRefusals(t *testing.T) {
	shared := bucket(1, 1, time.Second)
	shared.ShareKey = "k"
	for want, c := range map[string]*localratelimitpb.LocalRateLimit{
		"local rate limit token bucket fill timer must be >= 50ms": bucket(1, 1, 49*time.Millisecond),
		"share_key: not supported":                                 shared,
	} {
		if _, err := compile(c, stats.NewStore(), nil); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
