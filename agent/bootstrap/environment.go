package bootstrap

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Prefixes of the variables that become metadata of the node.
const (
	metaPrefix = "ISTIO_META_"
	jsonPrefix = "ISTIO_METAJSON_"
)

// ReadEnvironment takes what a pod's manifest says by environment variables: who the pod is
// (POD_NAME, POD_NAMESPACE, INSTANCE_IP, INSTANCE_IPS), the ports of its pages (ENVOY_…_PORT),
// and metadata. ISTIO_META_NAME is metadata NAME; the value of ISTIO_METAJSON_NAME is a JSON
// object, whose members stand in the metadata by themselves too. Variables that are not there
// leave in as it is. Each entry is NAME=VALUE.
func (in *Input) ReadEnvironment(env []string) error {
	for _, entry := range env {
		name, value, _ := strings.Cut(entry, "=")
		if err := in.readVariable(name, value); err != nil {
			return fmt.Errorf("environment variable %s: %w", name, err)
		}
	}
	return nil
}

func (in *Input) readVariable(name, value string) error {
	if in.Metadata == nil {
		in.Metadata = map[string]any{}
	}
	if key, ok := strings.CutPrefix(name, metaPrefix); ok {
		if key == "OUTLIER_LOG_PATH" {
			in.OutlierLog = value
		}
		in.Metadata[key] = value
		return nil
	}
	if key, ok := strings.CutPrefix(name, jsonPrefix); ok {
		return in.readObject(key, value)
	}
	if port := in.portOf(name); port != nil {
		n, err := strconv.ParseUint(value, 10, 16)
		*port = int(n)
		return err
	}
	switch name {
	case "POD_NAME":
		in.Name = value
	case "POD_NAMESPACE":
		in.Namespace = value
	case "INSTANCE_IP":
		in.addAddresses(value, true)
	case "INSTANCE_IPS":
		in.addAddresses(value, false)
	case "COMPLIANCE_POLICY":
		in.FIPS = value == "fips-140-2"
	}
	return nil
}

func (in *Input) portOf(name string) *int {
	switch name {
	case "ENVOY_STATUS_PORT":
		return &in.Health
	case "ENVOY_PROMETHEUS_PORT":
		return &in.Metrics
	case "ENVOY_SECURE_METRICS_PORT":
		return &in.SecureMetrics
	case "ENVOY_SECURE_MERGED_METRICS_PORT":
		return &in.SecureMergedMetrics
	}
	return nil
}

// addAddresses adds those that are not there; the pod's own comes first.
func (in *Input) addAddresses(text string, first bool) {
	for a := range strings.SplitSeq(text, ",") {
		if _, err := netip.ParseAddr(a); err != nil {
			continue
		}
		at := slices.Index(in.Addresses, a)
		switch {
		case first && at != 0:
			if at > 0 {
				in.Addresses = slices.Delete(in.Addresses, at, at+1)
			}
			in.Addresses = slices.Insert(in.Addresses, 0, a)
		case at < 0:
			in.Addresses = append(in.Addresses, a)
		}
	}
}

func (in *Input) readObject(key, value string) error {
	switch key {
	case "LABELS":
		return readStrings(value, &in.StaticLabels)
	case "ANNOTATIONS":
		return readStrings(value, &in.StaticAnnotations)
	}
	var members map[string]any
	if err := json.Unmarshal([]byte(value), &members); err != nil {
		return err
	}
	maps.Copy(in.Metadata, members)
	in.Metadata[key] = members
	return nil
}

func readStrings(value string, to *map[string]string) error {
	var members map[string]string
	if err := json.Unmarshal([]byte(value), &members); err != nil {
		return err
	}
	*to = members
	return nil
}
