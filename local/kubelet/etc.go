package kubelet

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/lateen-mesh/lateen/local/network"
)

// hostname is the pod's own name for itself.
func hostname(pod *corev1.Pod) string {
	name := pod.Spec.Hostname
	if name == "" {
		name = pod.Name
	}
	if len(name) > 63 {
		name = strings.TrimRight(name[:63], "-.")
	}
	if full := pod.Spec.SetHostnameAsFQDN; full != nil && *full && pod.Spec.Subdomain != "" {
		name = fullName(pod, name)
	}
	return name
}

func fullName(pod *corev1.Pod, name string) string {
	return name + "." + pod.Spec.Subdomain + "." + pod.Namespace + ".svc.cluster.local"
}

// files are a pod's in /etc.
func files(pod *corev1.Pod, address string) map[string]string {
	return map[string]string{"hostname": hostname(pod) + "\n", "hosts": hosts(pod, address), "resolv.conf": resolvConf(pod)}
}

func hosts(pod *corev1.Pod, address string) string {
	var b strings.Builder
	b.WriteString("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n")
	name := pod.Spec.Hostname
	if name == "" {
		name = pod.Name
	}
	b.WriteString(address + "\t")
	if pod.Spec.Subdomain != "" {
		b.WriteString(fullName(pod, name) + "\t")
	}
	b.WriteString(name + "\n")
	if len(pod.Spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
	}
	for _, a := range pod.Spec.HostAliases {
		b.WriteString(a.IP + "\t" + strings.Join(a.Hostnames, "\t") + "\n")
	}
	return b.String()
}

// resolvConf is the pod's by its dnsPolicy and dnsConfig. The policy Default has no search list:
// names go to the mesh's server, which asks this machine.
func resolvConf(pod *corev1.Pod) string {
	var servers, search []string
	options := map[string]string{}
	var order []string
	set := func(name, value string) {
		if _, ok := options[name]; !ok {
			order = append(order, name)
		}
		options[name] = value
	}
	for line := range strings.Lines(network.ResolvConf(pod.Namespace)) {
		words := strings.Fields(line)
		switch {
		case len(words) < 2 || pod.Spec.DNSPolicy == corev1.DNSNone:
		case words[0] == "nameserver":
			servers = append(servers, words[1:]...)
		case pod.Spec.DNSPolicy == corev1.DNSDefault:
		case words[0] == "search":
			search = append(search, words[1:]...)
		case words[0] == "options":
			for _, o := range words[1:] {
				name, value, _ := strings.Cut(o, ":")
				set(name, value)
			}
		}
	}
	if c := pod.Spec.DNSConfig; c != nil {
		servers, search = union(servers, c.Nameservers), union(search, c.Searches)
		for _, o := range c.Options {
			value := ""
			if o.Value != nil {
				value = *o.Value
			}
			set(o.Name, value)
		}
	}
	var b strings.Builder
	if len(search) > 0 {
		b.WriteString("search " + strings.Join(search, " ") + "\n")
	}
	for _, s := range servers {
		b.WriteString("nameserver " + s + "\n")
	}
	for i, name := range order {
		if order[i] = name; options[name] != "" {
			order[i] = name + ":" + options[name]
		}
	}
	if len(order) > 0 {
		b.WriteString("options " + strings.Join(order, " ") + "\n")
	}
	return b.String()
}

func union(a, b []string) []string {
	for _, s := range b {
		if !slices.Contains(a, s) {
			a = append(a, s)
		}
	}
	return a
}
