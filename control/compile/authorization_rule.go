package compile

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	security "istio.io/api/security/v1beta1"

	"github.com/lateen-mesh/lateen/control/ir"
)

// An attribute is what a clause of a rule is about.
type attribute struct {
	http bool // connections do not have it
	// each is the condition that one value makes; false for a value that is none.
	each func(value string) (ir.Condition, bool)
	// together, in place of each, is the condition that all make.
	together func(values []string) (ir.Condition, bool)
}

// A clause is one line of a rule: one of the values and none of the others.
type clause struct {
	attribute
	values, notValues []string
}

// A ruleTranslator turns rules of one policy into conditions of a proxy.
type ruleTranslator struct {
	action    ir.AccessAction
	tcp       bool
	namespace string // of the policy
	trust     trustBundle
}

// policy translates a rule: it holds where one of the permissions and one of the principals
// does. It is not ok where the rule can allow nothing here: it asks for what connections do
// not have. Rules with another action lose what cannot be asked for, and so match more.
func (t *ruleTranslator) policy(r *security.Rule) (permissions, principals []ir.Condition, ok bool) {
	whatIf, whoIf := t.conditions(r.GetWhen())
	for _, to := range r.GetTo() {
		c, ok := t.all(slices.Concat(operationClauses(to.GetOperation()), whatIf))
		if !ok {
			return nil, nil, false
		}
		permissions = append(permissions, c)
	}
	for _, from := range r.GetFrom() {
		c, ok := t.all(slices.Concat(t.sourceClauses(from.GetSource()), whoIf))
		if !ok {
			return nil, nil, false
		}
		principals = append(principals, c)
	}
	for _, side := range []struct {
		list *[]ir.Condition
		of   []clause
	}{{&permissions, whatIf}, {&principals, whoIf}} {
		if len(*side.list) == 0 {
			c, ok := t.all(side.of)
			if !ok {
				return nil, nil, false
			}
			*side.list = []ir.Condition{c}
		}
	}
	return permissions, principals, true
}

// all is the condition that every clause holds.
func (t *ruleTranslator) all(clauses []clause) (ir.Condition, bool) {
	var all []ir.Condition
	for _, c := range clauses {
		for _, side := range []struct {
			values []string
			not    bool
		}{{c.values, false}, {c.notValues, true}} {
			if len(side.values) == 0 {
				continue
			}
			made, ok := t.oneOf(c.attribute, side.values)
			switch {
			case !ok && t.action == ir.Allow:
				return ir.Condition{}, false
			case !ok:
			case side.not:
				all = append(all, ir.Condition{Kind: ir.NotCondition, Of: []ir.Condition{made}})
			default:
				all = append(all, made)
			}
		}
	}
	if len(all) == 0 {
		all = []ir.Condition{{Kind: ir.AnyCondition}}
	}
	return ir.Condition{Kind: ir.AllOf, Of: all}, true
}

// oneOf is the condition that an attribute has one of the values. A value that is none fails
// the condition of a rule that allows, and counts as not given elsewhere.
func (t *ruleTranslator) oneOf(a attribute, values []string) (ir.Condition, bool) {
	if a.http && t.tcp {
		return ir.Condition{}, false
	}
	if a.together != nil {
		return a.together(values)
	}
	var list []ir.Condition
	for _, v := range values {
		c, ok := a.each(v)
		if !ok && t.action == ir.Allow {
			return ir.Condition{}, false
		}
		if ok {
			list = append(list, c)
		}
	}
	return ir.Condition{Kind: ir.OneOf, Of: list}, len(list) > 0
}

func operationClauses(o *security.Operation) []clause {
	return withValues([]clause{
		{headerAttribute(":authority", true), o.GetHosts(), o.GetNotHosts()},
		{headerAttribute(":method", false), o.GetMethods(), o.GetNotMethods()},
		{pathAttribute(), o.GetPaths(), o.GetNotPaths()},
		{portAttribute(), o.GetPorts(), o.GetNotPorts()},
	})
}

func (t *ruleTranslator) sourceClauses(s *security.Source) []clause {
	return withValues([]clause{
		{principalAttribute(), t.trust.expand(s.GetPrincipals()), t.trust.expand(s.GetNotPrincipals())},
		{requestPrincipalAttribute(), s.GetRequestPrincipals(), s.GetNotRequestPrincipals()},
		{trustDomainAttribute(), t.trust.aliases(s.GetTrustDomains()), t.trust.aliases(s.GetNotTrustDomains())},
		{namespaceAttribute(), s.GetNamespaces(), s.GetNotNamespaces()},
		{t.accountAttribute(), s.GetServiceAccounts(), s.GetNotServiceAccounts()},
		{blockAttribute(ir.ClientBlockCondition), s.GetRemoteIpBlocks(), s.GetNotRemoteIpBlocks()},
		{blockAttribute(ir.PeerBlockCondition), s.GetIpBlocks(), s.GetNotIpBlocks()},
	})
}

// withValues leaves out clauses without values.
func withValues(list []clause) []clause {
	return slices.DeleteFunc(list, func(c clause) bool { return len(c.values)+len(c.notValues) == 0 })
}

// conditions are the clauses of when: of what is asked for, and of who asks.
func (t *ruleTranslator) conditions(when []*security.Condition) (what, who []clause) {
	for _, w := range when {
		a, permission := t.whenAttribute(w.GetKey())
		c := clause{a, w.GetValues(), w.GetNotValues()}
		if w.GetKey() == "source.principal" {
			c.values, c.notValues = t.trust.expand(c.values), t.trust.expand(c.notValues)
		}
		if w.GetKey() == "source.trustDomain" {
			c.values, c.notValues = t.trust.aliases(c.values), t.trust.aliases(c.notValues)
		}
		if permission {
			what = append(what, c)
		} else {
			who = append(who, c)
		}
	}
	return what, who
}

// whenAttribute is the attribute behind a key, and whether it is of what is asked for. A key
// that nobody knows has no value.
func (t *ruleTranslator) whenAttribute(key string) (a attribute, permission bool) {
	switch key {
	case "destination.ip":
		return blockAttribute(ir.AddressCondition), true
	case "destination.port":
		return portAttribute(), true
	case "connection.sni":
		return textAttribute(ir.SNICondition), true
	case "source.ip":
		return blockAttribute(ir.PeerBlockCondition), false
	case "remote.ip":
		return blockAttribute(ir.ClientBlockCondition), false
	case "source.namespace":
		return namespaceAttribute(), false
	case "source.principal":
		return principalAttribute(), false
	case "source.serviceAccount":
		return t.accountAttribute(), false
	case "source.trustDomain":
		return trustDomainAttribute(), false
	case "request.auth.principal":
		return requestPrincipalAttribute(), false
	case "request.auth.audiences":
		return claimAttribute("aud"), false
	case "request.auth.presenter":
		return claimAttribute("azp"), false
	}
	name, parts := keyParts(key)
	switch {
	case strings.HasPrefix(name, "experimental.envoy.filters.") && len(parts) == 1:
		return metadataAttribute(strings.TrimPrefix(name, "experimental."), parts[0]), true
	case name == "request.headers" && len(parts) == 1:
		return headerAttribute(parts[0], false), false
	case name == "request.experimental.inline.headers" && len(parts) == 1:
		return headerListAttribute(parts[0]), false
	case name == "request.auth.claims" && len(parts) > 0:
		return claimAttribute(parts...), false
	}
	return attribute{together: func([]string) (ir.Condition, bool) { return ir.Condition{}, false }}, false
}

// keyParts reads name[a][b].
func keyParts(key string) (name string, parts []string) {
	name, rest, _ := strings.Cut(key, "[")
	rest, ok := strings.CutSuffix(rest, "]")
	if !ok || rest == "" {
		return name, nil
	}
	return name, strings.Split(rest, "][")
}

// pattern reads exact, prefix*, *suffix and *, which is anything that is not empty.
func pattern(s string) ir.StringMatch {
	switch {
	case s == "*":
		return ir.StringMatch{Kind: ir.Regex, Value: ".+"}
	case strings.HasPrefix(s, "*"):
		return ir.StringMatch{Kind: ir.Suffix, Value: s[1:]}
	case strings.HasSuffix(s, "*"):
		return ir.StringMatch{Kind: ir.Prefix, Value: s[:len(s)-1]}
	}
	return ir.StringMatch{Kind: ir.Exact, Value: s}
}

// quoted is an expression for a text in which * stands for what the expression any takes.
func quoted(s, any string) string {
	return strings.ReplaceAll(regexp.QuoteMeta(s), `\*`, any)
}

func textAttribute(kind ir.ConditionKind) attribute {
	return attribute{each: func(v string) (ir.Condition, bool) { return ir.Condition{Kind: kind, Text: pattern(v)}, true }}
}

func headerAttribute(name string, ignoreCase bool) attribute {
	return attribute{http: true, each: func(v string) (ir.Condition, bool) {
		text := pattern(v)
		if v == "*" {
			text = ir.StringMatch{Kind: ir.Present}
		}
		text.IgnoreCase = ignoreCase && text.Kind != ir.Present
		return ir.Condition{Kind: ir.HeaderCondition, Name: name, Text: text}, name != ""
	}}
}

// headerListAttribute is one of the values of a header with commas between.
func headerListAttribute(name string) attribute {
	return attribute{http: true, each: func(v string) (ir.Condition, bool) {
		text := ir.StringMatch{Kind: ir.Regex, Value: `(.*,)?\s*` + quoted(v, "[^,]*") + `\s*(,.*)?`}
		if v == "*" {
			text = ir.StringMatch{Kind: ir.Present}
		}
		return ir.Condition{Kind: ir.HeaderCondition, Name: name, Text: text}, name != ""
	}}
}

func pathAttribute() attribute {
	return attribute{http: true, each: func(v string) (ir.Condition, bool) {
		if strings.Contains(v, "{*}") || strings.Contains(v, "{**}") {
			template := strings.NewReplacer("{*}", "*", "{**}", "**").Replace(v)
			return ir.Condition{Kind: ir.TemplateCondition, Text: ir.StringMatch{Value: template}}, true
		}
		return ir.Condition{Kind: ir.PathCondition, Text: pattern(v)}, true
	}}
}

func portAttribute() attribute {
	return attribute{each: func(v string) (ir.Condition, bool) {
		n, err := strconv.ParseUint(v, 10, 16)
		return ir.Condition{Kind: ir.PortCondition, Port: uint32(n)}, err == nil
	}}
}

func blockAttribute(kind ir.ConditionKind) attribute {
	return attribute{each: func(v string) (ir.Condition, bool) {
		p, err := netip.ParsePrefix(v)
		if err != nil {
			var a netip.Addr
			if a, err = netip.ParseAddr(v); err == nil {
				p = netip.PrefixFrom(a.WithZone(""), a.BitLen())
			}
		}
		return ir.Condition{Kind: kind, Block: p}, err == nil
	}}
}

func peerExpression(expression string) (ir.Condition, bool) {
	return ir.Condition{Kind: ir.PeerCondition, Text: ir.StringMatch{Kind: ir.Regex, Value: expression}}, true
}

const spiffeScheme = "spiffe://"

func principalAttribute() attribute {
	return attribute{each: func(v string) (ir.Condition, bool) {
		text := pattern(v)
		switch text.Kind {
		case ir.Regex: // whoever it is
		case ir.Suffix:
			return peerExpression(spiffeScheme + ".*" + regexp.QuoteMeta(text.Value))
		default:
			text.Value = spiffeScheme + text.Value
		}
		return ir.Condition{Kind: ir.PeerCondition, Text: text}, true
	}}
}

func namespaceAttribute() attribute {
	return attribute{each: func(v string) (ir.Condition, bool) { return peerExpression(".*/ns/" + quoted(v, ".*") + "/.*") }}
}

func trustDomainAttribute() attribute {
	return attribute{each: func(v string) (ir.Condition, bool) {
		if v == "*" {
			return peerExpression(spiffeScheme + "[^/]+/.*")
		}
		return peerExpression(spiffeScheme + quoted(v, "[^/]*") + "/.*")
	}}
}

// accountAttribute is `account`, of the policy's namespace, or `namespace/account`, of any
// trust domain; an identity may have more parts between and after.
func (t *ruleTranslator) accountAttribute() attribute {
	return attribute{each: func(v string) (ir.Condition, bool) {
		namespace, account, ok := strings.Cut(v, "/")
		if !ok {
			namespace, account = t.namespace, v
		}
		return peerExpression(spiffeScheme + ".+/ns/" + regexp.QuoteMeta(namespace) + "/(.+/|)sa/" + regexp.QuoteMeta(account) + "(/.+)?")
	}}
}
