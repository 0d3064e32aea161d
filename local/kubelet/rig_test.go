package kubelet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/yaml"

	"github.com/lateen-mesh/lateen/local/container"
	"github.com/lateen-mesh/lateen/local/kubelet/image"
	"github.com/lateen-mesh/lateen/local/network"
)

// A node of these tests has real processes, sockets and files, but no namespaces: its
// containers are processes of this machine, its pods addresses of loopback. The API is
// client-go's stand-in: the real one is a program of another module, which test/ drives.

const partVariable = "LATEEN_TEST_PART"

func TestMain(m *testing.M) {
	switch os.Getenv(partVariable) {
	case "serve":
		serve()
	case "connect":
		connect(os.Args[1])
	default:
		goleak.VerifyTestMain(m)
	}
}

// serve is an application: it answers on its pod's address, and gets ready when it is asked to.
func serve() {
	var ready atomic.Bool
	ready.Store(os.Getenv("READY") != "later")
	mux := http.NewServeMux()
	mux.HandleFunc("/ready", func(w http.ResponseWriter, _ *http.Request) {
		if !ready.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("/set", func(_ http.ResponseWriter, r *http.Request) { ready.Store(r.FormValue("ready") == "yes") })
	fmt.Println("serving")
	fmt.Fprintln(os.Stderr, http.ListenAndServe(net.JoinHostPort(os.Getenv("POD_IP"), "8080"), mux))
	os.Exit(1)
}

// connect reports whether a unix socket answers.
func connect(socket string) {
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	if _, err := client.Get("http://kubelet/healthz"); err != nil {
		os.Exit(3)
	}
}

// processes is a Runtime whose containers are processes.
type processes struct{}

type process struct {
	cmd    *exec.Cmd
	done   chan struct{}
	exit   container.Exit
	config container.Config
}

func (processes) Start(_ context.Context, _ *os.File, c container.Config) (container.Container, error) {
	p, err := begin(c)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func begin(c container.Config) (*process, error) {
	r := &process{cmd: exec.Command(c.Argv[0], c.Argv[1:]...), done: make(chan struct{}), config: c}
	r.cmd.Env, r.cmd.Stdin, r.cmd.Stdout, r.cmd.Stderr = append(c.Env, "PATH="+os.Getenv("PATH")), c.Stdin, c.Stdout, c.Stderr
	for _, m := range c.Mounts {
		r.cmd.Env = append(r.cmd.Env, "AT"+strings.NewReplacer("/", "_", "-", "_", ".", "_").Replace(m.Target)+"="+m.Source)
	}
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(r.done)
		_ = r.cmd.Wait()
		status := r.cmd.ProcessState.Sys().(syscall.WaitStatus)
		r.exit = container.Exit{Code: status.ExitStatus(), At: time.Now()}
		if status.Signaled() {
			r.exit.Signal = int(status.Signal())
			r.exit.Code = 128 + r.exit.Signal
		}
		_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL)
	}()
	return r, nil
}

func (r *process) PID() int                    { return r.cmd.Process.Pid }
func (r *process) Wait() container.Exit        { <-r.done; return r.exit }
func (r *process) Done() <-chan struct{}       { return r.done }
func (r *process) Signal(sig int) error        { return r.cmd.Process.Signal(syscall.Signal(sig)) }
func (r *process) Kill() error                 { return syscall.Kill(-r.PID(), syscall.SIGKILL) }
func (r *process) Resize(uint16, uint16) error { return errors.New("no terminal") }

func (r *process) Exec(_ context.Context, e container.Exec) (container.Process, error) {
	c := r.config
	c.Argv, c.Stdin, c.Stdout, c.Stderr = e.Argv, e.Stdin, e.Stdout, e.Stderr
	p, err := begin(c)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// loopback is a Mesh whose pods are addresses of 127.0.0.0/8.
type loopback struct {
	last     atomic.Uint32
	mu       sync.Mutex
	services []network.Service
	pods     map[string]*loopbackPod
	set      chan struct{} // has an item after each SetServices
}

type loopbackPod struct {
	net.Dialer
	mesh     *loopback
	address  netip.Addr
	netns    *os.File
	redirect map[string]string
	closed   bool
}

func newLoopback() *loopback {
	return &loopback{pods: map[string]*loopbackPod{}, set: make(chan struct{}, 100)}
}

func (l *loopback) AddPod(context.Context) (network.Pod, error) {
	netns, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 127<<24|uint32(os.Getpid()&0xff)<<16|1<<8+l.last.Add(1))
	p := &loopbackPod{mesh: l, address: netip.AddrFrom4(a), netns: netns}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pods[p.address.String()] = p
	return p, nil
}

func (l *loopback) SetServices(all []network.Service) error {
	l.mu.Lock()
	l.services = all
	l.mu.Unlock()
	select {
	case l.set <- struct{}{}:
	default:
	}
	return nil
}

func (l *loopback) Publish(_ context.Context, host uint16, _ network.Pod, _ uint16) (netip.AddrPort, error) {
	return netip.AddrPortFrom(netip.IPv4Unspecified(), host+8000), nil
}

func (l *loopback) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, network, address)
}

func (l *loopback) Close() error { return nil }

// pod is the network of an address.
func (l *loopback) pod(address string) *loopbackPod {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pods[address]
}

func (p *loopbackPod) Address() netip.Addr  { return p.address }
func (p *loopbackPod) Address6() netip.Addr { return netip.Addr{} }
func (p *loopbackPod) NetNS() *os.File      { return p.netns }

func (p *loopbackPod) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return p.Dialer.DialContext(ctx, network, strings.Replace(address, "127.0.0.1", p.address.String(), 1))
}

func (p *loopbackPod) PublishAsked() {}

func (p *loopbackPod) Redirect(annotations map[string]string) error {
	p.mesh.mu.Lock()
	defer p.mesh.mu.Unlock()
	p.redirect = annotations
	return nil
}

func (p *loopbackPod) Close() error {
	p.mesh.mu.Lock()
	defer p.mesh.mu.Unlock()
	p.closed = true
	return p.netns.Close()
}

// A rig is a node with its API.
type rig struct {
	t       *testing.T
	api     *fake.Clientset
	mesh    *loopback
	runtime processes
	kubelet *Kubelet
	dir     string
	memory  string
	http    *httptest.Server // what the node's socket serves
	stop    func()
}

// newRig begins a node; objects are there before it.
func newRig(t *testing.T, objects ...string) *rig {
	t.Helper()
	r := prepare(t, objects...)
	r.start()
	return r
}

// prepare is newRig without start.
func prepare(t *testing.T, objects ...string) *rig {
	t.Helper()
	r := &rig{t: t, api: fake.NewClientset(), mesh: newLoopback(), runtime: processes{}, dir: t.TempDir(), memory: t.TempDir()}
	for _, text := range objects {
		r.apply(text)
	}
	t.Cleanup(func() { r.stop() })
	return r
}

// start begins the node, anew after stop.
func (r *rig) start() {
	r.t.Helper()
	self, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	images, err := image.New(image.Options{Given: map[string]string{"test/serve": "env " + partVariable + "=serve " + self, "test/sh": "sh"}, Dir: filepath.Join(r.dir, "images")})
	if err != nil {
		r.t.Fatal(err)
	}
	r.kubelet, err = newKubelet(Options{Node: "lateen", Runtime: r.runtime, Mesh: r.mesh, Dir: r.dir, Memory: r.memory, Images: images,
		Address: "127.0.0.1", Version: "1.2.3", Log: discard(), Socket: filepath.Join(r.dir, "node.sock")}, r.api)
	if err != nil {
		r.t.Fatal(err)
	}
	r.http = httptest.NewServer((&server{k: r.kubelet}).mux())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.kubelet.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		r.http.Close()
		cancel()
		if err := <-ended; err != nil {
			r.t.Error(err)
		}
	})
}

// apply creates an object.
func (r *rig) apply(text string) {
	r.t.Helper()
	kind := &metav1.TypeMeta{}
	if err := yaml.Unmarshal([]byte(text), kind); err != nil {
		r.t.Fatal(err)
	}
	var err error
	ctx := context.Background()
	switch kind.Kind {
	case "Pod":
		pod := parse[corev1.Pod](r.t, text)
		pod.Namespace, pod.UID, pod.Spec.NodeName = "ns", types.UID("uid-"+pod.Name), "lateen"
		_, err = r.api.CoreV1().Pods("ns").Create(ctx, pod, metav1.CreateOptions{})
	case "ConfigMap":
		_, err = r.api.CoreV1().ConfigMaps("ns").Create(ctx, parse[corev1.ConfigMap](r.t, text), metav1.CreateOptions{})
	case "Service":
		_, err = r.api.CoreV1().Services("ns").Create(ctx, parse[corev1.Service](r.t, text), metav1.CreateOptions{})
	default:
		err = fmt.Errorf("%s is not known to these tests", kind.Kind)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func parse[T any](t *testing.T, text string) *T {
	t.Helper()
	object := new(T)
	if err := yaml.UnmarshalStrict([]byte(text), object); err != nil {
		t.Fatal(err)
	}
	return object
}

// patience bounds what a test waits for.
const patience = 20 * time.Second

// await waits until a pod is as a function has it; nil is a pod that is gone.
func (r *rig) await(name, what string, is func(*corev1.Pod) bool) *corev1.Pod {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	pods := r.api.CoreV1().Pods("ns")
	watch, err := pods.Watch(ctx, metav1.ListOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	defer watch.Stop()
	for {
		pod, err := pods.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			pod = nil
		}
		if is(pod) {
			return pod
		}
		select {
		case <-watch.ResultChan():
		case <-ctx.Done():
			r.t.Fatalf("pod %s is not %s: %+v", name, what, pod)
		}
	}
}

func isReady(pod *corev1.Pod) bool { return pod != nil && condition(pod, corev1.PodReady) }

func isStarted(pod *corev1.Pod) bool {
	if pod == nil || len(pod.Status.ContainerStatuses) == 0 {
		return false
	}
	s := pod.Status.ContainerStatuses[0].Started
	return s != nil && *s
}

func isGoneNow(pod *corev1.Pod) bool { return pod == nil }

func condition(pod *corev1.Pod, kind corev1.PodConditionType) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == kind {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// waits is a function for await: the first container waits for a reason.
func waits(reason string) func(*corev1.Pod) bool {
	return func(pod *corev1.Pod) bool {
		if pod == nil || len(pod.Status.ContainerStatuses) == 0 {
			return false
		}
		w := pod.Status.ContainerStatuses[0].State.Waiting
		return w != nil && w.Reason == reason
	}
}

// delete asks for a pod's deletion, as an API server does with a grace period.
func (r *rig) delete(name string, grace int64) {
	r.t.Helper()
	pods := r.api.CoreV1().Pods("ns")
	pod, err := pods.Get(context.Background(), name, metav1.GetOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = &metav1.Time{Time: time.Now().Add(time.Duration(grace) * time.Second)}, &grace
	if _, err := pods.Update(context.Background(), pod, metav1.UpdateOptions{}); err != nil {
		r.t.Fatal(err)
	}
}

// get asks the node's server.
func (r *rig) get(path string) (int, string) {
	r.t.Helper()
	reply, err := http.Get(r.http.URL + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return reply.StatusCode, string(text)
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
