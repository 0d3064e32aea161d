package rbac

import (
	"strings"
	"sync"

	"github.com/lateen-mesh/lateen/proxy/rbac"
	"github.com/lateen-mesh/lateen/proxy/stats"
)

// commonNamespace has what rules with the action LOG say: whether the request is one to log.
const commonNamespace = "envoy.common"

var hints = [2]map[string]any{{"access_log_hint": false}, {"access_log_hint": true}}

func hint(yes bool) map[string]any {
	if yes {
		return hints[1]
	}
	return hints[0]
}

// rules are compiled rules with what the stream's metadata says of each of their verdicts.
type rules struct {
	*rbac.Rules         // nil: none
	kind, prefix string // of the keys
	texts        []map[string]any
}

func newRules(r *rbac.Rules, kind, prefix string) rules {
	out := rules{Rules: r, kind: kind, prefix: prefix}
	if r != nil {
		for _, v := range r.Verdicts() {
			out.texts = append(out.texts, text(prefix+kind, v))
		}
	}
	return out
}

// told is the metadata of a verdict. Rules of a route without a prefix of their own have that
// of the filter.
func (r *rules) told(v rbac.Verdict, filter *rules) map[string]any {
	if r.prefix == "" && filter.prefix != "" {
		return text(filter.prefix+r.kind, v)
	}
	return r.texts[v.Index]
}

func text(prefix string, v rbac.Verdict) map[string]any {
	m := map[string]any{prefix + "engine_result": "denied"}
	if v.Allowed {
		m[prefix+"engine_result"] = "allowed"
	}
	if v.Policy != "" {
		m[prefix+"effective_policy_id"] = v.Policy
	}
	return m
}

// A tally counts verdicts, and, where it is asked to, those of each policy. The latter are made
// when they are first needed, as in Envoy.
type tally struct {
	yes, no         string
	allowed, denied *stats.Counter
	policies        *stats.Scope

	mu     sync.RWMutex
	byName [2]map[string]*stats.Counter // of allowed and denied
}

// newTally makes the counters called yes and no.
func newTally(base *stats.Scope, prefix, yes, no string) *tally {
	if prefix != "" {
		base = base.Scope(strings.TrimSuffix(prefix, "."))
	}
	return &tally{yes: yes, no: no, allowed: base.Counter(yes), denied: base.Counter(no),
		policies: base.Scope("policy"), byName: [2]map[string]*stats.Counter{{}, {}}}
}

func (t *tally) count(v rbac.Verdict, perRule bool) {
	if v.Allowed {
		t.allowed.Inc()
	} else {
		t.denied.Inc()
	}
	if perRule && v.Policy != "" {
		t.of(v).Inc()
	}
}

// of is the counter of a policy's verdict. There are as many as policies: rules name them.
func (t *tally) of(v rbac.Verdict) *stats.Counter {
	i, name := 0, t.yes
	if !v.Allowed {
		i, name = 1, t.no
	}
	t.mu.RLock()
	c, ok := t.byName[i][v.Policy]
	t.mu.RUnlock()
	if ok {
		return c
	}
	c = t.policies.Counter(v.Policy + "." + name)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.byName[i][v.Policy] = c
	return c
}
