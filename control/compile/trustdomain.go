package compile

import (
	"slices"
	"strings"
)

// localTrustDomain stands in policies for that of the mesh, whatever that is.
const localTrustDomain = "cluster.local"

// A trustBundle is the trust domain of the mesh and its aliases: who has one of them is
// trusted as if it had the others.
type trustBundle []string

// expand has a principal of one of the trust domains for each of them. One without a trust
// domain, of any (*) and of a foreign one stays as it is.
func (t trustBundle) expand(principals []string) []string {
	var out []string
	for _, p := range principals {
		domain, rest, _ := strings.Cut(p, "/")
		if strings.Count(p, "/") != 4 || domain == "*" || !t.has(domain) {
			out = append(out, p)
			continue
		}
		var made []string
		for _, d := range t {
			alias := d + "/" + rest
			if suffix, ok := strings.CutPrefix(domain, "*"); ok && strings.HasSuffix(d, suffix) {
				alias = p // it matches this one as it is written
			}
			if !slices.Contains(made, alias) {
				made = append(made, alias)
			}
		}
		out = append(out, made...)
	}
	return out
}

// has reports whether a trust domain, which may begin or end with *, is one of these.
func (t trustBundle) has(domain string) bool {
	return domain == localTrustDomain || slices.ContainsFunc(t, func(d string) bool {
		if suffix, ok := strings.CutPrefix(domain, "*"); ok {
			return strings.HasSuffix(d, suffix)
		}
		if prefix, ok := strings.CutSuffix(domain, "*"); ok {
			return strings.HasPrefix(d, prefix)
		}
		return d == domain
	})
}

// aliases has all trust domains in the place of one of them.
func (t trustBundle) aliases(domains []string) []string {
	var out []string
	for _, d := range domains {
		some := []string{d}
		if slices.Contains(t, d) {
			some = t
		}
		for _, s := range some {
			if !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	return out
}
