package kubelet

import (
	"context"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// kubernetesVersion is the release whose kubelet this node stands in for.
const kubernetesVersion = "v1.36.3"

// maxPods is what the node says it takes: addresses and memory end first.
const maxPods = 500

// The node looks at its object every lookEvery, and says every beatEvery that it lives.
const (
	lookEvery = 5 * time.Second
	beatEvery = time.Minute
)

// machine is what the node has: processors, and bytes of memory.
func machine() (cpus, memory int64) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err == nil {
		//nolint:unconvert // the fields' types differ by architecture
		memory = int64(uint64(info.Totalram) * uint64(info.Unit))
	}
	return int64(runtime.NumCPU()), memory
}

// register makes the Node in the API, or takes over the one that is there.
func (k *Kubelet) register(ctx context.Context) error {
	nodes := k.client.CoreV1().Nodes()
	return retry(ctx, func() error {
		have, err := nodes.Get(ctx, k.o.Node, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			have, err = nodes.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: k.o.Node, Labels: k.labels()}}, metav1.CreateOptions{})
		}
		if err != nil {
			return err
		}
		changed := false
		for name, value := range k.labels() {
			if _, ok := have.Labels[name]; !ok {
				metav1.SetMetaDataLabel(&have.ObjectMeta, name, value)
				changed = true
			}
		}
		if changed {
			if have, err = nodes.Update(ctx, have, metav1.UpdateOptions{}); err != nil {
				return err
			}
		}
		if k.isCurrent(have.Status, time.Now()) {
			return nil
		}
		have.Status = k.nodeStatus(have.Status, time.Now())
		_, err = nodes.UpdateStatus(ctx, have, metav1.UpdateOptions{})
		return err
	}, func(err error) bool { return apierrors.IsForbidden(err) || apierrors.IsInvalid(err) })
}

func (k *Kubelet) labels() map[string]string {
	return map[string]string{
		corev1.LabelHostname: k.o.Node, corev1.LabelOSStable: runtime.GOOS, corev1.LabelArchStable: runtime.GOARCH,
	}
}

// beat refreshes the Node's conditions until the context ends.
func (k *Kubelet) beat(ctx context.Context) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if err := k.register(ctx); err != nil && ctx.Err() == nil {
				k.log.Warn("node status", "error", err)
			}
		}
	}
}

// isCurrent reports whether the API has what this node says, and not for too long.
func (k *Kubelet) isCurrent(s corev1.NodeStatus, now time.Time) bool {
	wanted := k.nodeStatus(s, now)
	return s.NodeInfo == wanted.NodeInfo && slices.Equal(s.Addresses, wanted.Addresses) &&
		slices.ContainsFunc(s.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue && now.Sub(c.LastHeartbeatTime.Time) < beatEvery
		})
}

func (k *Kubelet) nodeStatus(s corev1.NodeStatus, now time.Time) corev1.NodeStatus {
	s.Capacity = corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(k.cpus, resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(k.memory, resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(maxPods, resource.DecimalSI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(k.disk(), resource.BinarySI),
	}
	s.Allocatable = s.Capacity.DeepCopy()
	s.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: k.o.Address}, {Type: corev1.NodeHostName, Address: k.o.Node}}
	s.NodeInfo = corev1.NodeSystemInfo{
		OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH, OSImage: osName(), KernelVersion: kernel(),
		ContainerRuntimeVersion: "lateen://" + k.o.Version, KubeletVersion: kubernetesVersion,
		MachineID: s.NodeInfo.MachineID, SystemUUID: s.NodeInfo.SystemUUID, BootID: s.NodeInfo.BootID,
	}
	conditions := []corev1.NodeCondition{
		{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionFalse, Reason: "KubeletHasSufficientMemory", Message: "kubelet has sufficient memory available"},
		{Type: corev1.NodeDiskPressure, Status: corev1.ConditionFalse, Reason: "KubeletHasNoDiskPressure", Message: "kubelet has no disk pressure"},
		{Type: corev1.NodePIDPressure, Status: corev1.ConditionFalse, Reason: "KubeletHasSufficientPID", Message: "kubelet has sufficient PID available"},
		{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", Message: "kubelet is posting ready status"},
	}
	for i := range conditions {
		c := &conditions[i]
		c.LastHeartbeatTime, c.LastTransitionTime = metav1.NewTime(now), metav1.NewTime(now)
		for _, old := range s.Conditions {
			if old.Type == c.Type && old.Status == c.Status {
				c.LastTransitionTime = old.LastTransitionTime
			}
		}
	}
	s.Conditions = conditions
	return s
}

func (k *Kubelet) disk() int64 {
	var fs unix.Statfs_t
	if err := unix.Statfs(k.o.Dir, &fs); err != nil {
		return 0
	}
	return int64(fs.Blocks) * fs.Bsize
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// osName is the machine's name for its system.
func osName() string {
	text, _ := os.ReadFile("/etc/os-release")
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			return strings.Trim(name, `"`)
		}
	}
	return runtime.GOOS
}
