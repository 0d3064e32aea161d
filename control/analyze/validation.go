package analyze

import (
	"errors"
	"fmt"
	"strconv"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/config"
)

// validation says what the mesh itself has to say of each object.
func validation(p *pass) {
	for _, k := range sortedKeys(p.objects) {
		if p.forms[k].spec == nil {
			continue
		}
		for _, o := range p.list(k) {
			said := map[[2]string]bool{} // with codes of their own
			if vs, ok := o.spec.(*networking.VirtualService); ok {
				said = p.unusedRules(o, vs)
			}
			for _, problem := range o.problems {
				// What this version does not do is no mistake of the object.
				if !problem.Aside && !said[[2]string{problem.Field, problem.Message}] {
					p.problem(o, problem)
				}
			}
		}
	}
}

func (p *pass) problem(o *object, problem config.Problem) {
	text := problem.Message
	if problem.Field != "" {
		text = problem.Field + ": " + text
	}
	code := SchemaValidationError
	if problem.Severity == config.Warning {
		code = SchemaWarning
	}
	m := New(code, o.Key, problem.Source, errors.New(text))
	m.unwanted = o.annotations[suppressAnnotation]
	p.found = append(p.found, m)
}

// unusedRules reports rules and matches that no request reaches, and returns as what
// validation warns of them.
func (p *pass) unusedRules(o *object, vs *networking.VirtualService) map[[2]string]bool {
	said := map[[2]string]bool{}
	for _, u := range config.UnusedRules(vs) {
		field, message := u.Problem()
		said[[2]string{field, message}] = true
		if u.Own { // has an analyzer of its own
			continue
		}
		switch name := ruleName(vs, u.Field, u.Rule); {
		case u.Match >= 0:
			p.report(o, "spec."+field, VirtualServiceIneffectiveMatch, name, matchName(vs, u), ruleName(vs, u.Field, u.By))
		case u.By >= 0:
			p.report(o, "spec."+field, VirtualServiceUnreachableRule, name, "only the last rule can have no matches")
		default:
			p.report(o, "spec."+field, VirtualServiceUnreachableRule, name, "all matches used by prior rules")
		}
	}
	return said
}

// ruleName is the name that a rule has, else its number.
func ruleName(vs *networking.VirtualService, field string, i int) string {
	if field == "http" && vs.Http[i].Name != "" {
		return strconv.Quote(vs.Http[i].Name)
	}
	return fmt.Sprintf("#%d", i)
}

func matchName(vs *networking.VirtualService, u config.Unused) string {
	if u.Field == "http" && vs.Http[u.Rule].Match[u.Match].Name != "" {
		return strconv.Quote(vs.Http[u.Rule].Match[u.Match].Name)
	}
	return fmt.Sprintf("#%d", u.Match)
}
