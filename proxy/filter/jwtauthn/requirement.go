package jwtauthn

import (
	"fmt"
	"maps"
	"slices"

	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"

	"github.com/lateen-mesh/lateen/jwt"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

type kind uint8

const (
	nothing  kind = iota // is required
	one                  // provider
	some                 // of the parts
	all                  // parts
	optional             // a token of whatever provider
)

// A requirement is a compiled JwtRequirement: a tree.
type requirement struct {
	kind  kind
	parts []*requirement

	provider  *provider
	audiences jwt.Audiences
	locations locations
	// missing and failed: a request without a token, or with a bad one, is good, too.
	missing, failed bool
}

// maxRequirementDepth bounds how deeply requirements stand in each other.
const maxRequirementDepth = 32

func (f *filter) requirement(c *jwtv3.JwtRequirement) (*requirement, error) {
	return f.nested(c, maxRequirementDepth)
}

func (f *filter) nested(c *jwtv3.JwtRequirement, depth int) (*requirement, error) {
	if depth == 0 {
		return nil, fmt.Errorf("requires: deeper than %d", maxRequirementDepth)
	}
	err := xds.Only(c, "provider_name", "provider_and_audiences", "requires_any", "requires_all", "allow_missing", "allow_missing_or_failed")
	if err != nil {
		return nil, err
	}
	switch by := c.GetRequiresType().(type) {
	case *jwtv3.JwtRequirement_ProviderName:
		return f.ofProvider("provider_name", by.ProviderName, nil)
	case *jwtv3.JwtRequirement_ProviderAndAudiences:
		return f.ofProvider("provider_and_audiences.provider_name", by.ProviderAndAudiences.GetProviderName(), by.ProviderAndAudiences.GetAudiences())
	case *jwtv3.JwtRequirement_RequiresAny:
		return f.anyOf(by.RequiresAny.GetRequirements(), depth-1)
	case *jwtv3.JwtRequirement_RequiresAll:
		return f.allOf(by.RequiresAll.GetRequirements(), depth-1)
	case *jwtv3.JwtRequirement_AllowMissing:
		return f.ofAll(false), nil
	case *jwtv3.JwtRequirement_AllowMissingOrFailed:
		return f.ofAll(true), nil
	}
	return &requirement{kind: nothing}, nil
}

// ofProvider wants a token of one provider.
func (f *filter) ofProvider(field, name string, audiences []string) (*requirement, error) {
	p := f.providers[name]
	if p == nil {
		return nil, fmt.Errorf("%s: Required provider ['%s'] is not configured.", field, name) //nolint:revive,staticcheck // Envoy's words
	}
	q := &requirement{kind: one, provider: p, audiences: p.audiences, locations: p.locations}
	if len(audiences) > 0 {
		q.audiences = jwt.NewAudiences(audiences)
	}
	return q, nil
}

// ofAll looks at the tokens of all providers; none is needed.
func (f *filter) ofAll(failed bool) *requirement {
	q := &requirement{kind: optional, missing: true, failed: failed}
	for _, name := range slices.Sorted(maps.Keys(f.providers)) {
		q.locations.merge(f.providers[name].locations)
	}
	q.locations.sort()
	return q
}

// anyOf takes allow_missing and allow_missing_or_failed among its parts for what is to be
// said when all others have failed.
func (f *filter) anyOf(list []*jwtv3.JwtRequirement, depth int) (*requirement, error) {
	q := &requirement{kind: some}
	for i, c := range list {
		switch c.GetRequiresType().(type) {
		case *jwtv3.JwtRequirement_AllowMissing:
			q.missing = true
			continue
		case *jwtv3.JwtRequirement_AllowMissingOrFailed:
			q.failed = true
			continue
		}
		part, err := f.nested(c, depth)
		if err != nil {
			return nil, fmt.Errorf("requires_any.requirements[%d].%w", i, err)
		}
		q.parts = append(q.parts, part)
	}
	if len(q.parts) == 0 {
		q.parts = append(q.parts, f.ofAll(q.failed))
	}
	return q, nil
}

func (f *filter) allOf(list []*jwtv3.JwtRequirement, depth int) (*requirement, error) {
	q := &requirement{kind: all}
	for i, c := range list {
		part, err := f.nested(c, depth)
		if err != nil {
			return nil, fmt.Errorf("requires_all.requirements[%d].%w", i, err)
		}
		q.parts = append(q.parts, part)
	}
	return q, nil
}

// satisfied reports whether a request has what is required; the status says what is wrong.
func (q *requirement) satisfied(x *exchange) jwt.Status {
	switch q.kind {
	case one, optional:
		return x.authenticate(q)
	case some:
		return q.oneSatisfied(x)
	case all:
		for _, part := range q.parts {
			if status := part.satisfied(x); status != jwt.OK {
				return status
			}
		}
	}
	return jwt.OK
}

// oneSatisfied prefers, of what is wrong with the parts, what says most: a missing token
// less than one of another issuer, both less than all else, of which the last counts.
func (q *requirement) oneSatisfied(x *exchange) jwt.Status {
	final := jwt.Missing
	for _, part := range q.parts {
		status := part.satisfied(x)
		if status == jwt.OK {
			return jwt.OK
		}
		if status != jwt.Missing && status != jwt.UnknownIssuer || final == jwt.Missing {
			final = status
		}
	}
	if q.failed || q.missing && final == jwt.Missing {
		return jwt.OK
	}
	return final
}
