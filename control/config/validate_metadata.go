package config

import "regexp"

var subdomain = regexp.MustCompile(`^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*$`)

// Annotations with which an object asks for something this kind cannot do.
const (
	dryRunAnnotation       = "istio.io/dry-run"
	alwaysRejectAnnotation = "internal.istio.io/webhook-always-reject"
)

func validateMetadata(p place, schema *kindSchema, o *Config) {
	switch name := o.Name; {
	case name == "":
		p.field("name").errorf("required")
	case len(name) > 253 || !subdomain.MatchString(name):
		p.field("name").errorf("%q is not a name: lower-case letters, digits, - and . are allowed", shorten(name))
	}
	if !schema.cluster && (len(o.Namespace) > 63 || !isDNSLabel(o.Namespace) || !subdomain.MatchString(o.Namespace)) {
		p.field("namespace").errorf("%q is not a namespace: lower-case letters, digits and - are allowed", shorten(o.Namespace))
	}
	p.field("labels").labels(o.Labels)
	if schema.message == nil {
		return
	}
	if _, ok := o.Annotations[dryRunAnnotation]; ok && o.Kind != AuthorizationPolicy {
		p.field("annotations").key(dryRunAnnotation).errorf("has a meaning for AuthorizationPolicy only")
	}
	if _, ok := o.Annotations[alwaysRejectAnnotation]; ok {
		p.field("annotations").key(alwaysRejectAnnotation).errorf("asks for the object to be refused")
	}
}
