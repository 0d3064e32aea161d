// Package kubelet does what a kubelet does, for the one node of a mesh on this machine:
// it starts the containers of its pods, probes them, restarts them, and says in the API
// how they are.
//
//	API ─► informer ─► one worker a pod ─► lifecycle (decides) ─► network, volumes, containers, probes
//	 ▲                     │                                        │
//	 └──── status ─────────┴──────────── what happened ◄────────────┘
//	Services, EndpointSlices ─► network.Mesh
//	unix socket ◄─ logs, exec, attach, port-forward, as the API server asks a kubelet
//
// A node begins with nothing running: the processes of an earlier one died with it. Its
// pods are started anew, their restarts counted.
//
// What a cluster has and this node does not: limits of CPU and read-only roots, which are left
// out in silence; size limits of volumes, a process namespace shared by a pod's containers and
// the machine's own network, of which an event of the pod says so; volumes of a cluster's
// storage, without which the pod does not start.
package kubelet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/lateen-mesh/lateen/local/container"
	"github.com/lateen-mesh/lateen/local/kubelet/image"
	"github.com/lateen-mesh/lateen/local/kubelet/logs"
	"github.com/lateen-mesh/lateen/local/network"
)

// Images says what an image name stands for; *image.Catalog does.
type Images interface {
	Resolve(ctx context.Context, name string) (image.Image, error)
}

// Options are the settings of a node. Config, Node, Runtime, Mesh, Dir and Images are needed.
type Options struct {
	Config  *rest.Config // of the API
	Node    string       // its name
	Runtime container.Runtime
	Mesh    network.Mesh
	Dir     string // state: logs, volumes, claims
	// Memory is a directory in memory for volumes with secrets; "" mounts one at Dir/volumes, for
	// which the process needs a mount namespace of its own.
	Memory string
	Images Images
	// Sockets is a directory that every container of the mesh's proxy sees at
	// wellknown.SocketDirectory, read-only. "": none does.
	Sockets string
	// Proxy is the program that those containers are to run in place of our proxy, any Envoy. "": ours.
	Proxy   string
	Socket  string      // unix socket for logs, exec, attach and port-forward; "" is none
	Address string      // of the node, as pods see it; "" is 10.244.0.1
	Version string      // of this program, without "v"
	Logs    logs.Limits // of each run of a container
	Log     *slog.Logger
}

// A Kubelet is a node. Safe for concurrent use.
type Kubelet struct {
	o        Options
	client   kubernetes.Interface
	recorder record.EventRecorder
	events   record.EventBroadcaster
	log      *slog.Logger
	cpus     int64
	memory   int64 // bytes
	memDir   string
	services serviceLister
	balancer *balancer

	mu      sync.Mutex
	workers map[types.UID]*worker
	newest  map[types.NamespacedName]*worker
	running sync.WaitGroup
	said    map[string]bool
}

// New returns a node that does nothing before Run. It fails when the state directory cannot be
// used or the API's configuration is wrong.
func New(o Options) (*Kubelet, error) {
	o.Address = cmp.Or(o.Address, "10.244.0.1")
	o.Version = cmp.Or(o.Version, "0.0.0")
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	config := rest.CopyConfig(o.Config)
	config.QPS = -1 // one machine: its API bounds itself
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("API: %w", err)
	}
	return newKubelet(o, client)
}

func newKubelet(o Options, client kubernetes.Interface) (*Kubelet, error) {
	k := &Kubelet{o: o, client: client, log: o.Log, workers: map[types.UID]*worker{},
		newest: map[types.NamespacedName]*worker{}, said: map[string]bool{}}
	k.cpus, k.memory = machine()
	if err := k.openDir(); err != nil {
		return nil, fmt.Errorf("state of node %s: %w", o.Node, err)
	}
	return k, nil
}

// openDir makes the state directory, without volumes of an earlier node.
func (k *Kubelet) openDir() error {
	for _, dir := range []string{"pods", "logs", "claims"} {
		if err := os.MkdirAll(filepath.Join(k.o.Dir, dir), 0o700); err != nil {
			return err
		}
	}
	k.memDir = k.o.Memory
	if k.memDir != "" {
		return os.MkdirAll(k.memDir, 0o700)
	}
	k.memDir = filepath.Join(k.o.Dir, "volumes")
	if err := os.MkdirAll(k.memDir, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", k.memDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700"); err != nil {
		return fmt.Errorf("volumes with secrets need a file system in memory at %s: %w", k.memDir, err)
	}
	return nil
}

// Run runs the node until the context ends; then all containers are killed and their volumes
// removed. It fails when the API cannot be used at the start.
func (k *Kubelet) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(klog.NewContext(ctx, logr.FromSlogHandler(k.log.Handler())))
	defer cancel()
	k.events = record.NewBroadcaster(record.WithContext(ctx))
	defer k.events.Shutdown()
	k.events.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: k.client.CoreV1().Events("")})
	k.recorder = k.events.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "kubelet", Host: k.o.Node})
	defer k.running.Wait()
	defer cancel()
	if k.o.Socket != "" {
		server, err := k.listen()
		if err != nil {
			return err
		}
		defer server.close()
		k.running.Go(server.serve)
	}
	if err := k.register(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("register node %s: %w", k.o.Node, err)
	}
	stop, err := k.watch(ctx)
	if err != nil {
		return err
	}
	k.running.Go(func() { k.beat(ctx) })
	<-ctx.Done()
	stop()
	k.close()
	return nil
}

// close waits for all workers, which end with the context, and gives the memory back.
func (k *Kubelet) close() {
	k.mu.Lock()
	all := make([]*worker, 0, len(k.workers))
	for _, w := range k.workers {
		all = append(all, w)
	}
	k.mu.Unlock()
	for _, w := range all {
		<-w.done
	}
	if k.o.Memory == "" {
		if err := unix.Unmount(k.memDir, unix.MNT_DETACH); err != nil {
			k.log.Warn("volumes stay mounted", "dir", k.memDir, "error", err)
		}
	}
}

// update tells a pod's worker of its object, and begins one for a pod that is new.
func (k *Kubelet) update(ctx context.Context, pod *corev1.Pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w := k.workers[pod.UID]; w != nil {
		w.update(pod)
		return
	}
	w := k.newWorker(pod)
	k.workers[pod.UID] = w
	name := types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}
	k.newest[name] = w
	go func() {
		w.run(ctx)
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.workers, pod.UID)
		if k.newest[name] == w {
			delete(k.newest, name)
		}
		close(w.done)
	}()
}

// removed tells a pod's worker that the API has it no longer.
func (k *Kubelet) removed(uid types.UID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w := k.workers[uid]; w != nil {
		w.remove()
	}
}

// find is the worker of a pod by name.
func (k *Kubelet) find(namespace, name string) (*worker, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w := k.newest[types.NamespacedName{Namespace: namespace, Name: name}]; w != nil {
		return w, nil
	}
	return nil, fmt.Errorf("pod %s/%s is not on this node: %w", namespace, name, os.ErrNotExist)
}

// each calls a function with every worker.
func (k *Kubelet) each(f func(*worker)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range k.workers {
		f(w)
	}
}

// sayOnce gives a pod the event of something that is not supported, and logs it the first time.
func (k *Kubelet) sayOnce(pod *corev1.Pod, what string) {
	k.recorder.Event(pod, corev1.EventTypeWarning, "NotSupported", what)
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.said[what] {
		k.said[what] = true
		k.log.Warn(what, "pod", pod.Namespace+"/"+pod.Name)
	}
}

// retry calls a function until it succeeds or fails for good, with growing pauses.
func retry(ctx context.Context, f func() error, forGood func(error) bool) error {
	pause := 20 * time.Millisecond
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		err := f()
		if err == nil || forGood(err) {
			return err
		}
		timer.Reset(pause)
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-timer.C:
		}
		pause = min(pause*2, 5*time.Second)
	}
}
