// Package rbac is the network filter envoy.filters.network.rbac: it ends connections that
// its rules do not allow, once their first bytes have come. Shadow rules are tried without
// effect on the connection.
package rbac

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/rbac"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// Name is the filter's canonical name, also the namespace of its dynamic metadata.
const Name = "envoy.filters.network.rbac"

// Factory makes the filter known to listeners. Its stats are "<stat_prefix>.rbac.…".
func Factory(store *stats.Store) network.Factory {
	return network.Factory{
		Name:     Name,
		TypeURLs: []string{"envoy.extensions.filters.network.rbac.v3.RBAC"},
		New: func(cfg *anypb.Any, _ network.Env) (network.Built, error) {
			var c rbacv3.RBAC
			if err := cfg.UnmarshalTo(&c); err != nil {
				return network.Built{}, err
			}
			f, err := compile(&c, store)
			if err != nil {
				return network.Built{}, err
			}
			return network.Built{Filter: f, Close: f.release}, nil
		},
	}
}

// filter is the filter of one chain.
type filter struct {
	rules, shadow *rbac.Rules // nil: none
	shadowPrefix  string      // of the keys of metadata
	continuous    bool        // enforcement_type CONTINUOUS
	delay         time.Duration
	allowed, denied,
	shadowAllowed, shadowDenied *stats.Counter
	release func()
}

func compile(c *rbacv3.RBAC, store *stats.Store) (*filter, error) {
	err := xds.Only(c, "rules", "shadow_rules", "shadow_rules_stat_prefix", "stat_prefix", "enforcement_type", "delay_deny")
	if err != nil {
		return nil, err
	}
	if c.GetStatPrefix() == "" {
		return nil, errors.New("stat_prefix: must not be empty")
	}
	f := &filter{shadowPrefix: c.GetShadowRulesStatPrefix(), delay: c.GetDelayDeny().AsDuration()}
	if d := c.GetDelayDeny(); d != nil && !d.IsValid() {
		return nil, fmt.Errorf("delay_deny: %w", d.CheckValid())
	}
	switch c.GetEnforcementType() {
	case rbacv3.RBAC_ONE_TIME_ON_FIRST_BYTE:
	case rbacv3.RBAC_CONTINUOUS:
		f.continuous = true
	default:
		return nil, fmt.Errorf("enforcement_type: %d: unknown", c.GetEnforcementType())
	}
	if f.rules, err = rbac.New(c.GetRules(), false); err != nil {
		return nil, fmt.Errorf("rules.%w", err)
	}
	if f.shadow, err = rbac.New(c.GetShadowRules(), false); err != nil {
		return nil, fmt.Errorf("shadow_rules.%w", err)
	}
	s := store.Scope(strings.TrimSuffix(c.GetStatPrefix(), ".") + ".rbac.")
	shadow := s
	if f.shadowPrefix != "" {
		shadow = s.Scope(strings.TrimSuffix(f.shadowPrefix, "."))
	}
	f.allowed, f.denied = s.Counter("allowed"), s.Counter("denied")
	f.shadowAllowed, f.shadowDenied = shadow.Counter("shadow_allowed"), shadow.Counter("shadow_denied")
	f.release = s.Claim()
	return f, nil
}

// OnConnect sees to it that the rules are asked when the connection's first bytes come: what
// the client shows of itself is known then, and a server that speaks first has been heard.
func (f *filter) OnConnect(c *network.Conn) bool {
	if f.rules != nil || f.shadow != nil {
		c.Conn = &guard{Conn: c.Conn, filter: f, of: c}
	}
	return true
}

// decide asks the rules, and tells what they say. True: the connection goes on.
func (f *filter) decide(c *network.Conn) bool {
	facts := rbac.Facts{Info: c.Info}
	if f.shadow != nil {
		v := f.shadow.Decide(facts)
		count(v, f.shadowAllowed, f.shadowDenied)
		tell(c, Name, f.text(v))
	}
	if f.rules == nil {
		return true
	}
	v := f.rules.Decide(facts)
	if f.rules.Logs() {
		tell(c, "envoy.common", map[string]any{"access_log_hint": v.Policy != ""})
	}
	count(v, f.allowed, f.denied)
	if !v.Allowed {
		c.Change(func(i *streaminfo.Info) { i.TerminationDetails = v.Details })
	}
	return v.Allowed
}

// Review asks the rules of a connection that has been let through by earlier ones.
func (f *filter) Review(i *streaminfo.Info) (details string, ok bool) {
	if f.rules == nil {
		return "", true
	}
	v := f.rules.Decide(rbac.Facts{Info: i})
	if !v.Allowed {
		f.denied.Inc()
	}
	return v.Details, v.Allowed
}

// tell gives a namespace of the connection's metadata values. Copies of Info that others look
// at keep the map that they have.
func tell(c *network.Conn, namespace string, values map[string]any) {
	c.Change(func(i *streaminfo.Info) {
		i.Metadata = maps.Clone(i.Metadata)
		i.SetMetadata(namespace, values)
	})
}

func count(v rbac.Verdict, allowed, denied *stats.Counter) {
	if v.Allowed {
		allowed.Inc()
	} else {
		denied.Inc()
	}
}

// text is what metadata has of a verdict of the shadow rules.
func (f *filter) text(v rbac.Verdict) map[string]any {
	m := map[string]any{f.shadowPrefix + "shadow_engine_result": "denied"}
	if v.Allowed {
		m[f.shadowPrefix+"shadow_engine_result"] = "allowed"
	}
	if v.Policy != "" {
		m[f.shadowPrefix+"shadow_effective_policy_id"] = v.Policy
	}
	return m
}
