package rbac

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	templatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"

	"github.com/lateen-mesh/lateen/proxy/match"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// maxDepth bounds how deep permissions and principals may stand in each other.
const maxDepth = 100

// New compiles rules, nil for nil. http tells whether there are requests to look at: without,
// a header matcher is refused, as Envoy does. Errors name the field.
func New(c *rbacv3.RBAC, http bool) (*Rules, error) {
	if c == nil {
		return nil, nil
	}
	if err := xds.Only(c, "action", "policies"); err != nil {
		return nil, err
	}
	if _, known := rbacv3.RBAC_Action_name[int32(c.GetAction())]; !known {
		return nil, fmt.Errorf("action: %d: unknown", c.GetAction())
	}
	r := &Rules{action: c.GetAction()}
	by := compiler{http}
	for i, name := range slices.Sorted(maps.Keys(c.GetPolicies())) {
		p, err := by.policy(c.GetPolicies()[name])
		if err != nil {
			return nil, fmt.Errorf("policies[%q].%w", name, err)
		}
		p.verdict = r.verdict(name, i, true)
		r.policies = append(r.policies, p)
	}
	r.none = r.verdict("", len(r.policies), false)
	return r, nil
}

type compiler struct{ http bool }

func (c compiler) policy(p *rbacv3.Policy) (out policy, err error) {
	if err := xds.Only(p, "permissions", "principals"); err != nil {
		return out, err
	}
	if out.permissions, err = list("permissions", p.GetPermissions(), 0, c.permission); err != nil {
		return out, err
	}
	out.principals, err = list("principals", p.GetPrincipals(), 0, c.principal)
	return out, err
}

var errDepth = fmt.Errorf("nested deeper than %d", maxDepth)

// list compiles what stands in a field, of which Envoy wants one at least.
func list[P any](field string, from []P, depth int, compile func(P, int) (test, error)) ([]test, error) {
	if len(from) == 0 {
		return nil, fmt.Errorf("%s: must not be empty", field)
	}
	if depth > maxDepth {
		return nil, errDepth
	}
	out := make([]test, 0, len(from))
	for i, p := range from {
		t, err := compile(p, depth)
		if err != nil {
			return nil, fmt.Errorf("%s[%d].%w", field, i, err)
		}
		out = append(out, t)
	}
	return out, nil
}

func (c compiler) permission(p *rbacv3.Permission, depth int) (test, error) {
	switch r := p.GetRule().(type) {
	case *rbacv3.Permission_AndRules:
		return of(allOf, "and_rules.rules", r.AndRules.GetRules(), depth, c.permission)
	case *rbacv3.Permission_OrRules:
		return of(anyOf, "or_rules.rules", r.OrRules.GetRules(), depth, c.permission)
	case *rbacv3.Permission_NotRule:
		return not("not_rule", r.NotRule, depth, c.permission)
	case *rbacv3.Permission_Any:
		return always("any", r.Any)
	case *rbacv3.Permission_Header:
		return c.header(r.Header)
	case *rbacv3.Permission_UrlPath:
		return urlPath(r.UrlPath)
	case *rbacv3.Permission_UriTemplate:
		var t templatev3.UriTemplateMatchConfig
		if err := r.UriTemplate.GetTypedConfig().UnmarshalTo(&t); err != nil {
			return nil, fmt.Errorf("uri_template %q: %w", r.UriTemplate.GetName(), err)
		}
		return template(t.GetPathTemplate())
	case *rbacv3.Permission_DestinationIp:
		return address("destination_ip", r.DestinationIp, local)
	case *rbacv3.Permission_DestinationPort:
		return port(r.DestinationPort)
	case *rbacv3.Permission_DestinationPortRange:
		return portRange(r.DestinationPortRange)
	case *rbacv3.Permission_Metadata:
		return metadata("metadata", r.Metadata, rbacv3.MetadataSource_DYNAMIC)
	case *rbacv3.Permission_SourcedMetadata:
		return metadata("sourced_metadata.metadata_matcher", r.SourcedMetadata.GetMetadataMatcher(), r.SourcedMetadata.GetMetadataSource())
	case *rbacv3.Permission_RequestedServerName:
		return serverName(r.RequestedServerName)
	case *rbacv3.Permission_Matcher:
		return nil, fmt.Errorf("matcher %q: not supported", r.Matcher.GetName())
	}
	return nil, errors.New("rule: not set")
}

func (c compiler) principal(p *rbacv3.Principal, depth int) (test, error) {
	switch id := p.GetIdentifier().(type) {
	case *rbacv3.Principal_AndIds:
		return of(allOf, "and_ids.ids", id.AndIds.GetIds(), depth, c.principal)
	case *rbacv3.Principal_OrIds:
		return of(anyOf, "or_ids.ids", id.OrIds.GetIds(), depth, c.principal)
	case *rbacv3.Principal_NotId:
		return not("not_id", id.NotId, depth, c.principal)
	case *rbacv3.Principal_Any:
		return always("any", id.Any)
	case *rbacv3.Principal_Authenticated_:
		return authenticated(id.Authenticated)
	case *rbacv3.Principal_SourceIp:
		return address("source_ip", id.SourceIp, source)
	case *rbacv3.Principal_DirectRemoteIp:
		return address("direct_remote_ip", id.DirectRemoteIp, direct)
	case *rbacv3.Principal_RemoteIp:
		return address("remote_ip", id.RemoteIp, remote)
	case *rbacv3.Principal_Header:
		return c.header(id.Header)
	case *rbacv3.Principal_UrlPath:
		return urlPath(id.UrlPath)
	case *rbacv3.Principal_Metadata:
		return metadata("metadata", id.Metadata, rbacv3.MetadataSource_DYNAMIC)
	case *rbacv3.Principal_SourcedMetadata:
		return metadata("sourced_metadata.metadata_matcher", id.SourcedMetadata.GetMetadataMatcher(), id.SourcedMetadata.GetMetadataSource())
	case *rbacv3.Principal_FilterState:
		return filterState(id.FilterState)
	case *rbacv3.Principal_Custom:
		return nil, fmt.Errorf("custom %q: not supported", id.Custom.GetName())
	}
	return nil, errors.New("identifier: not set")
}

// of is a set of tests, of which all or any must match.
func of[P any](how func([]test, Facts) bool, field string, from []P, depth int, compile func(P, int) (test, error)) (test, error) {
	tests, err := list(field, from, depth+1, compile)
	if err != nil {
		return nil, err
	}
	return func(f Facts) bool { return how(tests, f) }, nil
}

func not[P any](field string, from P, depth int, compile func(P, int) (test, error)) (test, error) {
	if depth > maxDepth {
		return nil, errDepth
	}
	inner, err := compile(from, depth+1)
	if err != nil {
		return nil, fmt.Errorf("%s.%w", field, err)
	}
	return func(f Facts) bool { return !inner(f) }, nil
}

// always matches; the proto allows true alone.
func always(field string, value bool) (test, error) {
	if !value {
		return nil, fmt.Errorf("%s: must be true", field)
	}
	return func(Facts) bool { return true }, nil
}

// template compiles a path template.
func template(text string) (test, error) {
	t, err := match.NewTemplate(text)
	if err != nil {
		return nil, fmt.Errorf("uri_template: %w", err)
	}
	return func(f Facts) bool {
		p, ok := path(f)
		return ok && t.Match(p)
	}, nil
}
