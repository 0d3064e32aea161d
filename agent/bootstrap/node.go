package bootstrap

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	meshpb "istio.io/api/mesh/v1alpha1"

	"github.com/lateen-mesh/lateen/wellknown"
)

// localityLabel is the label by which a pod says where it is: REGION.ZONE.SUBZONE.
const localityLabel = "istio-locality"

// NodeJSON is the node of the bootstrap alone.
func (in Input) NodeJSON() ([]byte, error) {
	node, err := in.node()
	if err != nil {
		return nil, err
	}
	return json.Marshal(node)
}

func (in Input) node() (object, error) {
	config, err := asObject(in.Config)
	if err != nil {
		return nil, err
	}
	address := ""
	if len(in.Addresses) > 0 {
		address = in.Addresses[0]
	}
	domain := cmp.Or(in.Domain, "cluster.local")
	return object{
		"id":       cmp.Or(in.ID, fmt.Sprintf("%s~%s~%s.%s~%s.svc.%s", in.Type, address, in.Name, in.Namespace, in.Namespace, domain)),
		"cluster":  in.cluster(),
		"locality": in.locality(),
		"metadata": in.metadata(config),
	}, nil
}

func asObject(c *meshpb.ProxyConfig) (object, error) {
	out := object{}
	if c == nil {
		return out, nil
	}
	text, err := protojson.Marshal(c)
	if err == nil {
		err = json.Unmarshal(text, &out)
	}
	if err != nil {
		return nil, fmt.Errorf("proxy configuration: %w", err)
	}
	return out, nil
}

func (in Input) metadata(config object) object {
	m := object{
		"INSTANCE_IPS": strings.Join(in.Addresses, ","), "ISTIO_VERSION": Version,
		"ENVOY_STATUS_PORT": in.Health, "ENVOY_PROMETHEUS_PORT": in.Metrics,
		"METADATA_DISCOVERY": strconv.FormatBool(in.discoversWorkloads()), "PROXY_CONFIG": config,
	}
	for key, value := range map[string]string{
		"NAME": in.Name, "NAMESPACE": in.Namespace, "OUTLIER_LOG_PATH": in.OutlierLog, wellknown.PublishKey: in.Publish,
	} {
		if value != "" {
			m[key] = value
		}
	}
	for key, port := range map[string]int{"ENVOY_SECURE_METRICS_PORT": in.SecureMetrics, "ENVOY_SECURE_MERGED_METRICS_PORT": in.SecureMergedMetrics} {
		if port != 0 {
			m[key] = port
		}
	}
	if len(in.PilotSAN) > 0 {
		m["PILOT_SAN"] = in.PilotSAN
	}
	if in.Offset != 0 {
		m[wellknown.PublishOffsetKey] = strconv.Itoa(in.Offset)
	}
	if in.Mark != 0 {
		m[wellknown.MarkKey] = strconv.Itoa(in.Mark)
	}
	if in.DNS != 0 {
		key, value := in.resolvers()
		m[key] = value
	}
	in.describe(m)
	maps.Copy(m, in.Metadata)
	return m
}

// describe adds the labels and annotations.
func (in Input) describe(m object) {
	for _, static := range []map[string]string{in.StaticLabels, in.StaticAnnotations} {
		for key, value := range static {
			m[key] = value
		}
	}
	if all := in.labels(); len(all) > 0 {
		m["LABELS"] = withLocality(all)
	}
	if len(in.StaticLabels) > 0 {
		m["STATIC_LABELS"] = withLocality(in.StaticLabels)
	}
	if all := in.annotations(); len(all) > 0 {
		m["ANNOTATIONS"] = all
	}
}

// withLocality has the parts of a locality separated as everywhere else: by slashes.
func withLocality(labels map[string]string) map[string]string {
	text, ok := labels[localityLabel]
	if !ok || strings.Contains(text, "/") {
		return labels
	}
	out := maps.Clone(labels)
	out[localityLabel] = strings.ReplaceAll(text, ".", "/")
	return out
}

func (in Input) labels() map[string]string { return joined(in.Labels, in.StaticLabels) }

func (in Input) annotations() map[string]string { return joined(in.Annotations, in.StaticAnnotations) }

func joined(a, b map[string]string) map[string]string {
	out := maps.Clone(a)
	if out == nil {
		return b
	}
	maps.Copy(out, b)
	return out
}

// locality is where the pod says that it is.
func (in Input) locality() object {
	parts := strings.SplitN(withLocality(in.labels())[localityLabel], "/", 3)
	out := object{}
	for i, key := range []string{"region", "zone", "sub_zone"} {
		if i < len(parts) && parts[i] != "" {
			out[key] = parts[i]
		}
	}
	return out
}

// cluster is the proxy's own name in stats and spans.
func (in Input) cluster() string {
	labels := in.labels()
	name := cmp.Or(in.Config.GetServiceCluster(), "istio-proxy")
	canonical := cmp.Or(labels["service.istio.io/canonical-name"], name)
	switch in.Config.GetTracingServiceName() {
	case meshpb.ProxyConfig_CANONICAL_NAME_ONLY:
		return canonical
	case meshpb.ProxyConfig_CANONICAL_NAME_AND_NAMESPACE:
		return within(canonical, in.Namespace)
	default:
		return within(cmp.Or(labels["app"], name), in.Namespace)
	}
}

func within(name, namespace string) string {
	if namespace == "" || strings.Contains(name, ".") {
		return name
	}
	return name + "." + namespace
}
