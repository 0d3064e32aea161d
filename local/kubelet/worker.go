package kubelet

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lateen-mesh/lateen/local/kubelet/lifecycle"
	"github.com/lateen-mesh/lateen/local/kubelet/logs"
	"github.com/lateen-mesh/lateen/local/kubelet/volume"
)

// A worker keeps one pod. Its loop owns life and runs; all else reaches it by tell.
type worker struct {
	k      *Kubelet
	life   *lifecycle.Pod
	object atomic.Pointer[corev1.Pod]
	log    string // directory of the pod's logs
	dirs   volume.Dirs
	status *publisher
	done   chan struct{} // closed once nothing of the pod is left

	mu   sync.Mutex
	mail []func()
	kick chan struct{}

	box     sandbox
	started sync.WaitGroup // what the worker has begun beside its loop

	runsMu sync.Mutex
	runs   map[string]*run      // the newest of each container
	logs   map[string]*logs.Log // of the runs of this node, by path
	gone   bool
}

func (k *Kubelet) newWorker(pod *corev1.Pod) *worker {
	w := &worker{k: k, life: lifecycle.New(pod, k.o.Address, time.Now()), done: make(chan struct{}), kick: make(chan struct{}, 1),
		runs: map[string]*run{}, logs: map[string]*logs.Log{}, log: filepath.Join(k.o.Dir, "logs", logName(pod)),
		dirs: volume.Dirs{Memory: filepath.Join(k.memDir, string(pod.UID)), Disk: filepath.Join(k.podDir(pod), "volumes"),
			Claims: filepath.Join(k.o.Dir, "claims")}}
	w.object.Store(pod)
	w.status = newPublisher(k, pod)
	return w
}

// logName is the directory of a pod's logs.
func logName(pod *corev1.Pod) string { return pod.Namespace + "_" + pod.Name + "_" + string(pod.UID) }

func (k *Kubelet) podDir(pod *corev1.Pod) string {
	return filepath.Join(k.o.Dir, "pods", string(pod.UID))
}

// pod is the object as the API has it.
func (w *worker) pod() *corev1.Pod { return w.object.Load() }

// tell has the loop call a function.
func (w *worker) tell(f func()) {
	w.mu.Lock()
	w.mail = append(w.mail, f)
	w.mu.Unlock()
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// update tells of a newer object.
func (w *worker) update(pod *corev1.Pod) {
	old := w.object.Swap(pod)
	w.status.observe(pod)
	w.tell(func() {
		w.life.Update(pod)
		if !sameMaps(old.Labels, pod.Labels) || !sameMaps(old.Annotations, pod.Annotations) {
			w.box.refresh()
		}
	})
}

func sameMaps(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for name, value := range a {
		if other, ok := b[name]; !ok || other != value {
			return false
		}
	}
	return true
}

// remove tells that the API has the pod no longer.
func (w *worker) remove() {
	w.status.stop()
	w.tell(w.life.Removed)
}

// touched tells that an object changed that the pod may be made of.
func (w *worker) touched(kind, name string) {
	if volume.Refers(w.pod(), kind, name) {
		w.tell(func() { w.box.refresh(); w.life.Retry() })
		return
	}
	w.tell(w.life.Retry)
}

// run keeps the pod until the API has it no longer, or the context ends.
func (w *worker) run(ctx context.Context) {
	node := ctx
	w.started.Go(func() { w.status.run(node) })
	ctx, cancel := context.WithCancel(ctx)
	w.box.begin(ctx, w)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil && !w.life.Gone() {
		w.deliver()
		now := time.Now()
		actions, next := w.life.Step(now)
		w.status.want(w.life.Status(now)) // first: a deletion waits for it
		for _, a := range actions {
			w.do(ctx, a)
		}
		if w.life.Gone() {
			break
		}
		timer.Stop()
		if !next.IsZero() {
			timer.Reset(time.Until(next))
		}
		select {
		case <-w.kick:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	cancel()
	w.finish()
}

// deliver calls what was told.
func (w *worker) deliver() {
	w.mu.Lock()
	mail := w.mail
	w.mail = nil
	w.mu.Unlock()
	for _, f := range mail {
		f()
	}
}

// finish ends what is left and removes what the pod had here. The logs of a pod that the API
// still has are kept for the next node.
func (w *worker) finish() {
	w.runsMu.Lock()
	w.gone = true
	for _, r := range w.runs {
		r.kill()
	}
	w.runsMu.Unlock()
	w.started.Wait()
	w.box.close()
	w.runsMu.Lock()
	defer w.runsMu.Unlock()
	for _, l := range w.logs {
		_ = l.Close()
	}
	if w.life.Gone() {
		w.removeFiles()
	}
}

// do begins what the lifecycle wants.
func (w *worker) do(ctx context.Context, a lifecycle.Action) {
	r := w.runs[a.Container]
	switch a.Do {
	case lifecycle.SetUp:
		w.box.setUp()
	case lifecycle.Start:
		w.start(ctx, a)
	case lifecycle.PostStart:
		w.started.Go(func() { r.postStart() })
	case lifecycle.ProbeStartup:
		r.watch(lifecycle.Startup)
	case lifecycle.Probe:
		r.watch(lifecycle.Liveness)
		r.watch(lifecycle.Readiness)
	case lifecycle.Stopping:
		r.stopWatching()
		w.event(a.Container, corev1.EventTypeNormal, "Killing", a.Message)
	case lifecycle.PreStop:
		w.started.Go(func() { r.preStop(a.By) })
	case lifecycle.Terminate:
		r.terminate()
	case lifecycle.Kill:
		r.kill()
	case lifecycle.TearDown:
		w.box.close()
	case lifecycle.BackOff:
		w.event(a.Container, corev1.EventTypeWarning, "BackOff", a.Message)
	case lifecycle.Delete:
		w.started.Go(func() { w.delete(ctx) })
	}
}

// delete removes the object from the API, once its last status is there.
func (w *worker) delete(ctx context.Context) {
	w.status.flush(ctx)
	pod := w.pod()
	now := int64(0)
	err := retry(ctx, func() error {
		return w.k.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
			GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &pod.UID}})
	}, isGone)
	if err != nil && !isGone(err) && ctx.Err() == nil {
		w.k.log.Warn("pod cannot be deleted", "pod", pod.Namespace+"/"+pod.Name, "error", err)
	}
}

// event tells of a container, or of the pod when it is "".
func (w *worker) event(name, kind, reason, message string) {
	pod := w.pod()
	if name == "" {
		w.k.recorder.Event(pod, kind, reason, message)
		return
	}
	field := "spec.containers{" + name + "}"
	for _, c := range pod.Spec.InitContainers {
		if c.Name == name {
			field = "spec.initContainers{" + name + "}"
		}
	}
	w.k.recorder.Event(&corev1.ObjectReference{Kind: "Pod", APIVersion: "v1", Namespace: pod.Namespace, Name: pod.Name,
		UID: pod.UID, ResourceVersion: pod.ResourceVersion, FieldPath: field}, kind, reason, message)
}

// removeFiles removes what is left of a pod that is gone.
func (w *worker) removeFiles() {
	pod := w.pod()
	if err := errors.Join(os.RemoveAll(w.k.podDir(pod)), os.RemoveAll(w.log)); err != nil {
		w.k.log.Warn("files of a pod are left", "pod", pod.Namespace+"/"+pod.Name, "error", err)
	}
}
