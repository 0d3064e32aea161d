package cli

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/lateen-mesh/lateen/install"
	"github.com/lateen-mesh/lateen/install/cluster"
)

// A connection says which Kubernetes API a command talks to. What is said first counts:
// --kubeconfig or --context; --state, the mesh of a directory; $KUBECONFIG; the mesh that
// runs in the default directory; ~/.kube/config; the cluster that the command runs in.
type connection struct {
	kubeconfig, context, state   string
	namespace, istioNamespace    string
	impersonate, impersonateUser string
	groups                       []string
}

func (c *connection) add(set *pflag.FlagSet) {
	set.StringVarP(&c.kubeconfig, "kubeconfig", "c", "", "file that says how to reach the Kubernetes API")
	set.StringVar(&c.context, "context", "", "context of the kubeconfig (default its current one)")
	set.StringVar(&c.state, "state", "", "the mesh of this directory, started with lateen up --state")
	set.StringVarP(&c.namespace, "namespace", "n", "", "namespace to act on")
	set.StringVarP(&c.istioNamespace, "istioNamespace", "i", "istio-system", "namespace of the control plane")
	set.StringVar(&c.impersonate, "as", "", "user to act as")
	set.StringVar(&c.impersonateUser, "as-uid", "", "UID to act as")
	set.StringArrayVar(&c.groups, "as-group", nil, "group to act as, may be repeated")
}

// config says how to reach the API.
func (c *connection) config() (*rest.Config, error) {
	loader, err := c.loader()
	if err != nil {
		return nil, err
	}
	config, err := loader.ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, noAPI(errNoAPI)
	}
	if err != nil {
		return nil, withHint(err, "see --kubeconfig and --context")
	}
	return config, nil
}

// namespaceInForce is that of -n, else of the kubeconfig's context, else "default".
func (c *connection) namespaceInForce() (string, error) {
	if c.namespace != "" {
		return c.namespace, nil
	}
	loader, err := c.loader()
	if err != nil {
		return "", err
	}
	namespace, _, err := loader.Namespace()
	return namespace, err
}

// loader reads the kubeconfig that counts.
func (c *connection) loader() (clientcmd.ClientConfig, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = c.kubeconfig
	if c.kubeconfig == "" && c.context == "" && (c.state != "" || os.Getenv(clientcmd.RecommendedConfigPathEnvVar) == "") {
		path, err := kubeconfigOf(c.state)
		switch {
		case err == nil:
			rules.ExplicitPath = path
		case c.state != "":
			return nil, err
		}
	}
	overrides := &clientcmd.ConfigOverrides{CurrentContext: c.context}
	overrides.AuthInfo.Impersonate, overrides.AuthInfo.ImpersonateUID, overrides.AuthInfo.ImpersonateGroups = c.impersonate, c.impersonateUser, c.groups
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides), nil
}

func (c *connection) connect() (*cluster.Cluster, error) {
	config, err := c.config()
	if err != nil {
		return nil, err
	}
	return cluster.Connect(config)
}

// open connects to an API that answers, and says what it tells of the machine that it is for:
// nil of a cluster.
func (c *connection) open(ctx context.Context) (*cluster.Cluster, *install.Local, error) {
	api, err := c.connect()
	if err != nil {
		return nil, nil, err
	}
	if _, err := api.Reach(ctx); err != nil {
		return nil, nil, reachable(err)
	}
	machine, err := api.Local(ctx)
	return api, machine, err
}

// errNoAPI means that nothing says where an API is.
var errNoAPI = errors.New("there is no Kubernetes API to talk to")

func noAPI(err error) error {
	return withHint(err, "start a mesh on this machine with lateen up --pods, or name a cluster: --kubeconfig FILE, $KUBECONFIG")
}

// reachable turns an API that is away into an error with a hint.
func reachable(err error) error {
	if errors.Is(err, cluster.ErrAway) {
		return noAPI(err)
	}
	return err
}
