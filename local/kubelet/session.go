package kubelet

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream"
	utilexec "k8s.io/utils/exec"

	"github.com/lateen-mesh/lateen/local/container"
)

// A session is a client's with a pod: exec, attach or port-forward.
type session struct{ w *worker }

// current is a container's run.
func (w *worker) current(name string) (*run, error) {
	w.runsMu.Lock()
	defer w.runsMu.Unlock()
	if r := w.runs[name]; r != nil {
		return r, nil
	}
	return nil, fmt.Errorf("container %s: %w", name, errNotRunning)
}

// ExecInContainer runs a program with the client's streams, until it ends or the client leaves.
func (s session) ExecInContainer(ctx context.Context, _, _ string, name string, argv []string, in io.Reader, out, errOut io.WriteCloser,
	tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	ctx, cancel := untilGone(ctx, out, errOut)
	defer cancel()
	awaitStreams(ctx)
	r, err := s.w.current(name)
	if err != nil {
		return err
	}
	c, err := r.running()
	if err != nil {
		return err
	}
	exec := container.Exec{Argv: argv, TTY: tty, Stdin: in}
	if out != nil {
		exec.Stdout = out
	}
	if errOut != nil && !tty {
		exec.Stderr = errOut
	}
	p, err := c.Exec(ctx, exec)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.Kill() })
	defer stop()
	ended := make(chan struct{})
	defer close(ended)
	go forwardSizes(resize, ended, p.Resize)
	if exit := p.Wait(); exit.Code != 0 {
		return utilexec.CodeExitError{Err: fmt.Errorf("command terminated with exit code %d", exit.Code), Code: exit.Code}
	}
	return nil
}

// awaitStreams gives the client the time to make its streams: a kubectl without the fix of
// kubernetes/kubernetes#131203, such as 1.32, reads from a WebSocket while it still makes
// them, and drops the output or the exit code of a program that is quick.
func awaitStreams(ctx context.Context) {
	ready, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	<-ready.Done()
}

// untilGone is a context that also ends when the client does: what was begun for one who left is
// not to go on. Nothing is read from an output stream but its end.
func untilGone(ctx context.Context, outputs ...io.WriteCloser) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	for _, o := range outputs {
		if stream, ok := o.(httpstream.Stream); ok {
			go func() {
				defer cancel()
				_, _ = io.Copy(io.Discard, stream)
			}()
			break
		}
	}
	return ctx, cancel
}

// forwardSizes gives a terminal the sizes of the client's.
func forwardSizes(sizes <-chan remotecommand.TerminalSize, ended <-chan struct{}, resize func(width, height uint16) error) {
	for {
		select {
		case size, ok := <-sizes:
			if !ok {
				return
			}
			_ = resize(size.Width, size.Height) // a terminal that is gone needs no size
		case <-ended:
			return
		}
	}
}

// AttachContainer shows a container's output as it comes, and leads the client's input to it.
func (s session) AttachContainer(ctx context.Context, _, _ string, name string, in io.Reader, out, errOut io.WriteCloser,
	_ bool, resize <-chan remotecommand.TerminalSize) error {
	ctx, cancel := untilGone(ctx, out, errOut)
	defer cancel()
	awaitStreams(ctx)
	r, err := s.w.current(name)
	if err != nil {
		return err
	}
	c, err := r.running()
	if err != nil && !r.output.waits() {
		return err
	}
	ended := make(chan struct{})
	defer close(ended)
	if r.spec.TTY && c != nil {
		go forwardSizes(resize, ended, c.Resize)
	}
	if in != nil {
		if r.input == nil {
			return fmt.Errorf("container %s has no standard input: its manifest says no stdin", name)
		}
		go r.feed(in)
	}
	var stdout, stderr io.Writer
	if out != nil {
		stdout = out
	}
	if errOut != nil {
		stderr = errOut
	}
	return r.output.follow(ctx, stdout, stderr)
}

// feed copies a client's input to the container; with stdinOnce, its end is the container's.
func (r *run) feed(in io.Reader) {
	_, _ = io.Copy(onlyWriter{r.input}, in)
	if r.spec.StdinOnce {
		_ = r.input.Close()
	}
}

// onlyWriter hides that a file can read for itself: it would wait for the client alone.
type onlyWriter struct{ io.Writer }

// PortForward joins a client's stream to a port of the pod, as seen from inside.
func (s session) PortForward(ctx context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	dial := s.w.k.o.Mesh.DialContext
	if pod := s.w.box.network(); pod != nil {
		dial = pod.DialContext
	}
	conn, err := dial(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if err != nil {
		return fmt.Errorf("port %d of pod %s: %w", port, s.w.pod().Name, err)
	}
	defer conn.Close()
	go func() {
		_, _ = io.Copy(conn, stream)
		if c, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = c.CloseWrite()
		}
	}()
	_, err = io.Copy(stream, conn)
	return err
}
