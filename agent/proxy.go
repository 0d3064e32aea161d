package agent

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lateen-mesh/lateen/wellknown"
)

// bootstrapName is how the bootstrap's file is called in the proxy's directory, as
// users of the original know it.
const bootstrapName = "envoy-rev.json"

// A Proxy runs a proxy with Envoy's arguments, in this process, until a signal ends it.
type Proxy func(args []string) error

// proxyFlags are those of `pilot-agent proxy`.
type proxyFlags struct {
	domain, serviceCluster, level, componentLevel, logLevel string
	concurrency                                             int
	config, podInfo, sockets                                string
}

// newProxyCommand is `pilot-agent proxy sidecar|router`: it writes the bootstrap for the pod
// it runs in and becomes the proxy.
func newProxyCommand(run Proxy) *cobra.Command {
	var f proxyFlags
	cmd := &cobra.Command{
		Use: "proxy [sidecar|router]", Short: "Run the proxy of this pod",
		Args: cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs), ValidArgs: []string{"sidecar", "router"},
		RunE: func(_ *cobra.Command, args []string) error {
			b, err := f.bootstrap(cmp.Or(strings.Join(args, ""), "sidecar"))
			if err != nil {
				return err
			}
			text, err := b.JSON()
			if err != nil {
				return err
			}
			path := filepath.Join(f.config, bootstrapName)
			if err := os.WriteFile(path, text, 0o600); err != nil {
				return fmt.Errorf("bootstrap: %w", err)
			}
			return run(f.arguments(path))
		},
	}
	set := cmd.Flags()
	set.StringVar(&f.domain, "domain", "", "DNS domain of the pod's namespace: NAMESPACE.svc.DOMAIN")
	set.StringVar(&f.serviceCluster, "serviceCluster", "", "name of the workload in stats and spans (default from the pod)")
	set.StringVar(&f.level, "proxyLogLevel", "warning", "log level of the proxy")
	set.StringVar(&f.componentLevel, "proxyComponentLogLevel", "misc:error", "log levels of the proxy's components")
	set.StringVar(&f.logLevel, "log_output_level", "default:info", "log levels of the agent")
	set.IntVar(&f.concurrency, "concurrency", 0, "worker threads of the proxy; 0 is the number of CPUs")
	set.StringVar(&f.config, "configPath", cmp.Or(os.Getenv("PROXY_CONFIG_DIR"), "/etc/istio/proxy"), "directory for the bootstrap")
	set.StringVar(&f.podInfo, "podInfo", "/etc/istio/pod", "directory with the pod's labels and annotations, as the downward API writes them")
	set.StringVar(&f.sockets, "sockets", "/var/run/lateen", "directory with xds.sock, the control plane's, and outside.sock, the engine's")
	return cmd
}

// bootstrap reads who this pod is from the environment and the downward API's files.
func (f *proxyFlags) bootstrap(kind string) (Bootstrap, error) {
	b := Bootstrap{Type: kind, Bind: "0.0.0.0", Name: os.Getenv("POD_NAME"), Namespace: os.Getenv("POD_NAMESPACE"), Address: os.Getenv("INSTANCE_IP"),
		ServiceAccount: os.Getenv("SERVICE_ACCOUNT"), XDSSocket: filepath.Join(f.sockets, "xds.sock"),
		Admin: wellknown.ProxyAdminPort, Health: wellknown.ProxyStatusPort, Metrics: wellknown.ProxyMetricsPort}
	for name, v := range map[string]string{"POD_NAME": b.Name, "POD_NAMESPACE": b.Namespace, "INSTANCE_IP": b.Address} {
		if v == "" {
			return b, fmt.Errorf("environment variable %s is not set: the pod's manifest takes it from metadata.name, metadata.namespace or status.podIP", name)
		}
	}
	var err error
	if b.Labels, err = readPairs(filepath.Join(f.podInfo, "labels")); err != nil {
		return b, err
	}
	if b.Annotations, err = readPairs(filepath.Join(f.podInfo, "annotations")); err != nil {
		return b, err
	}
	b.Workload = cmp.Or(f.serviceCluster, os.Getenv("ISTIO_META_WORKLOAD_NAME"), b.Labels["app"], b.Name)
	if _, domain, ok := strings.Cut(f.domain, ".svc."); ok {
		b.Domain = domain
	}
	return b, nil
}

// arguments are the proxy's. The engine's socket is used where there is one.
func (f *proxyFlags) arguments(bootstrap string) []string {
	args := []string{"-c", bootstrap, "-l", f.level, "--component-log-level", f.componentLevel,
		"--file-flush-interval-msec", "1000", "--drain-time-s", "45", "--use-dynamic-base-id"}
	if f.concurrency > 0 {
		args = append(args, "--concurrency", strconv.Itoa(f.concurrency))
	}
	if socket := filepath.Join(f.sockets, "outside.sock"); exists(socket) {
		args = append(args, "--publish-socket", socket, "--dial-socket", socket)
	}
	return args
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// readPairs reads labels or annotations as the downward API writes them: one
// KEY="VALUE" a line. No file is no pairs.
func readPairs(path string) (map[string]string, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	pairs := map[string]string{}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		key, quoted, ok := strings.Cut(lines.Text(), "=")
		value, err := strconv.Unquote(quoted)
		if !ok || err != nil {
			return nil, fmt.Errorf("%s: %q is not KEY=\"VALUE\"", path, key)
		}
		pairs[key] = value
	}
	return pairs, lines.Err()
}
