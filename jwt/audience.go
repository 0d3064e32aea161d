package jwt

import "strings"

// Audiences are those that are accepted; nil accepts all, also none.
type Audiences map[string]bool

// NewAudiences compiles a list. Two audiences that differ only in http:// or https:// before
// them, or in a slash at the end, are the same.
func NewAudiences(list []string) Audiences {
	if len(list) == 0 {
		return nil
	}
	out := make(Audiences, len(list))
	for _, one := range list {
		out[bareAudience(one)] = true
	}
	return out
}

// Allow reports whether one of a token's audiences is accepted.
func (a Audiences) Allow(list []string) bool {
	if len(a) == 0 {
		return true
	}
	for _, one := range list {
		if a[bareAudience(one)] {
			return true
		}
	}
	return false
}

func bareAudience(text string) string {
	bare, cut := strings.CutPrefix(text, "http://")
	if !cut {
		bare = strings.TrimPrefix(text, "https://")
	}
	return strings.TrimSuffix(bare, "/")
}
