package control_test

import (
	"strings"
	"testing"

	"github.com/lateen-mesh/lateen/control/kube/kubetest"
	"github.com/lateen-mesh/lateen/wellknown"
)

const labelledSpace = `
apiVersion: v1
kind: Namespace
metadata: {name: default, labels: {mesh: in}}
`

// What discoverySelectors leave out is not there, until a label or the mesh's configuration
// changes.
func TestDiscoverySelectors(t *testing.T) {
	t.Run("MC-052 KC-013 namespaces come and go with their labels", func(t *testing.T) {
		api := kubetest.New(t).Start()
		mesh := strings.Replace(webMap, "accessLogFile: /tmp/one.log", "discoverySelectors: [{matchLabels: {mesh: in}}]", 1)
		api.Apply(backend + "---" + labelledSpace + "---" + mesh + "---" + strings.Replace(gateway, "namespace: default", "namespace: istio-system", 1))
		p := startOn(t, api, nil, nil)
		c := p.connect(wellknown.ClusterType, nil)
		has(t, "CDS", text(t, c.next("")), webCluster)
		there := func() bool { return strings.Contains(p.clusters(), webCluster) }
		wait(t, there)
		api.Apply(strings.Replace(labelledSpace, "mesh: in", "mesh: out", 1))
		wait(t, func() bool { return !there() })
		api.Apply(strings.Replace(mesh, "mesh: in", "mesh: out", 1))
		wait(t, there)
	})
}

// clusters are those of the connected gateway, as the control plane would dump them.
func (p *plane) clusters() string {
	p.t.Helper()
	_, body := p.get("/debug/config_dump?proxyID=gw.istio-system")
	return body
}
