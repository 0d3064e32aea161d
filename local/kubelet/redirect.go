package kubelet

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// redirectProgram is the word by which an init container asks for redirection.
const redirectProgram = "istio-iptables"

// redirects reports whether a container's whole task is to redirect the pod's traffic: the node
// does that itself.
func redirects(c *corev1.Container) bool {
	words := slices.Concat(c.Command, c.Args)
	at := slices.Index(words, redirectProgram)
	return at == 0 || at == 1 && strings.HasSuffix(words[0], "pilot-agent")
}

// redirectedAtStart reports whether a pod's traffic is to be redirected before any container runs:
// it has a sidecar, and no init container asks for it.
func redirectedAtStart(pod *corev1.Pod) bool {
	_, injected := pod.Annotations["sidecar.istio.io/status"]
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		switch {
		case redirects(&c):
			return false
		case c.Name == "istio-proxy":
			if slices.Contains(c.Args, "router") {
				return false // a gateway: nothing is behind it
			}
			_, mode := pod.Annotations["sidecar.istio.io/interceptionMode"]
			injected = injected || mode
		}
	}
	return injected
}

// flagAnnotations are the annotations that say what a flag of istio-iptables does. Ports and user
// of the proxy are fixed.
var flagAnnotations = map[string]string{
	"-m": "sidecar.istio.io/interceptionMode",
	"-i": "traffic.sidecar.istio.io/includeOutboundIPRanges", "-x": "traffic.sidecar.istio.io/excludeOutboundIPRanges",
	"-b": "traffic.sidecar.istio.io/includeInboundPorts", "-d": "traffic.sidecar.istio.io/excludeInboundPorts",
	"-q": "traffic.sidecar.istio.io/includeOutboundPorts", "-o": "traffic.sidecar.istio.io/excludeOutboundPorts",
	"-c": "traffic.sidecar.istio.io/excludeInterfaces", "-k": "istio.io/reroute-virtual-interfaces",
}

// captureDNS is the variable by which an istio-iptables container is told that the sidecar answers DNS.
const captureDNS = "ISTIO_META_DNS_CAPTURE"

// asAnnotations is a pod's annotations with what flags and variables of its istio-iptables say.
func asAnnotations(pod *corev1.Pod, c *corev1.Container) map[string]string {
	all := maps.Clone(pod.Annotations)
	if all == nil {
		all = map[string]string{}
	}
	for _, v := range c.Env {
		if v.Name == captureDNS {
			all["proxy.istio.io/config"] = fmt.Sprintf(`{"proxyMetadata": {%q: %q}}`, captureDNS, v.Value)
		}
	}
	for i := 0; i+1 < len(c.Args); i++ {
		if name, ok := flagAnnotations[c.Args[i]]; ok {
			all[name] = c.Args[i+1]
			i++
		}
	}
	return all
}
