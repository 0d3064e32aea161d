package fault

import (
	"fmt"
	"strconv"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/match"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// foretell says what the settings would do with a stream, without waiting and without
// chance: an abort that meets all requests is the answer, one that meets some is told of.
func (c *settings) foretell(s *http.Stream) http.Verdict {
	r, k := &s.Request, &c.knobs
	if d := c.delay; d != nil {
		length, share, asked := d.fixed, d.fraction, true
		if length == 0 {
			sure := *d
			sure.fraction = match.Fraction{Numerator: 1, Denominator: 1}
			length, share = sure.of(r, k), lowered(share, r, delayShareHeader)
			asked = length > 0
		}
		if share = k.share(r, k.delay, share); asked && share.Numerator > 0 {
			s.Tell(fmt.Sprintf("fault: %s delayed by %s", portion(share), k.length(r, length)))
		}
	}
	if c.rate != nil {
		s.Tell("fault: the answer's rate is limited")
	}
	return c.foretellAbort(s)
}

func (c *settings) foretellAbort(s *http.Stream) http.Verdict {
	a, r, k := c.abort, &s.Request, &c.knobs
	if a == nil {
		return http.Continue
	}
	status, grpc, share := a.status, a.grpc, a.fraction
	if a.byHeader {
		var ok bool
		if status, grpc, ok = asked(r); !ok {
			return http.Continue
		}
		share = lowered(share, r, abortShareHeader)
	}
	share = k.share(r, k.abort, share)
	if share.Numerator == 0 {
		return http.Continue
	}
	status, grpc = k.answer(r, status, grpc)
	with := strconv.Itoa(status)
	if grpc >= 0 {
		with = "gRPC status " + strconv.Itoa(grpc)
	}
	s.Tell(fmt.Sprintf("fault: %s aborted with %s", portion(share), with))
	if share.Numerator < share.Denominator {
		return http.Continue
	}
	s.Reply(http.Reply{Status: status, GRPCStatus: grpc, Body: a.body, Details: "fault_filter_abort", Flag: streaminfo.FaultInjected})
	return http.Replied
}

// portion is a share in words.
func portion(f match.Fraction) string {
	if f.Numerator >= f.Denominator {
		return "all requests are"
	}
	return fmt.Sprintf("%g%% of the requests are", 100*float64(f.Numerator)/float64(f.Denominator))
}
