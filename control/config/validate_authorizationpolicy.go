package config

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	security "istio.io/api/security/v1beta1"
)

// Bounds of a policy: rules, and sources of a rule; service accounts of a source.
const (
	maxRules           = 512
	maxServiceAccounts = 16
)

func validateAuthorizationPolicy(p place, o *Config) {
	a := o.Spec.(*security.AuthorizationPolicy)
	validateDryRun(place{p.r, "metadata.annotations"}, o.Annotations, a.Action)
	p.attachment(a)
	custom := a.Action == security.AuthorizationPolicy_CUSTOM
	if len(a.Rules) == 0 && (custom || a.Action == security.AuthorizationPolicy_DENY) {
		p.field("rules").add(Error, "write rules: [{}] for every request", "required: without rules action %s never takes place", a.Action)
	}
	switch {
	case custom && a.GetProvider().GetName() == "":
		p.field("provider.name").errorf("required for action CUSTOM")
	case !custom && a.GetProvider() != nil:
		p.field("provider").errorf("has a meaning for action CUSTOM only, not %s", a.Action)
	}
	if len(a.Rules) > maxRules {
		p.field("rules").errorf("at most %d, got %d", maxRules, len(a.Rules))
	}
	for i, r := range a.Rules {
		at := p.at("rules", i)
		validateRule(at, r)
		if custom {
			refuseIdentity(at, r)
		}
		if a.Action == security.AuthorizationPolicy_DENY && deniesTCP(r) {
			at.add(Warning, "name the ports in to.operation.ports", "has attributes of HTTP only: connections to all TCP ports are denied")
		}
	}
}

func validateDryRun(p place, annotations map[string]string, action security.AuthorizationPolicy_Action) {
	value, ok := annotations[dryRunAnnotation]
	if !ok {
		return
	}
	at := p.key(dryRunAnnotation)
	if _, err := strconv.ParseBool(value); err != nil {
		at.errorf("must be true or false, got %q", shorten(value))
	}
	if action != security.AuthorizationPolicy_ALLOW && action != security.AuthorizationPolicy_DENY {
		at.errorf("has a meaning for actions ALLOW and DENY only, not %s", action)
	}
}

func validateRule(p place, r *security.Rule) {
	if len(r.From) > maxRules {
		p.field("from").errorf("at most %d, got %d", maxRules, len(r.From))
	}
	for i, f := range r.From {
		at := p.at("from", i).field("source")
		if f.Source == nil {
			at.errorf("required")
			continue
		}
		validateSource(at, f.Source)
	}
	for i, t := range r.To {
		at := p.at("to", i).field("operation")
		if t.Operation == nil {
			at.errorf("required")
			continue
		}
		validateOperation(at, t.Operation)
	}
	for i, c := range r.When {
		validateCondition(p.at("when", i), c)
	}
}

// patterns checks lists of a source or operation by their field names.
func (p place) patterns(lists map[string][]string, judge func(string) error) (any bool) {
	for _, field := range sortedKeys(lists) {
		any = any || len(lists[field]) > 0
		p.field(field).each(lists[field], judge)
	}
	return any
}

// each reports what judge says of the entries of a list, none of which may be empty.
func (p place) each(list []string, judge func(string) error) {
	for i, s := range list {
		switch {
		case s == "":
			p.index(i).errorf("must not be empty")
		case judge != nil:
			p.index(i).wrong(judge(s))
		}
	}
}

func validateSource(p place, s *security.Source) {
	names := p.patterns(map[string][]string{"principals": s.Principals, "notPrincipals": s.NotPrincipals,
		"namespaces": s.Namespaces, "notNamespaces": s.NotNamespaces}, nil)
	others := p.patterns(map[string][]string{"requestPrincipals": s.RequestPrincipals, "notRequestPrincipals": s.NotRequestPrincipals,
		"trustDomains": s.TrustDomains, "notTrustDomains": s.NotTrustDomains}, nil)
	addresses := p.patterns(map[string][]string{"ipBlocks": s.IpBlocks, "notIpBlocks": s.NotIpBlocks,
		"remoteIpBlocks": s.RemoteIpBlocks, "notRemoteIpBlocks": s.NotRemoteIpBlocks}, ipOrSubnet)
	accounts := map[string][]string{"serviceAccounts": s.ServiceAccounts, "notServiceAccounts": s.NotServiceAccounts}
	hasAccounts := p.patterns(accounts, serviceAccount)
	for _, field := range sortedKeys(accounts) {
		if n := len(accounts[field]); n > maxServiceAccounts {
			p.field(field).errorf("at most %d, got %d", maxServiceAccounts, n)
		}
		if len(accounts[field]) > 0 && names {
			p.field(field).errorf("cannot be set together with principals or namespaces")
		}
	}
	if !names && !others && !addresses && !hasAccounts {
		p.errorf("must not be empty")
	}
}

// serviceAccount checks `account` or `namespace/account`.
func serviceAccount(s string) error {
	ns, name, split := strings.Cut(s, "/")
	switch {
	case len(s) > 320:
		return fmt.Errorf("is longer than 320 characters")
	case strings.Contains(s, "*"):
		return fmt.Errorf("wildcards are not allowed, got %q", shorten(s))
	case split && (ns == "" || name == "" || strings.Contains(name, "/")):
		return fmt.Errorf("must be account or namespace/account, got %q", shorten(s))
	}
	return nil
}

func validateOperation(p place, o *security.Operation) {
	plain := p.patterns(map[string][]string{"hosts": o.Hosts, "notHosts": o.NotHosts, "methods": o.Methods, "notMethods": o.NotMethods}, nil)
	ports := p.patterns(map[string][]string{"ports": o.Ports, "notPorts": o.NotPorts}, numericPort)
	paths := p.patterns(map[string][]string{"paths": o.Paths, "notPaths": o.NotPaths}, pathPattern)
	if !plain && !ports && !paths {
		p.errorf("must not be empty")
	}
}

// numericPort checks a port in a string.
func numericPort(s string) error {
	if _, err := strconv.ParseUint(s, 10, 16); err != nil {
		return fmt.Errorf("%q is not a port", shorten(s))
	}
	return nil
}

// pathSegment is what may stand between the slashes of a path template.
var pathSegment = regexp.MustCompile(`^[-a-zA-Z0-9._~%!$&'()+,;:@=]+$`)

// pathPattern checks a path. One with {*}, for one segment, or {**}, for the rest, is
// a template.
func pathPattern(s string) error {
	template := strings.Contains(s, "{*}") || strings.Contains(s, "{**}")
	rest := false
	for segment := range strings.SplitSeq(strings.Trim(s, "/"), "/") {
		operator := segment == "{*}" || segment == "{**}"
		switch {
		case operator && rest:
			return fmt.Errorf("no operator may follow {**}, got %q", shorten(s))
		case operator:
			rest = segment == "{**}"
		case strings.ContainsAny(segment, "{}"):
			return fmt.Errorf("{*} and {**} must be whole segments and there are no other templates, got %q", shorten(s))
		case template && !pathSegment.MatchString(segment):
			return fmt.Errorf("segment %q of a template must be of letters, digits and -._~%%!$&'()+,;:@=", shorten(segment))
		}
	}
	return nil
}

// conditionKeys are the attributes of when, with the rule for their values.
func conditionKeys() map[string]func(string) error {
	return map[string]func(string) error{
		"source.ip": ipOrSubnet, "remote.ip": ipOrSubnet, "destination.ip": ipOrSubnet, "destination.port": numericPort,
		"source.serviceAccount": serviceAccount, "source.namespace": nil, "source.principal": nil, "source.trustDomain": nil,
		"request.auth.principal": nil, "request.auth.audiences": nil, "request.auth.presenter": nil, "connection.sni": nil,
	}
}

func validateCondition(p place, c *security.Condition) {
	if c.Key == "" {
		p.field("key").errorf("required")
		return
	}
	if len(c.Values) == 0 && len(c.NotValues) == 0 {
		p.errorf("one of values and notValues is required")
	}
	known := conditionKeys()
	judge, ok := known[c.Key]
	if !ok {
		validateConditionKey(p.field("key"), c.Key, sortedKeys(known))
	}
	p.field("values").each(c.Values, judge)
	p.field("notValues").each(c.NotValues, judge)
	if c.Key == "source.serviceAccount" && max(len(c.Values), len(c.NotValues)) > maxServiceAccounts {
		p.errorf("at most %d service accounts", maxServiceAccounts)
	}
}

// validateConditionKey checks a key that is not of a fixed name.
func validateConditionKey(p place, key string, known []string) {
	maps := []string{"request.headers", "request.experimental.inline.headers", "request.auth.claims"}
	i := slices.IndexFunc(maps, func(m string) bool { return strings.HasPrefix(key, m) })
	switch {
	case i >= 0 || strings.HasPrefix(key, "experimental.envoy.filters."):
		if open := strings.IndexByte(key, '['); open < 1 || !strings.HasSuffix(key, "]") || open >= len(key)-2 {
			p.errorf("must be of the form name[key], got %q", shorten(key))
		}
	case key == "destination.namespace":
		p.errorf("%s is not supported: policies are for workloads of their own namespace", key)
	case strings.HasPrefix(key, "destination.labels"):
		p.errorf("%q is not supported: use the selector", shorten(key))
	default:
		p.add(Error, didYouMean(key, append(known, maps...)), "unknown attribute %q", shorten(key))
	}
}

// refuseIdentity reports identities of callers in a policy of action CUSTOM, whose
// filter runs before they are known.
func refuseIdentity(p place, r *security.Rule) {
	const reason = "action CUSTOM knows no identities"
	for i, f := range r.From {
		s := f.GetSource()
		p.at("from", i).field("source").excluded(reason, map[string]bool{
			"principals": len(s.GetPrincipals()) > 0, "notPrincipals": len(s.GetNotPrincipals()) > 0,
			"requestPrincipals": len(s.GetRequestPrincipals()) > 0, "notRequestPrincipals": len(s.GetNotRequestPrincipals()) > 0,
			"namespaces": len(s.GetNamespaces()) > 0, "notNamespaces": len(s.GetNotNamespaces()) > 0,
			"serviceAccounts": len(s.GetServiceAccounts()) > 0, "notServiceAccounts": len(s.GetNotServiceAccounts()) > 0,
			"trustDomains": len(s.GetTrustDomains()) > 0, "notTrustDomains": len(s.GetNotTrustDomains()) > 0,
		})
	}
	identities := []string{"source.namespace", "source.serviceAccount", "source.principal", "source.trustDomain"}
	for i, c := range r.When {
		if slices.Contains(identities, c.Key) || strings.HasPrefix(c.Key, "request.auth.") {
			p.at("when", i).field("key").errorf("cannot be %q: %s", shorten(c.Key), reason)
		}
	}
}

// deniesTCP reports whether a rule of action DENY has attributes of HTTP alone, which
// TCP connections are taken to have.
func deniesTCP(r *security.Rule) bool {
	sources := slices.ContainsFunc(r.From, func(f *security.Rule_From) bool { return f.Source != nil })
	operations := slices.ContainsFunc(r.To, func(t *security.Rule_To) bool { return t.Operation != nil })
	tcpSource := slices.ContainsFunc(r.From, func(f *security.Rule_From) bool {
		s := f.GetSource()
		return len(s.GetPrincipals())+len(s.GetNotPrincipals())+len(s.GetNamespaces())+len(s.GetNotNamespaces())+
			len(s.GetIpBlocks())+len(s.GetNotIpBlocks())+len(s.GetRemoteIpBlocks())+len(s.GetNotRemoteIpBlocks())+
			len(s.GetServiceAccounts())+len(s.GetNotServiceAccounts())+len(s.GetTrustDomains())+len(s.GetNotTrustDomains()) > 0
	})
	ports := slices.ContainsFunc(r.To, func(t *security.Rule_To) bool {
		return len(t.GetOperation().GetPorts())+len(t.GetOperation().GetNotPorts()) > 0
	})
	return sources && !operations && !tcpSource || operations && !ports
}
