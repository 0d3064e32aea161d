package kubelet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/lateen-mesh/lateen/local/kubelet/env"
	"github.com/lateen-mesh/lateen/local/kubelet/image"
	"github.com/lateen-mesh/lateen/local/kubelet/volume"
	"github.com/lateen-mesh/lateen/local/network"
)

// A sandbox is what the containers of a pod share: its network and volumes.
type sandbox struct {
	w      *worker
	ctx    context.Context
	cancel context.CancelFunc

	mu      sync.Mutex // of making, refreshing and closing
	pod     network.Pod
	netns   *os.File // of the node, for a pod with hostNetwork
	volumes *volume.Volumes
	renewal *time.Timer
	closed  bool
	said    bool

	portsMu sync.Mutex
	ports   []netip.AddrPort // of this machine
}

// setUpTime bounds one try to make network and volumes.
const setUpTime = 10 * time.Second

func (b *sandbox) begin(ctx context.Context, w *worker) {
	b.w = w
	b.ctx, b.cancel = context.WithCancel(ctx)
}

// setUp makes network and volumes and tells the lifecycle.
func (b *sandbox) setUp() {
	b.w.started.Go(func() {
		addresses, err := b.make()
		b.w.tell(func() {
			if err != nil {
				b.w.life.SetUpFailed(err.Error(), time.Now())
				return
			}
			b.w.life.SetUpDone(addresses)
		})
	})
}

// make makes what is not there yet. Failures are events of the pod.
func (b *sandbox) make() ([]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ctx, cancel := context.WithTimeout(b.ctx, setUpTime)
	defer cancel()
	if b.closed {
		return nil, errors.New("the pod is over")
	}
	b.say()
	if err := b.connect(ctx); err != nil {
		b.fail("FailedCreatePodSandBox", "Failed to create pod sandbox: "+err.Error())
		return nil, err
	}
	volumes, err := volume.Make(ctx, b.env(), source{b.w.k}, b.w.dirs)
	if err != nil {
		b.fail("FailedMount", "MountVolume.SetUp failed for "+err.Error())
		return nil, err
	}
	b.volumes = volumes
	b.renew(ctx)
	return b.addresses(), nil
}

// fail tells why the pod waits, unless it is only that it ended.
func (b *sandbox) fail(reason, message string) {
	if b.ctx.Err() == nil {
		b.w.event("", corev1.EventTypeWarning, reason, message)
	}
}

// say tells once what the pod asks for and does not get.
func (b *sandbox) say() {
	if b.said {
		return
	}
	b.said = true
	pod := b.w.pod()
	if share := pod.Spec.ShareProcessNamespace; share != nil && *share {
		b.w.k.sayOnce(pod, "shareProcessNamespace is not supported here: each container has its own processes")
	}
	if pod.Spec.HostNetwork {
		b.w.k.sayOnce(pod, "hostNetwork is the network of the node inside the mesh here, not that of this machine")
	}
	for _, v := range pod.Spec.Volumes {
		if v.EmptyDir != nil && v.EmptyDir.SizeLimit != nil && !v.EmptyDir.SizeLimit.IsZero() {
			b.w.k.sayOnce(pod, "sizeLimit of an emptyDir is not enforced here")
		}
	}
}

// connect makes the pod's network.
func (b *sandbox) connect(ctx context.Context) error {
	pod := b.w.pod()
	if b.pod != nil || b.netns != nil {
		return nil
	}
	if pod.Spec.HostNetwork {
		var err error
		b.netns, err = os.Open("/proc/self/ns/net")
		return err
	}
	made, err := b.w.k.o.Mesh.AddPod(ctx)
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	if err := b.furnish(ctx, pod, made); err != nil {
		return errors.Join(err, made.Close())
	}
	b.pod = made
	return nil
}

// furnish publishes a new network's ports, and redirects its traffic where no init container
// is to do that.
func (b *sandbox) furnish(ctx context.Context, pod *corev1.Pod, made network.Pod) error {
	if redirectedAtStart(pod) {
		if err := made.Redirect(pod.Annotations); err != nil {
			return fmt.Errorf("redirect traffic to the sidecar: %w", err)
		}
	}
	if isGateway(pod) {
		made.PublishAsked()
	}
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.HostPort == 0 || p.Protocol == corev1.ProtocolUDP || p.Protocol == corev1.ProtocolSCTP {
				continue
			}
			at, err := b.w.k.o.Mesh.Publish(ctx, uint16(p.HostPort), made, uint16(p.ContainerPort))
			if err != nil {
				return fmt.Errorf("hostPort %d: %w", p.HostPort, err)
			}
			b.portsMu.Lock()
			b.ports = append(b.ports, at)
			b.portsMu.Unlock()
			b.w.k.balancer.change()
			b.w.event("", corev1.EventTypeNormal, "Published", fmt.Sprintf("Port %d of the pod is %s of this machine", p.ContainerPort, at))
		}
	}
	return nil
}

// isGateway reports whether a pod is a gateway that this machine publishes: Gateways may ask for more
// ports than its manifest.
func isGateway(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool {
		return image.IsProxy(c.Image) && slices.Contains(c.Args, "router") &&
			slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.HostPort != 0 })
	})
}

// published are the ports of this machine that the manifest asked for.
func (b *sandbox) published() []netip.AddrPort {
	b.portsMu.Lock()
	defer b.portsMu.Unlock()
	return slices.Clone(b.ports)
}

func (b *sandbox) addresses() []string {
	if b.pod == nil {
		return []string{b.w.k.o.Address}
	}
	return []string{b.pod.Address().String()}
}

// env is what variables and volumes may tell of the pod.
func (b *sandbox) env() env.Pod {
	return env.Pod{Object: b.w.pod(), Addresses: b.addresses(), Host: b.w.k.o.Address, CPUs: b.w.k.cpus, Memory: b.w.k.memory}
}

// refresh brings volumes up to date.
func (b *sandbox) refresh() {
	b.w.started.Go(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.volumes == nil || b.closed {
			return
		}
		ctx, cancel := context.WithTimeout(b.ctx, setUpTime)
		defer cancel()
		b.renew(ctx)
	})
}

// renew refreshes volumes, and sees to it that tokens are renewed in time.
func (b *sandbox) renew(ctx context.Context) {
	next, err := b.volumes.Refresh(ctx, b.env(), time.Now())
	if err != nil && b.ctx.Err() == nil {
		b.w.k.log.Warn("volumes stay as they were", "pod", b.w.pod().Namespace+"/"+b.w.pod().Name, "error", err)
	}
	if b.renewal != nil {
		b.renewal.Stop()
	}
	if !next.IsZero() {
		b.renewal = time.AfterFunc(time.Until(next), func() { b.w.tell(b.refresh) })
	}
}

// close releases network and volumes; nothing runs in them any more.
func (b *sandbox) close() {
	b.cancel()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	b.closed = true
	if b.renewal != nil {
		b.renewal.Stop()
	}
	var err error
	if b.pod != nil {
		err = b.pod.Close()
	}
	if b.netns != nil {
		_ = b.netns.Close()
	}
	if err := errors.Join(err, volume.Remove(b.w.dirs)); err != nil {
		b.w.k.log.Warn("something of a pod is left", "pod", b.w.pod().Namespace+"/"+b.w.pod().Name, "error", err)
	}
}

// share is what a container gets of the sandbox.
func (b *sandbox) share() (env.Pod, *os.File, *volume.Volumes) {
	b.mu.Lock()
	defer b.mu.Unlock()
	netns := b.netns
	if b.pod != nil {
		netns = b.pod.NetNS()
	}
	return b.env(), netns, b.volumes
}

// network is the pod's own, nil with hostNetwork.
func (b *sandbox) network() network.Pod {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pod
}
