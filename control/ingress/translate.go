package ingress

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/lateen-mesh/lateen/control/config"
)

// A translator is at work on one set.
type translator struct {
	set      *config.Set
	domain   string
	selector map[string]string
	gateways []*config.Config
	hosts    map[string]*host
	order    []string // of the hosts, as they were first seen
	problems []config.Problem
}

// A host is what all Ingresses say about one.
type host struct {
	first    *config.Config // that it was first seen in
	gateways []string       // by which it can be reached
	routes   []*networking.HTTPRoute
}

// problem tells of something that an Ingress asks for and does not get.
func (t *translator) problem(o *config.Config, field, hint, format string, args ...any) {
	t.problems = append(t.problems, config.Problem{Object: o.Key, Source: o.Source, Field: field, Severity: config.Warning,
		Hint: hint, Message: fmt.Sprintf(format, args...)})
}

func (t *translator) ingress(o *config.Config, spec *networkingv1.IngressSpec) {
	name := o.Name + "-" + suffix + "-" + o.Namespace
	servers := t.secureServers(o, spec.TLS)
	secure := len(servers) > 0
	servers = append(servers, &networking.Server{
		Hosts: []string{"*"},
		Port:  &networking.Port{Number: 80, Protocol: "HTTP", Name: fmt.Sprintf("http-80-ingress-%s-%s", o.Name, o.Namespace)},
	})
	t.gateways = append(t.gateways, made(o, config.Gateway, gatewayNamespace, name, nil, &networking.Gateway{Selector: t.selector, Servers: servers}))
	reach := gatewayNamespace + "/" + name
	for i, rule := range spec.Rules {
		at := fmt.Sprintf("spec.rules[%d]", i)
		if rule.HTTP == nil {
			t.backend(o, rule.Host, at, reach, secure, spec.DefaultBackend)
			continue
		}
		h := t.host(o, rule.Host, reach, secure)
		for j := range rule.HTTP.Paths {
			if r := t.route(o, fmt.Sprintf("%s.http.paths[%d]", at, j), &rule.HTTP.Paths[j]); r != nil {
				h.routes = append(h.routes, r)
			}
		}
	}
	if spec.DefaultBackend != nil {
		t.backend(o, "", "spec.defaultBackend", reach, secure, spec.DefaultBackend)
	}
}

// secureServers are one for each certificate.
func (t *translator) secureServers(o *config.Config, all []networkingv1.IngressTLS) []*networking.Server {
	var servers []*networking.Server
	for i, tls := range all {
		if tls.SecretName == "" {
			t.problem(o, fmt.Sprintf("spec.tls[%d].secretName", i), "name a Secret beside the gateway's workload", "hosts without a certificate are not served with TLS")
			continue
		}
		hosts := slices.Clone(tls.Hosts)
		if len(hosts) == 0 {
			hosts = []string{"*"}
		}
		servers = append(servers, &networking.Server{
			Hosts: hosts,
			Port:  &networking.Port{Number: 443, Protocol: "HTTPS", Name: fmt.Sprintf("https-443-ingress-%s-%s-%d", o.Name, o.Namespace, i)},
			Tls:   &networking.ServerTLSSettings{Mode: networking.ServerTLSSettings_SIMPLE, CredentialName: tls.SecretName},
		})
	}
	return servers
}

// host is the one of a rule. Plain HTTP reaches it by the Gateway of the first Ingress; one
// that has certificates is a way of its own.
func (t *translator) host(o *config.Config, name, gateway string, secure bool) *host {
	name = cmp.Or(strings.ToLower(name), "*")
	h := t.hosts[name]
	if h == nil {
		h = &host{first: o, gateways: []string{gateway}}
		t.hosts[name] = h
		t.order = append(t.order, name)
	}
	if secure && !slices.Contains(h.gateways, gateway) {
		h.gateways = append(h.gateways, gateway)
	}
	return h
}

// backend sends all of a host that nothing else is said about to the default.
func (t *translator) backend(o *config.Config, name, at, gateway string, secure bool, b *networkingv1.IngressBackend) {
	if b == nil {
		t.problem(o, at, "add paths, or a defaultBackend", "the host has neither paths nor a default")
		return
	}
	if r := t.forward(o, at, b); r != nil {
		h := t.host(o, name, gateway, secure)
		h.routes = append(h.routes, r)
	}
}

func (t *translator) route(o *config.Config, at string, path *networkingv1.HTTPIngressPath) *networking.HTTPRoute {
	r := t.forward(o, at+".backend", &path.Backend)
	if r == nil {
		return nil
	}
	if uri := uriOf(path); uri != nil {
		r.Match = []*networking.HTTPMatchRequest{{Uri: uri}}
	}
	return r
}

// uriOf is what a path matches, nil for everything. A path of no declared type is exact, or
// a prefix where it ends in /* or .*.
func uriOf(p *networkingv1.HTTPIngressPath) *networking.StringMatch {
	exact := &networking.StringMatch{MatchType: &networking.StringMatch_Exact{Exact: p.Path}}
	prefix := func(s string) *networking.StringMatch {
		return &networking.StringMatch{MatchType: &networking.StringMatch_Prefix{Prefix: s}}
	}
	if p.PathType != nil && *p.PathType == networkingv1.PathTypeExact {
		return exact
	}
	if p.PathType != nil && *p.PathType == networkingv1.PathTypePrefix {
		return prefix(cmp.Or(p.Path, "/"))
	}
	switch p.Path {
	case "", "*", "/*", ".*", "/.*":
		return nil
	}
	for _, ending := range []string{".*", "/*"} {
		if stem, ok := strings.CutSuffix(p.Path, ending); ok {
			return prefix(stem)
		}
	}
	return exact
}

// forward sends to a backend, nil where there is none.
func (t *translator) forward(o *config.Config, at string, b *networkingv1.IngressBackend) *networking.HTTPRoute {
	if b.Service == nil {
		t.problem(o, at, "name a service", "only Services can be backends")
		return nil
	}
	number := uint32(b.Service.Port.Number)
	if name := b.Service.Port.Name; name != "" {
		if number = t.portNamed(o.Namespace, b.Service.Name, name); number == 0 {
			t.problem(o, at+".service.port.name", "", "no Service %s in namespace %s has a port named %q: the rule is left out", b.Service.Name, o.Namespace, name)
			return nil
		}
	}
	return &networking.HTTPRoute{Route: []*networking.HTTPRouteDestination{{
		Destination: &networking.Destination{
			Host: b.Service.Name + "." + o.Namespace + ".svc." + t.domain,
			Port: &networking.PortSelector{Number: number},
		},
		Weight: 100,
	}}}
}

// portNamed is the number of a Service's port, 0 if there is none.
func (t *translator) portNamed(namespace, service, name string) uint32 {
	o := t.set.Get(config.Service, namespace, service)
	if o == nil {
		return 0
	}
	for _, p := range o.Spec.(*corev1.Service).Spec.Ports {
		if p.Name == name {
			return uint32(p.Port)
		}
	}
	return 0
}

// services are the VirtualServices of the hosts.
func (t *translator) services() []*config.Config {
	var all []*config.Config
	for _, name := range t.order {
		h := t.hosts[name]
		if len(h.routes) == 0 {
			continue
		}
		slices.SortStableFunc(h.routes, moreSpecific)
		prefix := strings.ReplaceAll(name, ".", "-")
		if name == "*" {
			prefix = ""
		}
		all = append(all, made(h.first, config.VirtualService, h.first.Namespace, prefix+"-"+h.first.Name+"-"+suffix,
			map[string]string{SemanticsAnnotation: Semantics},
			&networking.VirtualService{Hosts: []string{name}, Gateways: h.gateways, Http: h.routes}))
	}
	return all
}

// moreSpecific orders rules: longer paths first, of equal ones the exact first, and last
// what takes everything.
func moreSpecific(a, b *networking.HTTPRoute) int {
	lengthA, exactA := specificity(a)
	lengthB, exactB := specificity(b)
	return cmp.Or(cmp.Compare(lengthB, lengthA), cmp.Compare(exactB, exactA))
}

func specificity(r *networking.HTTPRoute) (length, exact int) {
	if len(r.Match) == 0 {
		return 0, 0
	}
	if e := r.Match[0].GetUri().GetExact(); e != "" {
		return len(e), 1
	}
	return len(r.Match[0].GetUri().GetPrefix()), 0
}

// made is an object that stands for an Ingress, at whose place it is found.
func made(from *config.Config, kind config.Kind, namespace, name string, annotations map[string]string, spec any) *config.Config {
	return &config.Config{
		Key: config.Key{Kind: kind, Namespace: namespace, Name: name}, APIVersion: "networking.istio.io/v1",
		Annotations: annotations, CreationTime: from.CreationTime, Spec: spec, Source: from.Source,
	}
}
