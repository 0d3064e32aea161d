package lifecycle

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// A step is one run of Step.
type step struct {
	*Pod
	now     time.Time
	next    time.Time
	actions []Action
}

// Step returns what to do now; each action is returned once. It is to be called
// again after each event, and at the time it names (zero: no such time).
func (p *Pod) Step(now time.Time) (actions []Action, next time.Time) {
	s := &step{Pod: p, now: now}
	s.judge()
	if p.stop != nil {
		s.endAll()
	} else {
		s.advance()
	}
	return s.actions, s.next
}

func (s *step) do(verb Verb, c *container, message string) {
	a := Action{Do: verb, Message: message}
	if c != nil {
		a.Container = c.spec.Name
	}
	s.actions = append(s.actions, a)
}

// wake asks for a call at a time; it reports whether that is still to come.
func (s *step) wake(at time.Time) bool {
	if !s.now.Before(at) {
		return false
	}
	if s.next.IsZero() || at.Before(s.next) {
		s.next = at
	}
	return true
}

// judge decides whether all of the pod is to end.
func (s *step) judge() {
	p := s.Pod
	switch {
	case p.removed:
		s.end(0, "", "")
		p.stop.by = earlier(p.stop.by, s.now)
	case p.object.DeletionTimestamp != nil:
		grace := p.grace()
		if g := p.object.DeletionGracePeriodSeconds; g != nil {
			grace = time.Duration(*g) * time.Second
		}
		s.end(grace, "", "")
		p.stop.by = earlier(p.stop.by, p.stop.begun.Add(grace))
	case p.Over(), p.finished():
		s.end(p.grace(), "", "")
	}
	if p.stop != nil {
		return
	}
	if limit := p.object.Spec.ActiveDeadlineSeconds; limit != nil {
		if at := p.startTime.Add(time.Duration(*limit) * time.Second); !s.wake(at) {
			s.end(p.grace(), "DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
		}
	}
}

// end begins the end of all containers, unless it has begun.
func (s *step) end(grace time.Duration, reason, message string) {
	if s.stop == nil {
		s.stop = &ending{by: s.now.Add(grace), begun: s.now, reason: reason, message: message}
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func (p *Pod) grace() time.Duration {
	if g := p.object.Spec.TerminationGracePeriodSeconds; g != nil {
		return time.Duration(*g) * time.Second
	}
	return corev1.DefaultTerminationGracePeriodSeconds * time.Second
}

// finished reports whether nothing of the pod is to run any more: an init container
// failed for good, or all containers ended for good.
func (p *Pod) finished() bool {
	done := true
	for _, c := range p.containers {
		switch {
		case c.init && c.phase == exited && c.exit.ExitCode != 0 && !p.again(c):
			return true
		case c.proper() && (c.phase != exited || p.again(c)):
			done = false
		}
	}
	return done
}

// again reports whether a container that ended is started again.
func (p *Pod) again(c *container) bool {
	policy := p.object.Spec.RestartPolicy
	if own := c.spec.RestartPolicy; own != nil {
		policy = corev1.RestartPolicy(*own)
	}
	for _, rule := range c.spec.RestartPolicyRules {
		if rule.ExitCodes == nil || rule.Action != corev1.ContainerRestartRuleActionRestart {
			continue
		}
		if slices.Contains(rule.ExitCodes.Values, c.exit.ExitCode) == (rule.ExitCodes.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn) {
			return true
		}
	}
	switch {
	case c.sidecar:
		return true
	case policy == corev1.RestartPolicyNever:
		return false
	default:
		return c.exit.ExitCode != 0 || policy != corev1.RestartPolicyOnFailure && !c.init
	}
}

// advance brings the pod nearer to running.
func (s *step) advance() {
	if !s.ready() {
		return
	}
	for _, c := range s.containers {
		s.heal(c)
		if c.init && s.initialized {
			continue
		}
		s.initialized = s.initialized || c.proper()
		if s.tend(c) {
			return
		}
	}
}

// tend does what is due to one container; it reports whether later ones wait for it.
func (s *step) tend(c *container) (hold bool) {
	switch c.phase {
	case waiting:
		s.start(c)
	case exited:
		if c.init && c.exit.ExitCode == 0 {
			return false
		}
		if s.again(c) {
			s.start(c)
		}
	case running:
		s.watch(c)
	case starting:
	}
	switch {
	case c.init:
		return true
	case c.sidecar:
		return !s.initialized && !c.started
	default:
		// Containers start one after the other, each once the hook of the one before is over:
		// a proxy holds the application so.
		return c.phase == starting || c.phase == running && !c.hooked
	}
}

// ready reports whether network and volumes are there, and has them made.
func (s *step) ready() bool {
	if !s.setUp.done && !s.setUp.issued && !s.wake(s.setUp.retryAt) {
		s.setUp.issued = true
		s.do(SetUp, nil, "")
	}
	return s.setUp.done
}

func (s *step) start(c *container) {
	if s.wake(c.retryAt) {
		if c.phase == exited && c.why.Reason != "CrashLoopBackOff" {
			s.do(BackOff, c, fmt.Sprintf("Back-off restarting failed container %s in pod %s_%s(%s)", c.spec.Name, s.object.Name, s.object.Namespace, s.object.UID))
			c.why = corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: fmt.Sprintf(
				"back-off %s restarting failed container=%s pod=%s_%s(%s)", backOff(c.crashes-1), c.spec.Name, s.object.Name, s.object.Namespace, s.object.UID)}
		}
		return
	}
	c.phase = starting
	attempt := c.restarts
	if c.ran {
		attempt++
	}
	s.actions = append(s.actions, Action{Do: Start, Container: c.spec.Name, Attempt: attempt})
}

// watch begins hook and probes of a running container.
func (s *step) watch(c *container) {
	switch {
	case c.sick != "":
		return
	case !c.hooked:
		if !c.hooking {
			c.hooking = true
			s.do(PostStart, c, "")
		}
		return
	case c.spec.StartupProbe == nil:
		c.started = true
	case !c.started && !c.probing:
		c.probing = true
		s.do(ProbeStartup, c, "")
	}
	if !c.started || c.watched {
		return
	}
	c.watched = true
	if c.spec.ReadinessProbe == nil {
		c.ready = true
	}
	if c.spec.ReadinessProbe != nil || c.spec.LivenessProbe != nil {
		s.do(Probe, c, "")
	}
}

// heal stops a container that is to be started again.
func (s *step) heal(c *container) {
	if c.phase != running || c.sick == "" {
		return
	}
	grace := s.grace()
	if c.sickGrace != nil {
		grace = time.Duration(*c.sickGrace) * time.Second
	}
	s.halt(c, s.now.Add(grace), grace, fmt.Sprintf("Container %s %s, will be restarted", c.spec.Name, c.sick), true)
}

// endAll stops all containers, sidecars last, and then the pod.
func (s *step) endAll() {
	by, grace := s.stop.by, max(s.stop.by.Sub(s.stop.begun), 0)
	turn := true // of the next sidecar
	for _, c := range slices.Backward(s.containers) {
		if c.phase == starting {
			turn = false
			if !c.aborted && !s.wake(by) {
				c.aborted = true
				s.do(Kill, c, "")
			}
			continue
		}
		if c.phase != running {
			continue
		}
		message := "Stopping container " + c.spec.Name
		s.halt(c, by, grace, message, turn || !c.sidecar)
		turn = false
	}
	if !turn {
		return
	}
	if !s.tornOff {
		s.tornOff = true
		s.do(TearDown, nil, "")
	}
	if (s.removed || s.object.DeletionTimestamp != nil) && !s.deleted {
		s.deleted = true
		s.do(Delete, nil, "")
	}
}

// halt brings the stop of a container on: hook, signal when it is its turn, kill.
func (s *step) halt(c *container, by time.Time, grace time.Duration, message string, turn bool) {
	h := c.halting
	if h == nil {
		h = &halting{by: by, grace: grace, freed: true}
		c.halting = h
		s.do(Stopping, c, message)
		if c.spec.Lifecycle != nil && c.spec.Lifecycle.PreStop != nil && grace > 0 {
			h.freed = false
			s.actions = append(s.actions, Action{Do: PreStop, Container: c.spec.Name, By: by})
		}
	}
	if by.Before(h.by) {
		h.by, h.killAt = by, earlier(h.killAt, by)
	}
	late := !s.wake(h.by) // a hook does not outlast the grace period
	if !h.signalled {
		if !turn || !h.freed && !late {
			return
		}
		h.signalled = true
		h.killAt = h.by
		if least := s.now.Add(min(leastGrace, h.grace)); h.killAt.Before(least) {
			h.killAt = least
		}
		s.do(Terminate, c, "")
	}
	if !h.killed && !s.wake(h.killAt) {
		h.killed = true
		s.do(Kill, c, "")
	}
}
