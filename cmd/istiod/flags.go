package main

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/control/kube"
	"github.com/lateen-mesh/lateen/logging"
)

// flags are those of the original's pilot-discovery, with its defaults, and some of our
// own: --state, --set and --kubeSocket.
type flags struct {
	meshConfig, state             string
	configDir, set                []string
	grpc, http, monitoring, https string
	domain, clusterID, namespace  string
	levels                        string
	json                          bool
	keepInterval, keepTimeout     time.Duration
	kube                          kube.Connection
	secure                        secureFlags
}

// webhooks is the usual address of them.
const webhooks = ":15017"

func (f *flags) add(set *pflag.FlagSet) {
	set.StringArrayVar(&f.configDir, "configDir", nil, "directory or file of YAML: configuration without Kubernetes; may be repeated")
	set.StringVar(&f.kube.Kubeconfig, "kubeconfig", "", "kubeconfig of the Kubernetes API to read; without it and --configDir that of the cluster around, if there is one")
	set.StringVar(&f.kube.Socket, "kubeSocket", "", "unix socket of the Kubernetes API to read, in place of --kubeconfig")
	set.Float32Var(&f.kube.QPS, "kubernetesApiQPS", 80, "requests per second to the Kubernetes API")
	set.IntVar(&f.kube.Burst, "kubernetesApiBurst", 160, "requests at once to the Kubernetes API")
	set.StringVar(&f.meshConfig, "meshConfig", "/etc/istio/config/mesh", "file with the MeshConfig, watched; the defaults where it does not exist")
	set.StringArrayVar(&f.set, "set", nil, "meshConfig.FIELD=VALUE over the MeshConfig, may be repeated")
	set.StringVar(&f.state, "state", "", "directory that keeps the last good configuration over a restart")
	set.StringVar(&f.grpc, "grpcAddr", ":15010", "discovery service in plain text, HOST:PORT or unix:PATH, several with a comma between; empty is off")
	set.StringVar(&f.http, "httpAddr", ":8080", "health and debug pages, HOST:PORT or unix:PATH, several with a comma between; empty is off")
	set.StringVar(&f.https, "httpsAddr", webhooks, "webhooks (/inject), which a Kubernetes API calls; empty is off, as is the default without such an API")
	set.StringVar(&f.monitoring, "monitoringAddr", ":15014", "metrics, version and debug pages; empty is off")
	set.StringVar(&f.domain, "domain", "cluster.local", "DNS domain of services")
	set.StringVar(&f.clusterID, "clusterID", envOr("CLUSTER_ID", "Kubernetes"), "name of the cluster that this control plane runs in")
	set.StringVarP(&f.namespace, "namespace", "n", envOr("POD_NAMESPACE", "istio-system"), "namespace of the control plane")
	set.StringVar(&f.levels, "log_output_level", "default:info", "SCOPE:LEVEL,… with levels none, fatal, error, warn, info, debug")
	set.BoolVar(&f.json, "log_as_json", false, "log lines as JSON")
	set.DurationVar(&f.keepInterval, "keepaliveInterval", 30*time.Second, "time between pings to a silent proxy")
	set.DurationVar(&f.keepTimeout, "keepaliveTimeout", 10*time.Second, "time a proxy has to answer a ping")
	f.secure.add(set)
	f.addUnserved(set)
}

// addUnserved takes the flags that manifests of the original give and whose feature
// is not there yet. Giving one is said in the log and changes nothing.
func (f *flags) addUnserved(set *pflag.FlagSet) {
	for name, value := range map[string]string{
		"networksConfig": "/etc/istio/config/meshNetworks", "clusterRegistriesNamespace": "istio-system",
		"cniNamespace": "istio-system", "ctrlz_address": "localhost", "caCertFile": "",
		"tls-min-version": "", "log_target": "stdout", "log_stacktrace_level": "default:none", "log_caller": "", "vklog": "0",
	} {
		set.String(name, value, "(accepted, no effect yet)")
	}
	set.StringSlice("registries", []string{"Kubernetes"}, "(accepted, no effect yet)")
	set.StringSlice("clusterAliases", nil, "(accepted, no effect yet)")
	set.StringSlice("tls-cipher-suites", nil, "(accepted, no effect yet)")
	set.Uint16("ctrlz_port", 9876, "(accepted, no effect yet)")
	set.Bool("profile", true, "(accepted, no effect yet)")
	set.Duration("shutdownDuration", 10*time.Second, "(accepted, no effect yet)")
	set.Duration("keepaliveMaxServerConnectionAge", 30*time.Minute, "(accepted, no effect yet)")
}

// warn names what was asked for and is not done.
func (f *flags) warn(set *pflag.FlagSet, log *slog.Logger) {
	if _, err := os.Stat(f.meshConfig); err != nil && f.meshConfig != "" && set.Changed("meshConfig") {
		log.Warn("no MeshConfig: the defaults are in force until there is one", "error", err)
	}
	set.Visit(func(given *pflag.Flag) {
		if len(given.Usage) > 0 && given.Usage[0] == '(' && given.Value.String() != "" {
			log.Warn("flag has no effect yet", "flag", "--"+given.Name)
		}
	})
}

func (f *flags) options(log *logging.Log) (control.Options, error) {
	o := control.Options{
		Paths: f.configDir, MeshConfig: f.meshConfig, Set: f.set, State: f.state, GRPC: f.grpc, HTTP: f.http, Monitoring: f.monitoring,
		HTTPS: f.https, Revision: os.Getenv("REVISION"), Domain: f.domain, ClusterID: f.clusterID, RootNamespace: f.namespace, Log: log,
	}
	if f.kube.Kubeconfig != "" || f.kube.Socket != "" || len(f.configDir) == 0 && os.Getenv("KUBERNETES_SERVICE_HOST") != "" {
		o.Kubernetes = &f.kube
	} else if f.https == webhooks {
		o.HTTPS = "" // nobody would call
	}
	o.AutoRegistration.Off = os.Getenv("PILOT_ENABLE_WORKLOAD_ENTRY_AUTOREGISTRATION") == "false"
	o.AutoRegistration.Unchecked = os.Getenv("PILOT_ENABLE_WORKLOAD_ENTRY_HEALTHCHECKS") == "false"
	o.ScopeGateways = os.Getenv("PILOT_SCOPE_GATEWAY_TO_NAMESPACE") == "true"
	o.Origination.Unverified = os.Getenv("VERIFY_CERTIFICATE_AT_CLIENT") == "false"
	o.Origination.NoAutoSNI = os.Getenv("ENABLE_AUTO_SNI") == "false"
	o.NoDebug = os.Getenv("ENABLE_DEBUG_ON_HTTP") == "false"
	o.WriteStatus = os.Getenv("PILOT_ENABLE_STATUS") == "true"
	o.SeveralAuthorizers = os.Getenv("PILOT_ENABLE_MULTIPLE_CUSTOM_AUTHZ_PROVIDERS") == "true"
	o.Tokens.Fetcher = os.Getenv("PILOT_JWT_ENABLE_REMOTE_JWKS")
	for text := range strings.FieldsFuncSeq(os.Getenv("BLOCKED_CIDRS_IN_JWKS_URIS"), func(r rune) bool { return r == ',' || r == ' ' }) {
		block, err := netip.ParsePrefix(text)
		if err != nil {
			return o, fmt.Errorf("environment variable BLOCKED_CIDRS_IN_JWKS_URIS: %w", err)
		}
		o.Tokens.Blocked = append(o.Tokens.Blocked, block)
	}
	o.KeepAlive.Interval, o.KeepAlive.Timeout = f.keepInterval, f.keepTimeout
	if err := f.secure.options(&o); err != nil {
		return o, err
	}
	if text := os.Getenv("PILOT_TRACE_SAMPLING"); text != "" {
		percent, err := strconv.ParseFloat(text, 64)
		if err != nil || !(percent >= 0 && percent <= 100) {
			return o, fmt.Errorf("environment variable PILOT_TRACE_SAMPLING: %q is not a percentage", text)
		}
		o.TraceSampling = &percent
	}
	for name, target := range map[string]*time.Duration{
		"PILOT_DEBOUNCE_AFTER": &o.Debounce.After, "PILOT_DEBOUNCE_MAX": &o.Debounce.Max,
		"PILOT_WORKLOAD_ENTRY_GRACE_PERIOD": &o.AutoRegistration.Grace, "PILOT_JWT_PUB_KEY_REFRESH_INTERVAL": &o.Tokens.Refresh,
	} {
		text := os.Getenv(name)
		if text == "" {
			continue
		}
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 {
			return o, fmt.Errorf("environment variable %s: %q is not a duration", name, text)
		}
		*target = d
	}
	return o, nil
}

func envOr(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}
