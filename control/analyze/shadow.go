package analyze

import "github.com/lateen-mesh/lateen/control/config"

// shadowedRules finds HTTP rules and matches that no request reaches, since an earlier one
// takes more. What Istio's own analysis sees of them is said with its codes.
func shadowedRules(p *pass) {
	for _, o := range p.routes() {
		for _, u := range config.UnusedRules(o.spec) {
			if u.Own {
				field, _ := u.Problem()
				p.report(o.object, "spec."+field, RuleNeverMatches, field, u.Why)
			}
		}
	}
}
