package fault

import (
	"errors"
	"math/rand/v2"
	"time"

	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/match"
)

// Request headers that say how slow an answer is to be.
const (
	rateHeader      = "x-envoy-fault-throughput-response" // KiB per second
	rateShareHeader = "x-envoy-fault-throughput-response-percentage"
)

// A rate bounds how fast answers go out.
type rate struct {
	perSecond int64 // bytes, 0: by header
	fraction  match.Fraction
}

// maxRate keeps what a header asks for within the range of a number: a TiB per second, in KiB.
const maxRate = 1 << 30

func newRate(l *commonv3.FaultRateLimit) (*rate, error) {
	if l == nil {
		return nil, nil
	}
	out := &rate{fraction: match.NewFraction(l.GetPercentage())}
	switch by := l.GetLimitType().(type) {
	case *commonv3.FaultRateLimit_FixedLimit_:
		out.perSecond = int64(min(by.FixedLimit.GetLimitKbps(), maxRate)) << 10
	case *commonv3.FaultRateLimit_HeaderLimit_:
	default:
		return nil, errors.New("limit_type: not set")
	}
	return out, nil
}

// of is the rate of the answer to a request in bytes per second, 0 for none.
func (l *rate) of(r *http.Request, k *knobs) int64 {
	if l == nil {
		return 0
	}
	perSecond, share := l.perSecond, l.fraction
	if perSecond == 0 {
		n, ok := number(r, rateHeader)
		if !ok || n <= 0 {
			return 0
		}
		perSecond, share = min(n, maxRate)<<10, lowered(share, r, rateShareHeader)
	}
	if !k.values.ShareOf(k.rate, share).Of(rand.Uint64()) {
		return 0
	}
	return perSecond
}

// slow is a body that goes out at a rate, some of it every interval.
type slow struct {
	http.Body
	s    *http.Stream
	each int // bytes of an interval
	rest []byte
	next time.Time
}

// interval is that of Envoy: twenty pieces each second.
const interval = 50 * time.Millisecond

func newSlow(s *http.Stream, body http.Body, perSecond int64) *slow {
	return &slow{Body: body, s: s, each: int(max(1, perSecond*int64(interval)/int64(time.Second)))}
}

// Next waits until the next piece may go.
func (b *slow) Next() ([]byte, error) {
	if len(b.rest) == 0 {
		p, err := b.Body.Next()
		if err != nil {
			return nil, err
		}
		b.rest = p
	}
	if d := time.Until(b.next); d > 0 && !wait(b.s, d) {
		return nil, errLeft
	}
	b.next = time.Now().Add(interval)
	n := min(len(b.rest), b.each)
	p := b.rest[:n]
	b.rest = b.rest[n:]
	return p, nil
}

var errLeft = errors.New("the client has left")

// Ready reports that nothing is to be waited for.
func (b *slow) Ready() bool { return b.Done() }

// Done reports that all has gone.
func (b *slow) Done() bool { return len(b.rest) == 0 && b.Body.Done() }
