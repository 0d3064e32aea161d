package http

import "testing"

// An asking interrupter looks whether Settle could return while it is at work.
type asking struct {
	s        *Stream
	settling bool
}

func (a *asking) Interrupt() {
	if a.s.mu.TryLock() {
		a.settling = true
		a.s.mu.Unlock()
	}
}

// TestSettleEndsInterrupts: once a stream has settled, what it waited on is its owner's
// again: no interrupt of it is under way.
func TestSettleEndsInterrupts(t *testing.T) {
	var s Stream
	x := &asking{s: &s}
	if !s.Await(x) {
		t.Fatal("nobody has left")
	}
	s.Leave()
	if x.settling {
		t.Error("the stream could settle while the interrupt was under way")
	}
	s.Settle()
	if s.Await(x) || !s.Left() {
		t.Error("the client has left")
	}
}
