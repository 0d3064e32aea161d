package registry

import (
	"context"
	"fmt"
	"net"

	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/core/helper"
	"k8s.io/kubernetes/pkg/registry/core/service/allocator"
	"k8s.io/kubernetes/pkg/registry/core/service/ipallocator"
	"k8s.io/kubernetes/pkg/registry/core/service/portallocator"
	netutils "k8s.io/utils/net"
)

// nodePorts is the range of node ports, a cluster's default.
var nodePorts = utilnet.PortRange{Base: 30000, Size: 2768}

type addressAllocators = map[api.IPFamily]ipallocator.Interface

func newAllocators(cidr *net.IPNet) (addressAllocators, portallocator.Interface, error) {
	inMemory := func(size int, name string, offset int) (allocator.Interface, error) {
		return allocator.NewAllocationMapWithOffset(size, name, offset), nil
	}
	addresses, err := ipallocator.New(cidr, inMemory)
	if err != nil {
		return nil, nil, fmt.Errorf("service addresses %s: %w", cidr, err)
	}
	ports, err := portallocator.New(nodePorts, inMemory)
	if err != nil {
		return nil, nil, fmt.Errorf("node ports %s: %w", nodePorts.String(), err)
	}
	return addressAllocators{api.IPv4Protocol: addresses}, ports, nil
}

// reserve takes the addresses and ports of the stored Services. What cannot be
// taken (another range since, say) stays with its Service, and nobody else gets it.
func reserve(ctx context.Context, services *genericregistry.Store, addresses ipallocator.Interface, ports portallocator.Interface) error {
	list, err := services.List(ctx, &internalversion.ListOptions{})
	if err != nil {
		return fmt.Errorf("services: %w", err)
	}
	for _, service := range list.(*api.ServiceList).Items {
		if helper.IsServiceIPSet(&service) {
			for _, address := range service.Spec.ClusterIPs {
				_ = addresses.Allocate(netutils.ParseIPSloppy(address))
			}
		}
		for _, port := range service.Spec.Ports {
			if port.NodePort != 0 {
				_ = ports.Allocate(int(port.NodePort)) // TCP and UDP of one number share it
			}
		}
		if service.Spec.HealthCheckNodePort != 0 {
			_ = ports.Allocate(int(service.Spec.HealthCheckNodePort))
		}
	}
	return nil
}
