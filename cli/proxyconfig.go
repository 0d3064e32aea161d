package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"

	"github.com/lateen-mesh/lateen/cli/dump"
	"github.com/lateen-mesh/lateen/install/cluster"
	"github.com/lateen-mesh/lateen/wellknown"
)

// A proxyConfig is the flags that the commands of proxy-config have in common.
type proxyConfig struct {
	connection
	file, form string
	adminPort  int
}

// newProxyConfig is `proxy-config`: what a proxy has, by its own word.
func newProxyConfig() *cobra.Command {
	p := &proxyConfig{}
	cmd := &cobra.Command{
		Use: "proxy-config", Aliases: []string{"pc"}, Short: "Show the configuration that a proxy has",
		Long: `Show the configuration that a proxy has: of a pod, POD[.NAMESPACE], of the first ready
pod of a workload or service, TYPE/NAME[.NAMESPACE], or of a dump that was saved, -f FILE.`,
		Example: `  istioctl proxy-config listener deploy/productpage-v1 --port 15006
  istioctl proxy-config route istio-ingressgateway-6d9f-x2k.istio-system --name http.80 -o json
  kubectl exec POD -c istio-proxy -- curl -s localhost:15000/config_dump?include_eds | istioctl proxy-config all -f -`,
		Args: cobra.ArbitraryArgs, RunE: noCommand,
	}
	set := cmd.PersistentFlags()
	p.add(set)
	set.StringVarP(&p.form, "output", "o", "short", "json, yaml or short")
	set.IntVar(&p.adminPort, "proxy-admin-port", wellknown.ProxyAdminPort, "port of the proxy's admin pages")
	cmd.AddCommand(p.all(), p.bootstrap(), p.clusters(), p.endpoints(), p.eds(), p.listeners(), p.log(), p.routes(), p.secrets(), p.extensions(), p.roots())
	return cmd
}

const (
	dumpPage    = "/config_dump"
	dumpEDSPage = "/config_dump?include_eds"
	hostsPage   = "/clusters?format=json"
)

// show makes a command that prints a list of what a page tells. Flags are added to its set.
func (p *proxyConfig) show(cmd *cobra.Command, page string, print func(w io.Writer, text []byte) error) *cobra.Command {
	name := cmd.Name()
	cmd.Use = name + " [POD[.NAMESPACE] | TYPE/NAME[.NAMESPACE]]"
	cmd.Args = arguments(cobra.MaximumNArgs(1))
	cmd.Flags().StringVarP(&p.file, "file", "f", "", "file with the proxy's "+page+", \"-\" is standard input")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := dump.CheckForm(p.form); err != nil {
			return wrongUsage(err, "see: "+cmd.CommandPath()+" --help")
		}
		text, err := p.page(cmd, args, page)
		if err != nil {
			return err
		}
		return print(cmd.OutOrStdout(), text)
	}
	return cmd
}

// list prints one of the lists of a configuration dump.
func (p *proxyConfig) list(cmd *cobra.Command, page string, of func(*dump.Dump) (*dump.List, error)) *cobra.Command {
	return p.show(cmd, page, func(w io.Writer, text []byte) error {
		d, err := dump.Parse(text)
		if err != nil {
			return err
		}
		l, err := of(d)
		if err != nil {
			return err
		}
		return l.Write(w, p.form)
	})
}

// page is what the file of -f holds, else what a proxy answers.
func (p *proxyConfig) page(cmd *cobra.Command, args []string, page string) ([]byte, error) {
	if p.file != "" {
		if len(args) > 0 {
			return nil, wrongUsage(fmt.Errorf("%s takes a pod or --file, not both", cmd.Name()), "")
		}
		return readUpTo(cmd.InOrStdin(), p.file, dump.MaxSize)
	}
	if len(args) == 0 {
		return nil, wrongUsage(fmt.Errorf("%s requires pod name or --file parameter", cmd.Name()), "for example: "+cmd.CommandPath()+" deploy/productpage-v1")
	}
	ctx := cmd.Context()
	api, pod, err := p.pod(ctx, args[0])
	if err != nil {
		return nil, err
	}
	return p.ask(ctx, api, pod, http.MethodGet, page)
}

// ask gets a page of the proxy of a pod.
func (p *proxyConfig) ask(ctx context.Context, api *cluster.Cluster, pod *corev1.Pod, method, page string) ([]byte, error) {
	text, err := api.Page(ctx, pod, p.adminPort, method, page, dump.MaxSize)
	if err != nil {
		return nil, withHint(fmt.Errorf("failed to execute command on %s.%s sidecar: %w", pod.Name, pod.Namespace, err),
			"does the pod have a proxy? kubectl get pod shows it among its containers; --proxy-admin-port says where it listens")
	}
	return text, nil
}

func (p *proxyConfig) all() *cobra.Command {
	var a dump.All
	verbose, port, address := true, 0, ""
	cmd := p.show(&cobra.Command{Use: "all", Aliases: []string{"a"}, Short: "Show all of the configuration"}, dumpEDSPage, func(w io.Writer, text []byte) error {
		d, err := dump.Parse(text)
		if err != nil {
			return err
		}
		a.Brief = !verbose
		a.Clusters.Port, a.Listeners.Port = port, port
		a.Listeners.Address = address
		return d.WriteAll(w, p.form, a, time.Now())
	})
	set := cmd.Flags()
	clusterFlags(set, &a.Clusters)
	listenerType(set, &a.Listeners.Type)
	set.IntVar(&port, "port", 0, "only clusters and listeners of this port")
	set.StringVar(&address, "address", "", "only listeners of this address")
	set.StringVar(&a.Routes.Name, "name", "", "only routes of this name")
	set.BoolVar(&verbose, "verbose", true, "a row for each filter chain and route")
	set.BoolVar(&a.Headers, "with-headers", false, "a line before each table says what it is")
	return cmd
}

func clusterFlags(set *pflag.FlagSet, f *dump.ClusterFilter) {
	set.StringVar(&f.FQDN, "fqdn", "", "only clusters of this service")
	set.StringVar(&f.Direction, "direction", "", "only clusters of this direction: inbound or outbound")
	set.StringVar(&f.Subset, "subset", "", "only clusters of this subset")
}

func listenerType(set *pflag.FlagSet, t *string) {
	set.StringVar(t, "type", "", "only listeners of this type: HTTP, TCP, HTTP+TCP or UNKNOWN")
}

func (p *proxyConfig) bootstrap() *cobra.Command {
	form := "json"
	cmd := p.list(&cobra.Command{Use: "bootstrap", Aliases: []string{"b"}, Short: "Show what the proxy was started with"}, dumpPage, (*dump.Dump).Bootstrap)
	cmd.Flags().StringVarP(&form, "output", "o", "json", "json, yaml or short, which are the versions")
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		p.form = form
		return run(cmd, args)
	}
	return cmd
}

func (p *proxyConfig) clusters() *cobra.Command {
	var f dump.ClusterFilter
	cmd := p.list(&cobra.Command{Use: "cluster", Aliases: []string{"clusters", "c"}, Short: "Show clusters"}, dumpPage,
		func(d *dump.Dump) (*dump.List, error) { return d.Clusters(f) })
	clusterFlags(cmd.Flags(), &f)
	cmd.Flags().IntVar(&f.Port, "port", 0, "only clusters of this port")
	return cmd
}

func (p *proxyConfig) listeners() *cobra.Command {
	var f dump.ListenerFilter
	verbose := true
	cmd := p.list(&cobra.Command{Use: "listener", Aliases: []string{"listeners", "l"}, Short: "Show listeners"}, dumpPage,
		func(d *dump.Dump) (*dump.List, error) { return d.Listeners(f, !verbose) })
	listenerType(cmd.Flags(), &f.Type)
	cmd.Flags().StringVar(&f.Address, "address", "", "only listeners of this address")
	cmd.Flags().IntVar(&f.Port, "port", 0, "only listeners of this port")
	cmd.Flags().BoolVar(&verbose, "verbose", true, "a row for each filter chain")
	return cmd
}

func (p *proxyConfig) routes() *cobra.Command {
	var f dump.RouteFilter
	verbose := true
	cmd := p.list(&cobra.Command{Use: "route", Aliases: []string{"routes", "r"}, Short: "Show routes"}, dumpPage,
		func(d *dump.Dump) (*dump.List, error) { return d.Routes(f, !verbose) })
	cmd.Flags().StringVar(&f.Name, "name", "", "only routes of this name")
	cmd.Flags().BoolVar(&verbose, "verbose", true, "a row for each route")
	return cmd
}

func (p *proxyConfig) endpoints() *cobra.Command {
	var f dump.EndpointFilter
	cmd := p.show(&cobra.Command{Use: "endpoint", Aliases: []string{"endpoints", "ep"}, Short: "Show endpoints in use, with their health"}, hostsPage,
		func(w io.Writer, text []byte) error {
			h, err := dump.ParseHosts(text)
			if err != nil {
				return err
			}
			return h.List(f).Write(w, p.form)
		})
	endpointFlags(cmd.Flags(), &f)
	return cmd
}

func (p *proxyConfig) eds() *cobra.Command {
	var f dump.EndpointFilter
	cmd := p.list(&cobra.Command{Use: "eds", Short: "Show endpoints as the control plane gave them"}, dumpEDSPage,
		func(d *dump.Dump) (*dump.List, error) { return d.Endpoints(f) })
	endpointFlags(cmd.Flags(), &f)
	return cmd
}

func endpointFlags(set *pflag.FlagSet, f *dump.EndpointFilter) {
	set.StringVar(&f.Address, "address", "", "only endpoints of this address")
	set.IntVar(&f.Port, "port", 0, "only endpoints of this port")
	set.StringVar(&f.Cluster, "cluster", "", "only endpoints of this cluster")
	set.StringVar(&f.Status, "status", "", "only endpoints of this status: healthy, unhealthy")
}

func (p *proxyConfig) secrets() *cobra.Command {
	return p.list(&cobra.Command{Use: "secret", Aliases: []string{"secrets", "s"}, Short: "Show certificates"}, dumpPage,
		func(d *dump.Dump) (*dump.List, error) { return d.Secrets(time.Now()) })
}

func (p *proxyConfig) extensions() *cobra.Command {
	return p.list(&cobra.Command{Use: "ecds", Aliases: []string{"ec"}, Short: "Show filters that came by themselves"}, dumpPage, (*dump.Dump).Extensions)
}

// roots compares what two workloads trust: they can talk only where that is the same.
func (p *proxyConfig) roots() *cobra.Command {
	return &cobra.Command{
		Use: "rootca-compare POD[.NAMESPACE] POD[.NAMESPACE]", Aliases: []string{"rc"}, Short: "Compare the roots that two workloads trust",
		Args: arguments(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			var roots [2]string
			for i, name := range args {
				text, err := p.page(cmd, []string{name}, dumpPage)
				if err != nil {
					return err
				}
				d, err := dump.Parse(text)
				if err != nil {
					return err
				}
				if roots[i], err = d.Roots(); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
			if roots[0] != roots[1] {
				return withHint(fmt.Errorf("Both [%s] and [%s] have the non identical ROOTCA, theoretically the connectivity between them is unavailable", args[0], args[1]), //nolint:staticcheck // the original's words
					"see what they are: istioctl proxy-config secret POD")
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Both [%s] and [%s] have the identical ROOTCA, theoretically the connectivity between them is available\n", args[0], args[1])
			return nil
		},
	}
}

// newAuthz is `experimental authz`.
func newAuthz() *cobra.Command {
	p := &proxyConfig{form: "short"}
	cmd := &cobra.Command{Use: "authz", Short: "See what authorization a proxy enforces", Args: cobra.ArbitraryArgs, RunE: noCommand}
	check := p.list(&cobra.Command{Use: "check", Short: "Show the AuthorizationPolicies that a proxy enforces"}, dumpPage, (*dump.Dump).Authorization)
	p.add(check.Flags())
	check.Flags().IntVar(&p.adminPort, "proxy-admin-port", wellknown.ProxyAdminPort, "port of the proxy's admin pages")
	cmd.AddCommand(check)
	return cmd
}
