package config

import (
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
)

// validateKubernetesIngress judges as the API server does. A path without a type, which the
// API server refuses today and took in older versions, is only warned of.
func validateKubernetesIngress(p place, o *Config) {
	spec := o.Spec.(*networkingv1.Ingress).Spec
	p = p.field("spec")
	if len(spec.Rules) == 0 && spec.DefaultBackend == nil {
		p.errorf("either rules or a defaultBackend is required")
	}
	if spec.DefaultBackend != nil {
		validateBackend(p.field("defaultBackend"), spec.DefaultBackend)
	}
	for i, t := range spec.TLS {
		for j, h := range t.Hosts {
			p.at("tls", i).at("hosts", j).wrong(ingressHost(h))
		}
	}
	for i, r := range spec.Rules {
		at := p.at("rules", i)
		if r.Host != "" {
			at.field("host").wrong(ingressHost(r.Host))
		}
		if r.HTTP == nil {
			continue
		}
		if len(r.HTTP.Paths) == 0 {
			at.field("http").field("paths").errorf("at least one path is required")
		}
		for j := range r.HTTP.Paths {
			validateIngressPath(at.field("http").at("paths", j), &r.HTTP.Paths[j])
		}
	}
}

// ingressHost is a domain name of which the first part may be a wildcard.
func ingressHost(h string) error {
	return fqdn(strings.TrimPrefix(h, "*."))
}

func validateIngressPath(p place, path *networkingv1.HTTPIngressPath) {
	validateBackend(p.field("backend"), &path.Backend)
	if path.PathType == nil {
		p.field("pathType").warnf("required by Kubernetes: ImplementationSpecific is taken")
		return
	}
	switch *path.PathType {
	case networkingv1.PathTypeExact, networkingv1.PathTypePrefix:
		if !strings.HasPrefix(path.Path, "/") {
			p.field("path").errorf("must begin with / for type %s, got %q", *path.PathType, shorten(path.Path))
		}
	case networkingv1.PathTypeImplementationSpecific:
	default:
		types := []string{"Exact", "Prefix", "ImplementationSpecific"}
		p.field("pathType").add(Error, didYouMean(string(*path.PathType), types), "unknown type %q", shorten(string(*path.PathType)))
	}
}

func validateBackend(p place, b *networkingv1.IngressBackend) {
	switch {
	case b.Service == nil && b.Resource == nil:
		p.errorf("a service or a resource is required")
	case b.Service != nil && b.Resource != nil:
		p.errorf("of service and resource only one can be given")
	case b.Service != nil:
		p = p.field("service")
		if b.Service.Name == "" {
			p.field("name").errorf("required")
		}
		at, to := p.field("port"), b.Service.Port
		switch {
		case to.Name == "" && to.Number == 0:
			at.errorf("a name or a number is required")
		case to.Name != "" && to.Number != 0:
			at.errorf("of name and number only one can be given")
		case to.Name != "":
			at.field("name").wrong(portName(to.Name))
		default:
			at.field("number").wrong(port(int64(to.Number)))
		}
	}
}

// validateIngressClass judges what the mesh reads of a class: whose it is.
func validateIngressClass(p place, o *Config) {
	if o.Spec.(*networkingv1.IngressClass).Spec.Controller == "" {
		p.field("spec").field("controller").errorf("required")
	}
}
