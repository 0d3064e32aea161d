package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/lateen-mesh/lateen/cli/dump"
	"github.com/lateen-mesh/lateen/install/cluster"
	"github.com/lateen-mesh/lateen/local"
)

// A controlPlane is one that answers questions.
type controlPlane struct {
	name string
	page func(ctx context.Context, method, path string) ([]byte, error)
}

// read asks for a page of JSON.
func (c controlPlane) read(ctx context.Context, method, path string, into any) error {
	text, err := c.page(ctx, method, path)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// controlPlanes are those of the mesh of a directory, by its socket, or of a cluster. hasAPI says
// that the mesh has a Kubernetes API.
func (c *connection) controlPlanes(ctx context.Context) (all []controlPlane, hasAPI bool, err error) {
	if c.kubeconfig == "" && c.context == "" && (c.state != "" || os.Getenv(clientcmd.RecommendedConfigPathEnvVar) == "") {
		dir, err := stateDir(c.state)
		if err != nil {
			return nil, false, err
		}
		if st, err := local.ReadRecord(dir); err == nil && st.PID != 0 {
			here := controlPlane{"istiod", func(ctx context.Context, method, path string) ([]byte, error) {
				return local.AskControl(ctx, dir, method, path, dump.MaxSize)
			}}
			_, err := kubeconfigOf(c.state)
			return []controlPlane{here}, err == nil, nil
		} else if c.state != "" {
			return nil, false, cmp.Or(err, noMesh(dir))
		}
	}
	reach, _, err := c.open(ctx)
	if err != nil {
		return nil, false, err
	}
	pods, err := reach.ControlPods(ctx, c.istioNamespace, "")
	if err == nil && len(pods) == 0 {
		err = withHint(fmt.Errorf("no running Istio pods in namespace %q", c.istioNamespace), "is the mesh installed there? -i NAMESPACE")
	}
	if err != nil {
		return nil, false, err
	}
	for _, pod := range pods {
		all = append(all, controlPlane{pod.Name, func(ctx context.Context, method, path string) ([]byte, error) {
			return reach.Page(ctx, pod, cluster.MonitoringPort, method, path, dump.MaxSize)
		}})
	}
	return all, true, nil
}
