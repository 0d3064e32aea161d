package extauthz

import (
	"fmt"
	"regexp"
	"strings"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"

	"github.com/lateen-mesh/lateen/proxy/match"
)

// rules are a compiled HeaderMutationRules; nil permits all.
type rules struct {
	routing, envoy    bool // allow_all_routing, allow_envoy
	noSystem, nothing bool // disallow_system, disallow_all
	allow, disallow   *regexp.Regexp
	isError           bool // disallow_is_error
}

// A judgement is whether a change of a header is made.
type judgement uint8

const (
	permitted judgement = iota
	ignored
	fails // the whole answer is wrong
)

func newRules(pb *mutationv3.HeaderMutationRules) (*rules, error) {
	if pb == nil {
		return nil, nil
	}
	r := &rules{routing: pb.GetAllowAllRouting().GetValue(), envoy: pb.GetAllowEnvoy().GetValue(), noSystem: pb.GetDisallowSystem().GetValue(),
		nothing: pb.GetDisallowAll().GetValue(), isError: pb.GetDisallowIsError().GetValue()}
	var err error
	if e := pb.GetAllowExpression(); e != nil {
		if r.allow, err = match.NewRegex(e); err != nil {
			return nil, fmt.Errorf("allow_expression: %w", err)
		}
	}
	if e := pb.GetDisallowExpression(); e != nil {
		if r.disallow, err = match.NewRegex(e); err != nil {
			return nil, fmt.Errorf("disallow_expression: %w", err)
		}
	}
	return r, nil
}

// judge decides about a change; the name is in lower case.
func (r *rules) judge(name, value string, removes bool) judgement {
	if r == nil || r.permits(name, value, removes) {
		return permitted
	}
	if r.isError {
		return fails
	}
	return ignored
}

func (r *rules) permits(name, value string, removes bool) bool {
	system := strings.HasPrefix(name, ":")
	switch {
	case removes && (system || name == "host"):
		return false
	case !removes && !validValue(name, value):
		return false
	case r.nothing, r.disallow != nil && r.disallow.MatchString(name):
		return false
	case r.allow != nil && r.allow.MatchString(name):
		return true
	case system && r.noSystem:
		return false
	case name == "host", name == ":authority", name == ":scheme", name == ":method":
		return r.routing
	case strings.HasPrefix(name, "x-envoy"):
		return r.envoy
	}
	return true
}

// validValue reports that a routing header gets what it may have.
func validValue(name, value string) bool {
	switch name {
	case ":authority", "host", ":method":
		return value != ""
	case ":scheme":
		return value == "http" || value == "https"
	}
	return true
}
