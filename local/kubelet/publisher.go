package kubelet

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// A publisher brings a pod's status into the API: the newest, as often as it changes or the
// API has another one, and however often the API is away.
type publisher struct {
	k *Kubelet

	mu      sync.Mutex
	known   *corev1.Pod // as the API has it
	wanted  *corev1.PodStatus
	pending bool
	idle    chan struct{} // closed when nothing is pending, and replaced
	kick    chan struct{}
	stopped chan struct{}
	once    sync.Once
}

func newPublisher(k *Kubelet, pod *corev1.Pod) *publisher {
	return &publisher{k: k, known: pod, idle: make(chan struct{}), kick: make(chan struct{}, 1), stopped: make(chan struct{})}
}

// want sets the status that the API shall have.
func (p *publisher) want(s corev1.PodStatus) {
	p.mu.Lock()
	p.wanted = &s
	p.mark()
	p.mu.Unlock()
}

// observe tells what the API has.
func (p *publisher) observe(pod *corev1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if newer(pod, p.known) {
		p.known = pod
		if p.wanted != nil {
			p.mark()
		}
	}
}

// newer reports whether a comes after b; what cannot be compared does.
func newer(a, b *corev1.Pod) bool {
	order, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion)
	return err != nil || order > 0
}

// mark asks for a look at what is wanted.
func (p *publisher) mark() {
	p.pending = true
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// stop ends publishing: the API has the pod no longer.
func (p *publisher) stop() { p.once.Do(func() { close(p.stopped) }) }

// flush waits until the API has the wanted status, or the pod is gone.
func (p *publisher) flush(ctx context.Context) {
	for {
		p.mu.Lock()
		idle, pending := p.idle, p.pending
		p.mu.Unlock()
		if !pending {
			return
		}
		select {
		case <-idle:
		case <-p.stopped:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (p *publisher) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.stopped:
			return
		case <-p.kick:
		}
		if err := retry(ctx, func() error { return p.write(ctx) }, p.over); isGone(err) {
			p.stop()
		}
	}
}

// over reports whether there is no use in another try.
func (p *publisher) over(err error) bool {
	select {
	case <-p.stopped:
		return true
	default:
		return isGone(err)
	}
}

// isGone reports whether the API has no such pod, or another one of its name.
func isGone(err error) bool { return apierrors.IsNotFound(err) || apierrors.IsConflict(err) }

// write patches the API's status, if it differs.
func (p *publisher) write(ctx context.Context) error {
	p.mu.Lock()
	known, wanted := p.known, p.wanted
	p.mu.Unlock()
	patch, err := statusPatch(known, *wanted)
	if err != nil {
		return err
	}
	if patch != nil {
		asking, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		got, err := p.k.client.CoreV1().Pods(known.Namespace).Patch(asking, known.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
		if err != nil {
			return err
		}
		p.mu.Lock()
		if newer(got, p.known) {
			p.known = got
		}
		p.mu.Unlock()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wanted == wanted {
		p.pending = false
		close(p.idle)
		p.idle = make(chan struct{})
	}
	return nil
}

// statusPatch is what leads from one status to another, nil for nothing. It holds for this
// pod only, not for a later one of its name.
func statusPatch(pod *corev1.Pod, wanted corev1.PodStatus) ([]byte, error) {
	before, err := json.Marshal(&corev1.Pod{Status: pod.Status})
	if err != nil {
		return nil, err
	}
	wanted.Conditions = slices.Clone(wanted.Conditions)
	for _, c := range pod.Status.Conditions {
		if !slices.ContainsFunc(wanted.Conditions, func(own corev1.PodCondition) bool { return own.Type == c.Type }) {
			wanted.Conditions = append(wanted.Conditions, c) // of others: readiness gates
		}
	}
	after, err := json.Marshal(&corev1.Pod{Status: wanted})
	if err != nil {
		return nil, err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, corev1.Pod{})
	if err != nil || string(patch) == "{}" {
		return nil, err
	}
	all := map[string]any{}
	if err := json.Unmarshal(patch, &all); err != nil {
		return nil, err
	}
	all["metadata"] = map[string]any{"uid": pod.UID}
	return json.Marshal(all)
}
