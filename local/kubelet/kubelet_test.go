package kubelet

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	k8stesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	utilexec "k8s.io/utils/exec"
)

const webPod = `
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - name: web
    image: test/serve
    env: [{name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}, {name: READY, value: later}]
    ports: [{name: http, containerPort: 8080}]
    startupProbe: {tcpSocket: {port: http}, periodSeconds: 1, failureThreshold: 30}
    readinessProbe: {httpGet: {path: /ready, port: http}, failureThreshold: 1, periodSeconds: 1}
`

func TestAPodGetsReadyAndUnready(t *testing.T) {
	r := newRig(t)
	r.apply(webPod)
	pod := r.await("web", "started", isStarted)
	if isReady(pod) || pod.Status.PodIP == "" || pod.Status.HostIP != "127.0.0.1" || pod.Status.StartTime == nil {
		t.Errorf("status is %+v", pod.Status)
	}
	set := func(to string) {
		reply, err := http.Get("http://" + pod.Status.PodIP + ":8080/set?ready=" + to)
		if err != nil {
			t.Fatal(err)
		}
		reply.Body.Close()
	}
	set("yes")
	pod = r.await("web", "ready", isReady)
	if c := pod.Status.ContainerStatuses[0]; !c.Ready || !strings.HasPrefix(c.ContainerID, "lateen://") || c.ImageID == "" {
		t.Errorf("container status is %+v", c)
	}
	set("no")
	r.await("web", "unready", func(p *corev1.Pod) bool { return !isReady(p) })
}

func TestADeletedPodLeavesNothing(t *testing.T) {
	r := prepare(t, `{kind: Pod, metadata: {name: a}, spec: {containers: [{name: a, image: test/sh, command: [sh, -c, "trap 'echo bye; exit 3' TERM; echo hello; while :; do sleep 0.01; done"], volumeMounts: [{name: v, mountPath: /v}]}], volumes: [{name: v, emptyDir: {}}]}}`)
	var last atomic.Pointer[corev1.PodStatus]
	r.api.PrependReactor("delete", "pods", func(action k8stesting.Action) (bool, runtime.Object, error) {
		now, err := r.api.Tracker().Get(action.GetResource(), "ns", "a")
		if err == nil {
			last.Store(&now.(*corev1.Pod).Status)
		}
		return false, nil, nil
	})
	r.start()
	pod := r.await("a", "ready", isReady)
	for code, text := r.get("/containerLogs/ns/a/a"); !strings.Contains(text, "hello"); code, text = r.get("/containerLogs/ns/a/a") {
		if code != http.StatusOK {
			t.Fatalf("logs: %d %s", code, text)
		}
	}
	w, err := r.kubelet.find("ns", "a")
	if err != nil {
		t.Fatal(err)
	}
	r.delete("a", 30)
	r.await("a", "gone", isGoneNow)
	<-w.done
	if s := last.Load(); s == nil || s.ContainerStatuses[0].State.Terminated == nil || s.ContainerStatuses[0].State.Terminated.ExitCode != 3 || s.Phase != corev1.PodFailed {
		t.Errorf("the last status is %+v", s)
	}
	if !r.mesh.pod(pod.Status.PodIP).closed {
		t.Error("its network is left")
	}
	r.stop()
	for _, dir := range []string{"pods", "logs"} {
		if left, err := os.ReadDir(filepath.Join(r.dir, dir)); err != nil || len(left) > 0 {
			t.Errorf("%s has %v, %v", dir, left, err)
		}
	}
	if left, err := os.ReadDir(r.memory); err != nil || len(left) > 0 {
		t.Errorf("volumes have %v, %v", left, err)
	}
}

func TestAPodThatVanishesIsKilled(t *testing.T) {
	r := newRig(t, `{kind: Pod, metadata: {name: a}, spec: {containers: [{name: a, image: test/sh, command: [sh, -c, "trap '' TERM; while :; do sleep 0.01; done"]}]}}`)
	r.await("a", "ready", isReady)
	w, err := r.kubelet.find("ns", "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.api.CoreV1().Pods("ns").Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	<-w.done
	if _, err := r.kubelet.find("ns", "a"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still found: %v", err)
	}
}

func TestWhatAPodWaitsFor(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct{ name, spec, reason, message string }{
		{"image", `{containers: [{name: a, image: nothing/known}]}`, "ErrImagePull", "lateen up --image nothing/known=COMMAND"},
		{"config", `{containers: [{name: a, image: test/sh, env: [{name: X, valueFrom: {configMapKeyRef: {name: late, key: k}}}]}]}`, "CreateContainerConfigError", `configmaps "late" not found`},
		{"program", `{containers: [{name: a, image: test/sh, command: [/no/such/program]}]}`, "CrashLoopBackOff", "back-off 10s restarting failed container=a"},
		{"crash", `{containers: [{name: a, image: test/sh, args: [-c, "exit 1"]}]}`, "CrashLoopBackOff", "back-off 10s"},
		{"root", `{securityContext: {runAsNonRoot: true, runAsUser: 0}, containers: [{name: a, image: test/sh}]}`, "CreateContainerConfigError", "runAsNonRoot"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.apply("{kind: Pod, metadata: {name: " + c.name + "}, spec: " + c.spec + "}")
			pod := r.await(c.name, "waiting for "+c.reason, waits(c.reason))
			if got := pod.Status.ContainerStatuses[0].State.Waiting.Message; !strings.Contains(got, c.message) {
				t.Errorf("the message %q does not say %q", got, c.message)
			}
		})
	}
	r.apply(`{kind: Pod, metadata: {name: volume}, spec: {containers: [{name: a, image: test/sh, command: [sleep, "100"]}], volumes: [{name: v, configMap: {name: late}}]}}`)
	r.apply(`{kind: ConfigMap, metadata: {name: late, namespace: ns}, data: {k: v}}`)
	r.await("volume", "ready, now that its ConfigMap is there", isReady)
	code, text := r.get("/containerLogs/ns/image/a")
	if code != http.StatusBadRequest || !strings.Contains(text, "is waiting to start") {
		t.Errorf("logs of a container that waits: %d %s", code, text)
	}
}

func TestLogsOfRuns(t *testing.T) {
	r := newRig(t, `{kind: Pod, metadata: {name: a}, spec: {containers: [{name: a, image: test/sh, args: [-c, "echo run; echo oops >&2; exit 1"], terminationMessagePolicy: FallbackToLogsOnError}]}}`)
	pod := r.await("a", "crashed twice", func(p *corev1.Pod) bool {
		return waits("CrashLoopBackOff")(p) && p.Status.ContainerStatuses[0].RestartCount == 1
	})
	if last := pod.Status.ContainerStatuses[0].LastTerminationState.Terminated; last == nil || last.ExitCode != 1 || last.Reason != "Error" || !strings.Contains(last.Message, "oops") {
		t.Errorf("the last state is %+v", last)
	}
	for _, c := range []struct{ query, want string }{
		{"", "run\noops\n"}, {"?previous=true", "run\noops\n"}, {"?follow=true&stream=Stderr", "oops\n"}, {"?stream=Stdout", "run\n"}, {"?limitBytes=2", ""},
	} {
		code, text := r.get("/containerLogs/ns/a/a" + c.query)
		if sorted := text == c.want || text == "oops\nrun\n"; code != http.StatusOK || !sorted && c.want != "" || c.want == "" && len(text) != 2 {
			t.Errorf("%s: %d %q, not %q", c.query, code, text, c.want)
		}
	}
	for _, path := range []string{"/containerLogs/ns/a/none", "/containerLogs/ns/a/..%2fa", "/containerLogs/ns/a/a?tailLines=x", "/containerLogs/ns/a/a?sinceTime=x"} {
		if code, text := r.get(path); code != http.StatusBadRequest {
			t.Errorf("%s: %d %s", path, code, text)
		}
	}
	if code, _ := r.get("/containerLogs/ns/none/a"); code != http.StatusNotFound {
		t.Errorf("a pod that is not there: %d", code)
	}
}

// stream runs a program or attaches, as the API server does.
func (r *rig) stream(path string, query url.Values, in io.Reader, out, errOut io.Writer) error {
	r.t.Helper()
	u, err := url.Parse(r.http.URL + path + "?" + query.Encode())
	if err != nil {
		r.t.Fatal(err)
	}
	executor, err := remotecommand.NewSPDYExecutor(&rest.Config{Host: r.http.URL}, "POST", u)
	if err != nil {
		r.t.Fatal(err)
	}
	return executor.StreamWithContext(r.t.Context(), remotecommand.StreamOptions{Stdin: in, Stdout: out, Stderr: errOut})
}

func TestExec(t *testing.T) {
	r := newRig(t, `{kind: Pod, metadata: {name: a}, spec: {containers: [{name: a, image: test/sh, command: [sleep, "100"], env: [{name: COLOR, value: red}]}]}}`)
	r.await("a", "ready", isReady)
	for _, c := range []struct {
		script, in, out, errOut string
		code                    int
	}{
		{"echo $COLOR; echo no >&2", "", "red\n", "no\n", 0},
		{"cat; exit 7", "what comes\n", "what comes\n", "", 7},
	} {
		var out, errOut bytes.Buffer
		query := url.Values{"command": {"sh", "-c", c.script}, "output": {"1"}, "error": {"1"}}
		var in io.Reader
		if c.in != "" {
			in = strings.NewReader(c.in)
			query.Set("input", "1")
		}
		err := r.stream("/exec/ns/a/a", query, in, &out, &errOut)
		code := 0
		if exit, ok := errors.AsType[utilexec.ExitError](err); ok {
			code, err = exit.ExitStatus(), nil
		}
		if err != nil || code != c.code || out.String() != c.out || errOut.String() != c.errOut {
			t.Errorf("%s: %v, code %d, %q, %q", c.script, err, code, out.String(), errOut.String())
		}
	}
	var out bytes.Buffer
	if err := r.stream("/exec/ns/a/a", url.Values{"command": {"/no/such/program"}, "output": {"1"}}, nil, &out, nil); err == nil || !strings.Contains(err.Error(), "/no/such/program") {
		t.Errorf("a program that is not there: %v", err)
	}
	reply, err := http.Post(r.http.URL+"/run/ns/a/a?cmd=echo&cmd=hello", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	if text, err := io.ReadAll(reply.Body); err != nil || string(text) != "hello\n" {
		t.Errorf("run: %q, %v", text, err)
	}
}

func TestAProgramEndsWithItsClient(t *testing.T) {
	r := newRig(t, `{kind: Pod, metadata: {name: a}, spec: {containers: [{name: a, image: test/sh, command: [sleep, "100"]}]}}`)
	r.await("a", "ready", isReady)
	query := url.Values{"output": {"1"}, "command": {"sh", "-c", "echo $$; exec sleep 100"}}
	u, err := url.Parse(r.http.URL + "/exec/ns/a/a?" + query.Encode())
	if err != nil {
		t.Fatal(err)
	}
	executor, err := remotecommand.NewSPDYExecutor(&rest.Config{Host: r.http.URL}, "POST", u)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	read, out := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: out}) }()
	line, err := bufio.NewReader(read).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience.Milliseconds())); err != nil || n != 1 {
		t.Errorf("process %d goes on: %d, %v", pid, n, err)
	}
}

func TestAttach(t *testing.T) {
	r := newRig(t, `{kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never, containers: [{name: a, image: test/sh, stdin: true, stdinOnce: true, command: [sh, -c, "echo first; while read line; do echo got $line; done; echo end >&2"]}]}}`)
	r.await("a", "ready", isReady)
	var out, errOut bytes.Buffer
	err := r.stream("/attach/ns/a/a", url.Values{"input": {"1"}, "output": {"1"}, "error": {"1"}}, strings.NewReader("one\ntwo\n"), &out, &errOut)
	if err != nil || out.String() != "first\ngot one\ngot two\n" || errOut.String() != "end\n" {
		t.Errorf("%v, %q, %q", err, out.String(), errOut.String())
	}
	r.await("a", "done", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodSucceeded })
}

func TestAttachToAProgramThatWasFaster(t *testing.T) {
	r := newRig(t, `{kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never, containers: [{name: a, image: test/sh, stdin: true, stdinOnce: true, command: [echo, result]}]}}`)
	r.await("a", "done", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodSucceeded })
	var out bytes.Buffer
	if err := r.stream("/attach/ns/a/a", url.Values{"output": {"1"}}, nil, &out, nil); err != nil || out.String() != "result\n" {
		t.Errorf("%v, %q", err, out.String())
	}
	if err := r.stream("/attach/ns/a/a", url.Values{"output": {"1"}}, nil, &out, nil); err == nil || !strings.Contains(err.Error(), "does not run") {
		t.Errorf("a second client: %v", err)
	}
}

func TestPortForward(t *testing.T) {
	r := newRig(t, webPod)
	r.await("web", "started", isStarted)
	transport, upgrader, err := spdy.RoundTripperFor(&rest.Config{Host: r.http.URL})
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(r.http.URL + "/portForward/ns/web")
	if err != nil {
		t.Fatal(err)
	}
	stop, ready := make(chan struct{}), make(chan struct{})
	forwarder, err := portforward.New(spdy.NewDialer(upgrader, &http.Client{Transport: transport}, "POST", u), []string{"0:8080"}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- forwarder.ForwardPorts() }()
	<-ready
	ports, err := forwarder.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	reply, err := client.Get("http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(int(ports[0].Local))) + "/set?ready=yes")
	if err != nil {
		t.Fatal(err)
	}
	reply.Body.Close()
	r.await("web", "ready", isReady)
	close(stop)
	if err := <-ended; err != nil && !errors.Is(err, portforward.ErrLostConnectionToPod) {
		t.Error(err)
	}
}

func TestStatusOutlivesTheAPIsFailures(t *testing.T) {
	r := prepare(t)
	var refused atomic.Int32
	r.api.PrependReactor("patch", "pods", func(k8stesting.Action) (bool, runtime.Object, error) {
		if refused.Add(1) <= 5 {
			return true, nil, errors.New("the API is away")
		}
		return false, nil, nil
	})
	r.start()
	r.apply(`{kind: Pod, metadata: {name: a}, spec: {containers: [{name: a, image: test/sh, command: [sleep, "100"]}]}}`)
	pod := r.await("a", "ready", isReady)
	pod.Status = corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: "example.org/other", Status: corev1.ConditionTrue}}}
	if _, err := r.api.CoreV1().Pods("ns").UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if pod = r.await("a", "ready again", isReady); !condition(pod, "example.org/other") {
		t.Error("the condition of another was lost")
	}
}

func TestANewNodeStartsPodsAnew(t *testing.T) {
	r := newRig(t, `{kind: Pod, metadata: {name: a}, spec: {containers: [{name: a, image: test/sh, command: [sleep, "100"]}]}}`,
		`{kind: Pod, metadata: {name: done}, spec: {restartPolicy: Never, containers: [{name: a, image: test/sh, command: [echo, result]}]}}`)
	before := r.await("a", "ready", isReady)
	r.await("done", "done", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodSucceeded })
	r.stop()
	if err := os.MkdirAll(filepath.Join(r.memory, "uid-of-a-pod-that-is-gone"), 0o700); err != nil {
		t.Fatal(err)
	}
	r.start()
	pod := r.await("a", "restarted", func(p *corev1.Pod) bool { return isReady(p) && p.Status.ContainerStatuses[0].RestartCount == 1 })
	if last := pod.Status.ContainerStatuses[0].LastTerminationState.Terminated; last == nil || last.ExitCode != 137 || last.ContainerID != before.Status.ContainerStatuses[0].ContainerID {
		t.Errorf("the last state is %+v", last)
	}
	if code, text := r.get("/containerLogs/ns/done/a"); code != http.StatusOK || text != "result\n" {
		t.Errorf("logs of a pod of the node before: %d %q", code, text)
	}
	if _, err := os.Stat(filepath.Join(r.memory, "uid-of-a-pod-that-is-gone")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("volumes of a pod that is gone are left: %v", err)
	}
}

func TestVolumesFollowTheirObjects(t *testing.T) {
	r := newRig(t, `{kind: ConfigMap, metadata: {name: settings, namespace: ns}, data: {color: red}}`,
		`{kind: Pod, metadata: {name: a, labels: {v: "1"}}, spec: {containers: [{name: a, image: test/sh, command: [sh, -c, 'until grep -q blue $AT_settings/color && grep -q "v=.2" $AT_labels/l; do sleep 0.01; done; echo seen > $AT_dev_termination_log'],
			volumeMounts: [{name: s, mountPath: /settings}, {name: l, mountPath: /labels}]}], restartPolicy: Never,
			volumes: [{name: s, configMap: {name: settings}}, {name: l, downwardAPI: {items: [{path: l, fieldRef: {fieldPath: metadata.labels}}]}}]}}`)
	pod := r.await("a", "ready", isReady)
	pod.Labels["v"] = "2"
	if _, err := r.api.CoreV1().Pods("ns").Update(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	object := parse[corev1.ConfigMap](t, `{metadata: {name: settings, namespace: ns}, data: {color: blue}}`)
	if _, err := r.api.CoreV1().ConfigMaps("ns").Update(t.Context(), object, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod = r.await("a", "done", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodSucceeded })
	if got := pod.Status.ContainerStatuses[0].State.Terminated.Message; got != "seen\n" {
		t.Errorf("its last words are %q", got)
	}
}

func TestTheNodeIsRegistered(t *testing.T) {
	r := newRig(t, `{kind: Pod, metadata: {name: a}, spec: {containers: [{name: a, image: test/sh, command: [sleep, "100"]}]}}`)
	r.await("a", "ready", isReady)
	node, err := r.api.CoreV1().Nodes().Get(t.Context(), "lateen", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if i := node.Status.NodeInfo; i.ContainerRuntimeVersion != "lateen://1.2.3" || i.KubeletVersion != kubernetesVersion || i.OSImage == "" || i.KernelVersion == "" {
		t.Errorf("node info is %+v", i)
	}
	if node.Status.Capacity.Cpu().IsZero() || node.Status.Capacity.Memory().IsZero() || node.Status.Addresses[0].Address != "127.0.0.1" {
		t.Errorf("status is %+v", node.Status)
	}
}

func TestTheSocketIsForThisUser(t *testing.T) {
	r := newRig(t, `{kind: Pod, metadata: {name: a}, spec: {containers: [{name: a, image: test/sh, command: [sleep, "100"]}]}}`)
	r.await("a", "ready", isReady)
	socket := filepath.Join(r.dir, "node.sock")
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the socket is %v, %v", info, err)
	}
	ask := func(uid uint32) error {
		program := filepath.Join(t.TempDir(), "connect")
		self, err := os.Executable()
		if err != nil {
			return err
		}
		text, err := os.ReadFile(self)
		if err != nil {
			return err
		}
		if err := os.WriteFile(program, text, 0o755); err != nil {
			return err
		}
		cmd := exec.Command(program, socket)
		cmd.Env = []string{partVariable + "=connect"}
		if uid != 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		}
		return cmd.Run()
	}
	if err := ask(0); err != nil {
		t.Errorf("the node's own user is refused: %v", err)
	}
	if os.Getuid() != 0 {
		t.Skip("only root can be another user")
	}
	for _, dir := range []string{socket, r.dir, filepath.Dir(r.dir), t.TempDir(), filepath.Dir(t.TempDir())} {
		if err := os.Chmod(dir, 0o777); err != nil { // it is the credentials that count, not the file's mode
			t.Fatal(err)
		}
	}
	if exit, ok := errors.AsType[*exec.ExitError](ask(65534)); !ok || exit.ExitCode() != 3 {
		t.Errorf("another user: %v", exit)
	}
}
