package file_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/lateen-mesh/lateen/control/config"
)

// TestBrokenPolicies: a policy that is broken from the start is guarded, and named; its last good
// state goes before a guard, and so does the object in another file (PO-016).
func TestBrokenPolicies(t *testing.T) {
	const broken = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {action: DENY, rules: [{to: [{operation: {ports: [http]}}]}]}\n"
	good := strings.Replace(broken, "ports: [http]", `ports: ["80"]`, 1)
	b := newBench(t, "a.yaml", broken)
	state := func(when, want string) {
		t.Helper()
		got := "none"
		if o := b.store.Current().Get(config.AuthorizationPolicy, "default", "p"); o != nil && o.Guard {
			got = "guard"
		} else if o != nil {
			got = "good"
		}
		if got != want {
			t.Errorf("%s: %s, want %s", when, got, want)
		}
	}
	state("broken from the start", "guard")
	if got := b.problems("a.yaml"); !strings.Contains(got, `a.yaml:4: AuthorizationPolicy default/p: rules[0].to[0].operation.ports[0]: "http" is not a port`) ||
		!strings.Contains(got, "a.yaml:1: AuthorizationPolicy default/p: is broken and was never in force: every request and connection to what it selects is denied") {
		t.Errorf("problems:\n%s", got)
	}
	before := b.store.Current().Generation()
	b.src.Refresh(filepath.Join(b.dir, "a.yaml"))
	b.write("a.yaml", broken+"# said again\n")
	b.src.Refresh()
	if now := b.store.Current().Generation(); now != before {
		t.Errorf("generation %d after %d: nothing has changed", now, before)
	}
	b.start()
	state("after a restart", "guard")
	b.write("a.yaml", broken+"---\n: [\n")
	b.src.Refresh()
	state("beside a text that cannot be read", "guard")
	b.write("b.yaml", good)
	b.src.Refresh()
	state("good in another file", "good")
	b.remove("b.yaml")
	b.src.Refresh()
	state("in no other file any more", "guard")
	b.write("a.yaml", good)
	b.src.Refresh()
	state("mended", "good")
	b.write("a.yaml", broken)
	b.src.Refresh()
	state("broken again", "good")
	b.start()
	state("and after a restart", "good")
	b.remove("a.yaml")
	b.src.Refresh()
	state("deleted", "none")
}
