package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/lateen-mesh/lateen/cli/dump"
	"github.com/lateen-mesh/lateen/install/cluster"
	"github.com/lateen-mesh/lateen/wellknown"
)

// A proxyStatus is the flags of proxy-status.
type proxyStatus struct {
	proxyConfig
	revision  string
	verbosity int
}

// newProxyStatus is `proxy-status`: which proxies have what their control plane sent.
func newProxyStatus() *cobra.Command {
	p := &proxyStatus{}
	cmd := &cobra.Command{
		Use: "proxy-status [POD[.NAMESPACE] | TYPE/NAME[.NAMESPACE]]", Aliases: []string{"ps"}, Short: "Show which proxies have what was sent to them",
		Long: `Show all proxies that get their configuration from a control plane, and of one, how
what it has differs from what the control plane sends.

With -v 1 each type of resource has a column:

  SYNCED     the proxy has taken what was last sent
  NOT SENT   it asked, and there was nothing to send yet
  STALE      it was sent something and has not answered
  ERROR      it has refused something, and keeps what it had; -o json says why
  IGNORED    it did not ask for any`,
		Args: arguments(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch p.form {
			case "table", "json", "yaml":
			default:
				return wrongUsage(fmt.Errorf("output format %q: must be one of table|json|yaml", p.form), "")
			}
			if len(args) == 0 && p.file == "" {
				return p.overview(cmd)
			}
			if len(args) == 0 {
				return wrongUsage(errors.New("--file is the dump of a proxy: name its pod"), "")
			}
			return p.compare(cmd, args)
		},
	}
	set := cmd.Flags()
	p.add(set)
	set.StringVarP(&p.form, "output", "o", "table", "table, json or yaml")
	set.StringVarP(&p.file, "file", "f", "", "file with the proxy's /config_dump, \"-\" is standard input")
	set.IntVar(&p.adminPort, "proxy-admin-port", wellknown.ProxyAdminPort, "port of the proxy's admin pages")
	set.StringVarP(&p.revision, "revision", "r", "", "only control planes of this revision")
	set.IntVarP(&p.verbosity, "verbosity", "v", 0, "1 shows the state of each type")
	return cmd
}

// controlPods are the running control planes; none is an error.
func (p *proxyStatus) controlPods(ctx context.Context) (*cluster.Cluster, []*corev1.Pod, error) {
	api, _, err := p.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	pods, err := api.ControlPods(ctx, p.istioNamespace, p.revision)
	if err == nil && len(pods) == 0 {
		err = withHint(fmt.Errorf("no running Istio pods in namespace %q", p.istioNamespace), "is the mesh installed there, and is that the revision? -i NAMESPACE, -r REVISION")
	}
	return api, pods, err
}

func (p *proxyStatus) overview(cmd *cobra.Command) error {
	ctx := cmd.Context()
	api, pods, err := p.controlPods(ctx)
	if err != nil {
		return err
	}
	var all []dump.SyncedProxy
	for _, pod := range pods {
		text, err := api.Page(ctx, pod, cluster.MonitoringPort, http.MethodGet, "/debug/syncz", dump.MaxSize)
		if err != nil {
			return err
		}
		list, err := dump.ParseSync(pod.Name, text)
		if err != nil {
			return err
		}
		all = append(all, list...)
	}
	return dump.WriteSync(cmd.OutOrStdout(), p.form, p.verbosity > 0, all)
}

// compare shows how what a proxy has differs from what its control plane sends.
func (p *proxyStatus) compare(cmd *cobra.Command, args []string) error {
	ctx := cmd.Context()
	api, planes, err := p.controlPods(ctx)
	if err != nil {
		return err
	}
	namespace, err := p.namespaceInForce()
	if err != nil {
		return err
	}
	pod, err := findPod(ctx, api.API(), args[0], namespace)
	if err != nil {
		return err
	}
	sent, err := p.sent(ctx, api, planes, pod)
	if err != nil {
		return err
	}
	var text []byte
	if p.file != "" {
		text, err = readUpTo(cmd.InOrStdin(), p.file, dump.MaxSize)
	} else {
		text, err = p.ask(ctx, api, pod, http.MethodGet, dumpPage)
	}
	if err != nil {
		return err
	}
	has, err := dump.Parse(text)
	if err != nil {
		return err
	}
	return dump.Compare(cmd.OutOrStdout(), sent, has)
}

// sent is what the control plane that a proxy is connected to sends it.
func (p *proxyStatus) sent(ctx context.Context, api *cluster.Cluster, planes []*corev1.Pod, pod *corev1.Pod) (*dump.Dump, error) {
	name := pod.Name + "." + pod.Namespace
	for _, plane := range planes {
		text, err := api.Page(ctx, plane, cluster.MonitoringPort, http.MethodGet, "/debug/config_dump?proxyID="+url.QueryEscape(name), dump.MaxSize)
		if page, ok := errors.AsType[*cluster.PageError](err); ok && page.Code == http.StatusNotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		return dump.Parse(text)
	}
	return nil, withHint(fmt.Errorf("proxy %s is connected to no control plane", name), "istioctl proxy-status shows those that are; kubectl logs "+pod.Name+" -c istio-proxy may say why")
}
