package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	meshconfig "istio.io/api/mesh/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/explain"
	"github.com/lateen-mesh/lateen/install/cluster"
	"github.com/lateen-mesh/lateen/wellknown"
)

// An explanation is `explain`: what becomes of a request, and why.
type explanation struct {
	proxyConfig
	from, meshFile string
	files          []string
	request        explain.Request
}

func newExplain() *cobra.Command {
	e := &explanation{}
	cmd := &cobra.Command{
		Use: "explain --from POD[.NAMESPACE] [METHOD] URL", Short: "Tell where a request would go, and why",
		Long: `Tell where a request would go, and why: the listener and filter chain that take it, each
route that does not match with the condition that it fails on, the one that does and the
object that it comes from, the cluster and its endpoints, first at the proxy of the pod that
asks, or the gateway, then at that of the workload that it comes to.

The proxies of the mesh that runs are asked for what they have. With -f files are taken for
all there is: each workload has one pod, and gateways are there that Gateway objects select.
Nothing is sent: what is said is the decision of the proxy's own code.`,
		Example: `  lateen explain --from productpage-v1 GET http://reviews:9080/reviews/0 -H "end-user: jason"
  lateen explain -f samples/bookinfo --from istio-ingressgateway.istio-system http://bookinfo.test/productpage
  lateen explain --from deploy/sleep https://httpbin.org/get -o json`,
		Args: arguments(cobra.RangeArgs(1, 2)), RunE: e.run,
	}
	set := cmd.Flags()
	e.add(set)
	set.StringVar(&e.from, "from", "", "pod, TYPE/NAME, or gateway that the request goes through first")
	set.StringArrayVarP(&e.request.Headers, "header", "H", nil, `header of the request, "Name: value"; may be repeated`)
	set.StringSliceVarP(&e.files, "filename", "f", nil, `files and directories to explain in place of the mesh that runs, "-" is standard input`)
	set.StringVar(&e.meshFile, "meshConfigFile", "", "file with the MeshConfig, for -f")
	set.StringVar(&e.request.Address, "address", "", "address that the URL's host has, where the mesh does not know it")
	set.StringVarP(&e.form, "output", "o", "", "json or yaml (default: text)")
	set.IntVar(&e.adminPort, "proxy-admin-port", wellknown.ProxyAdminPort, "port of the proxy's admin pages")
	return cmd
}

func (e *explanation) run(cmd *cobra.Command, args []string) error {
	if err := checkForm(e.form); err != nil {
		return err
	}
	e.request.Method, e.request.URL = http.MethodGet, args[len(args)-1]
	if len(args) == 2 {
		e.request.Method = args[0]
	}
	if e.from == "" {
		return wrongUsage(errors.New("--from is required: who makes the request"), "a pod, or a gateway: --from productpage-v1, --from istio-ingressgateway.istio-system")
	}
	m, namespace, err := e.mesh(cmd)
	if err != nil {
		return err
	}
	from, err := m.Find(e.from, namespace)
	if missing, ok := errors.AsType[*explain.NotFound](err); ok {
		return withHint(err, have(missing))
	}
	x, err := m.Explain(cmd.Context(), from, e.request)
	if bad, ok := errors.AsType[*explain.BadRequest](err); ok {
		return wrongUsage(err, bad.Hint)
	}
	if err != nil {
		return err
	}
	if e.form == "" {
		return x.Write(cmd.OutOrStdout())
	}
	return encode(cmd.OutOrStdout(), e.form, x)
}

// maxNamed bounds how many pods a hint lists.
const maxNamed = 20

// have says what there is in place of what was asked for.
func have(missing *explain.NotFound) string {
	list := missing.Have
	if len(list) == 0 {
		return "name the files with the workloads, or start a mesh"
	}
	if len(list) > maxNamed {
		return fmt.Sprintf("there are %s and %d more", strings.Join(list[:maxNamed], ", "), len(list)-maxNamed)
	}
	return "there are " + strings.Join(list, ", ")
}

// mesh is that of the files, or the one that runs, with the namespace that counts.
func (e *explanation) mesh(cmd *cobra.Command) (*explain.Mesh, string, error) {
	if len(e.files) == 0 {
		return e.running(cmd)
	}
	namespace := e.namespace
	if namespace == "" {
		namespace = config.DefaultNamespace
	}
	var mc *meshconfig.MeshConfig
	if e.meshFile != "" {
		var err error
		if mc, err = meshConfigFile(cmd.InOrStdin(), e.meshFile); err != nil {
			return nil, "", err
		}
	}
	names, failures := expand(e.files)
	if len(failures) > 0 {
		return nil, "", withHint(errors.New(failures[0]), "-f names files and directories with YAML")
	}
	var files []explain.File
	for _, name := range names {
		text, err := readUpTo(cmd.InOrStdin(), name, maxDocuments)
		if err != nil {
			return nil, "", err
		}
		files = append(files, explain.File{Name: name, Text: text})
	}
	m, problems := explain.FromFiles(files, namespace, mc)
	for _, p := range problems {
		if p.Severity == config.Error {
			fmt.Fprintf(cmd.ErrOrStderr(), "Warning: left out: %v\n", p)
		}
	}
	return m, namespace, nil
}

// running is the mesh that an API has, whose proxies are asked.
func (e *explanation) running(cmd *cobra.Command) (*explain.Mesh, string, error) {
	ctx := cmd.Context()
	api, _, err := e.open(ctx)
	if err != nil {
		return nil, "", err
	}
	namespace, err := e.namespaceInForce()
	if err != nil {
		return nil, "", err
	}
	objects, err := e.objects(ctx, api)
	if err != nil {
		return nil, "", err
	}
	m := explain.NewMesh(objects, nil)
	m.Ask = func(ctx context.Context, namespace, name string) ([]byte, error) {
		pod, err := api.API().CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		return e.ask(ctx, api, pod, http.MethodGet, dumpEDSPage)
	}
	return m, namespace, nil
}

// objects are those of the kinds that the mesh reads, without secrets. Kinds that the API
// does not have, or does not show to this user, are left out.
func (e *explanation) objects(ctx context.Context, api *cluster.Cluster) (list []*config.Config, err error) {
	kinds, err := e.kinds(api, read)
	if err != nil {
		return nil, err
	}
	for _, k := range kinds {
		err := k.each(ctx, func(text []byte) error {
			found, guards, _ := config.DecodeGuarded("", "", text) // the API has taken it; what is not understood is not in force either
			list = append(append(list, found...), guards...)
			return nil
		})
		if err != nil && !apierrors.IsForbidden(err) {
			return nil, fmt.Errorf("%s: %w", k.plural, err)
		}
	}
	return list, nil
}

// read reports a kind that bears on where requests go.
func read(group, kind string) bool {
	return slices.ContainsFunc(config.Resources(), func(r config.Resource) bool {
		return r.Group == group && string(r.Kind) == kind && r.Kind != config.Secret && r.Kind != config.ConfigMap
	})
}
