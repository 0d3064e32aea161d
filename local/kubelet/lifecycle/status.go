package lifecycle

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Status is the pod's as the API shall have it, with the conditions that are a node's; those of
// others are not in it.
func (p *Pod) Status(now time.Time) corev1.PodStatus {
	s := *p.object.Status.DeepCopy()
	if p.past {
		return s
	}
	start := metav1.NewTime(p.startTime)
	s.ObservedGeneration = p.object.Generation
	s.StartTime = &start
	s.HostIP, s.HostIPs = p.host, []corev1.HostIP{{IP: p.host}}
	if p.setUp.done && len(p.addresses) > 0 {
		s.PodIP, s.PodIPs = p.addresses[0], nil
		for _, a := range p.addresses {
			s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: a})
		}
	}
	s.Phase, s.Reason, s.Message = p.phase(), "", ""
	if p.stop != nil && s.Phase == corev1.PodFailed {
		s.Reason, s.Message = p.stop.reason, p.stop.message
	}
	s.InitContainerStatuses, s.ContainerStatuses = nil, nil
	for _, c := range p.containers {
		if c.proper() {
			s.ContainerStatuses = append(s.ContainerStatuses, p.containerStatus(c))
		} else {
			s.InitContainerStatuses = append(s.InitContainerStatuses, p.containerStatus(c))
		}
	}
	s.Conditions = p.allConditions(s.Phase, now)
	return s
}

// ended reports whether nothing of the pod runs or will.
func (p *Pod) ended() bool {
	return p.stop != nil && !slices.ContainsFunc(p.containers, func(c *container) bool { return c.phase == running || c.phase == starting })
}

func (p *Pod) phase() corev1.PodPhase {
	if p.ended() {
		return p.endPhase()
	}
	ran := false
	for _, c := range p.containers {
		switch {
		case c.init && !p.initialized:
			return corev1.PodPending
		case !c.proper():
		case c.phase == waiting || c.phase == starting && !c.ran:
			if !c.ran {
				return corev1.PodPending
			}
			ran = true
		default:
			ran = true
		}
	}
	if ran {
		return corev1.PodRunning
	}
	return corev1.PodPending
}

// endPhase is the phase of a pod of which nothing runs any more.
func (p *Pod) endPhase() corev1.PodPhase {
	if p.stop.reason != "" {
		return corev1.PodFailed
	}
	for _, c := range p.containers {
		switch {
		case c.init && c.phase == exited && c.exit.ExitCode != 0 && !p.initialized:
			return corev1.PodFailed
		case c.proper() && (c.phase != exited || c.exit.ExitCode != 0):
			return corev1.PodFailed
		}
	}
	return corev1.PodSucceeded
}

func (p *Pod) containerStatus(c *container) corev1.ContainerStatus {
	s := corev1.ContainerStatus{
		Name: c.spec.Name, Image: c.spec.Image, ImageID: c.imageID, ContainerID: c.id,
		RestartCount: c.restarts, Ready: p.containerReady(c),
	}
	if c.last != nil {
		s.LastTerminationState.Terminated = c.last.DeepCopy()
	}
	started := c.phase == running && c.started && c.hooked
	s.Started = &started
	switch {
	case c.phase == running:
		s.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(c.startedAt)}
	case c.phase == exited && c.why.Reason == "" || c.phase == starting && c.exit != nil && c.why.Reason == "":
		s.State.Terminated = c.exit.DeepCopy()
	case p.ended() && c.exit != nil:
		s.State.Terminated = c.exit.DeepCopy()
	default:
		s.State.Waiting = p.waitingState(c)
		if c.exit != nil {
			s.LastTerminationState.Terminated = c.exit.DeepCopy()
		}
	}
	return s
}

func (p *Pod) waitingState(c *container) *corev1.ContainerStateWaiting {
	if c.why.Reason != "" {
		return c.why.DeepCopy()
	}
	if len(p.object.Spec.InitContainers) > 0 && !p.initialized {
		return &corev1.ContainerStateWaiting{Reason: "PodInitializing", Message: p.setUp.why}
	}
	return &corev1.ContainerStateWaiting{Reason: "ContainerCreating", Message: p.setUp.why}
}

func (p *Pod) containerReady(c *container) bool {
	if c.init {
		return c.phase == exited && c.exit.ExitCode == 0
	}
	return c.phase == running && c.started && c.hooked && c.ready
}

// A finding is what a condition shall say.
type finding struct {
	kind            corev1.PodConditionType
	ok              bool
	reason, message string
}

func (p *Pod) allConditions(phase corev1.PodPhase, now time.Time) []corev1.PodCondition {
	containers := p.findContainers(phase)
	all := []finding{
		{corev1.PodReadyToStartContainers, p.setUp.done && !p.tornOff, "", ""},
		p.findInitialized(phase),
		p.findReady(containers),
		containers,
		{corev1.PodScheduled, true, "", ""},
	}
	var result []corev1.PodCondition
	for _, f := range all {
		result = append(result, p.condition(f, now))
	}
	return result
}

// condition keeps the time of the last change.
func (p *Pod) condition(f finding, now time.Time) corev1.PodCondition {
	c := corev1.PodCondition{Type: f.kind, Status: corev1.ConditionFalse, Reason: f.reason, Message: f.message,
		LastTransitionTime: metav1.NewTime(now), ObservedGeneration: p.object.Generation}
	if f.ok {
		c.Status = corev1.ConditionTrue
	}
	if old, ok := p.conditions[f.kind]; ok && old.Status == c.Status {
		c.LastTransitionTime = old.LastTransitionTime
	}
	p.conditions[f.kind] = c
	return c
}

func (p *Pod) findInitialized(phase corev1.PodPhase) finding {
	f := finding{kind: corev1.PodInitialized, ok: true}
	if phase == corev1.PodSucceeded {
		f.reason = "PodCompleted"
		return f
	}
	var missing []string
	for _, c := range p.containers {
		if c.init && !p.initialized && !p.containerReady(c) || c.sidecar && !p.initialized && !c.started {
			missing = append(missing, c.spec.Name)
		}
	}
	if len(missing) > 0 {
		return finding{corev1.PodInitialized, false, "ContainersNotInitialized", list("containers with incomplete status", missing)}
	}
	return f
}

func list(what string, names []string) string {
	return fmt.Sprintf("%s: [%s]", what, strings.Join(names, " "))
}

func (p *Pod) findContainers(phase corev1.PodPhase) finding {
	switch phase {
	case corev1.PodSucceeded:
		return finding{corev1.ContainersReady, false, "PodCompleted", ""}
	case corev1.PodFailed:
		return finding{corev1.ContainersReady, false, "PodFailed", ""}
	}
	var missing []string
	for _, c := range p.containers {
		if !c.init && !p.containerReady(c) {
			missing = append(missing, c.spec.Name)
		}
	}
	if len(missing) > 0 {
		return finding{corev1.ContainersReady, false, "ContainersNotReady", list("containers with unready status", missing)}
	}
	return finding{kind: corev1.ContainersReady, ok: true}
}

// findReady adds the readiness gates to the containers' readiness.
func (p *Pod) findReady(containers finding) finding {
	f := containers
	f.kind = corev1.PodReady
	if !f.ok {
		return f
	}
	var missing []string
	for _, gate := range p.object.Spec.ReadinessGates {
		i := slices.IndexFunc(p.object.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == gate.ConditionType })
		switch {
		case i < 0:
			missing = append(missing, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", gate.ConditionType))
		case p.object.Status.Conditions[i].Status != corev1.ConditionTrue:
			missing = append(missing, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", gate.ConditionType, p.object.Status.Conditions[i].Status))
		}
	}
	if len(missing) > 0 {
		return finding{corev1.PodReady, false, "ReadinessGatesNotReady", strings.Join(missing, ", ")}
	}
	return f
}
