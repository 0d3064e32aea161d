package inject

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Annotations that say which traffic goes through the proxy.
const (
	includeOutboundIPRanges = "traffic.sidecar.istio.io/includeOutboundIPRanges"
	excludeOutboundIPRanges = "traffic.sidecar.istio.io/excludeOutboundIPRanges"
	includeInboundPorts     = "traffic.sidecar.istio.io/includeInboundPorts"
	excludeInboundPorts     = "traffic.sidecar.istio.io/excludeInboundPorts"
	includeOutboundPorts    = "traffic.sidecar.istio.io/includeOutboundPorts"
	excludeOutboundPorts    = "traffic.sidecar.istio.io/excludeOutboundPorts"
	interceptionMode        = "sidecar.istio.io/interceptionMode"
	userVolume              = "sidecar.istio.io/userVolume"
	userVolumeMount         = "sidecar.istio.io/userVolumeMount"
)

// A rule judges the value of one annotation.
type rule struct {
	annotation string
	judge      func(value string) error
}

// rules are the annotations that have a form, in the order in which they are judged.
func rules() []rule {
	const readiness = "readiness.status.sidecar.istio.io/"
	return []rule{
		{labelInject, boolean},
		{annotationRewrite, boolean},
		{annotationNative, boolean},
		{annotationMerge, boolean},
		{annotationStatusPort, number(65535)},
		{readiness + "initialDelaySeconds", number(1<<31 - 1)},
		{readiness + "periodSeconds", number(1<<31 - 1)},
		{readiness + "failureThreshold", number(1<<31 - 1)},
		{readiness + "applicationPorts", ports("applicationPorts", false)},
		{includeOutboundIPRanges, ranges("includeIPRanges", true)},
		{excludeOutboundIPRanges, ranges("excludeIPRanges", false)},
		{includeInboundPorts, ports("includeInboundPorts", true)},
		{excludeInboundPorts, ports("excludeInboundPorts", false)},
		{includeOutboundPorts, ports("includeOutboundPorts", true)},
		{excludeOutboundPorts, ports("excludeOutboundPorts", false)},
		{interceptionMode, oneOf("REDIRECT", "TPROXY", "NONE")},
		{"sidecar.istio.io/proxyCPU", quantity},
		{"sidecar.istio.io/proxyCPULimit", quantity},
		{"sidecar.istio.io/proxyMemory", quantity},
		{"sidecar.istio.io/proxyMemoryLimit", quantity},
		{userVolume, object},
		{userVolumeMount, object},
	}
}

// CheckAnnotation says why the value of an annotation cannot be followed; nil where it can,
// or where injection does not read the annotation.
func CheckAnnotation(name, value string) error {
	for _, r := range rules() {
		if r.annotation == name {
			return r.judge(value)
		}
	}
	return nil
}

// checkAnnotations finds the first annotation that cannot be followed, by itself or beside
// another.
func checkAnnotations(pod *corev1.Pod) error {
	for _, r := range rules() {
		if value, ok := pod.Annotations[r.annotation]; ok {
			if err := r.judge(value); err != nil {
				return fmt.Errorf("annotation %s: %w", r.annotation, err)
			}
		}
	}
	return checkPairs(pod)
}

// checkPairs finds annotations that say the opposite of each other.
func checkPairs(pod *corev1.Pod) error {
	a := pod.Annotations
	for _, pair := range [][2]string{
		{includeInboundPorts, excludeInboundPorts}, {includeOutboundPorts, excludeOutboundPorts}, {includeOutboundIPRanges, excludeOutboundIPRanges},
	} {
		in, out := splitList(a[pair[0]]), splitList(a[pair[1]])
		for _, one := range in {
			if one != "*" && slices.Contains(out, one) {
				return fmt.Errorf("annotations %s and %s: both name %s: it cannot be in and out", pair[0], pair[1], one)
			}
		}
	}
	if a[interceptionMode] == "NONE" {
		for _, r := range rules() {
			if value, ok := a[r.annotation]; ok && value != "" && strings.HasPrefix(r.annotation, "traffic.sidecar.istio.io/") {
				return fmt.Errorf("annotations %s and %s: with NONE no traffic is redirected, so nothing can be included or excluded", interceptionMode, r.annotation)
			}
		}
	}
	for _, of := range []string{"sidecar.istio.io/proxyCPU", "sidecar.istio.io/proxyMemory"} {
		request, limit := a[of], a[of+"Limit"]
		if request == "" || limit == "" {
			continue
		}
		if least, most := resource.MustParse(request), resource.MustParse(limit); least.Cmp(most) > 0 {
			return fmt.Errorf("annotations %s and %sLimit: %s is more than the limit of %s", of, of, request, limit)
		}
	}
	return checkMounts(pod)
}

// checkMounts finds a mount of a volume that the pod does not have.
func checkMounts(pod *corev1.Pod) error {
	mounts, volumes := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	for text, into := range map[string]*map[string]json.RawMessage{pod.Annotations[userVolumeMount]: &mounts, pod.Annotations[userVolume]: &volumes} {
		if text != "" {
			if err := json.Unmarshal([]byte(text), into); err != nil {
				return err // rules has judged both
			}
		}
	}
	for name := range mounts {
		has := slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == name })
		if _, ok := volumes[name]; !ok && !has {
			return fmt.Errorf("annotation %s: volume %q is neither in annotation %s nor in the pod", userVolumeMount, name, userVolume)
		}
	}
	return nil
}

func boolean(value string) error {
	if _, err := strconv.ParseBool(value); err != nil && !truth(value) && !slices.Contains([]string{"no", "n", "off", ""}, strings.ToLower(value)) {
		return fmt.Errorf("%q is neither true nor false", value)
	}
	return nil
}

func number(most int) func(string) error {
	return func(value string) error {
		if n, err := strconv.Atoi(value); err != nil || n < 0 || n > most {
			return fmt.Errorf("%q is not a number from 0 to %d", value, most)
		}
		return nil
	}
}

// ports judges a comma list of ports, each with the name that the setting has among the
// values of an installation.
func ports(setting string, all bool) func(string) error {
	return func(value string) error {
		if all && value == "*" {
			return nil
		}
		for _, port := range splitList(value) {
			if err := number(65535)(port); err != nil {
				return fmt.Errorf("%s: %q is not a list of ports: %w", setting, value, err)
			}
		}
		return nil
	}
}

func ranges(setting string, all bool) func(string) error {
	return func(value string) error {
		if all && value == "*" {
			return nil
		}
		for _, one := range splitList(value) {
			if _, err := netip.ParsePrefix(one); err != nil {
				return fmt.Errorf("%s: %q is not a range of addresses such as 10.0.0.0/8", setting, one)
			}
		}
		return nil
	}
}

func oneOf(values ...string) func(string) error {
	return func(value string) error {
		if !slices.Contains(values, value) {
			return fmt.Errorf("%q is none of %s", value, strings.Join(values, ", "))
		}
		return nil
	}
}

func quantity(value string) error {
	if _, err := resource.ParseQuantity(value); err != nil {
		return fmt.Errorf("%q is not a quantity such as 100m or 128Mi", value)
	}
	return nil
}

// object judges a JSON object of objects.
func object(value string) error {
	var of map[string]map[string]any
	if err := json.Unmarshal([]byte(value), &of); err != nil {
		return fmt.Errorf("not a JSON object of objects: %w", err)
	}
	return nil
}
