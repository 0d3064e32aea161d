package agent

import (
	"cmp"
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lateen-mesh/lateen/wellknown"
)

// A Proxy runs a proxy with Envoy's arguments, in this process, until ctx ends: then it ends at
// once. It returns before only when something is wrong, or when the proxy was told to quit.
type Proxy func(ctx context.Context, args []string) error

// proxyFlags are those of `pilot-agent proxy`.
type proxyFlags struct {
	kind                                                    string // sidecar, router
	domain, serviceCluster, level, componentLevel, logLevel string
	meshConfig, outlierLog, proxy                           string
	logJSON                                                 bool
	concurrency                                             int
	config, podInfo, sockets, override                      string
	identity, resolvConf, token                             string
}

// newProxyCommand is `pilot-agent proxy`.
func newProxyCommand(run Proxy) *cobra.Command {
	var f proxyFlags
	cmd := &cobra.Command{
		Use: "proxy [sidecar|router]", Short: "Run the proxy of this pod",
		Args: cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs), ValidArgs: []string{"sidecar", "router"},
		RunE: func(cmd *cobra.Command, args []string) error {
			f.kind = cmp.Or(strings.Join(args, ""), "sidecar")
			return f.run(cmd.Context(), run)
		},
	}
	set := cmd.Flags()
	set.StringVar(&f.domain, "domain", "", "DNS domain of the pod's namespace: NAMESPACE.svc.DOMAIN")
	set.StringVar(&f.serviceCluster, "serviceCluster", "", "name of the workload in stats and spans (default from the pod)")
	set.StringVar(&f.level, "proxyLogLevel", "warning", "log level of the proxy")
	set.StringVar(&f.componentLevel, "proxyComponentLogLevel", "misc:error", "log levels of the proxy's components")
	set.StringVar(&f.logLevel, "log_output_level", "default:info", "log levels of the agent")
	set.BoolVar(&f.logJSON, "log_as_json", false, "write the agent's log as JSON")
	set.IntVar(&f.concurrency, "concurrency", 0, "worker threads of the proxy; 0 is as the configuration says")
	set.StringVar(&f.meshConfig, "meshConfig", "/etc/istio/config/mesh", "file with the mesh's configuration, of which defaultConfig counts; it may be absent")
	set.StringVar(&f.outlierLog, "outlierLogPath", "", "file for the log of ejected hosts")
	set.StringVar(&f.proxy, "proxy", getenv("LATEEN_PROXY"), "program of another proxy with Envoy's flags, instead of the one in this process")
	set.StringVar(&f.config, "configPath", getenv("PROXY_CONFIG_DIR"), "directory for the bootstrap and the proxy's socket (default as the configuration says)")
	set.StringVar(&f.podInfo, "podInfo", "/etc/istio/pod", "directory with the pod's labels and annotations, as the downward API writes them")
	set.StringVar(&f.sockets, "sockets", wellknown.SocketDirectory, "directory with xds.sock, the control plane's, and outside.sock, the engine's")
	set.StringVar(&f.override, "bootstrapOverride", getenv("ISTIO_BOOTSTRAP_OVERRIDE"), "file that is merged over the bootstrap")
	set.StringVar(&f.identity, "identity", identityDirectory, "directory of the socket on which the agent serves certificates")
	set.StringVar(&f.token, "token", tokenFile, "file with the token by which the control plane knows the pod")
	set.StringVar(&f.resolvConf, "resolvConf", resolvConf, "file that names the servers and search domains of DNS")
	ignored(cmd)
	return cmd
}

// ignored are flags of the original that change nothing here: manifests have them.
func ignored(cmd *cobra.Command) {
	set := cmd.Flags()
	for _, name := range []string{"templateFile", "tokenManagerPlugin", "log_target", "log_caller", "log_stacktrace_level"} {
		set.String(name, "", "accepted, no effect")
		_ = set.MarkHidden(name)
	}
	set.Int("stsPort", 0, "accepted, no effect")
	_ = set.MarkHidden("stsPort")
	for _, name := range []string{"profiling", "vklog"} {
		set.Bool(name, false, "accepted, no effect")
		_ = set.MarkHidden(name)
	}
}
