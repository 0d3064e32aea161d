// Package rbac decides by rules of envoy.config.rbac.v3 whether a connection or a request is
// allowed: policies in the order of their names, the first of which that matches decides as
// the action of the rules says.
//
// New compiles Rules once; they are immutable, and Decide may be called from many goroutines
// and allocates nothing.
package rbac

import (
	"strings"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"

	"github.com/lateen-mesh/lateen/proxy/http"
)

// Facts are what rules look at.
type Facts = http.Facts

// Rules are compiled rules.
type Rules struct {
	action   rbacv3.RBAC_Action
	policies []policy // by name
	none     Verdict  // where none of them matches
}

// A policy is matched by facts that match one of its permissions and one of its principals.
type policy struct {
	permissions, principals []test
	verdict                 Verdict
}

// A test is a compiled permission or principal.
type test func(Facts) bool

// A Verdict is what rules say of facts.
type Verdict struct {
	Allowed bool
	// Policy is the name of the policy that has matched, "" for none. Index is its place among
	// those of the rules, and the number of them for none.
	Policy string
	Index  int
	// Details are RESPONSE_CODE_DETAILS and CONNECTION_TERMINATION_DETAILS of what is denied.
	Details string
}

// Decide returns what the rules say.
func (r *Rules) Decide(f Facts) Verdict {
	for i := range r.policies {
		if p := &r.policies[i]; anyOf(p.permissions, f) && anyOf(p.principals, f) {
			return p.verdict
		}
	}
	return r.none
}

// Logs reports that the rules decide what is logged (action LOG), and never deny: what a
// policy matches is.
func (r *Rules) Logs() bool { return r.action == rbacv3.RBAC_LOG }

// Verdicts are all that the rules may say, by Index.
func (r *Rules) Verdicts() []Verdict {
	all := make([]Verdict, 0, len(r.policies)+1)
	for i := range r.policies {
		all = append(all, r.policies[i].verdict)
	}
	return append(all, r.none)
}

// verdict is that of the policy at index, or of none.
func (r *Rules) verdict(name string, index int, matched bool) Verdict {
	shown := name
	if shown == "" {
		shown = "none"
	}
	return Verdict{
		Allowed: r.action == rbacv3.RBAC_LOG || matched == (r.action == rbacv3.RBAC_ALLOW),
		Policy:  name, Index: index,
		Details: "rbac_access_denied_matched_policy[" + strings.Map(unspaced, shown) + "]",
	}
}

// unspaced keeps a name one word of the access log.
func unspaced(r rune) rune {
	switch r {
	case ' ', '\t', '\n', '\v', '\f', '\r':
		return '_'
	}
	return r
}

func anyOf(tests []test, f Facts) bool {
	for _, t := range tests {
		if t(f) {
			return true
		}
	}
	return false
}

func allOf(tests []test, f Facts) bool {
	for _, t := range tests {
		if !t(f) {
			return false
		}
	}
	return true
}
