package probe

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// firstStep is the shortest pause between questions before the first success.
const firstStep = 20 * time.Millisecond

// A Watch asks again and again. Its functions are called from Run's goroutine.
type Watch struct {
	Probe *corev1.Probe
	// Hurry asks at once and in short steps until the first success, if the probe has no initial
	// delay. Failures count at the probe's own period only.
	Hurry bool
	// Ask is one question, bounded by its context.
	Ask func(context.Context) error
	// Unwell is told of each failure that counts.
	Unwell func(error)
	// Changed is told when a threshold is reached.
	Changed func(ok bool)
}

// A watching is the state of one Run.
type watching struct {
	Watch
	counted   time.Time // when the next question counts
	hurrying  bool
	begun     time.Time
	known, ok bool
	right     int32
	wrong     int32
}

// Run asks until the context ends.
func (w Watch) Run(ctx context.Context) {
	r := &watching{Watch: w, begun: time.Now()}
	delay := seconds(w.Probe.InitialDelaySeconds)
	r.hurrying = w.Hurry && delay == 0
	r.counted = r.begun.Add(delay)
	if r.hurrying {
		r.counted = r.begun.Add(r.period())
	}
	due := r.begun
	if !r.hurrying {
		due = r.counted
	}
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		asking, cancel := context.WithTimeout(ctx, max(seconds(w.Probe.TimeoutSeconds), time.Second))
		err := w.Ask(asking)
		cancel()
		if ctx.Err() != nil {
			return
		}
		r.learn(err)
		timer.Reset(time.Until(r.due()))
	}
}

// learn counts an answer.
func (r *watching) learn(err error) {
	now := time.Now()
	counts := !now.Before(r.counted)
	for !now.Before(r.counted) {
		r.counted = r.counted.Add(r.period())
	}
	if err == nil {
		if r.hurrying {
			r.hurrying, r.counted = false, now.Add(r.period())
		}
		r.right, r.wrong = r.right+1, 0
		r.settle(true, r.right, r.Probe.SuccessThreshold)
		return
	}
	if !counts {
		return
	}
	r.right, r.wrong = 0, r.wrong+1
	r.Unwell(err)
	r.settle(false, r.wrong, r.Probe.FailureThreshold)
}

func (r *watching) settle(ok bool, times, threshold int32) {
	if times < max(threshold, 1) || r.known && r.ok == ok {
		return
	}
	r.known, r.ok = true, ok
	r.Changed(ok)
}

// due is when the next question is asked.
func (r *watching) due() time.Time {
	if !r.hurrying {
		return r.counted
	}
	now := time.Now()
	if at := now.Add(max(firstStep, now.Sub(r.begun)/4)); at.Before(r.counted) {
		return at
	}
	return r.counted
}

func (r *watching) period() time.Duration { return max(seconds(r.Probe.PeriodSeconds), time.Second) }

func seconds(n int32) time.Duration { return time.Duration(n) * time.Second }
