package main_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

// A node does what a kubelet does, on this machine and without containers: Pods that
// are bound become Running and Ready, commands run on the host, logs are fixed,
// forwarded ports are the host's.
type node struct {
	client kubernetes.Interface
	dir    string // where commands run
	next   atomic.Int32
}

const logLines = "one\ntwo\nthree\n"

// runNode runs until the test ends.
func runNode(t *testing.T, s *server) {
	t.Helper()
	n := &node{client: s.client(), dir: t.TempDir()}
	listener, err := net.Listen("unix", s.path("node.sock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(s.path("node.sock"), s.uid, s.uid); err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: n.routes(), ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() { web.Serve(listener); close(served) }()
	ctx, cancel := context.WithCancel(context.Background())
	factory := informers.NewSharedInformerFactory(n.client, time.Second) // a write that failed is tried again
	act := func(object any) { n.sync(ctx, object.(*corev1.Pod)) }
	factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: act, UpdateFunc: func(_, object any) { act(object) },
	})
	factory.Start(ctx.Done())
	t.Cleanup(func() {
		cancel()
		factory.Shutdown()
		web.Close()
		<-served
	})
}

// sync makes the Pod's status true, or the Pod gone when it is to go.
func (n *node) sync(ctx context.Context, pod *corev1.Pod) {
	pods := n.client.CoreV1().Pods(pod.Namespace)
	switch {
	case pod.Spec.NodeName == "":
	case pod.DeletionTimestamp != nil:
		pods.Delete(ctx, pod.Name, *metav1.NewDeleteOptions(0))
	case pod.Status.Phase == corev1.PodPending:
		pod = pod.DeepCopy()
		now := metav1.Now()
		address := fmt.Sprintf("10.244.7.%d", n.next.Add(1)%250+1)
		phase, state := corev1.PodRunning, corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}
		if pod.Spec.RestartPolicy == corev1.RestartPolicyNever {
			phase, state = corev1.PodSucceeded, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{FinishedAt: now, StartedAt: now, Reason: "Completed"}}
		}
		pod.Status.Phase, pod.Status.PodIP, pod.Status.PodIPs, pod.Status.StartTime = phase, address, []corev1.PodIP{{IP: address}}, &now
		for _, c := range []corev1.PodConditionType{corev1.PodReady, corev1.ContainersReady, corev1.PodInitialized} {
			pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: c, Status: corev1.ConditionTrue, LastTransitionTime: now})
		}
		for _, c := range pod.Spec.Containers {
			pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{
				Name: c.Name, Image: c.Image, Ready: phase == corev1.PodRunning, Started: new(true), State: state, ContainerID: "test://" + pod.Name,
			})
		}
		pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	}
}

// routes are the kubelet's streaming interface.
func (n *node) routes() http.Handler {
	const idle, creation = time.Minute, 10 * time.Second
	mux := http.NewServeMux()
	mux.HandleFunc("/exec/{namespace}/{pod}/{container}", func(w http.ResponseWriter, r *http.Request) {
		options, err := remotecommand.NewOptions(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		remotecommand.ServeExec(w, r, n, r.PathValue("pod"), "", r.PathValue("container"), r.Form["command"], options, idle, creation, remotecommand.SupportedStreamingProtocols)
	})
	mux.HandleFunc("/attach/{namespace}/{pod}/{container}", func(w http.ResponseWriter, r *http.Request) {
		options, err := remotecommand.NewOptions(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		remotecommand.ServeAttach(w, r, n, r.PathValue("pod"), "", r.PathValue("container"), options, idle, creation, remotecommand.SupportedStreamingProtocols)
	})
	mux.HandleFunc("/portForward/{namespace}/{pod}", func(w http.ResponseWriter, r *http.Request) {
		portforward.ServePortForward(w, r, n, r.PathValue("pod"), "", nil, idle, creation, portforward.SupportedProtocols)
	})
	mux.HandleFunc("/containerLogs/{namespace}/{pod}/{container}", logs)
	return mux
}

func logs(w http.ResponseWriter, r *http.Request) {
	lines := strings.SplitAfter(strings.TrimSuffix(logLines, "\n"), "\n")
	if tail, err := strconv.Atoi(r.URL.Query().Get("tailLines")); err == nil && tail < len(lines) {
		lines = lines[len(lines)-tail:]
	}
	io.WriteString(w, strings.Join(lines, "")+"\n")
	if r.URL.Query().Get("follow") == "true" {
		w.(http.Flusher).Flush()
		io.WriteString(w, "last\n")
	}
}

func (n *node) ExecInContainer(ctx context.Context, _, _, _ string, cmd []string, in io.Reader, out, errOut io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize, _ time.Duration) error {
	command := exec.CommandContext(ctx, cmd[0], cmd[1:]...)
	command.Dir, command.Stdin, command.Stdout, command.Stderr = n.dir, in, out, errOut
	err := command.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return utilexec.CodeExitError{Err: err, Code: exit.ExitCode()}
	}
	return err
}

func (n *node) AttachContainer(_ context.Context, _, _, _ string, in io.Reader, out, _ io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize) error {
	if in != nil {
		_, err := io.Copy(out, in)
		return err
	}
	_, err := io.WriteString(out, "attached\n")
	return err
}

func (n *node) PortForward(ctx context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	defer conn.Close()
	go func() {
		io.Copy(conn, stream)
		conn.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(stream, conn)
	return err
}
