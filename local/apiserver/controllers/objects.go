package controllers

import (
	"context"
	"fmt"
	"net"
	"runtime"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
)

// A Node is the machine that runs the pods.
type Node struct {
	Name    string
	Address string // in the mesh's network, where also the API is reached
	Version string // shown as the kubelet's
}

// apiPort is where the API is reached at the node's address, from within pods.
const apiPort = 6443

// APIAddress is the address of Service default/kubernetes: the first of the range.
func APIAddress(services *net.IPNet) net.IP { return nth(services, 1) }

// DNSAddress is the address of Service kube-system/kube-dns: the tenth of the range.
func DNSAddress(services *net.IPNet) net.IP { return nth(services, 10) }

func nth(n *net.IPNet, i byte) net.IP {
	ip := append(net.IP(nil), n.IP.To4()...)
	ip[3] += i
	return ip
}

// EnsureObjects creates the objects that every cluster has, where they are missing:
// namespaces, the node, and the Services of the API and of DNS. A node that is there
// is told the present address and version.
func EnsureObjects(ctx context.Context, client kubernetes.Interface, node Node, services *net.IPNet) error {
	for _, name := range []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease} {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if err := ensure(ctx, client.CoreV1().Namespaces().Create, namespace); err != nil {
			return fmt.Errorf("create Namespace %s: %w", name, err)
		}
	}
	if err := ensureNode(ctx, client, node); err != nil {
		return fmt.Errorf("create Node %s: %w", node.Name, err)
	}
	for _, service := range []*corev1.Service{apiService(services), dnsService(services)} {
		// Looked up first: a second one would be refused for its address, before its name is.
		services := client.CoreV1().Services(service.Namespace)
		_, err := services.Get(ctx, service.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			_, err = services.Create(ctx, service, metav1.CreateOptions{})
		}
		if err != nil {
			return fmt.Errorf("create Service %s/%s: %w", service.Namespace, service.Name, err)
		}
	}
	return ensureAPIEndpoints(ctx, client, node)
}

func ensure[T any](ctx context.Context, create func(context.Context, T, metav1.CreateOptions) (T, error), object T) error {
	_, err := create(ctx, object, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func ensureNode(ctx context.Context, client kubernetes.Interface, n Node) error {
	nodes := client.CoreV1().Nodes()
	if err := ensure(ctx, nodes.Create, &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: n.Name,
		Labels: map[string]string{
			corev1.LabelHostname: n.Name, corev1.LabelOSStable: runtime.GOOS, corev1.LabelArchStable: runtime.GOARCH,
		},
	}}); err != nil {
		return err
	}
	have, err := nodes.Get(ctx, n.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	have.Status = nodeStatus(n, have.Status)
	_, err = nodes.UpdateStatus(ctx, have, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) {
		return nil // its kubelet has just reported, which knows better
	}
	return err
}

func nodeStatus(n Node, before corev1.NodeStatus) corev1.NodeStatus {
	room := corev1.ResourceList{
		corev1.ResourceCPU:  *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI),
		corev1.ResourcePods: resource.MustParse("1000"),
	}
	status := corev1.NodeStatus{
		Capacity: room, Allocatable: room,
		Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: n.Address}, {Type: corev1.NodeHostName, Address: n.Name},
		},
		NodeInfo: corev1.NodeSystemInfo{
			KubeletVersion: n.Version, OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH,
			ContainerRuntimeVersion: "lateen://" + n.Version,
		},
		Conditions: before.Conditions,
	}
	if len(before.Conditions) == 0 {
		now := metav1.Now()
		status.Conditions = []corev1.NodeCondition{{
			Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: now, LastTransitionTime: now,
			Reason: "KubeletReady", Message: "the node is part of the local engine",
		}}
	}
	return status
}

func apiService(services *net.IPNet) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Name: "kubernetes", Namespace: metav1.NamespaceDefault,
			Labels: map[string]string{"component": "apiserver", "provider": "kubernetes"},
		},
		Spec: corev1.ServiceSpec{
			ClusterIP: APIAddress(services).String(),
			Ports:     []corev1.ServicePort{{Name: "https", Port: 443, TargetPort: intstr.FromInt32(apiPort), Protocol: corev1.ProtocolTCP}},
		},
	}
}

func dnsService(services *net.IPNet) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Name: "kube-dns", Namespace: metav1.NamespaceSystem,
			Labels: map[string]string{"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"},
		},
		Spec: corev1.ServiceSpec{
			ClusterIP: DNSAddress(services).String(),
			Ports: []corev1.ServicePort{
				{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP, TargetPort: intstr.FromInt32(53)},
				{Name: "dns-tcp", Port: 53, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(53)},
			},
		},
	}
}

// ensureAPIEndpoints says where the API is: Service kubernetes has no selector.
func ensureAPIEndpoints(ctx context.Context, client kubernetes.Interface, n Node) error {
	if n.Address == "" {
		return nil
	}
	name, port, protocol, ready := "https", int32(apiPort), corev1.ProtocolTCP, true
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Name: "kubernetes", Namespace: metav1.NamespaceDefault,
			Labels: map[string]string{discoveryv1.LabelServiceName: "kubernetes"},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{n.Address}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: &protocol}},
	}
	slices := client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault)
	if err := put(ctx, slices.Create, slices.Update, slice); err != nil {
		return fmt.Errorf("write EndpointSlice default/kubernetes: %w", err)
	}
	// The older kind, for clients that read that one; the label says that the slice exists.
	//nolint:staticcheck // deprecated, and read by kubectl describe
	old := &corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{
			Name: "kubernetes", Namespace: metav1.NamespaceDefault, Labels: map[string]string{discoveryv1.LabelSkipMirror: "true"},
		},
		Subsets: []corev1.EndpointSubset{{
			Addresses: []corev1.EndpointAddress{{IP: n.Address}},
			Ports:     []corev1.EndpointPort{{Name: name, Port: port, Protocol: protocol}},
		}},
	}
	endpoints := client.CoreV1().Endpoints(metav1.NamespaceDefault)
	if err := put(ctx, endpoints.Create, endpoints.Update, old); err != nil {
		return fmt.Errorf("write Endpoints default/kubernetes: %w", err)
	}
	return nil
}

// put creates an object, or replaces the one that is there.
func put[T any](ctx context.Context, create func(context.Context, T, metav1.CreateOptions) (T, error),
	update func(context.Context, T, metav1.UpdateOptions) (T, error), object T,
) error {
	_, err := create(ctx, object, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = update(ctx, object, metav1.UpdateOptions{})
	}
	return err
}
