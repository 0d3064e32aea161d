// Package lifecycle decides what happens to one pod, as a kubelet would, and what its
// status says. It runs nothing and reads no clock.
//
// A Pod is told what happened (Update, SetUpDone, Started, Exited, Probed …), and Step
// answers with what to do next:
//
//	SetUp ─► Start init containers, one after the other ─► Start containers, one after the other ─► …
//	     native sidecars stay and gate on their startup probe
//
//	deletion, deadline, end of all containers:
//	PreStop of all at once ─► Terminate containers ─► Terminate sidecars, last first ─► TearDown ─► Delete
//
// A container that ends is started again by its restart policy: the first time at
// once, then after 10 s, 20 s … 5 min, as long as it does not run for 10 minutes.
package lifecycle

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A Verb is what an Action does.
type Verb string

// The verbs. All but SetUp, TearDown and Delete are about one container.
const (
	SetUp        Verb = "set up"        // make network and volumes; answer with SetUpDone or SetUpFailed
	Start        Verb = "start"         // answer with Started, Failed
	BackOff      Verb = "back off"      // say that a container waits to be started again
	PostStart    Verb = "post-start"    // run the hook; answer with PostStarted
	ProbeStartup Verb = "probe startup" // begin the startup probe; answer with Probed
	Probe        Verb = "probe"         // begin liveness and readiness probes; answer with Probed
	Stopping     Verb = "stopping"      // the stop begins: liveness and startup are watched no longer
	PreStop      Verb = "pre-stop"      // run the hook; answer with PreStopped
	Terminate    Verb = "terminate"     // send the stop signal
	Kill         Verb = "kill"          // also of one that is still to start
	TearDown     Verb = "tear down"     // release network and volumes: nothing runs any more
	Delete       Verb = "delete"        // remove the object from the API
)

// An Action is something to do now.
type Action struct {
	Do        Verb
	Container string
	// Attempt numbers the container's runs from 0, for Start.
	Attempt int32
	// Message is why a container is stopped, for Stopping, or waits, for BackOff.
	Message string
	// By is when the container is killed, for PreStop.
	By time.Time
}

// A Cause is the reason why a container did not start, as its status names it.
type Cause string

// The causes.
const (
	BadConfig Cause = "CreateContainerConfigError"
	NoImage   Cause = "ErrImagePull"
	NotRun    Cause = "RunContainerError"
)

// A Kind of probe.
type Kind string

// The probes.
const (
	Startup   Kind = "Startup"
	Liveness  Kind = "Liveness"
	Readiness Kind = "Readiness"
)

// Times of the kubelet.
const (
	firstBackOff = 10 * time.Second
	maxBackOff   = 5 * time.Minute
	forgiveAfter = 10 * time.Minute // a container that ran so long starts without back-off
	configRetry  = 2 * time.Second
	setUpRetry   = 500 * time.Millisecond
	maxSetUp     = 30 * time.Second
	leastGrace   = 2 * time.Second // for a stop signal that comes late, after a hook or other containers
)

// A Pod is what is known of one. Not safe for concurrent use.
type Pod struct {
	object     *corev1.Pod
	host       string
	startTime  time.Time
	addresses  []string
	containers []*container // init containers first, in their order
	conditions map[corev1.PodConditionType]corev1.PodCondition

	setUp struct {
		issued, done bool
		failures     int
		why          string // of the last failure
		retryAt      time.Time
	}
	stop    *ending
	past    bool // over before this node began
	removed bool // the API has no such object any more
	tornOff bool // TearDown is issued
	deleted bool // Delete is issued

	initialized bool // the containers proper have begun: init containers are over for good
}

// An ending is why and by when all of a pod is stopped.
type ending struct {
	by, begun       time.Time
	reason, message string // of a pod that failed
}

type phase int

const (
	waiting phase = iota
	starting
	running
	exited
)

// A container of the pod.
type container struct {
	spec    *corev1.Container
	init    bool // an init container that ends
	sidecar bool // an init container that stays

	phase     phase
	why       corev1.ContainerStateWaiting
	id        string
	imageID   string
	startedAt time.Time
	exit      *corev1.ContainerStateTerminated
	last      *corev1.ContainerStateTerminated
	ran       bool // a run came before: the next one is a restart
	restarts  int32
	crashes   int
	refusals  int // starts refused in a row
	retryAt   time.Time
	hooking   bool // PostStart is issued
	hooked    bool // and over
	probing   bool // ProbeStartup is issued
	watched   bool // Probe is issued
	started   bool
	ready     bool
	sick      string // why it is to be started again
	sickGrace *int64
	aborted   bool // Kill is issued before it ran
	halting   *halting
}

// proper reports whether this is a container of spec.containers.
func (c *container) proper() bool { return !c.init && !c.sidecar }

// A halting is how far the stop of a container is.
type halting struct {
	by        time.Time
	grace     time.Duration
	freed     bool // there is no hook, or it is over
	signalled bool
	killAt    time.Time
	killed    bool
}

// New returns a pod as the node finds it: nothing runs. Containers that ran on an
// earlier node count a restart, or stay ended as the restart policy has it.
func New(object *corev1.Pod, host string, now time.Time) *Pod {
	p := &Pod{object: object, host: host, startTime: now, conditions: map[corev1.PodConditionType]corev1.PodCondition{}}
	if t := object.Status.StartTime; t != nil {
		p.startTime = t.Time
	}
	for _, c := range object.Status.Conditions {
		p.conditions[c.Type] = c
	}
	for i := range object.Spec.InitContainers {
		c := &object.Spec.InitContainers[i]
		stays := c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
		p.containers = append(p.containers, &container{spec: c, init: !stays, sidecar: stays})
	}
	for i := range object.Spec.Containers {
		p.containers = append(p.containers, &container{spec: &object.Spec.Containers[i]})
	}
	p.past = p.Over()
	p.recall(now)
	return p
}

// recall takes over what the API's status says of earlier runs.
func (p *Pod) recall(now time.Time) {
	past := map[string]*corev1.ContainerStatus{}
	for _, all := range [][]corev1.ContainerStatus{p.object.Status.InitContainerStatuses, p.object.Status.ContainerStatuses} {
		for i := range all {
			past[all[i].Name] = &all[i]
		}
	}
	for _, c := range p.containers {
		s := past[c.spec.Name]
		if s == nil {
			continue
		}
		c.restarts = s.RestartCount
		c.last = s.LastTerminationState.Terminated
		switch {
		case s.State.Terminated != nil:
			c.exit = s.State.Terminated
		case s.State.Running != nil:
			c.exit = &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "ContainerStatusUnknown",
				Message:   "the node ended while the container ran",
				StartedAt: s.State.Running.StartedAt, FinishedAt: metav1.NewTime(now), ContainerID: s.ContainerID}
		case s.LastTerminationState.Terminated != nil:
			c.exit, c.last = s.LastTerminationState.Terminated, nil
		default:
			continue
		}
		c.ran, c.id, c.imageID = true, s.ContainerID, s.ImageID
		if c.proper() && (!p.again(c) || p.past) {
			c.phase = exited
		}
	}
}

// Over reports whether the API knows the pod as ended: nothing of it is started again.
func (p *Pod) Over() bool {
	return p.object.Status.Phase == corev1.PodSucceeded || p.object.Status.Phase == corev1.PodFailed
}

// Object is the pod as the API has it.
func (p *Pod) Object() *corev1.Pod { return p.object }

// Update tells of a newer object: labels, annotations, deletion. A container whose image
// changed is started again.
func (p *Pod) Update(object *corev1.Pod) {
	p.object = object
	byName := map[string]*corev1.Container{}
	for i := range object.Spec.InitContainers {
		byName[object.Spec.InitContainers[i].Name] = &object.Spec.InitContainers[i]
	}
	for i := range object.Spec.Containers {
		byName[object.Spec.Containers[i].Name] = &object.Spec.Containers[i]
	}
	for _, c := range p.containers {
		spec := byName[c.spec.Name]
		if spec == nil {
			continue
		}
		if c.phase == running && spec.Image != c.spec.Image {
			c.sick = "definition changed"
		}
		c.spec = spec
	}
}

// Removed tells that the API has no such pod any more.
func (p *Pod) Removed() { p.removed = true }

// SetUpDone tells that network and volumes are there.
func (p *Pod) SetUpDone(addresses []string) {
	p.setUp.done, p.setUp.why, p.addresses = true, "", addresses
}

// SetUpFailed tells why they could not be made; Step tries again.
func (p *Pod) SetUpFailed(why string, now time.Time) {
	p.setUp.issued, p.setUp.why = false, why
	p.setUp.retryAt = now.Add(min(setUpRetry<<min(p.setUp.failures, 10), maxSetUp))
	p.setUp.failures++
}

// Retry makes the next Step try again at once what failed for want of configuration: an object
// that was missing may have come.
func (p *Pod) Retry() {
	p.setUp.retryAt = time.Time{}
	for _, c := range p.containers {
		if c.phase == waiting && c.why.Reason == string(BadConfig) {
			c.retryAt = time.Time{}
		}
	}
}

// Started tells that a container runs.
func (p *Pod) Started(name, id, imageID string, now time.Time) {
	c := p.find(name)
	c.begin(id, imageID, now)
	c.phase = running
	c.hooked = c.spec.Lifecycle == nil || c.spec.Lifecycle.PostStart == nil
}

// begin forgets the earlier run.
func (c *container) begin(id, imageID string, now time.Time) {
	if c.ran {
		c.restarts++
		c.last = c.exit
	}
	*c = container{spec: c.spec, init: c.init, sidecar: c.sidecar, id: id, imageID: imageID, startedAt: now,
		ran: true, last: c.last, restarts: c.restarts, crashes: c.crashes, refusals: 0}
}

// Failed tells that a container could not be started.
func (p *Pod) Failed(name string, cause Cause, message, imageID string, now time.Time) {
	c := p.find(name)
	if cause == NotRun {
		c.begin("", imageID, now)
		c.end(&corev1.ContainerStateTerminated{ExitCode: 128, Reason: "StartError", Message: message,
			StartedAt: metav1.NewTime(now), FinishedAt: metav1.NewTime(now)})
		c.why = corev1.ContainerStateWaiting{Reason: string(cause), Message: message}
		return
	}
	c.phase = waiting
	c.why = corev1.ContainerStateWaiting{Reason: string(cause), Message: message}
	c.retryAt = now.Add(configRetry)
	if cause == NoImage {
		if c.refusals > 0 {
			c.why = corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: message}
		}
		c.retryAt = now.Add(min(firstBackOff<<min(c.refusals, 10), maxBackOff))
	}
	c.refusals++
}

// Exited tells how a container ended.
func (p *Pod) Exited(name string, exit corev1.ContainerStateTerminated) {
	c := p.find(name)
	exit.ContainerID, exit.StartedAt = c.id, metav1.NewTime(c.startedAt)
	c.end(&exit)
}

func (c *container) end(exit *corev1.ContainerStateTerminated) {
	c.exit, c.phase = exit, exited
	c.ready, c.started, c.sick, c.halting = false, false, "", nil
	if exit.FinishedAt.Sub(c.startedAt) >= forgiveAfter {
		c.crashes = 0
	}
	c.retryAt = exit.FinishedAt.Add(backOff(c.crashes))
	c.crashes++
}

// backOff is the pause after so many ends.
func backOff(ends int) time.Duration {
	if ends == 0 {
		return 0
	}
	return min(firstBackOff<<min(ends-1, 10), maxBackOff)
}

// PostStarted tells that the hook is over; a failed one costs the container its life.
func (p *Pod) PostStarted(name string, err error) {
	c := p.find(name)
	c.hooked = true
	if err != nil {
		c.sick = "FailedPostStartHook"
	}
}

// PreStopped tells that the hook is over, well or not.
func (p *Pod) PreStopped(name string) {
	if c := p.find(name); c.halting != nil {
		c.halting.freed = true
	}
}

// Probed tells the result of a probe, thresholds counted.
func (p *Pod) Probed(name string, kind Kind, ok bool) {
	c := p.find(name)
	if c.phase != running {
		return
	}
	switch {
	case kind == Readiness:
		c.ready = ok
	case kind == Startup && ok:
		c.started = true
	case !ok && c.sick == "" && p.stop == nil:
		c.sick = "failed " + map[Kind]string{Startup: "startup", Liveness: "liveness"}[kind] + " probe"
		if probe := c.probe(kind); probe != nil {
			c.sickGrace = probe.TerminationGracePeriodSeconds
		}
	}
}

func (c *container) probe(kind Kind) *corev1.Probe {
	switch kind {
	case Startup:
		return c.spec.StartupProbe
	case Liveness:
		return c.spec.LivenessProbe
	default:
		return c.spec.ReadinessProbe
	}
}

// Gone reports whether nothing of the pod is left to do: nothing runs, and the API has it no
// longer.
func (p *Pod) Gone() bool { return p.removed && p.tornOff && p.ended() }

// Running reports whether a container runs, and as what.
func (p *Pod) Running(name string) (id string, ok bool) {
	for _, c := range p.containers {
		if c.spec.Name == name && c.phase == running {
			return c.id, true
		}
	}
	return "", false
}

func (p *Pod) find(name string) *container {
	for _, c := range p.containers {
		if c.spec.Name == name {
			return c
		}
	}
	panic("lifecycle: no container " + name)
}
