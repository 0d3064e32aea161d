package compile

import (
	"maps"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
)

// claimHeaders begins the names of headers of a match that stand for claims of a token that
// was checked; a path of claims follows as .a.b or [a][b].
const claimHeaders = "@request.auth.claims"

func isClaim(header string) bool { return strings.HasPrefix(header, "@request.auth.") }

// neverClaims reports whether a block takes requests with certain claims alone, and none has
// them: only gateways check tokens before they route, and a name may be none of a claim.
func (rc *ruleContext) neverClaims(m *networking.HTTPMatchRequest) bool {
	for name := range m.GetHeaders() {
		if isClaim(name) && (rc.gateway == mesh.MeshGateway || len(claimPath(name)) == 0) {
			return true
		}
	}
	return false
}

// claimMatches are the conditions on claims, by name.
func claimMatches(m *networking.HTTPMatchRequest) []ir.MetadataMatch {
	var out []ir.MetadataMatch
	for _, side := range []struct {
		headers map[string]*networking.StringMatch
		without bool
	}{{m.GetHeaders(), false}, {m.GetWithoutHeaders(), true}} {
		for _, name := range slices.Sorted(maps.Keys(side.headers)) {
			if path := claimPath(name); len(path) > 0 {
				c := claim(path...)
				c.Values, c.InListsToo, c.Invert = []ir.MetadataValue{{StringMatch: stringMatch(side.headers[name])}}, true, side.without
				out = append(out, *c)
			}
		}
	}
	return out
}

func claimPath(header string) []string {
	rest, ok := strings.CutPrefix(header, claimHeaders)
	switch {
	case !ok:
		return nil
	case strings.HasPrefix(rest, "."):
		return strings.Split(rest[1:], ".")
	}
	_, parts := keyParts(rest)
	return parts
}
