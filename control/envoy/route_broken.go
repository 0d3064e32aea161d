package envoy

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/lateen-mesh/lateen/control/ir"
)

// A proxy refuses a route table whole when one rule in it is wrong. So a rule that
// would be refused is replaced by one that answers 500 with an empty body to the
// requests that the rule is about, and all others stay as they are.

// A BrokenRule is a rule that a proxy would refuse, and why.
type BrokenRule struct {
	Origin *ir.Origin // nil for rules that no object asked for
	Err    error
}

// Broken lists the rules of a table that RouteConfiguration replaces.
func Broken(c ir.RouteConfiguration) []BrokenRule {
	var out []BrokenRule
	for _, v := range c.VirtualHosts {
		for _, r := range v.Routes {
			if err := flaw(r, spell(r), c.MaxDirectResponseBody); err != nil {
				out = append(out, BrokenRule{Origin: r.Origin, Err: err})
			}
		}
	}
	return out
}

// flaw is why a proxy would refuse the rule, nil if it would not; maxBody is the
// table's bound on fixed bodies.
func flaw(r ir.Route, spelled *routev3.Route, maxBody uint32) error {
	for _, err := range []error{bodyFlaw(r, maxBody), patternFlaw(r), editFlaw(r), forwardFlaw(r.Forward)} {
		if err != nil {
			return err
		}
	}
	if r.Fault != nil {
		if err := faultConfig(*r.Fault).Validate(); err != nil {
			return err
		}
	}
	if r.CORS != nil {
		if err := corsConfig(*r.CORS).Validate(); err != nil {
			return err
		}
	}
	return spelled.Validate()
}

// defaultMaxBody bounds a fixed body in bytes where the table does not say it.
const defaultMaxBody = 4096

func bodyFlaw(r ir.Route, maxBody uint32) error {
	limit := int(cmp.Or(maxBody, defaultMaxBody))
	if r.Direct == nil || len(r.Direct.Body) <= limit {
		return nil
	}
	return fmt.Errorf("the fixed body has %d bytes, at most %d are allowed", len(r.Direct.Body), limit)
}

// maxProgram is the largest regular expression that a proxy of a mesh takes, in
// instructions of RE2: what the bootstraps of proxies set.
const maxProgram = 32768

func patternFlaw(r ir.Route) error {
	for _, p := range patterns(r) {
		if err := expressionFlaw(p); err != nil {
			return err
		}
	}
	return nil
}

func expressionFlaw(pattern string) error {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return fmt.Errorf("not an RE2 expression: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	if n := programSize(re); n > maxProgram {
		return fmt.Errorf("the expression %.40q… is too large: about %d instructions, at most %d are allowed", pattern, n, maxProgram)
	}
	return nil
}

// programSize is how many instructions an expression has in Envoy, where it matches
// bytes: as many as in Go, but for classes of characters, which have one for each range.
func programSize(re *syntax.Regexp) int {
	prog, err := syntax.Compile(re.Simplify())
	if err != nil {
		return math.MaxInt
	}
	n := len(prog.Inst)
	for _, i := range prog.Inst {
		if i.Op != syntax.InstRune {
			continue
		}
		for r := 2; r < len(i.Rune) && i.Rune[r] <= math.MaxUint8; r += 2 {
			n++
		}
	}
	return n
}

func forwardFlaw(f *ir.Forward) error {
	switch {
	case f == nil:
	case !divides(*f):
		return errors.New("the weights of the destinations must add up to 1–4294967295")
	case f.RegexRewrite != nil && f.PrefixRewrite != "":
		return errors.New("the path is rewritten in two ways")
	case f.RegexRewrite != nil && !substitutes(*f.RegexRewrite):
		return fmt.Errorf("rewrite %q names a group that %q does not have", f.RegexRewrite.Substitution, f.RegexRewrite.Pattern)
	}
	return nil
}

// divides reports whether the weights of a split can be added up.
func divides(f ir.Forward) bool {
	if len(f.Clusters) == 1 && !f.Split {
		return true
	}
	var sum uint64
	for _, c := range f.Clusters {
		sum += uint64(c.Weight)
	}
	return sum > 0 && sum <= math.MaxUint32
}

// broken answers 500 in the place of a rule that cannot be used.
func broken(r ir.Route) *routev3.Route {
	out := &routev3.Route{
		Name:     r.Name,
		Match:    routeMatch(widened(r.Match)),
		Metadata: origin(r.Origin),
		Action:   &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 500}},
	}
	if out.ValidateAll() != nil {
		out.Match = &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}
	}
	return out
}

// widened is the match without its conditions that cannot be evaluated: a request
// that the rule may have been meant for must not fall through to the rules after it.
func widened(m ir.RouteMatch) ir.RouteMatch {
	if m.Path.Kind == ir.PathRegex && expressionFlaw(m.Path.Value) != nil {
		m.Path.Kind, m.Path.Value = ir.PathPrefix, literalPrefix(m.Path.Value)
	}
	bad := func(s ir.StringMatch) bool { return s.Kind == ir.Regex && expressionFlaw(s.Value) != nil }
	var headers []ir.HeaderMatch
	for _, h := range m.Headers {
		if headerMatch(h).ValidateAll() == nil && !bad(h.StringMatch) {
			headers = append(headers, h)
		}
	}
	var query []ir.QueryMatch
	for _, q := range m.Query {
		if queryMatch(q).ValidateAll() == nil && !bad(q.StringMatch) {
			query = append(query, q)
		}
	}
	m.Headers, m.Query = headers, query
	return m
}

// literalPrefix is what every text that the author of an expression may have meant
// begins with, "/" where that is not known.
func literalPrefix(pattern string) string {
	end := strings.IndexAny(pattern, `\.+*?()|[]{}^$`)
	if end < 0 {
		end = len(pattern)
	}
	prefix := pattern[:end]
	if end < len(pattern) && strings.ContainsRune("*?{", rune(pattern[end])) && prefix != "" {
		prefix = prefix[:len(prefix)-1] // the quantifier makes the last character optional
	}
	if strings.Contains(pattern, "|") && !strings.Contains(pattern, "(") || !strings.HasPrefix(prefix, "/") {
		return "/"
	}
	return prefix
}

// patterns are all regular expressions of a rule.
func patterns(r ir.Route) []string {
	var out []string
	add := func(s ir.StringMatch) {
		if s.Kind == ir.Regex {
			out = append(out, s.Value)
		}
	}
	if r.Match.Path.Kind == ir.PathRegex {
		out = append(out, r.Match.Path.Value)
	}
	for _, h := range r.Match.Headers {
		add(h.StringMatch)
	}
	for _, q := range r.Match.Query {
		add(q.StringMatch)
	}
	if r.CORS != nil {
		for _, o := range r.CORS.Origins {
			add(o)
		}
	}
	if r.Forward != nil && r.Forward.RegexRewrite != nil {
		out = append(out, r.Forward.RegexRewrite.Pattern)
	}
	return out
}

// substitutes reports whether each \N of a rewrite names a group of its pattern.
func substitutes(w ir.RegexRewrite) bool {
	re, err := regexp.Compile(w.Pattern)
	if err != nil {
		return false
	}
	for i := 0; i < len(w.Substitution); i++ {
		if w.Substitution[i] != '\\' {
			continue
		}
		i++
		if i == len(w.Substitution) {
			return false
		}
		c := w.Substitution[i]
		if c != '\\' && (c < '0' || c > '9' || int(c-'0') > re.NumSubexp()) {
			return false
		}
	}
	return true
}

// editFlaw finds header edits, of the rule and of its destinations, that name what
// cannot be edited or hold a format that does not parse.
func editFlaw(r ir.Route) error {
	all := []ir.HeaderEdits{r.Headers}
	if r.Forward != nil {
		for _, c := range r.Forward.Clusters {
			all = append(all, c.Headers)
		}
	}
	for _, e := range all {
		for _, name := range slices.Concat(e.RequestRemove, e.ResponseRemove) {
			if routing(name) {
				return fmt.Errorf("header %q cannot be removed", name)
			}
		}
		for _, v := range slices.Concat(e.RequestAdd, e.ResponseAdd) {
			if routing(v.Name) {
				return fmt.Errorf("header %q cannot be set", v.Name)
			}
			if !formats(v.Value) {
				return fmt.Errorf("header %q: %q is not a format that proxies have: write a plain %% as %%%%", v.Name, v.Value)
			}
		}
	}
	return nil
}

// routing reports whether a header is part of where a request goes; such ones are
// changed by rewrites only.
func routing(name string) bool {
	return strings.HasPrefix(name, ":") || strings.EqualFold(name, "host")
}
