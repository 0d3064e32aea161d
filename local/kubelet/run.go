package kubelet

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lateen-mesh/lateen/local/container"
	"github.com/lateen-mesh/lateen/local/kubelet/lifecycle"
	"github.com/lateen-mesh/lateen/local/kubelet/logs"
	"github.com/lateen-mesh/lateen/local/kubelet/probe"
)

// A run is one run of a container.
type run struct {
	w       *worker
	spec    *corev1.Container
	attempt int32
	id      string
	target  probe.Target
	output  attached
	input   *os.File // the container's standard input, of one that has it
	signal  syscall.Signal

	living  context.Context // until the container ends
	ended   context.CancelFunc
	healthy context.Context // until it is being stopped: of liveness and startup probes
	unwatch context.CancelFunc

	mu        sync.Mutex
	container container.Container // nil before it runs
	killed    bool
	log       *logs.Log
}

// start begins a run.
func (w *worker) start(ctx context.Context, a lifecycle.Action) {
	r := &run{w: w, attempt: a.Attempt, spec: w.container(a.Container), id: newID(), signal: syscall.SIGTERM}
	r.living, r.ended = context.WithCancel(ctx)
	r.healthy, r.unwatch = context.WithCancel(r.living)
	w.runsMu.Lock()
	w.runs[a.Container] = r
	w.runsMu.Unlock()
	w.started.Go(func() {
		defer r.ended()
		r.execute()
	})
}

// container is the one of a name.
func (w *worker) container(name string) *corev1.Container {
	pod := w.pod()
	for _, all := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range all {
			if all[i].Name == name {
				return &all[i]
			}
		}
	}
	return nil
}

func newID() string {
	id := make([]byte, 32)
	_, _ = rand.Read(id) // never fails
	return "lateen://" + hex.EncodeToString(id)
}

// tell has the lifecycle told, unless another run has begun since.
func (r *run) tell(f func(*lifecycle.Pod)) {
	r.w.tell(func() {
		if r.w.runs[r.spec.Name] == r {
			f(r.w.life)
		}
	})
}

func (r *run) event(kind, reason, message string) { r.w.event(r.spec.Name, kind, reason, message) }

// execute runs the container from its start to its end.
func (r *run) execute() {
	img, err := r.w.k.o.Images.Resolve(r.living, r.spec.Image)
	if err != nil && !redirects(r.spec) {
		r.fail(lifecycle.NoImage, err, "")
		return
	}
	r.event(corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine", r.spec.Image))
	config, netns, err := r.configure(img)
	if err != nil {
		r.fail(lifecycle.BadConfig, err, img.ID)
		return
	}
	finish, err := r.openLog(&config)
	if err != nil {
		r.fail(lifecycle.NotRun, err, img.ID)
		return
	}
	if redirects(r.spec) {
		r.redirect(&config, finish)
		return
	}
	r.event(corev1.EventTypeNormal, "Created", "Created container: "+r.spec.Name)
	started, err := r.w.k.o.Runtime.Start(r.living, netns, config)
	if err != nil {
		closeAll(config.Stdin, config.Stdout, config.Stderr)
		finish()
		r.fail(lifecycle.NotRun, err, img.ID)
		return
	}
	r.begun(started)
	r.awaitListening(started)
	r.event(corev1.EventTypeNormal, "Started", "Started container "+r.spec.Name)
	r.tell(func(p *lifecycle.Pod) { p.Started(r.spec.Name, r.id, img.ID, time.Now()) })
	exit := started.Wait()
	r.ended()
	closeAll(r.input, config.Stdin, config.Stdout, config.Stderr) // a terminal's are used until here
	finish()
	r.tell(func(p *lifecycle.Pod) { p.Exited(r.spec.Name, r.terminated(exit)) })
}

// begun lets others reach the container, and kills it when it came too late.
func (r *run) begun(started container.Container) {
	r.mu.Lock()
	r.container = started
	killed := r.killed
	r.mu.Unlock()
	r.w.runsMu.Lock()
	gone := r.w.gone
	r.w.runsMu.Unlock()
	if killed || gone {
		_ = started.Kill()
	}
}

// fail tells why the container does not run.
func (r *run) fail(cause lifecycle.Cause, err error, imageID string) {
	if r.living.Err() == nil { // else the node ends, which is no news of the pod
		if cause == lifecycle.NoImage {
			r.event(corev1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %s", r.spec.Image, err))
		}
		r.event(corev1.EventTypeWarning, "Failed", "Error: "+err.Error())
	}
	r.tell(func(p *lifecycle.Pod) { p.Failed(r.spec.Name, cause, err.Error(), imageID, time.Now()) })
}

// redirect does what an istio-iptables container is for.
func (r *run) redirect(config *container.Config, finish func()) {
	pod := r.w.box.network()
	text, exit := "the node redirects the traffic of this pod to its sidecar\n", container.Exit{At: time.Now()}
	if pod == nil {
		text = "a pod with hostNetwork is not redirected\n"
	} else if err := pod.Redirect(asAnnotations(r.w.pod(), r.spec)); err != nil {
		text, exit.Code = "error: "+err.Error()+"\n", 1
	}
	_, _ = io.WriteString(config.Stdout, text)
	closeAll(config.Stdin, config.Stdout, config.Stderr)
	finish()
	r.event(corev1.EventTypeNormal, "Created", "Created container: "+r.spec.Name)
	r.event(corev1.EventTypeNormal, "Started", "Started container "+r.spec.Name)
	r.tell(func(p *lifecycle.Pod) {
		p.Started(r.spec.Name, r.id, "node:redirect", exit.At)
		p.Exited(r.spec.Name, r.terminated(exit))
	})
}

// openLog leads the container's output to its log and to those who are attached. The function
// it returns waits for the end of the output, once the container has ended.
func (r *run) openLog(c *container.Config) (finish func(), err error) {
	dir := filepath.Join(r.w.log, r.spec.Name)
	path := logs.Path(dir, r.attempt)
	l, err := logs.Create(path, r.w.k.o.Logs)
	if err != nil {
		closeAll(c.Stdin)
		return nil, fmt.Errorf("log: %w", err)
	}
	if r.attempt > 1 {
		_ = logs.Remove(logs.Path(dir, r.attempt-2)) // this run and the one before are kept
	}
	r.w.runsMu.Lock()
	delete(r.w.logs, logs.Path(dir, r.attempt-2))
	r.w.logs[path] = l
	r.w.runsMu.Unlock()
	r.log = l
	r.output.early = r.spec.StdinOnce
	var copying sync.WaitGroup
	copyOf := func(stream string) (io.Writer, error) {
		read, write, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		if c.UID != 0 {
			_ = write.Chown(c.UID, c.GID) // /dev/stdout is opened anew; refused where there is only one user
		}
		copying.Go(func() {
			defer read.Close()
			if err := l.Copy(stream, io.TeeReader(read, r.output.to(stream))); err != nil {
				r.w.k.log.Warn("log", "container", r.spec.Name, "error", err)
			}
		})
		return write, nil
	}
	if c.Stdout, err = copyOf("stdout"); err == nil && !c.TTY {
		c.Stderr, err = copyOf("stderr")
	}
	finish = func() {
		copying.Wait()
		r.output.end()
		_ = l.Close()
	}
	if err != nil {
		closeAll(c.Stdin, c.Stdout, c.Stderr)
		finish()
		return nil, err
	}
	return finish, nil
}

func closeAll(all ...any) {
	for _, one := range all {
		if f, ok := one.(*os.File); ok && f != nil {
			_ = f.Close()
		}
	}
}

// The bounds of a termination message.
const (
	maxMessage  = 4096
	maxFallback = 2048
	fallback    = 80 // lines of the log
)

// terminated is how the container ended, as its status tells it.
func (r *run) terminated(exit container.Exit) corev1.ContainerStateTerminated {
	t := corev1.ContainerStateTerminated{ExitCode: int32(exit.Code), Reason: "Completed", FinishedAt: metav1.NewTime(exit.At)}
	switch {
	case exit.OOMKilled:
		t.Reason = "OOMKilled"
	case exit.Code != 0:
		t.Reason = "Error"
	}
	t.Message = r.message(exit.Code != 0)
	return t
}

// message is what the container left to say.
func (r *run) message(failed bool) string {
	f, err := os.Open(r.messageFile())
	if err == nil {
		defer f.Close()
		text, _ := io.ReadAll(io.LimitReader(f, maxMessage))
		if len(text) > 0 {
			return strings.ToValidUTF8(string(text), "\uFFFD")
		}
	}
	if !failed || r.spec.TerminationMessagePolicy != corev1.TerminationMessageFallbackToLogsOnError || r.log == nil {
		return ""
	}
	var tail bytes.Buffer
	if err := r.log.Read(context.Background(), &tail, logs.ReadOptions{Tail: fallback}); err != nil {
		return ""
	}
	text := tail.Bytes()
	return strings.ToValidUTF8(string(text[max(0, len(text)-maxFallback):]), "\uFFFD")
}

// messageFile is what the container sees at its terminationMessagePath.
func (r *run) messageFile() string {
	return filepath.Join(r.w.k.podDir(r.w.pod()), "messages", fmt.Sprintf("%s.%d", r.spec.Name, r.attempt))
}

// terminate sends the stop signal.
func (r *run) terminate() {
	r.mu.Lock()
	c := r.container
	r.mu.Unlock()
	if c != nil {
		_ = c.Signal(int(r.signal)) // it may have ended
	}
}

// kill ends the container, also one that is only about to run.
func (r *run) kill() {
	r.mu.Lock()
	r.killed = true
	c := r.container
	r.mu.Unlock()
	if c == nil {
		r.ended() // of what it waits for
		return
	}
	_ = c.Kill()
}
