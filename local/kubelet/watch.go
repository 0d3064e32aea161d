package kubelet

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/lateen-mesh/lateen/local/container"
	"github.com/lateen-mesh/lateen/local/kubelet/lifecycle"
	"github.com/lateen-mesh/lateen/local/kubelet/probe"
)

// watch begins a probe, if the container has it.
func (r *run) watch(kind lifecycle.Kind) {
	ctx := r.healthy
	var spec *corev1.Probe
	switch kind {
	case lifecycle.Startup:
		spec = r.spec.StartupProbe
	case lifecycle.Liveness:
		spec = r.spec.LivenessProbe
	case lifecycle.Readiness:
		spec, ctx = r.spec.ReadinessProbe, r.living // it goes on while the container stops
	}
	if spec == nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	watch := probe.Watch{
		Probe: spec, Hurry: kind != lifecycle.Liveness,
		Ask: func(ctx context.Context) error { return r.target.Ask(ctx, spec.ProbeHandler) },
		Unwell: func(err error) {
			r.event(corev1.EventTypeWarning, "Unhealthy", fmt.Sprintf("%s probe failed: %s", kind, err))
		},
		Changed: func(ok bool) {
			if kind == lifecycle.Startup {
				cancel()
			}
			r.tell(func(p *lifecycle.Pod) { p.Probed(r.spec.Name, kind, ok) })
		},
	}
	r.w.started.Go(func() {
		defer cancel()
		watch.Run(ctx)
	})
}

// stopWatching ends liveness and startup probes: the container is being stopped.
func (r *run) stopWatching() { r.unwatch() }

func (r *run) postStart() {
	err := r.target.Hook(r.living, r.spec.Lifecycle.PostStart)
	if r.living.Err() != nil {
		err = nil // the container's own end tells more
	}
	if err != nil {
		r.event(corev1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed: "+err.Error())
	}
	r.tell(func(p *lifecycle.Pod) { p.PostStarted(r.spec.Name, err) })
}

func (r *run) preStop(by time.Time) {
	ctx, cancel := context.WithDeadline(r.living, by)
	defer cancel()
	if err := r.target.Hook(ctx, r.spec.Lifecycle.PreStop); err != nil && r.living.Err() == nil {
		r.event(corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed: "+err.Error())
	}
	r.tell(func(p *lifecycle.Pod) { p.PreStopped(r.spec.Name) })
}

// maxOutput is what is kept of a program's output in a probe.
const maxOutput = 10 << 10

// ask runs a program in the container and returns the first of its output.
func (r *run) ask(ctx context.Context, argv []string) ([]byte, int, error) {
	c, err := r.running()
	if err != nil {
		return nil, 0, err
	}
	var out limited
	p, err := c.Exec(ctx, container.Exec{Argv: argv, Stdout: &out, Stderr: &out})
	if err != nil {
		return nil, 0, err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.Kill() })
	defer stop()
	exit := p.Wait()
	out.mu.Lock()
	defer out.mu.Unlock()
	return out.text, exit.Code, nil
}

// errNotRunning is of a container that cannot be reached.
var errNotRunning = errors.New("the container does not run")

func (r *run) running() (container.Container, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.container == nil {
		return nil, fmt.Errorf("container %s: %w", r.spec.Name, errNotRunning)
	}
	select {
	case <-r.container.Done():
		return nil, fmt.Errorf("container %s: %w", r.spec.Name, errNotRunning)
	default:
		return r.container, nil
	}
}

// limited keeps the first of what is written. Safe for concurrent use.
type limited struct {
	mu   sync.Mutex
	text []byte
}

func (l *limited) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p[:min(len(p), maxOutput-len(l.text))]...)
	return len(p), nil
}
