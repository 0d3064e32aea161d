package health

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
)

// A session is one check of one host. Its state is the host's mutex's.
type session struct {
	*host
	check  *check
	counts *counts
	log    *log

	failed, degraded, timedOut bool
	first                      bool // there has been no result
	passes, fails              uint32
}

// A transition is what a result did to a session.
type transition uint8

const (
	unchanged transition = iota
	pending              // a threshold is not reached yet
	changed
)

// run checks until the host is gone.
func (s *session) run() {
	p := s.check.kind.probe(s)
	defer s.end()
	defer p.close()
	for wait := jitter(s.check.times.initialJitter); s.pause(wait); {
		s.counts.attempt.Inc()
		ctx, cancel := context.WithTimeout(s.ctx, s.check.times.timeout)
		o := p.try(ctx)
		late := ctx.Err() != nil
		cancel()
		if s.ctx.Err() != nil {
			return
		}
		if !o.passed && o.cause == network && late {
			o.cause = networkTimeout
		}
		if !s.check.reuse {
			p.close()
		}
		wait = s.settle(o)
	}
}

func jitter(most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	return rand.N(most)
}

// pause waits; false: the host is gone.
func (s *session) pause(d time.Duration) bool {
	if d <= 0 {
		return s.ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.ctx.Done():
		return false
	}
}

// settle takes in a result and returns when the next check is due.
func (s *session) settle(o outcome) time.Duration {
	h := s.host
	h.mu.Lock()
	first := s.first
	var moved transition
	if o.passed {
		moved = s.pass(o)
	} else {
		moved = s.fail(o)
	}
	s.first = false
	flags := h.show()
	done := false
	if first {
		h.unseen--
		done = h.unseen == 0
	}
	h.mu.Unlock()
	h.c.env.Checked(h.Endpoint, o.passed, flags)
	if done && h.first {
		h.c.seen()
	}
	return s.interval(o.passed, moved)
}

// pass notes that a check passed.
func (s *session) pass(o outcome) (moved transition) {
	s.fails = 0
	s.counts.success.Inc()
	s.timedOut = false
	if s.failed {
		moved = pending
		if s.passes++; s.first || s.passes >= s.check.healthy {
			s.failed, moved = false, changed
			s.excluded = o.excluded
			s.counts.healthy.Inc()
			s.log.healthy(s, s.first)
		}
	} else if s.check.logSuccesses {
		s.log.passed(s)
	}
	if o.degraded != s.degraded {
		s.degraded = o.degraded
		if s.degraded {
			s.counts.degraded.Inc()
		} else {
			s.counts.degraded.Dec()
		}
		s.log.degraded(s)
		if moved == unchanged {
			moved = changed
		}
	}
	return moved
}

// fail notes that a check failed, or that an answer refused.
func (s *session) fail(o outcome) (moved transition) {
	s.passes = 0
	s.counts.fail(o)
	s.timedOut = o.cause == networkTimeout
	s.excluded = s.excluded || o.excluded
	if !s.failed {
		s.fails++
		moved = pending
		if o.cause == active && !o.patient || o.cause == passive || s.fails >= s.check.unhealthy {
			s.failed, moved = true, changed
			s.counts.healthy.Dec()
			s.log.unhealthy(s, o)
		}
	}
	if s.first || s.check.logFailures {
		s.log.failed(s, o, s.first)
	}
	return moved
}

// refused is fail by the answer to a request.
func (s *session) refused() {
	s.mu.Lock()
	s.fail(outcome{cause: passive, excluded: true})
	flags := s.show()
	s.mu.Unlock()
	s.c.env.Checked(s.Endpoint, false, flags)
}

// show sets the endpoint's flags by what all sessions found. It returns whether they are
// others than before. mu is held.
func (h *host) show() bool {
	var flags uint32
	for _, s := range h.sessions {
		if s.failed {
			flags |= endpoint.FailedActiveHealth
		}
		if s.degraded {
			flags |= endpoint.DegradedActive
		}
		if s.timedOut {
			flags |= endpoint.TimedOut
		}
	}
	if h.excluded {
		flags |= endpoint.Excluded
	}
	h.count(flags&endpoint.FailedActiveHealth == 0, flags&endpoint.DegradedActive != 0)
	before := h.Endpoint.Unhealthy.And(^activeFlags)
	h.Endpoint.Unhealthy.Or(flags)
	if flags&endpoint.FailedActiveHealth == 0 && before&endpoint.FailedActiveHealth != 0 {
		h.Endpoint.HealthySince.Store(time.Now().UnixNano())
	}
	return before&activeFlags != flags
}

// count keeps the gauges over all checks. mu is held.
func (h *host) count(well, poor bool) {
	if w := h.c.whole; w != nil {
		w.set(h.well, well, w.healthy)
		w.set(h.poor, poor, w.degraded)
	}
	h.well, h.poor = well, poor
}

// end is the end of a session; the last one takes the host out of the gauges.
func (s *session) end() {
	h := s.host
	h.mu.Lock()
	defer h.mu.Unlock()
	if !s.failed {
		s.counts.healthy.Dec()
	}
	if s.degraded {
		s.counts.degraded.Dec()
	}
	if h.running--; h.running > 0 {
		return
	}
	h.count(false, false)
	if h.unseen > 0 && h.first {
		h.unseen = 0
		h.c.seen()
	}
}

// interval is when the next check is due.
func (s *session) interval(passed bool, moved transition) time.Duration {
	t := &s.check.times
	d := t.interval
	switch used := s.c.env.Used(); {
	case !used && passed:
		d = t.noTrafficHealthy
	case !used:
		d = t.noTraffic
	case passed && moved == pending:
		d = t.healthyEdge
	case !passed && moved == pending:
		d = t.unhealthyEdge
	case !passed:
		d = t.unhealthy
	}
	d += jitter(d*time.Duration(t.jitterPercent)/100) + jitter(t.jitter)
	return max(d, time.Millisecond)
}

// address is where the session connects.
func (s *session) address() string {
	a := s.Address
	if a == "" {
		a = s.Endpoint.Address
	}
	port := s.Port
	if port == 0 {
		port = s.check.port
	}
	return withPort(a, port)
}
