package compile

import (
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/lateen-mesh/lateen/control/mesh"
)

// ProxyWith is the proxy of a node id, and lists extensions; none: it does not say.
func ProxyWith(t *testing.T, id string, extensions ...string) *mesh.Proxy {
	t.Helper()
	node := &corev3.Node{Id: id}
	for _, name := range extensions {
		node.Extensions = append(node.Extensions, &corev3.Extension{Name: name})
	}
	p, err := mesh.ParseProxy(node)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
