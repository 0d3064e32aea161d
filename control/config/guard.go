package config

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	security "istio.io/api/security/v1beta1"
	types "istio.io/api/type/v1beta1"
)

// A guard takes the place of a policy that is broken and was never in force, so that a mistake
// does not open what the policy was to close. It never allows more than its policy would: what
// was read and closes something stays, what could not be read is taken for the strictest that
// could be meant, what opens something is left out.

// noKeys is a key set by which no token is valid.
const noKeys = `{"keys":[]}`

// guard is what stands for a broken object, nil where that would close nothing and for kinds
// that close nothing. read is the JSON of what could be read of its spec, found what is wrong.
func guard(schema *kindSchema, o Config, read []byte, found []Problem) *Config {
	if schema.kind != AuthorizationPolicy && schema.kind != RequestAuthentication && schema.kind != PeerAuthentication {
		return nil
	}
	spec := schema.message.ProtoReflect().New().Interface()
	if len(read) > 0 && protojson.Unmarshal(read, spec) != nil {
		spec, found = schema.message.ProtoReflect().New().Interface(), []Problem{{}}
	}
	b := mistakes{spec, found}
	switch s := spec.(type) {
	case *security.AuthorizationPolicy:
		s = b.authorization(s, o.Annotations)
		o.Spec, o.Guard = s, s != nil
	case *security.RequestAuthentication:
		s = b.requests(s)
		o.Spec, o.Guard = s, s != nil
	case *security.PeerAuthentication:
		s = b.peers(s)
		o.Spec, o.Guard = s, s != nil
	}
	if !o.Guard {
		return nil
	}
	return &o
}

// Guarded tells what comes of a guard, as a problem of its object.
func (c *Config) Guarded() Problem {
	what := ""
	switch s := c.Spec.(type) {
	case *security.AuthorizationPolicy:
		what = "every request and connection to what it selects is denied"
		if s.Action == security.AuthorizationPolicy_ALLOW {
			what = "what it selects is closed, but for what other policies allow"
		}
	case *security.RequestAuthentication:
		what = "every request to what it selects is denied"
		if len(s.JwtRules) > 0 {
			what = "the tokens that it is for are refused"
		}
	case *security.PeerAuthentication:
		what = "mutual TLS is required where it may have asked for that"
	}
	return Problem{Source: c.Source, Object: c.Key, Severity: Warning, Message: "is broken and was never in force: " + what}
}

// mistakes are what is wrong with a policy.
type mistakes struct {
	spec  proto.Message
	found []Problem
}

// at reports that something is the matter with a field, or inside of it.
func (m mistakes) at(field string) bool {
	return slices.ContainsFunc(m.found, func(p Problem) bool {
		rest, ok := strings.CutPrefix(p.inSpec(), strings.ToLower(field))
		return ok && p.Severity == Error && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

// inSpec is the field as one form of it is, without "spec.".
func (p Problem) inSpec() string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(p.Field, "spec."), "_", ""))
}

// strange reports that fields are there that the kind has not, any of which may be what was meant
// to be another; that there is no body to speak of; or that there is too much wrong to tell.
func (m mistakes) strange() bool {
	known := messageFields{m.spec.ProtoReflect().Descriptor()}
	return len(m.found) >= maxProblems || slices.ContainsFunc(m.found, func(p Problem) bool {
		top := strings.TrimPrefix(p.Field, "spec.")
		if i := strings.IndexAny(top, ".["); i >= 0 {
			top = top[:i]
		}
		_, _, _, ok := known.lookup(top)
		return p.Severity == Error && !ok && top != "metadata" && top != "apiVersion"
	})
}

// attachment is whom a policy is for, as far as that could be read: else all of its namespace.
func (m mistakes) attachment(s attached) (*types.WorkloadSelector, []*types.PolicyTargetReference) {
	if m.at("selector") || m.at("targetRef") || m.at("targetRefs") {
		return nil, nil
	}
	refs := s.GetTargetRefs()
	if of, ok := s.(interface {
		GetTargetRef() *types.PolicyTargetReference
	}); ok && of.GetTargetRef() != nil {
		refs = append([]*types.PolicyTargetReference{of.GetTargetRef()}, refs...)
	}
	return s.GetSelector(), refs
}

// authorization denies all that a policy is for, or allows nothing of it where the policy was to
// allow. One that only tells guards nothing.
func (m mistakes) authorization(s *security.AuthorizationPolicy, annotations map[string]string) *security.AuthorizationPolicy {
	out, clear := &security.AuthorizationPolicy{}, !m.strange() && !m.at("action")
	dry, err := strconv.ParseBool(annotations[dryRunAnnotation])
	switch {
	case clear && (s.Action == security.AuthorizationPolicy_AUDIT || err == nil && dry && s.Action != security.AuthorizationPolicy_CUSTOM):
		return nil
	case !clear || s.Action != security.AuthorizationPolicy_ALLOW:
		out.Action, out.Rules = security.AuthorizationPolicy_DENY, []*security.Rule{{}}
	}
	out.Selector, out.TargetRefs = m.attachment(s)
	return out
}

// besidePlaces are fields of a rule that do not say where tokens are.
var besidePlaces = regexp.MustCompile(`^jwtrules\[\d+\]\.(issuer|audiences|jwks|jwksuri|timeout|forwardoriginaltoken|outputpayloadtoheader|outputclaimtoheaders|spacedelimitedclaims)\b`)

// requests refuses the tokens that the rules are for: of their issuer, or of any where that could
// not be read, in the places that they name. Where those could not be read there are no rules, and
// nobody is let in.
func (m mistakes) requests(s *security.RequestAuthentication) *security.RequestAuthentication {
	out := &security.RequestAuthentication{}
	out.Selector, out.TargetRefs = m.attachment(s)
	inRules := func(p Problem) bool { return strings.HasPrefix(p.inSpec(), "jwtrules") && p.Severity == Error }
	places := func(p Problem) bool { return inRules(p) && !besidePlaces.MatchString(p.inSpec()) }
	switch {
	case m.strange() || slices.ContainsFunc(m.found, places):
		return out
	case len(s.JwtRules) == 0:
		return nil
	}
	for _, r := range s.JwtRules {
		out.JwtRules = append(out.JwtRules, &security.JWTRule{Issuer: r.Issuer, Jwks: noKeys, FromHeaders: r.FromHeaders, FromParams: r.FromParams, FromCookies: r.FromCookies})
	}
	return out
}

// portKey is the key of a port's mode.
var portKey = regexp.MustCompile(`^portlevelmtls\["(\d+)"\]`)

// peers requires mutual TLS where the policy does or could not be read. What it would open is left as
// wider policies have it.
func (m mistakes) peers(s *security.PeerAuthentication) *security.PeerAuthentication {
	out := &security.PeerAuthentication{Selector: s.Selector}
	if m.at("selector") {
		out.Selector = nil
	}
	strict := &security.PeerAuthentication_MutualTLS{Mode: security.PeerAuthentication_MutualTLS_STRICT}
	ports := map[uint32]*security.PeerAuthentication_MutualTLS{}
	for number, mtls := range s.PortLevelMtls {
		if mtls.GetMode() == strict.Mode {
			ports[number] = strict
		}
	}
	all := m.strange() || m.at("mtls") || s.GetMtls().GetMode() == strict.Mode || m.at("portLevelMtls") && len(s.PortLevelMtls) == 0
	for _, p := range m.found {
		switch of := portKey.FindStringSubmatch(p.inSpec()); {
		case p.Severity != Error || !strings.HasPrefix(p.inSpec(), "portlevelmtls["):
		case of == nil:
			all = true
		default:
			number, err := strconv.ParseUint(of[1], 10, 16)
			all, ports[uint32(number)] = all || err != nil || number == 0, strict
		}
	}
	if all || len(ports) > 0 && len(out.GetSelector().GetMatchLabels()) == 0 { // whose ports is not known
		out.Mtls = strict
	}
	if len(ports) > 0 {
		out.PortLevelMtls = ports
	}
	if out.Mtls == nil && out.PortLevelMtls == nil {
		return nil
	}
	return out
}
