package agent

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	meshpb "istio.io/api/mesh/v1alpha1"
	"sigs.k8s.io/yaml"

	"github.com/lateen-mesh/lateen/agent/bootstrap"
	"github.com/lateen-mesh/lateen/wellknown"
)

// maxConfig bounds a file that is read.
const maxConfig = 4 << 20

// configAnnotation has a pod's own part of the proxy's configuration.
const configAnnotation = "proxy.istio.io/config"

// statusAnnotation is where the agent answers, over the configuration.
const statusAnnotation = "status.sidecar.istio.io/port"

func getenv(name string) string { return os.Getenv(name) }

// A pod is what is known of the pod that the agent runs in.
type pod struct {
	config *meshpb.ProxyConfig
	input  bootstrap.Input
	dir    string // of the proxy's files
}

// env is a variable of the environment or of the configuration's proxyMetadata, which an
// injector puts into the environment.
func (p *pod) env(name string) string {
	if v, ok := os.LookupEnv(name); ok {
		return v
	}
	return p.config.GetProxyMetadata()[name]
}

// read finds out where the agent runs.
func (f *proxyFlags) read(log *slog.Logger) (*pod, error) {
	labels, err := readPairs(filepath.Join(f.podInfo, "labels"))
	if err != nil {
		return nil, err
	}
	annotations, err := readPairs(filepath.Join(f.podInfo, "annotations"))
	if err != nil {
		return nil, err
	}
	delete(annotations, "kubectl.kubernetes.io/last-applied-configuration") // long, and about nothing here
	p := &pod{}
	if p.config, err = f.proxyConfig(annotations[configAnnotation], log); err != nil {
		return nil, err
	}
	if port, err := strconv.ParseUint(annotations[statusAnnotation], 10, 16); err == nil && port > 0 { // injection has judged it
		p.config.StatusPort = int32(port)
	}
	if p.dir = f.config; p.dir == "" {
		p.dir = filepath.Join("/", p.config.GetConfigPath())
	}
	p.input = bootstrap.Input{
		Type: f.kind, Config: p.config, Labels: labels, Annotations: annotations, Bind: "0.0.0.0",
		Metadata: map[string]any{"WORKLOAD_IDENTITY_SOCKET_FILE": identitySocket, "ENVOY_SKIP_DEPRECATED_LOGS": "true"},
		Agent:    int(p.config.GetStatusPort()), Admin: int(p.config.GetProxyAdminPort()),
		Health: wellknown.ProxyStatusPort, Metrics: wellknown.ProxyMetricsPort, OutlierLog: f.outlierLog, Mark: f.proxyMark(),
		XDSSocket: filepath.Join(p.dir, "XDS"),
	}
	if _, domain, ok := strings.Cut(f.domain, ".svc."); ok {
		p.input.Domain = domain
	}
	if err := p.readEnvironment(); err != nil {
		return nil, err
	}
	for name, v := range map[string]string{"POD_NAME": p.input.Name, "POD_NAMESPACE": p.input.Namespace, "INSTANCE_IP": strings.Join(p.input.Addresses, "")} {
		if v == "" {
			return nil, fmt.Errorf("environment variable %s is not set: the pod's manifest takes it from metadata.name, metadata.namespace or status.podIP", name)
		}
	}
	return p, nil
}

func (p *pod) readEnvironment() error {
	env := os.Environ()
	for name, value := range p.config.GetProxyMetadata() {
		if _, there := os.LookupEnv(name); !there {
			env = append(env, name+"="+value)
		}
	}
	for _, name := range []string{"SERVICE_ACCOUNT", "NODE_NAME", "EXIT_ON_ZERO_ACTIVE_CONNECTIONS"} {
		if v := p.env(name); v != "" {
			p.input.Metadata[name] = v
		}
	}
	p.input.Certificates = p.env("OUTPUT_CERTS")
	p.input.Whole = p.env("ISTIO_DELTA_XDS") == "false"
	return p.input.ReadEnvironment(env)
}

// defaultConfig is what the original has where nothing is said.
const defaultConfig = `{"configPath": "./etc/istio/proxy", "serviceCluster": "istio-proxy", "drainDuration": "45s", "terminationDrainDuration": "5s",
	"discoveryAddress": "istiod.istio-system.svc:15012", "proxyAdminPort": 15000, "statNameLength": 189, "statusPort": 15020}`

// proxyConfig is the configuration of the proxy: the defaults, the mesh's, that of the
// environment and of the annotation, and flags. A later one replaces a field whole, but for
// proxyMetadata and runtimeValues, whose entries are joined.
func (f *proxyFlags) proxyConfig(annotation string, log *slog.Logger) (*meshpb.ProxyConfig, error) {
	mesh, err := f.meshDefaults()
	if err != nil {
		return nil, err
	}
	all := map[string]any{}
	for _, source := range []struct{ name, text string }{
		{"defaults", defaultConfig}, {f.meshConfig, mesh}, {"environment variable PROXY_CONFIG", getenv("PROXY_CONFIG")}, {"annotation " + configAnnotation, annotation},
	} {
		var fields map[string]any
		if err := yaml.Unmarshal([]byte(source.text), &fields); err != nil {
			return nil, fmt.Errorf("%s: %w", source.name, err)
		}
		replace(all, fields)
	}
	if f.serviceCluster != "" {
		all["serviceCluster"] = f.serviceCluster
	}
	if f.concurrency > 0 {
		all["concurrency"] = f.concurrency
	}
	return parseConfig(all, log)
}

// replace puts fields into all.
func replace(all, fields map[string]any) {
	for key, value := range fields {
		if key == "proxyMetadata" || key == "runtimeValues" {
			before, _ := all[key].(map[string]any)
			after, _ := value.(map[string]any)
			if before != nil && after != nil {
				joined := maps.Clone(before)
				maps.Copy(joined, after)
				value = joined
			}
		}
		all[key] = value
	}
}

// parseConfig reads the fields; those that are not known are named in the log.
func parseConfig(fields map[string]any, log *slog.Logger) (*meshpb.ProxyConfig, error) {
	text, err := yaml.Marshal(fields)
	if err == nil {
		text, err = yaml.YAMLToJSON(text)
	}
	if err != nil {
		return nil, err
	}
	c := &meshpb.ProxyConfig{}
	strict := protojson.Unmarshal(text, c)
	if strict == nil {
		return c, nil
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, c); err != nil {
		return nil, fmt.Errorf("proxy configuration: %w", err)
	}
	log.Warn("part of the proxy's configuration has no effect", "reason", strict)
	return c, nil
}

// meshDefaults is field defaultConfig of the mesh's configuration, "" if there is no file.
func (f *proxyFlags) meshDefaults() (string, error) {
	text, err := readFile(f.meshConfig)
	if err != nil || text == nil {
		return "", err
	}
	var mesh struct {
		DefaultConfig map[string]any `json:"defaultConfig"`
	}
	if err := yaml.Unmarshal(text, &mesh); err != nil {
		return "", fmt.Errorf("%s: %w", f.meshConfig, err)
	}
	out, err := yaml.Marshal(mesh.DefaultConfig)
	return string(out), err
}

// readFile reads a file of limited size; one that is absent is nil.
func readFile(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && info.Size() > maxConfig {
		err = fmt.Errorf("%s has more than %d bytes", path, maxConfig)
	}
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path)
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
	lines.Buffer(nil, maxConfig) // the configuration that kubectl keeps may be long
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
