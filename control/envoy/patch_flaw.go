package envoy

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// What an Envoy refuses although it has the form of its messages.

// partFlaw is what is wrong with a message anywhere in a patch.
func partFlaw(m proto.Message) error {
	switch x := m.(type) {
	case *matcherv3.RegexMatcher:
		_, err := regexp.Compile(x.Regex)
		return err
	case *durationpb.Duration:
		if x.Seconds < 0 || x.Nanos < 0 {
			return errors.New("must not be negative")
		}
	case *corev3.HeaderValueOption:
		if v := x.GetHeader().GetValue(); !formats(v) {
			return fmt.Errorf("%q is not a format that proxies have: write a plain %% as %%%%", v)
		}
	case *corev3.TransportSocket:
		// Without settings a socket is known by its name alone.
		if x.Name != "" && x.ConfigType == nil && !slices.Contains(plainSockets(), x.Name) {
			return fmt.Errorf("no socket is called %s", x.Name)
		}
	}
	return nil
}

// plainSockets are those that can do without settings.
func plainSockets() []string {
	return []string{"envoy.transport_sockets.raw_buffer", "raw_buffer", "envoy.transport_sockets.tls", "tls"}
}

// wholeFlaw is what is wrong with a message as a whole.
func wholeFlaw(m proto.Message) error {
	if c, ok := m.(*clusterv3.Cluster); ok {
		return clusterFlaw(c)
	}
	return nil
}

// clusterFlaw is what does not go together in a cluster.
func clusterFlaw(c *clusterv3.Cluster) error {
	_, typed := c.ClusterDiscoveryType.(*clusterv3.Cluster_Type)
	eds := typed && c.GetType() == clusterv3.Cluster_EDS
	switch {
	case typed && c.LbPolicy == clusterv3.Cluster_CLUSTER_PROVIDED && c.GetType() != clusterv3.Cluster_ORIGINAL_DST:
		return fmt.Errorf("lb_policy: a cluster of type %s does not provide one", c.GetType())
	case typed && c.GetType() == clusterv3.Cluster_ORIGINAL_DST && c.LbPolicy != clusterv3.Cluster_CLUSTER_PROVIDED:
		return errors.New("lb_policy: a cluster of type ORIGINAL_DST takes CLUSTER_PROVIDED only")
	case eds && c.EdsClusterConfig == nil:
		return errors.New("eds_cluster_config: a cluster of type EDS needs it")
	case !eds && c.EdsClusterConfig != nil:
		return errors.New("eds_cluster_config: only a cluster of type EDS can have it")
	case c.TransportSocket != nil && c.TransportSocket.ConfigType == nil && !slices.Contains(plainSockets(), c.TransportSocket.Name):
		return fmt.Errorf("transport_socket: no socket is called %q", c.TransportSocket.Name)
	}
	return nil
}

// listenerFlaw is what is wrong with the address of a listener, as far as it has one.
func listenerFlaw(l *listenerv3.Listener) error {
	address := l.GetAddress().GetSocketAddress().GetAddress()
	if address == "" {
		return nil
	}
	if _, err := netip.ParseAddr(address); err != nil {
		return fmt.Errorf("address: %q is not an IP address", address)
	}
	return nil
}
