package compile

import (
	"slices"
	"testing"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
)

// Many proxies' routes are made from one rule at the same time: the headers that its
// destination removes must not get into the rule's own list.
func TestHeaderEditsLeaveTheRuleAlone(t *testing.T) {
	own := append(make([]string, 0, 4), "a")
	rule := &networking.HTTPRoute{Headers: &networking.Headers{
		Request:  &networking.Headers_HeaderOperations{Remove: own},
		Response: &networking.Headers_HeaderOperations{Remove: own},
	}}
	to := &networking.HTTPRouteDestination{
		Destination: &networking.Destination{Host: "b.test"},
		Headers: &networking.Headers{
			Request:  &networking.Headers_HeaderOperations{Remove: []string{"b"}},
			Response: &networking.Headers_HeaderOperations{Remove: []string{"c"}},
		},
	}
	r := ir.Route{Forward: &ir.Forward{}}
	r.Headers, _ = headerEdits(rule.Headers)
	(&ruleContext{scope: &mesh.Scope{}}).single(&r, to)
	if got := r.Headers; !slices.Equal(got.RequestRemove, []string{"a", "b"}) || !slices.Equal(got.ResponseRemove, []string{"a", "c"}) {
		t.Errorf("edits %+v", got)
	}
	if spare := own[:2]; spare[1] != "" {
		t.Errorf("the rule's list has got %q behind its end", spare[1])
	}
}
